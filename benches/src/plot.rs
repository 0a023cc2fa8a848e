//! The speeds as a drawing.

use std::fmt::Write as _;

use crate::results::{Measured, Results};

const LABEL: f64 = 340.0;
const BARS: f64 = 460.0;
const VALUE: f64 = 130.0;
const LINE: f64 = 22.0;
const GAP: f64 = 14.0;

/// Bars of the medians on a logarithmic scale, with a whisker from the slowest to the fastest
/// round, as an SVG; ours stand out.
pub(crate) fn svg(results: &Results) -> String {
    let cases = &results.cases;
    let slowest = cases.iter().map(|case| case.rate.min());
    let fastest = cases.iter().map(|case| case.rate.max());
    let low = slowest
        .reduce(f64::min)
        .unwrap_or(1.0)
        .max(1.0)
        .log10()
        .floor();
    let high = fastest
        .reduce(f64::max)
        .unwrap_or(10.0)
        .max(10.0)
        .log10()
        .ceil();
    let x = |rate: f64| LABEL + (rate.max(1.0).log10() - low) / (high - low) * BARS;

    let mut body = String::new();
    let mut y = LINE;
    let mut group = "";
    for Measured { name, rate, .. } in cases {
        let (load, _) = name.split_once('/').unwrap_or((name, ""));
        if load != group {
            y += GAP;
            group = load;
        }
        let (median, min, max) = (x(rate.median()), x(rate.min()), x(rate.max()));
        let ours = name.contains("amqp-tokio") || load.starts_with("core");
        let fill = if ours { "#2b6cb0" } else { "#a0aec0" };
        let (text, middle) = (y + 15.0, y + 9.0);
        let _ = writeln!(
            body,
            "<text x='{:.0}' y='{text:.0}' text-anchor='end'>{}</text>\
             <rect x='{LABEL}' y='{y:.0}' width='{:.1}' height='18' fill='{fill}'/>\
             <line x1='{min:.1}' x2='{max:.1}' y1='{middle:.0}' y2='{middle:.0}' stroke='black'/>\
             <text x='{:.0}' y='{text:.0}'>{}</text>",
            LABEL - 6.0,
            escape(name),
            median - LABEL,
            max + 6.0,
            thousands(rate.median()),
        );
        y += LINE;
    }

    let mut lines = String::new();
    let mut power = low;
    while power <= high {
        let rate = 10_f64.powf(power);
        let at = x(rate);
        let _ = writeln!(
            lines,
            "<line x1='{at:.1}' x2='{at:.1}' y1='{LINE}' y2='{y:.0}' stroke='#e2e8f0'/>\
             <text x='{at:.1}' y='16' text-anchor='middle'>{}</text>",
            thousands(rate),
        );
        power += 1.0;
    }
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{:.0}' height='{:.0}' \
         font-family='sans-serif' font-size='12'>\n\
         <title>Messages per second</title>\n\
         <rect width='100%' height='100%' fill='white'/>\n\
         <text x='{:.0}' y='16' text-anchor='end'>messages per second</text>\n\
         {lines}{body}</svg>\n",
        LABEL + BARS + VALUE,
        y + LINE,
        LABEL - 50.0,
    )
}

/// A whole number with its thousands apart.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut apart = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            apart.push('\u{202f}');
        }
        apart.push(digit);
    }
    apart
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

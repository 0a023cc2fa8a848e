//! The speeds as a drawing.

use std::fmt::Write as _;

use crate::cases::Case;
use crate::results::{Measured, Results};

const COLUMNS: usize = 2;
const MARGIN: f64 = 20.0;
const TITLE: f64 = 26.0;
const LINE: f64 = 19.0;
const BAR: f64 = 14.0;
/// The widths of a panel's parts.
const LABEL: f64 = 175.0;
const BARS: f64 = 230.0;
const VALUE: f64 = 90.0;
const WIDTH: f64 = LABEL + BARS + VALUE;

/// The colours, for a page of either scheme.
const STYLE: &str = "\
.page{fill:#fff}text{fill:#1f2328}.ours{fill:#2f6fbf}.peer{fill:#b3bac5}.raw{fill:#8c6bb1}\
.range{stroke:#1f2328}\
@media(prefers-color-scheme:dark){\
.page{fill:#0d1117}text{fill:#e6edf3}.ours{fill:#4c8fe0}.peer{fill:#5b6572}.raw{fill:#9a7cc4}\
.range{stroke:#e6edf3}}";

/// A panel per load with a bar per client, from zero: the median, with a line from the slowest to
/// the fastest round. As an SVG.
pub(crate) fn svg(results: &Results) -> String {
    let mut panels: Vec<(String, Vec<&Measured>)> = Vec::new();
    for measured in &results.cases {
        let name = measured.case.to_string();
        let (load, _) = name.split_once('/').unwrap_or((&name, ""));
        match panels.iter_mut().find(|(title, _)| title == load) {
            Some((_, bars)) => bars.push(measured),
            None => panels.push((load.to_owned(), vec![measured])),
        }
    }
    let mut body = String::new();
    let mut ends = [MARGIN + TITLE; COLUMNS];
    for (title, bars) in &panels {
        let shortest = (0..COLUMNS).min_by(|&a, &b| ends[a].total_cmp(&ends[b]));
        let column = shortest.unwrap_or(0);
        let left = MARGIN + column as f64 * (WIDTH + MARGIN);
        put_panel(&mut body, left, ends[column], title, bars);
        ends[column] += TITLE + LINE * bars.len() as f64 + MARGIN;
    }
    let width = MARGIN + COLUMNS as f64 * (WIDTH + MARGIN);
    let height = ends.into_iter().fold(0.0, f64::max);
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{width:.0}' height='{height:.0}' \
         viewBox='0 0 {width:.0} {height:.0}' font-family='sans-serif' font-size='12'>\n\
         <title>Messages per second</title>\n<style>{STYLE}</style>\n\
         <rect class='page' width='100%' height='100%'/>\n\
         <text x='{MARGIN}' y='{:.0}' font-size='15'>Messages per second: median, and range of the \
         rounds</text>\n{body}</svg>\n",
        MARGIN + 10.0,
    )
}

fn put_panel(body: &mut String, left: f64, top: f64, title: &str, bars: &[&Measured]) {
    let fastest = bars.iter().map(|measured| measured.rate.max());
    let full = fastest.fold(1.0, f64::max);
    let zero = left + LABEL;
    let at = |rate: f64| zero + rate / full * BARS;
    let _ = writeln!(
        body,
        "<text x='{left:.0}' y='{:.0}' font-weight='bold'>{}</text>",
        top + 15.0,
        escape(title),
    );
    let mut y = top + TITLE;
    for measured in bars {
        let name = measured.case.to_string();
        let (_, client) = name.split_once('/').unwrap_or(("", &name));
        let rate = &measured.rate;
        let (median, min, max) = (at(rate.median()), at(rate.min()), at(rate.max()));
        let (text, middle) = (y + BAR - 3.0, y + BAR / 2.0);
        let class = match measured.case {
            Case::Client(_, client) if client.is_raw() => "raw",
            Case::Client(_, client) if !client.is_ours() => "peer",
            _ => "ours",
        };
        let _ = writeln!(
            body,
            "<text x='{:.0}' y='{text:.0}' text-anchor='end'>{}</text>\
             <rect class='{class}' x='{zero:.0}' y='{y:.0}' width='{:.1}' height='{BAR}'/>\
             <line class='range' x1='{min:.1}' x2='{max:.1}' y1='{middle:.0}' y2='{middle:.0}'/>\
             <text x='{:.0}' y='{text:.0}'>{}</text>",
            zero - 6.0,
            escape(client),
            median - zero,
            max.max(median) + 6.0,
            thousands(rate.median()),
        );
        y += LINE;
    }
}

/// A whole number with its thousands apart.
pub(crate) fn thousands(value: f64) -> String {
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

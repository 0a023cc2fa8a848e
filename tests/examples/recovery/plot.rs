//! The curve of a storm: attempts and connects per 100 ms, as text and as a drawing.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

/// The time that a bar stands for, in milliseconds.
const SLICE: u128 = 100;

/// The width of the text's bars.
const WIDTH: usize = 60;

const BAR: f64 = 9.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;

/// The attempts to connect of all clients, and the connects, by their time since the loss.
#[derive(Debug)]
pub(crate) struct Curve {
    clients: usize,
    /// The time at which the broker was back.
    pub(crate) down: Duration,
    pub(crate) attempts: Vec<Duration>,
    pub(crate) connects: Vec<Duration>,
}

impl Curve {
    pub(crate) const fn new(clients: usize, down: Duration) -> Self {
        Self {
            clients,
            down,
            attempts: Vec::new(),
            connects: Vec::new(),
        }
    }

    pub(crate) fn sort(&mut self) {
        self.attempts.sort_unstable();
        self.connects.sort_unstable();
    }

    /// The number of those times in each slice.
    fn slices(&self, times: &[Duration]) -> Vec<usize> {
        let slice = |time: &Duration| usize::try_from(time.as_millis() / SLICE).unwrap_or(0);
        let all = self.attempts.iter().chain(&self.connects).map(slice).max();
        let mut slices = vec![0; all.map_or(0, |last| last + 1)];
        for time in times {
            slices[slice(time)] += 1;
        }
        slices
    }

    /// The greatest number in a slice.
    pub(crate) fn peak(&self, times: &[Duration]) -> usize {
        self.slices(times).into_iter().max().unwrap_or_default()
    }
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peak = self.peak(&self.attempts).max(self.peak(&self.connects));
        let bar = |number: usize, with: &str| with.repeat((number * WIDTH).div_ceil(peak.max(1)));
        writeln!(f, "{:>7} {:>8} {:>8}", "since", "attempts", "connects")?;
        let (attempts, connects) = (self.slices(&self.attempts), self.slices(&self.connects));
        for (number, (&attempts, &connects)) in attempts.iter().zip(&connects).enumerate() {
            let at = number as f64 * SLICE as f64 / 1e3;
            let is_back = self.down.as_millis() / SLICE == number as u128;
            let note = if is_back {
                "  <- the broker is back"
            } else {
                ""
            };
            let connected = bar(connects, "#");
            let refused = bar(attempts, "·");
            let refused: String = refused.chars().skip(connected.len()).collect();
            writeln!(
                f,
                "{at:>5.1} s {attempts:>8} {connects:>8} {connected}{refused}{note}"
            )?;
        }
        Ok(())
    }
}

/// Draws the curve as an SVG: a bar for each slice, the connects in front of the attempts, and a
/// line where the broker is back.
pub(crate) fn svg(curve: &Curve) -> String {
    let (attempts, connects) = (curve.slices(&curve.attempts), curve.slices(&curve.connects));
    let peak = attempts.iter().chain(&connects).max().copied();
    let peak = peak.unwrap_or(1).max(1) as f64;
    let (right, bottom) = (LEFT + attempts.len() as f64 * BAR, TOP + HEIGHT);
    let mut body = String::new();
    for step in 0..=4_i32 {
        let part = f64::from(step) / 4.0;
        let y = bottom - part * HEIGHT;
        let _infallible = writeln!(
            body,
            "<line x1='{LEFT}' x2='{right}' y1='{y}' y2='{y}' stroke='#e2e8f0'/>\
             <text x='{}' y='{}' text-anchor='end'>{:.0}</text>",
            LEFT - 6.0,
            y + 4.0,
            part * peak
        );
    }
    for (values, fill) in [(&attempts, "#cbd5e0"), (&connects, "#2b6cb0")] {
        for (number, &value) in values.iter().enumerate().filter(|it| *it.1 > 0) {
            let height = value as f64 / peak * HEIGHT;
            let _infallible = writeln!(
                body,
                "<rect x='{:.1}' y='{:.1}' width='{}' height='{height:.1}' fill='{fill}'/>",
                LEFT + number as f64 * BAR,
                bottom - height,
                BAR - 1.0
            );
        }
    }
    for second in (0..=attempts.len() / 10).step_by(1 + attempts.len() / 200) {
        let _infallible = writeln!(
            body,
            "<text x='{:.1}' y='{}' text-anchor='middle'>{second} s</text>",
            LEFT + second as f64 * 10.0 * BAR,
            bottom + 18.0
        );
    }
    let back = LEFT + curve.down.as_millis() as f64 / SLICE as f64 * BAR;
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{:.0}' height='{:.0}' \
         font-family='sans-serif' font-size='12'>\n\
         <title>Connects per 100 ms</title>\n\
         <rect width='100%' height='100%' fill='white'/>\n\
         <text x='{LEFT}' y='18'>{} clients lose their broker together: attempts (grey) and \
         connects (blue) per 100 ms</text>\n{body}\
         <line x1='{back:.1}' x2='{back:.1}' y1='{TOP}' y2='{bottom}' stroke='#c53030'/>\
         <text x='{:.1}' y='{}' fill='#c53030'>the broker is back</text>\n</svg>\n",
        right.max(560.0) + 40.0,
        bottom + 34.0,
        curve.clients,
        back + 5.0,
        TOP + 10.0
    )
}

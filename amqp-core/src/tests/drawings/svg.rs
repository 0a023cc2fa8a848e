//! Boxes and arrows as SVG.

use alloc::{
    string::{String, ToString as _},
    vec::Vec,
};
use core::fmt::Write as _;
use std::format;

/// The height of a line of text, in pixels.
pub(super) const LINE: i32 = 17;
/// The width of a character, in pixels.
const CHARACTER: f64 = 7.85;
/// The room between a box and its text, in pixels.
const PADDING: i32 = 14;

const STYLE: &str = "\
text { font: 13px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #24292f }
.title { font: 600 19px system-ui, 'Segoe UI', 'DejaVu Sans', Helvetica, sans-serif }
.note { font: 13px system-ui, 'Segoe UI', 'DejaVu Sans', Helvetica, sans-serif; fill: #57606a }
.name { font: 600 15px system-ui, 'Segoe UI', 'DejaVu Sans', Helvetica, sans-serif }
.state { fill: #f6f8fa; stroke: #57606a; stroke-width: 1.5 }
.good { fill: #dafbe1; stroke: #1a7f37; stroke-width: 1.5 }
.end { fill: #ffffff; stroke: #24292f; stroke-width: 2.5 }
.group { fill: #fbfcfd; stroke: #afb8c1; stroke-dasharray: 6 4 }
.arrow { fill: none; stroke: #57606a; stroke-width: 1.6; marker-end: url(#head) }
.fault { stroke: #cf222e; marker-end: url(#fault) }
.hears { fill: #0550ae }
.sends { fill: #953800 }
.calls { fill: #1a7f37 }
.ends { fill: #57606a }
.faulty { fill: #cf222e }
.halo { stroke: #ffffff; stroke-width: 5; stroke-linejoin: round; paint-order: stroke }";

/// A text of one style.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) class: &'static str,
    pub(super) text: String,
}

/// The lines of a label.
pub(super) type Lines = Vec<Vec<Span>>;

/// A drawing under construction.
pub(super) struct Drawing {
    out: String,
    width: i32,
    height: i32,
}

impl Drawing {
    pub(super) fn new(width: i32, height: i32, title: &str, note: &str) -> Self {
        let mut drawing = Self {
            out: String::new(),
            width,
            height,
        };
        drawing.text(30, 38, "title", title);
        drawing.text(30, 60, "note", note);
        drawing
    }

    fn text(&mut self, x: i32, y: i32, class: &str, text: &str) {
        let text = escape(text);
        let _ = writeln!(
            self.out,
            "<text x=\"{x}\" y=\"{y}\" class=\"{class}\">{text}</text>"
        );
    }

    /// A box with a title and text below it.
    pub(super) fn state(
        &mut self,
        [x, y, w, h]: [i32; 4],
        class: &str,
        name: &str,
        lines: &[String],
    ) {
        let _ = writeln!(
            self.out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" rx=\"9\" class=\"{class}\"/>"
        );
        let top = if lines.is_empty() {
            y + h / 2 + 5
        } else {
            y + 24
        };
        let middle = x + w / 2;
        let _ = writeln!(
            self.out,
            "<text x=\"{middle}\" y=\"{top}\" text-anchor=\"middle\" class=\"name\">{}</text>",
            escape(name)
        );
        let rows = i32::try_from(lines.len()).unwrap();
        assert!(
            lines.is_empty() || top + 12 + LINE * rows <= y + h,
            "{name} is too small for {lines:?}"
        );
        for (row, line) in lines.iter().enumerate() {
            let y = top + 8 + LINE * (i32::try_from(row).unwrap() + 1);
            self.text(x + PADDING, y, "", line);
        }
    }

    /// A dashed frame around states.
    pub(super) fn group(&mut self, [x, y, w, h]: [i32; 4], name: &str) {
        let _ = writeln!(
            self.out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" rx=\"14\" class=\"group\"/>"
        );
        self.text(x + 14, y + 22, "note", name);
    }

    /// An arrow through these points, with rounded corners.
    pub(super) fn arrow(&mut self, points: &[(i32, i32)], fault: bool) {
        const RADIUS: i32 = 10;
        let (x, y) = points[0];
        let mut path = format!("M{x} {y}");
        for window in points.windows(3) {
            let [from, corner, to] = [window[0], window[1], window[2]];
            let (ax, ay) = towards(corner, from, RADIUS);
            let (bx, by) = towards(corner, to, RADIUS);
            let _ = write!(path, " L{ax} {ay} Q{} {} {bx} {by}", corner.0, corner.1);
        }
        let (x, y) = points[points.len() - 1];
        let _ = write!(path, " L{x} {y}");
        let class = if fault { "arrow fault" } else { "arrow" };
        let _ = writeln!(self.out, "<path d=\"{path}\" class=\"{class}\"/>");
    }

    /// The lines of a label, the first of which stands at that place.
    pub(super) fn label(&mut self, (x, y): (i32, i32), lines: &Lines) {
        let widest = lines.iter().map(|line| width(line)).fold(0.0, f64::max);
        assert!(
            f64::from(x) + widest <= f64::from(self.width),
            "a label is too wide for the drawing: {lines:?}"
        );
        for (row, line) in lines.iter().enumerate() {
            let y = y + LINE * i32::try_from(row).unwrap();
            let _ = write!(
                self.out,
                "<text x=\"{x}\" y=\"{y}\" class=\"halo\" xml:space=\"preserve\">"
            );
            for span in line {
                let text = escape(&span.text);
                let _ = write!(
                    self.out,
                    "<tspan class=\"{} halo\">{text}</tspan>",
                    span.class
                );
            }
            let _ = writeln!(self.out, "</text>");
        }
    }

    /// The colours of the labels.
    pub(super) fn legend(&mut self, x: i32, y: i32) {
        let spans = [
            ("hears", "comes in"),
            ("sends", "   ▸ is sent"),
            ("calls", "   command()"),
            ("ends", "   transport, time"),
            ("faulty", "   fault of the peer (code)"),
        ];
        let line = spans.map(|(class, text)| Span {
            class,
            text: text.to_string(),
        });
        self.label((x, y), &alloc::vec![line.to_vec()]);
    }

    /// The whole picture.
    pub(super) fn finish(self, about: &str) -> String {
        let (width, height) = (self.width, self.height);
        let head = |id: &str, colour: &str| {
            format!(
                "<marker id=\"{id}\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"8\" \
                 markerHeight=\"8\" orient=\"auto-start-reverse\"><path d=\"M0 0L10 5L0 10z\" \
                 fill=\"{colour}\"/></marker>"
            )
        };
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">\n<style>\n{STYLE}\n\
             </style>\n<defs>{}{}</defs>\n<rect width=\"{width}\" height=\"{height}\" rx=\"12\" \
             fill=\"#ffffff\"/>\n{}</svg>\n",
            escape(about),
            head("head", "#57606a"),
            head("fault", "#cf222e"),
            self.out
        )
    }
}

/// The number of characters in a line of a box of that width.
pub(super) fn columns_of(width: i32) -> usize {
    let room = f64::from(width - 2 * PADDING) / CHARACTER;
    (0..200)
        .take_while(|&count| f64::from(count) <= room)
        .count()
        - 1
}

fn towards(from: (i32, i32), to: (i32, i32), by: i32) -> (i32, i32) {
    let step = |from: i32, to: i32| (to - from).clamp(-by, by);
    (from.0 + step(from.0, to.0), from.1 + step(from.1, to.1))
}

fn width(line: &[Span]) -> f64 {
    let characters: usize = line.iter().map(|span| span.text.chars().count()).sum();
    CHARACTER * f64::from(u32::try_from(characters).unwrap())
}

fn escape(text: &str) -> String {
    text.to_string()
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

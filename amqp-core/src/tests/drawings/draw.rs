//! A drawing from the arrows of a machine and the places of its states. Each arrow needs a place,
//! and each place an arrow.

use alloc::{
    collections::BTreeMap,
    string::{String, ToString as _},
    vec::Vec,
};
use std::format;

use super::{
    explore::{Arrow, Cause, method},
    svg::{Drawing, Lines, Span, columns_of},
};

type Rect = [i32; 4];

/// The places of a drawing.
pub(super) struct Layout {
    pub(super) file: &'static str,
    pub(super) title: &'static str,
    pub(super) note: &'static str,
    pub(super) size: (i32, i32),
    /// States with common arrows, which are drawn once.
    pub(super) group: Option<(&'static str, &'static [&'static str], Rect)>,
    pub(super) states: &'static [(&'static str, Rect)],
    pub(super) routes: &'static [Route],
    /// Further arrows, which another drawing has too.
    pub(super) shared: &'static [Route],
}

/// The way of an arrow.
pub(super) struct Route {
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    /// Whether it is for faults alone.
    pub(super) fault: bool,
    pub(super) points: &'static [(i32, i32)],
    pub(super) label: (i32, i32),
    /// The characters of a line of its label.
    pub(super) columns: usize,
}

impl Layout {
    fn all_routes(&self) -> impl Iterator<Item = &'static Route> {
        self.routes.iter().chain(self.shared)
    }

    fn route(&self, arrow: &Arrow) -> usize {
        let fault = matches!(arrow.cause, Cause::Fault(_));
        let group = self.group.filter(|group| group.1.contains(&&*arrow.from));
        let of = |from: &str, fault: bool| {
            self.all_routes()
                .position(|it| it.from == from && it.to == arrow.to && it.fault == fault)
        };
        let froms = [Some(&*arrow.from), group.map(|group| group.0)];
        froms
            .into_iter()
            .flatten()
            .find_map(|from| of(from, fault).or_else(|| of(from, false)))
            .unwrap_or_else(|| panic!("{}: no way for {arrow:?}", self.file))
    }
}

/// Draws it. `replies` are the methods that are legal when a request is pending.
pub(super) fn draw(layout: &Layout, arrows: &[Arrow], replies: &[&'static str]) -> String {
    let (width, height) = layout.size;
    let mut drawing = Drawing::new(width, height, layout.title, layout.note);
    if let Some((name, _, rect)) = layout.group {
        drawing.group(rect, name);
    }
    let mut on_routes: BTreeMap<usize, Vec<&Arrow>> = BTreeMap::new();
    for arrow in arrows {
        for state in [&arrow.from, &arrow.to] {
            let has_place = layout.states.iter().any(|(name, _)| name == state);
            assert!(has_place, "{}: no place for {state}", layout.file);
        }
        if arrow.from != arrow.to {
            on_routes
                .entry(layout.route(arrow))
                .or_default()
                .push(arrow);
        }
    }
    for (index, route) in layout.all_routes().enumerate() {
        let Some(arrows) = on_routes.get(&index) else {
            panic!(
                "{}: nothing leads from {} to {}",
                layout.file, route.from, route.to
            );
        };
        let fault = arrows.iter().all(|it| matches!(it.cause, Cause::Fault(_)));
        drawing.arrow(route.points, fault);
    }
    for (name, rect) in layout.states {
        let mut own: Vec<_> = arrows
            .iter()
            .filter(|it| it.from == *name && it.to == *name)
            .collect();
        own.dedup();
        let columns = columns_of(rect[2]);
        let mut lines = Vec::new();
        for line in labels(&own) {
            lines.extend(wrap(&line, columns));
        }
        if *name == "Open" && !replies.is_empty() {
            let replies: Vec<_> = replies.iter().map(|name| method(name)).collect();
            lines.extend(wrap_text("replies that are due:", columns));
            lines.extend(wrap_text(&replies.join(", "), columns));
        }
        let class = match *name {
            "Open" => "good",
            "Closed" | "Free" | "Connection closing" => "end",
            _ => "state",
        };
        drawing.state(*rect, class, name, &lines);
    }
    for (index, route) in layout.all_routes().enumerate() {
        let mut lines = Lines::new();
        for line in labels(&on_routes[&index]) {
            lines.extend(wrap_spans(line, route.columns));
        }
        drawing.label(route.label, &lines);
    }
    drawing.legend(30, height - 22);
    drawing.finish(layout.title)
}

/// The labels of arrows that are drawn as one: those that send the same are one label.
fn labels(arrows: &[&Arrow]) -> Vec<Vec<Span>> {
    let mut labels: Vec<(&'static str, Vec<&'static str>, Vec<String>)> = Vec::new();
    for arrow in arrows {
        let (class, text) = match &arrow.cause {
            Cause::Hears(name) => ("hears", method(name).to_string()),
            Cause::Calls(name) => ("calls", (*name).to_string()),
            Cause::HandOut => ("ends", "output handed out".to_string()),
            Cause::Ends(name) => ("ends", (*name).to_string()),
            Cause::Fault(0) => ("faulty", "anything else".to_string()),
            Cause::Fault(code) => ("faulty", code.to_string()),
        };
        let label = labels
            .iter_mut()
            .find(|it| it.0 == class && it.1 == arrow.sent);
        match label {
            Some(label) if !label.2.contains(&text) => label.2.push(text),
            Some(_) => {}
            None => labels.push((class, arrow.sent.clone(), alloc::vec![text])),
        }
    }
    let mut lines = Vec::new();
    for (class, sent, mut texts) in labels {
        if class == "faulty" {
            texts.sort();
            if texts[0].starts_with(|it: char| it.is_ascii_digit()) {
                texts = alloc::vec![format!("anything else ({})", texts.join(", "))];
            }
        }
        let mut line = alloc::vec![Span {
            class,
            text: texts.join(", "),
        }];
        if !sent.is_empty() {
            let sent: Vec<_> = sent.iter().map(|name| method(name)).collect();
            line.push(Span {
                class: "sends",
                text: format!(" ▸ {}", sent.join(", ")),
            });
        }
        lines.push(line);
    }
    lines
}

fn wrap(line: &[Span], columns: usize) -> Vec<String> {
    let text: String = line.iter().map(|span| &*span.text).collect();
    wrap_text(&text, columns)
}

fn wrap_text(text: &str, columns: usize) -> Vec<String> {
    let mut lines = alloc::vec![String::new()];
    for word in text.split_inclusive(' ') {
        let last = lines.last_mut().unwrap();
        if !last.is_empty() && last.chars().count() + word.trim_end().chars().count() > columns {
            lines.push(word.to_string());
        } else {
            last.push_str(word);
        }
    }
    lines
}

/// Breaks a label at blanks, keeping the classes.
fn wrap_spans(line: Vec<Span>, columns: usize) -> Lines {
    let mut lines = alloc::vec![Vec::<Span>::new()];
    let mut used = 0;
    for span in line {
        for word in span.text.split_inclusive(' ') {
            let len = word.trim_end().chars().count();
            if used > 0 && used + len > columns {
                lines.push(Vec::new());
                used = 0;
            }
            used += word.chars().count();
            lines.last_mut().unwrap().push(Span {
                class: span.class,
                text: word.to_string(),
            });
        }
    }
    lines
}

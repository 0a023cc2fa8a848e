//! The measurements of the clients as tables in Markdown: a row per load, a column per client.

use std::fmt::Write as _;

use crate::cases::{CLIENTS, Case, Client};
use crate::load::Shape;
use crate::plot::thousands;
use crate::results::{Measured, Results};

/// The content of a cell; none where nothing was measured.
type Cell<'a> = &'a dyn Fn(&Measured) -> Option<String>;

/// A table for each quantity.
pub(crate) fn tables(results: &Results, about: &[String]) -> String {
    let mut text = String::from("# Measurements of AMQP clients\n\n");
    for line in about {
        let _ = writeln!(text, "- {line}");
    }
    let mut add = |title, note, cell: Cell<'_>| {
        if let Some(table) = table(results, cell) {
            let _ = write!(text, "\n## {title}\n\n{note}\n\n{table}");
        }
    };
    add(
        "Messages per second",
        "Median of the rounds, with the least and the most.",
        &|measured| {
            let rate = &measured.rate;
            let (median, min, max) = (rate.median(), rate.min(), rate.max());
            let [median, min, max] = [median, min, max].map(thousands);
            Some(format!("{median} ({min}–{max})"))
        },
    );
    add(
        "Speed over that of the raw socket",
        "Median of the ratios within a round. The raw socket has one channel and one task, and \
         bodies of the same size.",
        &|measured| Some(format!("{:.2}", results.over_raw(measured)?.median())),
    );
    add(
        "Processor time per message, in nanoseconds",
        "Of all threads of the client, in the program and in the system for it: median of the \
         rounds.",
        &|measured| Some(thousands(measured.worked.median())),
    );
    add(
        "System calls per message",
        "Under strace, which slows each call.",
        &|measured| measured.syscalls.map(|count| format!("{count:.3}")),
    );
    add(
        "Heap allocations per message",
        "Of all threads of the client, growth of one counted as another.",
        &|measured| Some(format!("{:.3}", measured.allocations)),
    );
    text
}

/// One table; none if it has no cell.
fn table(results: &Results, cell: Cell<'_>) -> Option<String> {
    let measured = |client: Client| {
        results
            .cases
            .iter()
            .any(|measured| matches!(measured.case, Case::Client(_, its) if its == client))
    };
    let clients: Vec<_> = CLIENTS
        .iter()
        .copied()
        .filter(|&client| measured(client))
        .collect();
    let mut shapes: Vec<Shape> = Vec::new();
    for measured in &results.cases {
        if let Case::Client(shape, _) = measured.case
            && !shapes.contains(&shape)
        {
            shapes.push(shape);
        }
    }
    let (mut text, mut filled) = (String::from("| |"), false);
    for client in &clients {
        let _ = write!(text, " {client} |");
    }
    let _ = writeln!(text, "\n|---|{}", "---:|".repeat(clients.len()));
    for shape in shapes {
        let _ = write!(text, "| {shape} |");
        for &client in &clients {
            let content = results.of_client(&shape, client).and_then(cell);
            filled |= content.is_some();
            let _ = write!(text, " {} |", content.unwrap_or_default());
        }
        text.push('\n');
    }
    filled.then_some(text)
}

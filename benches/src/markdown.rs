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
        &|measured| measured.allocations.map(|count| format!("{count:.3}")),
    );
    add_parts(&mut text, results);
    text
}

/// Adds tables of the parts: their speeds, the memory of connections, and the embedded broker.
fn add_parts(text: &mut String, results: &Results) {
    let parts = results.cases.iter();
    let parts = parts.filter(|measured| matches!(measured.case, Case::Part(..)));
    let rows: Vec<_> = parts
        .map(|measured| {
            let rate = &measured.rate;
            let (median, min, max) = (rate.median(), rate.min(), rate.max());
            let [median, min, max] = [median, min, max].map(thousands);
            let worked = thousands(measured.worked.median());
            format!("{} | {median} ({min}–{max}) | {worked}", measured.case)
        })
        .collect();
    let head = "| messages per second | processor time, ns |";
    add_rows(text, "Without a socket", head, &rows);
    let rows: Vec<_> = results
        .footprints
        .iter()
        .map(|it| {
            let [connection, channel] = [it.connection, it.channel].map(thousands);
            format!("{} | {connection} | {channel}", it.name)
        })
        .collect();
    let head = "| a connection | a channel |";
    add_rows(text, "Bytes on the heap, idle", head, &rows);
    let rows: Vec<_> = results
        .fleets
        .iter()
        .map(|it| {
            let (connections, heap) = (thousands(it.connections.into()), thousands(it.heap));
            let resident = it.resident.map_or(String::new(), thousands);
            format!("{} | {connections} | {heap} | {resident}", it.name)
        })
        .collect();
    let head = "| connections | on the heap | resident |";
    add_rows(text, "Bytes of each of many connections", head, &rows);
    let figures = results.embedded_figures().into_iter();
    let rows: Vec<_> = figures
        .map(|(name, number, unit)| format!("{name} | {number:.1} {unit}"))
        .collect();
    add_rows(text, "The embedded broker", "| |", &rows);
}

/// Adds a table if it has a row.
fn add_rows(text: &mut String, title: &str, head: &str, rows: &[String]) {
    if rows.is_empty() {
        return;
    }
    let columns = head.matches('|').count() - 1;
    let _ = write!(
        text,
        "\n## {title}\n\n| {head}\n|---|{}\n",
        "---:|".repeat(columns)
    );
    for row in rows {
        let _ = writeln!(text, "| {row} |");
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::Queued;
    use crate::fleet::Fleet;

    #[test]
    fn a_part_has_a_row_where_it_was_measured() {
        assert!(!tables(&Results::default(), &[]).contains('|'));
        let results = Results {
            fleets: vec![Fleet {
                name: "many",
                connections: 5000,
                heap: 1234.4,
                resident: None,
            }],
            queued: vec![Queued {
                name: "queue",
                overhead: 99.96,
            }],
            ..Results::default()
        };
        let text = tables(&results, &[]);
        assert!(
            text.contains("| many | 5\u{202f}000 | 1\u{202f}234 |  |"),
            "{text}"
        );
        assert!(
            text.contains("| queue, each beside its body | 100.0 bytes |"),
            "{text}"
        );
    }
}

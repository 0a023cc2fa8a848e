//! The results of the scenarios, on one page.

use std::{collections::BTreeMap, fmt};

/// How one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Passed,
    Failed,
    /// It was not run, for a reason that stands in its report.
    Ignored,
}

/// Scenarios in rows, and their surroundings in columns. Below that, the number of scenarios of
/// each subject: the part of their names before `::`.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: BTreeMap<String, BTreeMap<String, Mark>>,
}

impl Table {
    pub(crate) fn note(&mut self, row: &str, column: &str, mark: Mark) {
        let cells = self.rows.entry(row.to_owned()).or_default();
        cells.insert(column.to_owned(), mark);
    }

    /// The names of the columns, in their order.
    fn columns(&self) -> Vec<&str> {
        let mut columns: Vec<&str> = self
            .rows
            .values()
            .flat_map(|cells| cells.keys().map(String::as_str))
            .collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// How many of a group passed, of how many that were run.
    fn groups(&self) -> BTreeMap<&str, BTreeMap<&str, (usize, usize)>> {
        let mut groups: BTreeMap<&str, BTreeMap<&str, (usize, usize)>> = BTreeMap::new();
        for (row, cells) in &self.rows {
            let group = row.split("::").next().unwrap_or_default();
            for (column, mark) in cells {
                let counts = groups.entry(group).or_default();
                let (passed, run) = counts.entry(column).or_default();
                *passed += usize::from(*mark == Mark::Passed);
                *run += usize::from(*mark != Mark::Ignored);
            }
        }
        groups
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Passed => "ok",
            Self::Failed => "FAILED",
            Self::Ignored => "-",
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.columns();
        if columns.is_empty() {
            return Ok(());
        }
        let first = self.rows.keys().map(String::len).max().unwrap_or_default();
        let head = |f: &mut fmt::Formatter<'_>, what| {
            write!(f, "{what:first$}")?;
            columns
                .iter()
                .try_for_each(|column| write!(f, "  {column}"))?;
            writeln!(f)
        };
        head(f, "scenario")?;
        for (row, cells) in &self.rows {
            write!(f, "{row:first$}")?;
            for column in &columns {
                let width = column.len();
                match cells.get(*column) {
                    Some(mark) => write!(f, "  {mark:width$}")?,
                    None => write!(f, "  {:width$}", "")?,
                }
            }
            writeln!(f)?;
        }
        writeln!(f)?;
        head(f, "group: passed / run")?;
        for (group, counts) in self.groups() {
            write!(f, "{group:first$}")?;
            for column in &columns {
                let (passed, run) = counts.get(column).copied().unwrap_or_default();
                let width = column.len();
                write!(f, "  {:width$}", format!("{passed} / {run}"))?;
            }
            writeln!(f)?;
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_columns_and_groups() {
        let mut table = Table::default();
        assert_eq!(table.to_string(), "");
        table.note("channels::opens", "rabbitmq", Mark::Passed);
        table.note("channels::opens", "embedded", Mark::Failed);
        table.note("flow::pauses", "rabbitmq", Mark::Ignored);
        table.note("flow::pauses", "embedded", Mark::Passed);
        let lines: Vec<String> = table
            .to_string()
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "scenario embedded rabbitmq",
                "channels::opens FAILED ok",
                "flow::pauses ok -",
                "",
                "group: passed / run embedded rabbitmq",
                "channels 0 / 1 1 / 1",
                "flow 1 / 1 0 / 0",
                "",
            ]
        );
    }
}

//! The transcripts of a page: its blocks `console`, where a line that begins with `$ ` is a command,
//! and the lines after it are its output.

use amqp_tests::harness::Failure;

use crate::RUNTIMES;

/// The words by which a program says that it goes on.
const GOES_ON: &str = "Ctrl-C";

/// A command of a page.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// The program, without the runtime.
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
    /// The lines that it prints.
    pub(crate) lines: Vec<String>,
}

impl Step {
    fn parse(command: &str) -> Result<Self, Failure> {
        let (cargo, arguments) = command.split_once(" -- ").unwrap_or((command, ""));
        let program = cargo
            .strip_prefix("cargo run -q --bin ")
            .and_then(|program| program.strip_prefix(RUNTIMES[0])?.strip_prefix('_'))
            .ok_or_else(|| format!("no program of a tutorial: {command}"))?;
        Ok(Self {
            program: program.to_owned(),
            arguments: words(arguments),
            lines: Vec::new(),
        })
    }

    /// Whether the program goes on until it is interrupted: its first line says so.
    pub(crate) fn goes_on(&self) -> bool {
        self.lines.first().is_some_and(|it| it.contains(GOES_ON))
    }

    pub(crate) fn is_same_command(&self, other: &Self) -> bool {
        self.program == other.program && self.arguments == other.arguments
    }
}

/// The words of a command line. Those in quotes `'` are one.
fn words(line: &str) -> Vec<String> {
    let pieces = line.split('\'').enumerate();
    pieces
        .flat_map(|(index, piece)| match index % 2 {
            0 => piece.split_whitespace().map(str::to_owned).collect(),
            _ => vec![piece.to_owned()],
        })
        .collect()
}

/// The commands of a page, in order.
pub(crate) fn transcript(text: &str) -> Result<Vec<Step>, Failure> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_terminal = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_terminal = line == "```console";
        } else if is_terminal && let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step::parse(command)?);
        } else if is_terminal {
            let step = steps.last_mut().ok_or("output without a command")?;
            step.lines.push(line.to_owned());
        }
    }
    Ok(steps)
}

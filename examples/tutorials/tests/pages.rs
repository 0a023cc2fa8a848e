//! The transcripts of the book's tutorials, run as they stand: with the programs of each runtime, on
//! the embedded broker by the rules of RabbitMQ 3.10 and by those of 4.3, and on RabbitMQ.
//!
//! A block `console` is a terminal. A line that begins with `$ ` is a command, and the lines after it
//! are its output. A program that announces Ctrl-C goes on beside the commands below it: its lines
//! are awaited at the end of the page, and then it is interrupted. Programs that go on with the same
//! command share their lines, in any order.

use std::{
    collections::BTreeSet,
    env::consts::EXE_SUFFIX,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use amqp_tests::{
    Embedded,
    harness::{self, Failure, Outcome, Scenario},
};
use amqp_tokio::broker::Rules;
use rustix::process::{Pid, Signal, kill_process};

/// The prefixes of the programs. The pages have those of the first.
const RUNTIMES: [&str; 3] = ["tokio", "blocking", "smol"];

/// How long a program may take for its next line, or to end.
const SOON: Duration = Duration::from_secs(60);

/// The words by which a program says that it goes on.
const GOES_ON: &str = "Ctrl-C";

fn main() -> ExitCode {
    let mut scenarios = vec![Scenario::local(
        "each_program_is_on_a_page",
        each_program_is_on_a_page,
    )];
    for (page, text) in pages() {
        for runtime in RUNTIMES {
            let rules = [("3_10", Rules::default()), ("4_3", Rules::rabbitmq_4())];
            for (name, rules) in rules {
                let name = format!("{page}::{runtime}::by_the_rules_of_{name}");
                let text = text.clone();
                scenarios.push(Scenario::local(name, move || {
                    let broker = Embedded::start_with(|config| config.rules = rules)?;
                    run(&text, runtime, &broker.uri())
                }));
            }
            let name = format!("{page}::{runtime}::on_rabbitmq");
            let text = text.clone();
            scenarios.push(Scenario::shared(name, move |broker| {
                run(&text, runtime, &broker.uri)
            }));
        }
    }
    harness::run(scenarios)
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The names of the files of a folder with such an extension, without it.
fn files(folder: &Path, extension: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("a folder can be read");
    let paths = entries.map(|entry| entry.expect("an entry can be read").path());
    paths
        .filter(|path| path.extension().is_some_and(|it| it == extension))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect()
}

/// The pages of the tutorials, by the names of their files, and their texts.
fn pages() -> Vec<(String, String)> {
    let tutorials = folder("../../book/src/tutorials");
    let names = files(&tutorials, "md").into_iter();
    names
        .map(|name| {
            let path = tutorials.join(&name).with_extension("md");
            let text = fs::read_to_string(path).expect("a page can be read");
            (name, text)
        })
        .collect()
}

/// Each program that a page runs exists for each runtime, and there are no others.
fn each_program_is_on_a_page() -> Outcome {
    let mut named = BTreeSet::new();
    for (page, text) in pages() {
        let steps = transcript(&text)?;
        assert!(!steps.is_empty(), "{page} runs nothing");
        for step in steps {
            named.insert(step.program);
        }
    }
    for runtime in RUNTIMES {
        assert_eq!(
            named,
            files(&folder("src").join(runtime), "rs"),
            "{runtime}"
        );
    }
    Ok(())
}

/// A command of a page.
#[derive(Clone, Debug)]
struct Step {
    /// The program, without the runtime.
    program: String,
    arguments: Vec<String>,
    /// The lines that it prints.
    lines: Vec<String>,
}

impl Step {
    fn parse(command: &str) -> Result<Self, Failure> {
        let (cargo, arguments) = command.split_once(" -- ").unwrap_or((command, ""));
        let program = cargo
            .strip_prefix("cargo run -q -p amqp-tutorials --bin ")
            .and_then(|program| program.strip_prefix(RUNTIMES[0])?.strip_prefix('_'))
            .ok_or_else(|| format!("no program of a tutorial: {command}"))?;
        Ok(Self {
            program: program.to_owned(),
            arguments: words(arguments),
            lines: Vec::new(),
        })
    }

    fn goes_on(&self) -> bool {
        self.lines.iter().any(|line| line.contains(GOES_ON))
    }

    fn is_same_command(&self, other: &Self) -> bool {
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
fn transcript(text: &str) -> Result<Vec<Step>, Failure> {
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

/// A program that runs. It is killed when it is dropped.
struct Program {
    step: Step,
    child: Child,
    lines: Receiver<String>,
    printed: Vec<String>,
}

impl Program {
    fn start(step: Step, runtime: &str, url: &str) -> Result<Self, Failure> {
        // The programs are beside each other.
        let name = format!("{runtime}_{}{EXE_SUFFIX}", step.program);
        let path = Path::new(env!("CARGO_BIN_EXE_tokio_send")).with_file_name(name);
        let mut child = Command::new(path)
            .args(&step.arguments)
            .env("AMQP_URL", url)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = BufReader::new(child.stdout.take().ok_or("no output")?);
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut read = stdout.lines().map_while(Result::ok);
            read.all(|line| sender.send(line).is_ok())
        });
        Ok(Self {
            step,
            child,
            lines,
            printed: Vec::new(),
        })
    }

    /// Waits for lines until there are that many.
    fn read_to(&mut self, count: usize) -> Outcome {
        while self.printed.len() < count {
            let line = self.lines.recv_timeout(SOON);
            let line = line.map_err(|error| format!("{error}: {self:?}"))?;
            self.printed.push(line);
        }
        Ok(())
    }

    /// Takes the lines that it has printed by now.
    fn read_available(&mut self) {
        self.printed.extend(self.lines.try_iter());
    }

    /// Reads the rest of its lines, and waits for its end, which is a good one.
    fn end(&mut self) -> Outcome {
        loop {
            match self.lines.recv_timeout(SOON) {
                Ok(line) => self.printed.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => return Err(format!("hung: {self:?}").into()),
            }
        }
        // Its output is closed: it is about to end.
        let status = self.child.wait()?;
        if !status.success() {
            return Err(format!("{status}: {self:?}").into());
        }
        Ok(())
    }

    fn interrupt(&self) -> Outcome {
        let pid = i32::try_from(self.child.id())?;
        let pid = Pid::from_raw(pid).ok_or("no process")?;
        Ok(kill_process(pid, Signal::INT)?)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Step {
            program, arguments, ..
        } = &self.step;
        write!(f, "{program} {arguments:?} printed {:#?}", self.printed)
    }
}

/// Runs the commands of a page with the programs of a runtime.
fn run(text: &str, runtime: &str, url: &str) -> Outcome {
    let mut running: Vec<Program> = Vec::new();
    for step in transcript(text)? {
        let goes_on = step.goes_on();
        let mut program = Program::start(step, runtime, url)?;
        if goes_on {
            program.read_to(1)?;
            assert!(program.printed[0].contains(GOES_ON), "{program:?}");
            running.push(program);
        } else {
            program.end()?;
            assert_eq!(program.printed, program.step.lines, "{program:?}");
        }
    }
    while let Some(first) = running.first() {
        let step = first.step.clone();
        let (mut same, others) = running
            .into_iter()
            .partition::<Vec<_>, _>(|program| program.step.is_same_command(&step));
        running = others;
        await_lines(&mut same)?;
    }
    Ok(())
}

/// Waits until programs with the same command have printed the lines of all of them, interrupts
/// them, and compares all that they have printed.
fn await_lines(programs: &mut [Program]) -> Outcome {
    let lines = |of: fn(&Program) -> &Vec<String>, programs: &[Program]| {
        let mut lines: Vec<_> = programs.iter().flat_map(of).cloned().collect();
        if programs.len() > 1 {
            lines.sort_unstable();
        }
        lines
    };
    let expected = lines(|program| &program.step.lines, programs);
    if let [alone] = programs {
        alone.read_to(expected.len())?;
    }
    let begun = Instant::now();
    while programs.iter().map(|it| it.printed.len()).sum::<usize>() < expected.len() {
        if begun.elapsed() > SOON {
            return Err(format!("not all lines: {programs:#?}").into());
        }
        programs.iter_mut().for_each(Program::read_available);
        thread::sleep(Duration::from_millis(5));
    }
    for program in programs.iter_mut() {
        program.interrupt()?;
        program.end()?;
    }
    let printed = lines(|program| &program.printed, programs);
    assert_eq!(printed, expected, "{programs:#?}");
    Ok(())
}

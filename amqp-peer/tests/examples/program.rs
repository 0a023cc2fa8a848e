//! An example as a process of its own.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use crate::{EXAMPLE, Result};

/// The time limit of a line.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running example. It is killed when it is dropped.
pub(crate) struct Program {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    /// The lines that were read.
    seen: Vec<String>,
}

impl Program {
    pub(crate) fn start(example: &str, arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .args(arguments)
            .env(EXAMPLE, example)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("no output")?;
        Ok(Self {
            name: format!("{example} {}", arguments.join(" ")),
            input: child.stdin.take(),
            child,
            lines: lines(output),
            seen: Vec::new(),
        })
    }

    /// Waits for a line, and returns it.
    pub(crate) fn until(&mut self, wanted: impl Fn(&str) -> bool) -> Result<String> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if wanted(&line) {
                        return Ok(line);
                    }
                }
                Err(_) => {
                    return Err(format!("{}: no such line in {:?}", self.name, self.seen).into());
                }
            }
        }
    }

    /// Waits for a line with that text.
    pub(crate) fn until_line(&mut self, text: &str) -> Result {
        match self.until(|line| line == text) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{text:?}: {error}").into()),
        }
    }

    /// Types a line.
    pub(crate) fn enter(&mut self, line: &str) -> Result {
        let input = self.input.as_mut().ok_or("the input has ended")?;
        writeln!(input, "{line}")?;
        Ok(())
    }

    /// Kills it at once, as `kill -9`.
    pub(crate) fn kill(mut self) -> Result {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends the input, waits for the end of the program, and returns all lines.
    pub(crate) fn end(mut self) -> Result<Vec<String>> {
        self.input = None;
        let _ = self.until(|_| false);
        let status = self.child.wait()?;
        if !status.success() {
            return Err(format!("{}: {status}: {:?}", self.name, self.seen).into());
        }
        Ok(std::mem::take(&mut self.seen))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output)
            .lines()
            .map_while(std::result::Result::ok)
        {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

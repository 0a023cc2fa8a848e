//! A program of a tutorial, as a process with lines to wait for.

use std::{
    env::consts::EXE_SUFFIX,
    fmt,
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use amqp_tests::harness::{Failure, Outcome};
use rustix::process::{Pid, Signal, kill_process};

/// How long a program may take for its next line, or to end.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The programs of a runtime, on a broker.
pub(crate) struct Place {
    pub(crate) runtime: &'static str,
    pub(crate) url: String,
}

impl Place {
    /// Starts a program with its arguments.
    pub(crate) fn start(&self, program: &str, arguments: &[String]) -> Result<Program, Failure> {
        // The programs are beside each other.
        let name = format!("{}_{program}{EXE_SUFFIX}", self.runtime);
        let path = Path::new(env!("CARGO_BIN_EXE_tokio_send")).with_file_name(&name);
        let mut child = Command::new(path)
            .args(arguments)
            .env("AMQP_URL", &self.url)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let output = lines(child.stdout.take().ok_or("no output")?);
        let errors = lines(child.stderr.take().ok_or("no errors")?);
        Ok(Program {
            name: format!("{name} {}", arguments.join(" ")),
            child,
            lines: output,
            errors,
            printed: Vec::new(),
        })
    }
}

/// A program that runs. It is killed when it is dropped.
pub(crate) struct Program {
    name: String,
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
    /// The lines that were read.
    pub(crate) printed: Vec<String>,
}

impl Program {
    /// Waits for lines until there are that many.
    pub(crate) fn read_to(&mut self, count: usize) -> Outcome {
        while self.printed.len() < count {
            let line = self.lines.recv_timeout(SOON);
            let line = line.map_err(|error| format!("{error}: {self:?}"))?;
            self.printed.push(line);
        }
        Ok(())
    }

    /// Takes the lines that it has printed by now.
    pub(crate) fn read_available(&mut self) {
        self.printed.extend(self.lines.try_iter());
    }

    /// Reads the rest of its lines, and waits for its end, which is a good one.
    pub(crate) fn end(&mut self) -> Outcome {
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

    /// Sends the signal of Ctrl-C.
    pub(crate) fn interrupt(&self) -> Outcome {
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

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors: Vec<String> = self.errors.try_iter().collect();
        let (name, printed) = (&self.name, &self.printed);
        write!(f, "{name} printed {printed:#?}, and the errors {errors:#?}")
    }
}

/// The lines of a stream, until it ends or nothing takes them.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut read = BufReader::new(stream).lines().map_while(Result::ok);
        read.all(|line| sender.send(line).is_ok())
    });
    receiver
}

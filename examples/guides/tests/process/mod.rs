//! A program under test: its lines, its input and its end; and a request to one that serves HTTP.

use std::{
    io::{BufRead as _, BufReader, Read, Write as _},
    net::TcpStream,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use amqp_tests::harness::{Failure, Outcome};

/// How long a line may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The time without a line after which a program that can do nothing has printed all.
const QUIET: Duration = Duration::from_secs(1);

/// A program that runs. It is killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    output: Receiver<String>,
    errors: Receiver<String>,
}

impl Program {
    /// Starts a program with these variables and arguments.
    pub(crate) fn start(
        path: &str,
        variables: &[(&str, &str)],
        arguments: &[&str],
    ) -> Result<Self, Failure> {
        let mut child = Command::new(path)
            .args(arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let output = lines(child.stdout.take().ok_or("no output")?);
        let errors = lines(child.stderr.take().ok_or("no errors")?);
        Ok(Self {
            child,
            output,
            errors,
        })
    }

    /// Waits for a line of the output with that text, and returns it.
    pub(crate) fn expect(&self, text: &str) -> Result<String, Failure> {
        self.find(&self.output, text)
    }

    /// Waits for a line of the standard error with that text, and returns it.
    pub(crate) fn expect_error(&self, text: &str) -> Result<String, Failure> {
        self.find(&self.errors, text)
    }

    /// Forgets the lines that it has printed, until no more come.
    pub(crate) fn skip(&self) {
        while self.output.recv_timeout(QUIET).is_ok() {}
    }

    /// Writes to its standard input.
    pub(crate) fn write(&mut self, text: &str) -> Outcome {
        let input = self.child.stdin.as_mut().ok_or("no input")?;
        Ok(input.write_all(text.as_bytes())?)
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) -> Outcome {
        let process = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(
            process,
            rustix::process::Signal::TERM,
        )?)
    }

    /// Ends its input, and waits for its end, which has to be good.
    pub(crate) fn succeeds(&mut self) -> Outcome {
        match self.end()? {
            (status, _) if status.success() => Ok(()),
            (status, errors) => Err(format!("{status}: {errors}").into()),
        }
    }

    /// Ends its input, and waits for its end, which has to be an error with that text.
    pub(crate) fn fails(&mut self, text: &str) -> Outcome {
        match self.end()? {
            (status, errors) if !status.success() && errors.contains(text) => Ok(()),
            (status, errors) => Err(format!("{status}, without {text:?}: {errors}").into()),
        }
    }

    /// Ends its input, waits for its end, and returns the rest of its standard error with it.
    fn end(&mut self) -> Result<(ExitStatus, String), Failure> {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait()? {
                Some(status) => {
                    let errors: Vec<String> = self.errors.iter().collect();
                    return Ok((status, errors.join("\n")));
                }
                None if Instant::now() > deadline => {
                    let errors: Vec<String> = self.errors.try_iter().collect();
                    return Err(format!("it does not end: {}", errors.join("\n")).into());
                }
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn find(&self, lines: &Receiver<String>, text: &str) -> Result<String, Failure> {
        let deadline = Instant::now() + PATIENCE;
        let mut others = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left) {
                Ok(line) if line.contains(text) => return Ok(line),
                Ok(line) => others.push(line),
                Err(error) => {
                    others.truncate(50);
                    let errors: Vec<String> = self.errors.try_iter().collect();
                    let (others, errors) = (others.join("\n"), errors.join("\n"));
                    return Err(format!("{text:?}: {error}, but:\n{others}\n{errors}").into());
                }
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The lines of a stream, until it ends or nothing takes them.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Sends a request of HTTP, and returns the whole response.
pub(crate) fn request(address: &str, line: &str, body: &str) -> Result<String, Failure> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response)
}

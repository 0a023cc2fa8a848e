//! The program in a process of its own, on a broker.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use amqp_tests::{
    Embedded,
    harness::{Failure, Outcome},
    rabbitmq::free_port,
};

const SIGINT: u32 = 2;

/// The limit of a step: a hang ends, and a busy machine has the time that it needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// The program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_amqp");

/// A broker for a test: its URL, which names a virtual host without queues.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) url: String,
}

/// The end of a program.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) errors: String,
}

impl Ended {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// The lines of the output, if the code is 0.
    pub(crate) fn lines(self) -> Result<Vec<String>, Failure> {
        let text = self.good()?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The output, if the code is 0.
    pub(crate) fn good(self) -> Result<String, Failure> {
        match self.code {
            Some(0) => Ok(self.text()),
            code => Err(format!("{code:?}: {}{}", self.text(), self.errors).into()),
        }
    }

    /// Checks the code, and that the errors contain a text.
    pub(crate) fn fails(&self, code: i32, text: &str) -> Outcome {
        if self.code == Some(code) && self.errors.contains(text) {
            return Ok(());
        }
        let ended = format!("{:?}: {}{}", self.code, self.text(), self.errors);
        Err(format!("not {code} with {text:?}, but {ended}").into())
    }
}

impl Place {
    /// The program, which connects to this broker unless its arguments say otherwise.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        command.env("AMQP_URL", &self.url);
        command
    }

    /// Runs the program with an input, until it ends.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &[u8]) -> Result<Ended, Failure> {
        end(self.command(arguments), input)
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Ended, Failure> {
        self.run_with(arguments, b"")
    }

    /// Runs the program, which has to succeed.
    pub(crate) fn good(&self, arguments: &[&str]) -> Result<String, Failure> {
        let ended = self.run(arguments)?.good();
        ended.map_err(|error| format!("{arguments:?}: {error}").into())
    }

    /// The number of ready messages of a queue.
    pub(crate) fn messages(&self, queue: &str) -> Result<u64, Failure> {
        let text = self.good(&["declare", "queue", queue, "--passive"])?;
        let count = text.split(['\t', ' ']).nth(1).ok_or("no count")?;
        Ok(count.parse()?)
    }

    /// Waits until a queue has so many ready messages.
    pub(crate) fn until_messages(&self, queue: &str, count: u64) -> Outcome {
        until(|| Ok(self.messages(queue)? == count))
    }
}

/// The program, without settings of the surroundings.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    for variable in ["AMQP_URL", "AMQP_PROFILE", "AMQP_CONFIG", "NO_COLOR"] {
        command.env_remove(variable);
    }
    command
        .env("HOME", "/nonexistent")
        .env_remove("XDG_CONFIG_HOME");
    command
}

/// Runs a program with an input until it ends.
pub(crate) fn end(mut command: Command, input: &[u8]) -> Result<Ended, Failure> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or("no input")?;
    let input = input.to_vec();
    let feeding = thread::spawn(move || {
        // It may end before it has read all.
        let _closed = stdin.write_all(&input);
    });
    let mut stdout = child.stdout.take().ok_or("no output")?;
    let mut stderr = child.stderr.take().ok_or("no errors")?;
    let errors = thread::spawn(move || {
        let mut errors = Vec::new();
        let _ended = stderr.read_to_end(&mut errors);
        errors
    });
    let out = thread::spawn(move || {
        let mut out = Vec::new();
        let _ended = stdout.read_to_end(&mut out);
        out
    });
    let code = wait(&mut child)?.code();
    let joined = |it: JoinHandle<Vec<u8>>| it.join().map_err(|_| "a thread panicked");
    feeding.join().map_err(|_| "a thread panicked")?;
    let errors = String::from_utf8(joined(errors)?)?;
    assert!(!errors.contains("panicked"), "{errors}");
    Ok(Ended {
        code,
        out: joined(out)?,
        errors,
    })
}

/// Waits for the end of a process, which is killed if that takes too long.
pub(crate) fn wait(child: &mut Child) -> Result<ExitStatus, Failure> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > PATIENCE {
            child.kill()?;
            return Err("the program does not end".into());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for a condition.
pub(crate) fn until(mut condition: impl FnMut() -> Result<bool, Failure>) -> Outcome {
    let start = Instant::now();
    while !condition()? {
        if start.elapsed() > PATIENCE {
            return Err("a condition does not become true".into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A running program, killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Result<Self, Failure> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Self {
            input: child.stdin.take(),
            lines: lines(child.stdout.take().ok_or("no output")?),
            errors: lines(child.stderr.take().ok_or("no errors")?),
            child,
        })
    }

    /// The next line of the output.
    pub(crate) fn line(&self) -> Result<String, Failure> {
        next(&self.lines)
    }

    /// The next line of the output that contains a text.
    pub(crate) fn line_with(&self, text: &str) -> Result<String, Failure> {
        loop {
            let line = self
                .line()
                .map_err(|error| format!("no line with {text:?}: {error}"))?;
            if line.contains(text) {
                return Ok(line);
            }
        }
    }

    /// The next line of the errors that contains a text.
    pub(crate) fn error_with(&self, text: &str) -> Result<String, Failure> {
        loop {
            let line =
                next(&self.errors).map_err(|error| format!("no error with {text:?}: {error}"))?;
            if line.contains(text) {
                return Ok(line);
            }
        }
    }

    /// Writes to its input.
    pub(crate) fn say(&mut self, text: &str) -> Outcome {
        let input = self.input.as_mut().ok_or("the input has ended")?;
        input.write_all(text.as_bytes())?;
        Ok(input.flush()?)
    }

    pub(crate) fn end_input(&mut self) {
        self.input = None;
    }

    /// Writes to its input until it takes no more, on a thread of its own.
    pub(crate) fn flood(&mut self, text: &'static str) -> Outcome {
        let mut input = self.input.take().ok_or("the input has ended")?;
        thread::spawn(move || while input.write_all(text.as_bytes()).is_ok() {});
        Ok(())
    }

    /// Waits for its end, which that of its input does not bring about. Returns its code.
    pub(crate) fn code(&mut self) -> Result<Option<i32>, Failure> {
        Ok(wait(&mut self.child)?.code())
    }

    pub(crate) fn signal(&self, name: &str) -> Outcome {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status()?;
        sent.success()
            .then_some(())
            .ok_or_else(|| "no signal was sent".into())
    }

    /// Whether it handles SIGINT by itself, as Linux has it.
    pub(crate) fn catches_interrupts(&self) -> std::io::Result<bool> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let caught = status.lines().find_map(|it| it.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|it| u64::from_str_radix(it.trim(), 16).ok());
        Ok(caught.is_some_and(|signals| signals & 1 << (SIGINT - 1) != 0))
    }

    /// Waits for its end. Returns its code and the rest of its output.
    pub(crate) fn ended(&mut self) -> Result<(Option<i32>, Vec<String>), Failure> {
        self.end_input();
        let status = wait(&mut self.child)?;
        let rest = self.lines.iter().collect();
        let errors: Vec<String> = self.errors.iter().collect();
        assert!(!errors.concat().contains("panicked"), "{errors:?}");
        Ok((status.code(), rest))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn lines(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _dropped = sender.send(line);
        }
    });
    receiver
}

fn next(lines: &Receiver<String>) -> Result<String, Failure> {
    match lines.recv_timeout(PATIENCE) {
        Ok(line) => Ok(line),
        Err(RecvTimeoutError::Timeout) => Err("no line came".into()),
        Err(RecvTimeoutError::Disconnected) => Err("it has ended".into()),
    }
}

/// An embedded broker.
pub(crate) fn embedded() -> Result<(Embedded, Place), Failure> {
    let broker = Embedded::start()?;
    let url = broker.uri();
    Ok((broker, Place { url }))
}

/// A broker in a process of its own, which signals can stop.
pub(crate) fn broker_process() -> Result<(Running, Place), Failure> {
    let broker = Running::start(program(&["broker", "--listen", "127.0.0.1:0"]))?;
    let line = broker.line()?;
    let address = line.strip_prefix("listening on ").ok_or("no address")?;
    let url = address.to_owned();
    Ok((broker, Place { url }))
}

/// The URL of a port without a listener.
pub(crate) fn nowhere() -> Result<String, Failure> {
    Ok(format!("amqp://127.0.0.1:{}", free_port()?))
}

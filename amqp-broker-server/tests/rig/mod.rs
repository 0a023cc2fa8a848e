//! The program in a process of its own, and small requests to its page.
#![allow(dead_code, reason = "each test target uses a part")]

use std::{
    error::Error,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;
pub(crate) type Outcome = Result<(), Failure>;

/// The limit of steps that take no time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// A running program, killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    /// The addresses that it has printed.
    addresses: Vec<String>,
    /// The URL of its page.
    page: Option<String>,
    stderr: Option<JoinHandle<String>>,
}

/// A response of the page.
pub(crate) struct Response {
    pub(crate) status: u16,
    /// The head, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Program {
    /// Starts it, and waits until it listens at so many addresses and has its page, if it gets one.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self, Failure> {
        let mut child = command(arguments).spawn()?;
        let stdout = child.stdout.take().ok_or("no output")?;
        let mut errors = child.stderr.take().ok_or("no errors")?;
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            let _ended = errors.read_to_string(&mut text);
            text
        });
        let (lines, received) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ignored = lines.send(line);
            }
        });
        let listeners = arguments.iter().filter(|it| it.starts_with("--listen"));
        let has_page = arguments.contains(&"--http");
        let expected = listeners.count() + usize::from(has_page);
        let mut program = Self {
            child,
            addresses: Vec::new(),
            page: None,
            stderr: Some(stderr),
        };
        for _ in 0..expected {
            let Ok(line) = received.recv_timeout(PATIENCE) else {
                let (_, errors) = program.ended()?;
                return Err(format!("it does not listen: {errors}").into());
            };
            if let Some(address) = line.strip_prefix("listening on ") {
                program.addresses.push(address.to_owned());
            } else if let Some(url) = line.strip_prefix("page on ") {
                program.page = Some(url.to_owned());
            } else {
                return Err(format!("unexpected: {line}").into());
            }
        }
        Ok(program)
    }

    /// Runs it until it ends by itself. Returns its exit code, output and errors.
    pub(crate) fn fail(arguments: &[&str]) -> Result<(Option<i32>, String, String), Failure> {
        let output = command(arguments).output()?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ok((
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        ))
    }

    /// The address that it has printed first, second, ...
    pub(crate) fn address(&self, index: usize) -> &str {
        &self.addresses[index]
    }

    pub(crate) fn page(&self) -> &str {
        self.page.as_deref().expect("started with --http")
    }

    /// The port of the page.
    pub(crate) fn page_port(&self) -> u16 {
        let port = self.page().trim_end_matches('/').rsplit(':').next();
        port.and_then(|port| port.parse().ok()).expect("a port")
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) -> Outcome {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status()?;
        if sent.success() {
            Ok(())
        } else {
            Err("no signal was sent".into())
        }
    }

    pub(crate) fn kill(&mut self) -> Outcome {
        Ok(self.child.kill()?)
    }

    pub(crate) fn is_running(&mut self) -> Result<bool, Failure> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until it has ended. Returns its status and the lines of its log.
    pub(crate) fn ended(&mut self) -> Result<(ExitStatus, String), Failure> {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if start.elapsed() > PATIENCE {
                return Err("it does not end".into());
            }
            thread::sleep(Duration::from_millis(10));
        };
        let log = self.stderr.take().map(JoinHandle::join);
        let log = log.transpose().map_err(|_| "the reader has panicked")?;
        Ok((status, log.unwrap_or_default()))
    }

    /// Stops it with SIGTERM, and returns its log.
    pub(crate) fn stop(mut self) -> Result<String, Failure> {
        self.signal("TERM")?;
        let (status, log) = self.ended()?;
        if status.success() {
            Ok(log)
        } else {
            Err(format!("{status}: {log}").into())
        }
    }

    /// Requests a path of the page.
    pub(crate) fn get(&self, path: &str) -> Result<Response, Failure> {
        self.request("GET", path, "localhost")
    }

    /// Requests a path of the page as JSON.
    pub(crate) fn json(&self, path: &str) -> Result<Value, Failure> {
        let response = self.get(path)?;
        if response.status != 200 {
            return Err(format!("{path}: {}", response.status).into());
        }
        Ok(serde_json::from_str(&response.body)?)
    }

    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        host: &str,
    ) -> Result<Response, Failure> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.page_port()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or("no head")?;
        let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
        Ok(Response {
            status,
            head: head.to_lowercase(),
            body: body.to_owned(),
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amqp-broker"));
    command.args(arguments);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Waits until a check returns a value.
pub(crate) fn until<T>(
    what: &str,
    mut check: impl FnMut() -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    let start = Instant::now();
    loop {
        if let Some(value) = check()? {
            return Ok(value);
        }
        if start.elapsed() > PATIENCE {
            return Err(format!("not in time: {what}").into());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

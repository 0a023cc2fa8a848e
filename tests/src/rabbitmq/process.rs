//! The process of a broker, and the supervisor that sees to its end.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Error, command};

/// How long a node may take to stop in an orderly way; then it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(120);

/// The time limit for immediate replies of the supervisor.
const REPLY_LIMIT: Duration = Duration::from_secs(120);

/// The broker's process, through its supervisor.
#[derive(Debug)]
pub(super) struct Process {
    supervisor: Child,
    /// Starts and kills the broker. `None` once the node is being dropped.
    commands: Option<ChildStdin>,
    /// The reports of the supervisor.
    events: Receiver<String>,
    /// The broker's, while it runs.
    pid: Option<u32>,
}

impl Process {
    /// Starts the supervisor, and not yet the broker.
    pub(super) fn supervised(
        directory: &Path,
        server: &Path,
        environment: &[(String, String)],
    ) -> io::Result<Self> {
        let mut supervisor = command("sh", environment)
            .args(["-c", include_str!("supervisor.sh"), "supervisor"])
            .args([directory, server])
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C in the terminal is for the tests; the supervisor has to outlive them.
            .process_group(0)
            .spawn()?;
        let commands = supervisor.stdin.take();
        let (reported, events) = mpsc::channel();
        if let Some(output) = supervisor.stdout.take() {
            thread::spawn(move || {
                BufReader::new(output)
                    .lines()
                    .map_while(Result::ok)
                    .try_for_each(|line| reported.send(line))
            });
        }
        Ok(Self {
            supervisor,
            commands,
            events,
            pid: None,
        })
    }

    /// The broker's process id, unless it has ended meanwhile.
    pub(super) fn running(&mut self) -> Option<u32> {
        if self.events.try_recv().is_ok() {
            self.pid = None; // the only thing that happens unasked is the end
        }
        self.pid
    }

    pub(super) fn start(&mut self) -> Result<(), Error> {
        self.command("start")?;
        let event = self.event(REPLY_LIMIT)?;
        self.pid = event
            .strip_prefix("started ")
            .and_then(|pid| pid.parse().ok());
        match self.pid {
            Some(_) => Ok(()),
            None => Err(Error::Failed(format!(
                "the supervisor did not start RabbitMQ but says {event:?}"
            ))),
        }
    }

    pub(super) fn stop(&mut self) -> Result<(), Error> {
        if self.running().is_none() {
            return Ok(());
        }
        self.signal("CONT")?;
        self.signal("TERM")?;
        match self.event(STOP_LIMIT) {
            Ok(_) => {
                self.pid = None;
                Ok(())
            }
            Err(_) => self.kill(),
        }
    }

    pub(super) fn kill(&mut self) -> Result<(), Error> {
        if self.running().is_none() {
            return Ok(());
        }
        self.command("kill")?;
        self.event(REPLY_LIMIT)?;
        self.pid = None;
        Ok(())
    }

    /// Stops the broker where it is. Afterwards it does nothing more.
    pub(super) fn pause(&mut self) -> Result<(), Error> {
        let pid = self.signal("STOP")?;
        // A signal is sent at once, but each thread takes it when it runs next.
        let deadline = Instant::now() + REPLY_LIMIT;
        while !stands_still(pid) {
            if Instant::now() > deadline {
                return Err(Error::Failed(format!("{pid} runs in spite of SIGSTOP")));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    pub(super) fn resume(&mut self) -> Result<(), Error> {
        self.signal("CONT").map(drop)
    }

    /// Sends the broker a signal, and gives its process id.
    fn signal(&mut self, name: &str) -> Result<u32, Error> {
        let pid = self
            .running()
            .ok_or_else(|| Error::Failed(format!("no broker runs for SIG{name}")))?;
        let status = Command::new("sh")
            .args(["-c", &format!("kill -s {name} {pid}")])
            .status()?;
        if status.success() {
            Ok(pid)
        } else {
            Err(Error::Failed(format!("SIG{name} for {pid}: {status}")))
        }
    }

    fn command(&mut self, line: &str) -> Result<(), Error> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        Ok(writeln!(
            self.commands.as_mut().ok_or_else(gone)?,
            "{line}"
        )?)
    }

    fn event(&self, limit: Duration) -> Result<String, Error> {
        self.events
            .recv_timeout(limit)
            .map_err(|error| match error {
                RecvTimeoutError::Timeout => {
                    Error::Failed(format!("nothing from RabbitMQ's supervisor in {limit:?}"))
                }
                RecvTimeoutError::Disconnected => {
                    Error::Failed("RabbitMQ's supervisor is gone".into())
                }
            })
    }
}

/// Whether each thread of a process has stopped. Where the system does not report that, a signal
/// counts as taken when it is sent.
fn stands_still(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        // Such as `4711 (beam.smp) T 4700`; a thread that has ended meanwhile says nothing.
        let reported = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        reported
            .rsplit_once(") ")
            .is_none_or(|(_, state)| state.starts_with('T'))
    })
}

/// The end of the pipe is the end of the broker, also of one that is paused.
impl Drop for Process {
    fn drop(&mut self) {
        drop(self.commands.take());
        // Nothing is left to do about a failure: the supervisor is not to be found any more.
        let _ = self.supervisor.wait();
    }
}

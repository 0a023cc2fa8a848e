//! Processes of this program, which print lines.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use amqp_peer::{Connect, Listen, Peer};
pub(crate) use amqp_tests::rabbitmq::free_port;

use crate::Result;

/// The first argument of such a process.
pub(crate) const CHILD: &str = "child";

/// The time limit of a process that has work.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// A process. It is killed when it is dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    pub(crate) fn start(part: &str, arguments: &[String]) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg(CHILD).arg(part).args(arguments);
        Self::spawn(part, &mut command)
    }

    /// Starts any program.
    pub(crate) fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| format!("{name}: {error}"))?;
        let output = child.stdout.take().ok_or("no output")?;
        let (sender, lines) = channel();
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
        Ok(Self {
            name: name.to_owned(),
            input: child.stdin.take(),
            child,
            lines,
        })
    }

    /// Takes a line that comes before a deadline. `None` if none does.
    pub(crate) fn line(&self, deadline: Instant) -> Option<String> {
        let wait = deadline.saturating_duration_since(Instant::now());
        self.lines.recv_timeout(wait).ok()
    }

    /// Waits for a line with that first word, and returns the rest.
    pub(crate) fn until(&self, word: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        while let Some(line) = self.line(deadline) {
            if let Some(rest) = line.strip_prefix(word) {
                return Ok(rest.trim().to_owned());
            }
        }
        Err(format!("{}: no {word}", self.name).into())
    }

    /// Ends its standard input, which ends its work.
    pub(crate) fn end_input(&mut self) {
        self.input = None;
    }

    /// Waits until it has ended well.
    pub(crate) fn end(mut self) -> Result {
        self.end_input();
        let deadline = Instant::now() + PATIENCE;
        while self.line(deadline).is_some() {}
        let status = self.child.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("{}: {status}", self.name).into())
        }
    }

    /// Kills it by SIGKILL, and returns the lines that it had printed and that were not taken. Fails if
    /// it had ended by itself.
    pub(crate) fn kill(mut self) -> Result<Vec<String>> {
        if let Some(status) = self.child.try_wait()? {
            return Err(format!("{} has ended: {status}", self.name).into());
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(self.lines.iter().collect())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The role of a process in making the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Listens,
    Dials,
}

impl Role {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Listens => "listens",
            Self::Dials => "dials",
        }
    }

    pub(crate) fn of(word: &str) -> Result<Self> {
        match word {
            "listens" => Ok(Self::Listens),
            "dials" => Ok(Self::Dials),
            other => Err(format!("no role {other}").into()),
        }
    }

    /// Listens at a port, or dials it.
    pub(crate) async fn play(self, peer: &Peer, port: u16) -> Result {
        match self {
            Self::Listens => {
                let listen = Listen::tcp(format!("127.0.0.1:{port}"));
                peer.add_listener(listen).await?;
            }
            Self::Dials => {
                let millisecond = Duration::from_millis(1);
                let connect = Connect::tcp("127.0.0.1", port);
                peer.add_connector(connect.retry(10 * millisecond, 50 * millisecond));
            }
        }
        Ok(())
    }
}

/// An argument of a process.
pub(crate) fn argument<T>(arguments: &[String], at: usize) -> Result<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let argument = arguments.get(at).ok_or("too few arguments")?;
    Ok(argument.parse()?)
}

/// Runs a future on a runtime with so many threads.
pub(crate) fn block_on<T>(threads: usize, future: impl Future<Output = T>) -> Result<T> {
    use tokio::runtime::Builder;
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    Ok(builder.enable_all().build()?.block_on(future))
}

/// Waits, in a thread, for the end of the standard input.
pub(crate) fn end_of_input() -> tokio::sync::oneshot::Receiver<()> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    thread::spawn(move || {
        for line in std::io::stdin().lines() {
            if line.is_err() {
                break;
            }
        }
        let _ = sender.send(());
    });
    receiver
}

/// The peak of this process's resident memory so far, in bytes.
pub(crate) fn peak_memory() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.ok_or("no VmHWM")?.parse::<u64>()? << 10)
}

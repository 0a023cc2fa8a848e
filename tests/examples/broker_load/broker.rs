//! The broker under measurement, and its memory.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use amqp_tests::harness::Failure;

/// The time in which memory that is not needed any more is to be given back.
const SETTLE: Duration = Duration::from_secs(20);

pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    /// The measured process: `Some` if it is known.
    process: Option<u32>,
    child: Option<Child>,
}

/// The program: beside this one, unless a path is given.
pub(crate) fn program(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(path) = given {
        return Ok(path);
    }
    let own = env::current_exe()?;
    let folder = own.parent().and_then(|it| it.parent());
    let path = folder.ok_or("no folder of programs")?.join("amqp-broker");
    if path.exists() {
        return Ok(path);
    }
    let build = "cargo build --release -p amqp-broker-server";
    Err(format!("there is no {}: {build}", path.display()).into())
}

impl Broker {
    /// Starts the program, with a limit of memory in bytes.
    pub(crate) fn start(program: &PathBuf, memory: usize) -> Result<Self, Failure> {
        let mut child = Command::new(program)
            .args(["--listen", "127.0.0.1:0", "--quiet", "--memory"])
            .arg(memory.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let output = child.stdout.take().ok_or("no pipe to the program")?;
        let process = Some(child.id());
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().rsplit('/').next().unwrap_or_default();
        let address = address.parse()?;
        let child = Some(child);
        Ok(Self {
            address,
            process,
            child,
        })
    }

    pub(crate) fn at(address: &str, process: Option<u32>) -> Result<Self, Failure> {
        let mut addresses = address.to_socket_addrs()?;
        Ok(Self {
            address: addresses.next().ok_or("the host has no address")?,
            process,
            child: None,
        })
    }

    /// Its resident memory, in bytes; 0 if its process is not known.
    pub(crate) fn memory(&self) -> Result<i64, Failure> {
        let Some(process) = self.process else {
            return Ok(0);
        };
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        let kibibytes: i64 = number.ok_or("no VmRSS")?.parse()?;
        Ok(kibibytes << 10)
    }

    /// Its memory when it has fallen to a bound, or after a while.
    pub(crate) fn settled(&self, bound: i64) -> Result<i64, Failure> {
        let until = Instant::now() + SETTLE;
        loop {
            let memory = self.memory()?;
            if memory <= bound || Instant::now() >= until {
                return Ok(memory);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

//! The broker and the publishers as processes of their own: this program, run again.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::SocketAddr,
    process::{self, Child, Command, ExitCode, Stdio},
    thread,
};

use amqp_blocking::protocol::basic;
use amqp_tests::harness::Failure;
use amqp_tokio::LocalBroker;
use tokio::{net::TcpListener, runtime::Builder};

/// The argument that makes this program a broker.
pub(crate) const SERVE: &str = "serve";

/// The argument that makes this program a publisher without pause.
pub(crate) const FLOOD: &str = "flood";

/// The number of messages of a publisher between two lines of its output.
const REPORT: u64 = 10_000;

/// The size of the messages that flood a broker, in bytes.
const SIZE: usize = 1024;

/// A broker under measurement.
pub(crate) struct Broker {
    address: SocketAddr,
    _process: Option<Process>,
}

impl Broker {
    /// Starts an embedded broker on one thread.
    pub(crate) fn start() -> Result<Self, Failure> {
        let mut process = Process::start(&[SERVE])?;
        let address = process.line()?.parse()?;
        let _process = Some(process);
        Ok(Self { address, _process })
    }

    pub(crate) fn at(address: SocketAddr) -> Self {
        let _process = None;
        Self { address, _process }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A process that ends with this value.
pub(crate) struct Process {
    child: Child,
    output: BufReader<process::ChildStdout>,
}

impl Process {
    pub(crate) fn start(arguments: &[&str]) -> Result<Self, Failure> {
        let mut child = Command::new(env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("no pipe to a child")?;
        let output = BufReader::new(output);
        Ok(Self { child, output })
    }

    /// Returns the next line of its output.
    pub(crate) fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// Ends it, and returns the number of lines of its output since [`line`](Self::line).
    pub(crate) fn end(mut self) -> Result<u64, Failure> {
        self.child.kill()?;
        let lines = self.output.by_ref().lines();
        Ok(lines.map_while(Result::ok).count() as u64)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves an embedded broker until standard input ends.
pub(crate) fn serve() -> Result<ExitCode, Failure> {
    end_with_parent();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let server = amqp_tokio::serve(listener, LocalBroker::default())?;
        println!("{}", server.local_addr());
        std::future::pending::<()>().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// Publishes unroutable messages without pause, and prints a line for every [`REPORT`] of them.
pub(crate) fn flood(address: SocketAddr) -> Result<ExitCode, Failure> {
    end_with_parent();
    let connection = amqp_blocking::connect(&format!("amqp://{address}"))?;
    let channel = connection.open_channel()?;
    let publish = basic::Publish::default().routing_key("no-such-queue");
    let properties = basic::Properties::default();
    println!("ready");
    loop {
        for _ in 0..REPORT {
            channel.publish(&publish, &properties, vec![b'x'; SIZE])?;
        }
        println!("{REPORT}");
        io::stdout().flush()?;
    }
}

/// Returns the number of messages that a publisher has printed in this number of lines.
pub(crate) fn messages(lines: u64) -> u64 {
    lines * REPORT
}

fn end_with_parent() {
    thread::spawn(|| {
        // Whether it ends or fails, the parent is gone.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        process::exit(0);
    });
}

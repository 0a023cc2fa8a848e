//! Many connections in one process: the memory that each takes, and whether all of them answer.
//!
//! This program is run again for each client, so that nothing else is in its memory.

use std::env;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;

use amqp_tokio::Connection;
use amqp_tokio::protocol::queue;
use futures_util::future::try_join_all;
use tokio::time::sleep;

use crate::flavor::{self, Flavor};
use crate::memory::REST;
use crate::target::Target;
use crate::wire::ROUTING_KEY;
use crate::{Error, Result, allocator, files};

/// The word on the command line that makes this program open the connections of a client and
/// nothing else.
pub(crate) const COMMAND: &str = "fleet";

/// The measurement of `amqp-tokio`, and how many connections it has.
pub(crate) const TOKIO: &str = "memory/amqp-tokio, 10000 connections";
const TOKIO_CONNECTIONS: u32 = 10_000;

/// The measurement of `amqp-blocking`, and how many connections it has: each has a thread.
pub(crate) const BLOCKING: &str = "memory/amqp-blocking, 1000 connections";
const BLOCKING_CONNECTIONS: u32 = 1000;

/// How many connections of `amqp-tokio` are opened at a time, and asked.
const TOGETHER: usize = 100;

/// The memory of many idle connections, each of which has answered a request afterwards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fleet {
    pub(crate) name: &'static str,
    pub(crate) connections: u32,
    /// Bytes on the heap per connection.
    pub(crate) heap: f64,
    /// Bytes per connection by which the process has grown, stacks of threads included; `Some`
    /// where the system reports it.
    pub(crate) resident: Option<f64>,
}

/// One run of a measurement.
#[derive(Debug)]
pub(crate) struct Drive {
    pub(crate) name: String,
    pub(crate) uri: String,
}

impl Drive {
    /// Opens the connections, and prints how many there were and their memory.
    pub(crate) fn run(&self) -> Result<()> {
        let Self { name, uri } = self;
        let (connections, grown) = if name == TOKIO {
            let connections = files::raise_for(TOKIO_CONNECTIONS, 1)?;
            let runtime = flavor::threads()?;
            (connections, runtime.block_on(tokio(uri, connections))?)
        } else {
            // The socket, and those of the poller that its thread sleeps with.
            let connections = files::raise_for(BLOCKING_CONNECTIONS, 4)?;
            (connections, blocking(uri, connections)?)
        };
        let (heap, resident) = grown;
        println!("{connections} {heap} {}", resident.unwrap_or(-1));
        Ok(())
    }
}

/// Measures a client by name, in a process of its own.
pub(crate) fn measure(target: &Target, name: &'static str) -> Result<Fleet> {
    let output = Command::new(env::current_exe()?)
        .args([COMMAND, name, &target.uri])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("its process failed: {}", output.status).into());
    }
    let said = String::from_utf8(output.stdout)?;
    let mut numbers = said.split_whitespace().map(str::parse::<i64>);
    let mut number = || {
        Ok::<_, Error>(
            numbers
                .next()
                .ok_or("a measurement without its numbers")??,
        )
    };
    let (connections, heap, resident) = (u32::try_from(number()?)?, number()?, number()?);
    let each = |bytes: i64| bytes as f64 / f64::from(connections);
    Ok(Fleet {
        name,
        connections,
        heap: each(heap),
        resident: (resident >= 0).then(|| each(resident)),
    })
}

/// Bytes on the heap, and bytes by which the process has grown.
type Grown = (i64, Option<i64>);

async fn tokio(uri: &str, connections: u32) -> Result<Grown> {
    // Allocates the shared parts first.
    let first = Flavor::Tokio.connect(uri).await?;
    sleep(REST).await;
    let before = start();
    let count = connections as usize;
    let mut held = Vec::with_capacity(count);
    while held.len() < count {
        let batch = TOGETHER.min(count - held.len());
        held.extend(try_join_all((0..batch).map(|_| Flavor::Tokio.connect(uri))).await?);
    }
    sleep(REST).await;
    let grown = stop(before);
    for batch in held.chunks(TOGETHER) {
        try_join_all(batch.iter().map(ask)).await?;
    }
    // By and by: thousands of threads of the server that end at once would delay the next client.
    for batch in held.chunks(TOGETHER) {
        try_join_all(batch.iter().map(Connection::close)).await?;
    }
    first.close().await?;
    Ok(grown)
}

/// Asks on a new channel.
async fn ask(connection: &Connection) -> Result<()> {
    let channel = connection.open_channel().await?;
    let declare = queue::Declare::default().queue(ROUTING_KEY).passive(true);
    channel.call(declare).await?;
    Ok(())
}

fn blocking(uri: &str, connections: u32) -> Result<Grown> {
    let first = amqp_blocking::connect(uri)?;
    thread::sleep(REST);
    let before = start();
    let mut held = Vec::with_capacity(connections as usize);
    for _ in 0..connections {
        held.push(amqp_blocking::connect(uri)?);
    }
    thread::sleep(REST);
    let grown = stop(before);
    for connection in &held {
        let channel = connection.open_channel()?;
        let declare = queue::Declare::default().queue(ROUTING_KEY).passive(true);
        channel.call(declare)?;
    }
    drop((first, held));
    Ok(grown)
}

/// Begins to count; returns the size of the process.
fn start() -> Option<i64> {
    allocator::start();
    resident()
}

/// Ends counting that began at a size of the process.
fn stop(before: Option<i64>) -> Grown {
    let grown = resident().zip(before).map(|(now, before)| now - before);
    (allocator::stop().live, grown)
}

/// The memory that this process has in use, in bytes; `Some` on Linux.
fn resident() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::sink;

    #[test]
    fn all_connections_answer() {
        let _alone = allocator::alone();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || sink::accept(&listener));
        let target = Target::sink(port).unwrap();
        let runtime = flavor::threads().unwrap();
        runtime.block_on(tokio(&target.uri, 20)).unwrap();
        blocking(&target.uri, 5).unwrap();
    }
}

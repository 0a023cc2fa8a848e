//! Bytes on the heap that idle connections and channels hold, with all that drives them.

use std::time::Duration;

use tokio::time::sleep;

use crate::flavor::{self, Flavor};
use crate::load::MANY_CHANNELS;
use crate::target::Target;
use crate::{Result, allocator, machine, ours, peer_amqprs, peer_lapin};

/// How many connections are opened to find out about one.
const CONNECTIONS: u32 = 50;

/// How long a client gets to come to rest.
pub(crate) const REST: Duration = Duration::from_millis(200);

/// The memory of an idle connection and an idle channel, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Footprint {
    /// The client.
    pub(crate) name: &'static str,
    pub(crate) connection: f64,
    pub(crate) channel: f64,
}

/// Measures those that are wanted.
pub(crate) fn footprints(target: &Target, wants: impl Fn(&str) -> bool) -> Result<Vec<Footprint>> {
    let runtime = flavor::threads()?;
    let uri = &target.uri;
    let mut footprints = Vec::new();
    let mut add = |name, measure: &dyn Fn(&'static str) -> Result<Footprint>| -> Result<()> {
        if wants(name) {
            eprintln!("{name}");
            footprints.push(measure(name)?);
        }
        Ok(())
    };
    add("memory/amqp-core", &|name| {
        let (connection, channel) = machine::memory()?;
        Ok(Footprint {
            name,
            connection,
            channel,
        })
    })?;
    add("memory/amqp-tokio", &|name| {
        runtime.block_on(footprint(name, |channels| {
            ours::open(Flavor::Tokio, uri, channels)
        }))
    })?;
    // With one channel at least.
    add("memory/amqp-tokio, after use", &|name| {
        runtime.block_on(footprint(name, |channels| ours::open_used(uri, channels)))
    })?;
    add("memory/lapin", &|name| {
        runtime.block_on(footprint(name, |channels| peer_lapin::open(uri, channels)))
    })?;
    add("memory/amqprs", &|name| {
        runtime.block_on(footprint(name, |channels| {
            peer_amqprs::open(target, channels)
        }))
    })?;
    Ok(footprints)
}

/// Opens connections and channels, and measures their memory at rest.
async fn footprint<C, F: Future<Output = Result<C>>>(
    name: &'static str,
    open: impl Fn(u16) -> F,
) -> Result<Footprint> {
    // Allocates the shared parts first.
    let first = open(1).await?;
    sleep(REST).await;

    allocator::start();
    let mut held = Vec::with_capacity(CONNECTIONS as usize);
    for _ in 0..CONNECTIONS {
        held.push(open(0).await?);
    }
    sleep(REST).await;
    let connection = allocator::counted().live as f64 / f64::from(CONNECTIONS);

    allocator::start();
    let many = open(MANY_CHANNELS).await?;
    sleep(REST).await;
    let channels = allocator::stop().live as f64 - connection;
    drop((first, held, many));
    Ok(Footprint {
        name,
        connection,
        channel: channels / f64::from(MANY_CHANNELS),
    })
}

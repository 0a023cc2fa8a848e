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
    /// The measurement, with its client.
    pub(crate) name: &'static str,
    pub(crate) connection: f64,
    pub(crate) channel: f64,
}

/// The clients that are measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Client {
    Core,
    Tokio,
    /// With one channel at least.
    TokioAfterUse,
    Lapin,
    Amqprs,
}

/// Measures a client.
pub(crate) fn measure(client: Client, target: &Target, name: &'static str) -> Result<Footprint> {
    let runtime = flavor::threads()?;
    let uri = &target.uri;
    let (connection, channel) = match client {
        Client::Core => machine::memory()?,
        Client::Tokio => runtime.block_on(footprint(|channels| {
            ours::open(Flavor::Tokio, uri, channels)
        }))?,
        Client::TokioAfterUse => {
            runtime.block_on(footprint(|channels| ours::open_used(uri, channels)))?
        }
        Client::Lapin => runtime.block_on(footprint(|channels| peer_lapin::open(uri, channels)))?,
        Client::Amqprs => {
            runtime.block_on(footprint(|channels| peer_amqprs::open(target, channels)))?
        }
    };
    Ok(Footprint {
        name,
        connection,
        channel,
    })
}

/// Opens connections and channels; returns the memory of one of each at rest.
async fn footprint<C, F: Future<Output = Result<C>>>(
    open: impl Fn(u16) -> F,
) -> Result<(f64, f64)> {
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
    sleep(REST).await; // they close in good order
    Ok((connection, channels / f64::from(MANY_CHANNELS)))
}

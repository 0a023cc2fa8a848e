//! Many clients that lose their broker together, and come back.

use std::{
    fs,
    time::{Duration, Instant},
};

use amqp_tokio::{
    LocalBroker, Options as Connecting, connect_with,
    core::dial::Address,
    recovery::{Policy, RecoveryEvent, RecoveryEvents},
    serve,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{net::TcpListener, runtime::Runtime, task::JoinSet, time};

use crate::{
    Result,
    options::Options,
    plot::{self, Curve},
    report::seconds,
};

/// The sockets that this process needs beside two of each client.
const SPARE_FILES: u64 = 100;

/// The time within which the last client comes back after the broker: the greatest delay of the
/// default policy, and some.
const PATIENCE: Duration = Duration::from_secs(40);

/// The number of clients that connect at a time in the beginning.
const TOGETHER: usize = 50;

/// Loses the broker, and counts the attempts to connect. Returns whether all clients came back.
pub(crate) fn run(options: &Options, count: usize) -> Result<bool> {
    raise_files(2 * count as u64 + SPARE_FILES)?;
    let (mut curve, back) = Runtime::new()?.block_on(storm(options, count))?;
    curve.sort();
    let latest = curve.connects.last().copied().unwrap_or_default();
    print!("{curve}");
    println!(
        "{back} of {count} clients are back, the last one {} after the loss, {} after the broker",
        seconds(latest),
        seconds(latest.saturating_sub(curve.down))
    );
    println!(
        "at most {} attempts and {} connects in 100 ms",
        curve.peak(&curve.attempts),
        curve.peak(&curve.connects)
    );
    if let Some(file) = &options.plot {
        fs::write(file, plot::svg(&curve)).map_err(|it| format!("{}: {it}", file.display()))?;
        eprintln!("drawn into {}", file.display());
    }
    Ok(back == count)
}

async fn storm(options: &Options, count: usize) -> Result<(Curve, usize)> {
    let broker = LocalBroker::default();
    let server = serve(TcpListener::bind("127.0.0.1:0").await?, broker.clone())?;
    let address = server.local_addr();
    eprintln!("{count} clients connect, seed {}", options.seed);
    let mut connections = Vec::new();
    let mut connecting = JoinSet::new();
    for client in 0..count {
        let seed = options.seed.wrapping_mul(1_000_003) + client as u64;
        let options = Connecting::default()
            .addresses([Address::tcp("127.0.0.1", address.port())])
            .recovery(Policy::new(seed));
        connecting.spawn(async move { connect_with(&options).await });
        if connecting.len() == TOGETHER || client == count - 1 {
            while let Some(connected) = connecting.join_next().await {
                connections.push(connected??);
            }
        }
    }

    let lost_at = Instant::now();
    let mut watching = JoinSet::new();
    for connection in &connections {
        watching.spawn(watch(connection.recovery_events(), lost_at));
    }
    eprintln!("the broker is away for {}", seconds(options.down));
    drop(server);
    time::sleep(options.down).await;
    let server = serve(TcpListener::bind(address).await?, broker)?;
    let mut curve = Curve::new(count, lost_at.elapsed());
    let deadline = time::Instant::now() + PATIENCE;
    let mut back = 0;
    while let Ok(Some(watched)) = time::timeout_at(deadline, watching.join_next()).await {
        let (attempts, connected) = watched?;
        curve.attempts.extend(attempts);
        curve.connects.extend(connected);
        back += usize::from(connected.is_some());
    }
    let closing: JoinSet<_> = connections
        .into_iter()
        .map(|connection| async move { connection.close().await })
        .collect();
    closing.join_all().await;
    server.shutdown().await;
    Ok((curve, back))
}

/// The times of the attempts of a client, and that of its connect.
async fn watch(mut events: RecoveryEvents, lost_at: Instant) -> (Vec<Duration>, Option<Duration>) {
    let mut attempts = Vec::new();
    let mut is_lost = false;
    while let Some(change) = events.next().await {
        match change.event {
            RecoveryEvent::Lost(_) => is_lost = true,
            RecoveryEvent::Reconnecting { next_in, .. } => {
                attempts.push(lost_at.elapsed() + next_in);
            }
            RecoveryEvent::Connected if is_lost => return (attempts, Some(lost_at.elapsed())),
            _ => {}
        }
    }
    (attempts, None)
}

/// Raises the limit of open files to that of the system.
fn raise_files(wanted: u64) -> Result {
    let mut limits = getrlimit(Resource::Nofile);
    limits.current = limits.maximum;
    setrlimit(Resource::Nofile, limits)?;
    match limits.current {
        Some(most) if most < wanted => {
            Err(format!("{wanted} files have to be open, and only {most} may").into())
        }
        _ => Ok(()),
    }
}

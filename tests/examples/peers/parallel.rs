//! Many links at once.

use std::{collections::BTreeMap, time::Instant};

use amqp_peer::{Config, Connect, Event, Listen, Message, PeerName, Sender};

use crate::{
    Result,
    options::Parallel,
    process::{Process, Role, argument, block_on, end_of_input, peak_memory},
};

pub(crate) const HUB: &str = "parallel-hub";
pub(crate) const PEERS: &str = "parallel-peers";

/// The interval of heartbeats, for a machine with other work, in seconds.
const PATIENT: u16 = 60;

pub(crate) fn show(options: Parallel) -> Result {
    let Parallel { peers, messages } = options;
    let counts = [peers.to_string(), messages.to_string()];
    for hub_role in [Role::Listens, Role::Dials] {
        let start = |part: &str, role: Role, ports: &str| {
            let role = role.word().to_owned();
            let arguments = [counts[0].clone(), counts[1].clone(), role, ports.to_owned()];
            Process::start(part, &arguments)
        };
        // The side that listens says where.
        let (hub, others) = match hub_role {
            Role::Listens => {
                let hub = start(HUB, hub_role, "")?;
                let ports = hub.until("ports")?;
                (hub, start(PEERS, Role::Dials, &ports)?)
            }
            Role::Dials => {
                let others = start(PEERS, Role::Listens, "")?;
                let ports = others.until("ports")?;
                (start(HUB, hub_role, &ports)?, others)
            }
        };
        let result = hub.until("received")?;
        println!("{peers} links, the hub {}: {result}", hub_role.word());
        others.end()?;
        hub.end()?;
    }
    println!("none lost, all in order");
    Ok(())
}

/// Receives from all, and prints the time from the first link until the last message.
pub(crate) fn hub(arguments: &[String]) -> Result {
    block_on(1, receive(arguments))?
}

async fn receive(arguments: &[String]) -> Result {
    let peers: usize = argument(arguments, 0)?;
    let messages: u32 = argument(arguments, 1)?;
    let mut config = Config::new("hub")?.heartbeat(PATIENT);
    config.limits.pending_links = peers;
    let (peer, mut events) = amqp_peer::tokio::start(config)?;
    match Role::of(&arguments[2])? {
        Role::Listens => {
            let listening = peer.add_listener(Listen::tcp("127.0.0.1:0")).await?;
            println!("ports {}", listening.port().ok_or("no port")?);
        }
        Role::Dials => {
            for port in arguments[3].split_whitespace() {
                peer.add_connector(Connect::tcp("127.0.0.1", port.parse()?));
            }
        }
    }
    let mut next: BTreeMap<PeerName, u32> = BTreeMap::new();
    let mut first = None;
    let mut lost = 0;
    let mut missing = peers * messages as usize;
    while missing > 0 {
        match events.next().await.ok_or("the peer has stopped")? {
            Event::Up(_) => {
                first.get_or_insert_with(Instant::now);
            }
            Event::Received(received) => {
                let Sender::Peer(from) = received.from.clone() else {
                    return Err("a message of a client".into());
                };
                let body = received.accept().body.to_vec();
                let next = next.entry(from.clone()).or_default();
                if body != next.to_be_bytes() {
                    return Err(format!("{from}: {body:?} in place of {next}").into());
                }
                *next += 1;
                missing -= 1;
            }
            // On a machine with other work a link may be silent for too long; nothing is lost with it.
            Event::Down(_) => lost += 1,
            Event::Refused(_) | Event::Unreachable(_) => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    let seconds = first.ok_or("no link")?.elapsed().as_secs_f64();
    let all = peers * messages as usize;
    let peak = peak_memory()? >> 20;
    println!(
        "received {all} messages in {seconds:.2} s, {:.0} per second, with {peak} MiB at most; {lost} links ended",
        all as f64 / seconds
    );
    // The acknowledgements go out before.
    let _ = end_of_input().await;
    peer.stop().await;
    Ok(())
}

/// Many peers, which send and wait until all is accepted.
pub(crate) fn peers(arguments: &[String]) -> Result {
    block_on(1, send(arguments))?
}

async fn send(arguments: &[String]) -> Result {
    let count: usize = argument(arguments, 0)?;
    let messages: u32 = argument(arguments, 1)?;
    let role = Role::of(&arguments[2])?;
    let hub: PeerName = "hub".parse()?;
    let mut peers = Vec::new();
    for number in 0..count {
        let config = Config::new(&format!("peer {number}"))?.heartbeat(PATIENT);
        let (peer, events) = amqp_peer::tokio::start(config)?;
        // Nothing is of interest but the deliveries.
        drop(events);
        peers.push(peer);
    }
    match role {
        Role::Listens => {
            let mut ports = String::new();
            for peer in &peers {
                let listening = peer.add_listener(Listen::tcp("127.0.0.1:0")).await?;
                ports += &format!(" {}", listening.port().ok_or("no port")?);
            }
            println!("ports{ports}");
        }
        Role::Dials => {
            let port: u16 = arguments[3].parse()?;
            for peer in &peers {
                peer.add_connector(Connect::tcp("127.0.0.1", port));
            }
        }
    }
    let mut sending = Vec::new();
    for peer in &peers {
        let (peer, hub) = (peer.clone(), hub.clone());
        sending.push(tokio::spawn(async move {
            for number in 1..messages {
                peer.send(&hub, Message::new((number - 1).to_be_bytes().to_vec()))
                    .await?;
            }
            // Its acceptance includes that of those before.
            let last = Message::new((messages - 1).to_be_bytes().to_vec());
            peer.deliver(&hub, last).await?;
            Ok::<_, crate::Failure>(())
        }));
    }
    for sending in sending {
        sending.await??;
    }
    let _ = end_of_input().await;
    for peer in peers {
        peer.stop().await;
    }
    Ok(())
}

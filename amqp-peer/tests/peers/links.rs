//! Links: how they begin, end and come again.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::Duration,
};

use amqp_peer::{
    Config, Connect, ConnectorState, DownCause, Event, Limits, Listen, Message,
    amqp_driver::io::{in_thread, within},
};

use amqp_test_support::ports::free_port;

use crate::rig::{Adapter, Outcome, World, name, on_every_runtime};

on_every_runtime!(
    a_link_is_up_on_both_sides,
    a_removed_connector_leaves_nothing_that_connects,
    a_refused_attempt_is_reported_once_and_made_again,
    a_disconnect_while_a_message_is_handled_ends_the_link_once,
    input_after_the_end_of_a_link_is_ignored,
    a_second_process_of_a_name_is_refused,
    a_peer_that_dials_itself_is_refused,
    a_message_before_the_login_ends_the_connection,
    a_connection_that_ends_in_the_greeting_is_forgotten,
    peers_that_dial_each_other_keep_one_link,
    a_connector_dials_again_after_a_loss,
    listeners_come_and_go,
    a_listener_at_ipv6,
    a_listener_at_a_unix_socket,
    strangers_before_their_login_are_bounded,
    three_peers_talk_whoever_dials,
);

async fn a_link_is_up_on_both_sides<R: Adapter>(world: World<R>) -> Outcome {
    let mut alice = world.start("alice")?;
    let mut bob = world.start("bob")?;
    world.join(&alice, &bob).await?;
    let (at_alice, at_bob) = (alice.up().await?, bob.up().await?);
    assert_eq!((at_alice.name, at_bob.name), (name("bob"), name("alice")));
    assert_eq!(at_alice.is_listener, world.first_listens);
    assert_eq!(at_bob.is_listener, !world.first_listens);
    assert_ne!(at_alice.instance, at_bob.instance);
    assert!(alice.peer.is_up(&name("bob")) && bob.peer.is_up(&name("alice")));
    bob.peer.stop().await;
    assert_eq!(alice.down().await?.cause, DownCause::ByPeer);
    assert_eq!(bob.down().await?.cause, DownCause::Requested);
    assert!(bob.events.next().await.is_none());
    Ok(())
}

/// SNK-01.
async fn a_removed_connector_leaves_nothing_that_connects<R: Adapter>(world: World<R>) -> Outcome {
    // The system accepts the connection, and no handshake follows.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let minutes = Duration::from_secs(600);
    let bob = world.start_with(Config::new("bob")?.handshake(minutes))?;
    let port = silent.local_addr()?.port();
    let connector = bob.peer.add_connector(bob.connect(&world, port));
    let (mut accepted, _) = in_thread("accept", move || silent.accept())?.await?;
    assert!(bob.peer.remove_connector(connector));
    assert!(!bob.peer.remove_connector(connector));
    assert_eq!(bob.peer.connectors(), []);
    // The connection ends, although its handshake would have minutes.
    let read = in_thread("read", move || {
        let mut rest = Vec::new();
        accepted.read_to_end(&mut rest).map(|_| rest)
    })?;
    let limit = minutes / 10;
    let read = within(&mut world.clock(), limit, read).await;
    let _greeting = read.ok_or("the connection goes on")?;
    Ok(())
}

/// SNK-02.
async fn a_refused_attempt_is_reported_once_and_made_again<R: Adapter>(world: World<R>) -> Outcome {
    let port = free_port()?;
    let (mut alice, mut bob) = (world.start("alice")?, world.start("bob")?);
    let connector = alice.peer.add_connector(Connect::tcp("127.0.0.1", port));
    match alice.next().await? {
        Event::Unreachable(unreachable) => assert_eq!(unreachable.connector, connector),
        other => return Err(format!("{other:?}").into()),
    }
    let connectors = alice.peer.connectors();
    let info = connectors.first().ok_or("no connector")?;
    assert!(info.attempts >= 1);
    assert!(matches!(
        info.state,
        ConnectorState::Waiting | ConnectorState::Connecting
    ));
    let address = format!("127.0.0.1:{port}");
    bob.peer.add_listener(Listen::tcp(address)).await?;
    bob.up().await?;
    loop {
        match alice.next().await? {
            Event::Unreachable(_) => {}
            Event::Up(up) => break assert_eq!(up.name, name("bob")),
            other => return Err(format!("{other:?}").into()),
        }
    }
    let connectors = alice.peer.connectors();
    assert_eq!(connectors[0].state, ConnectorState::Up(name("bob")));
    Ok(())
}

/// SNK-04.
pub(crate) async fn a_disconnect_while_a_message_is_handled_ends_the_link_once<R: Adapter>(
    world: World<R>,
) -> Outcome {
    let (mut alice, mut bob) = world.pair().await?;
    alice.peer.send(&name("bob"), Message::new("x")).await?;
    let received = bob.received().await?;
    bob.peer.disconnect(&name("alice"));
    bob.peer.disconnect(&name("alice"));
    received.accept();
    assert_eq!(bob.down().await?.cause, DownCause::Requested);
    assert_eq!(alice.down().await?.cause, DownCause::ByPeer);
    // The connector makes the next link, over which nothing comes twice.
    alice.up().await?;
    bob.up().await?;
    alice.peer.send(&name("bob"), Message::new("y")).await?;
    bob.expect(b"y").await
}

/// SNK-05.
async fn input_after_the_end_of_a_link_is_ignored<R: Adapter>(world: World<R>) -> Outcome {
    const COUNT: u32 = 200;
    let mut alice = world.start("alice")?;
    // Some are under way at each end.
    let limits = Limits::default().window(16);
    let mut bob = world.start_with(Config::new("bob")?.limits(limits))?;
    world.link(&mut alice, &mut bob).await?;
    for number in 0..COUNT {
        let mut body = number.to_be_bytes().to_vec();
        body.resize(20_000, 0);
        alice.peer.send(&name("bob"), Message::new(body)).await?;
    }
    // What the other side sends until it knows of the end is of no account: it comes once, with the
    // next link.
    let (mut next, mut is_up, mut ends) = (0, true, 0);
    while next < COUNT {
        match bob.next().await? {
            Event::Received(received) => {
                assert!(is_up);
                let body = received.accept().body.to_vec();
                assert_eq!(body[..4], next.to_be_bytes());
                next += 1;
                if next % 50 == 1 {
                    bob.peer.disconnect(&name("alice"));
                }
            }
            Event::Down(down) => {
                assert_eq!(down.cause, DownCause::Requested);
                assert!(std::mem::take(&mut is_up));
                ends += 1;
            }
            Event::Up(_) => assert!(!std::mem::replace(&mut is_up, true)),
            other => return Err(format!("{other:?}").into()),
        }
    }
    assert!(ends >= 3, "{ends}");
    Ok(())
}

/// SNK-15.
async fn a_second_process_of_a_name_is_refused<R: Adapter>(world: World<R>) -> Outcome {
    let mut bob = world.start("bob")?;
    let listening = bob.listen(&world).await?;
    let (mut first, mut second) = (world.start("alice")?, world.start("alice")?);
    first.dial(&world, &listening);
    first.up().await?;
    bob.up().await?;
    second.dial(&world, &listening);
    let refused = second.refused().await?;
    assert_eq!(refused.cause, DownCause::NameInUse, "{}", refused.reason);
    assert_eq!(bob.refused().await?.cause, DownCause::NameInUse);
    assert!(bob.peer.is_up(&name("alice")));
    let up = bob.peer.links().into_iter().filter(|link| link.is_up);
    assert_eq!(up.count(), 1);
    Ok(())
}

async fn a_peer_that_dials_itself_is_refused<R: Adapter>(world: World<R>) -> Outcome {
    let mut bob = world.start("bob")?;
    let listening = bob.listen(&world).await?;
    bob.dial(&world, &listening);
    for _ in 0..2 {
        assert_eq!(bob.refused().await?.cause, DownCause::OwnName);
    }
    Ok(())
}

/// SNK-16.
async fn a_message_before_the_login_ends_the_connection<R: Adapter>(world: World<R>) -> Outcome {
    let mut bob = world.start("bob")?;
    let listening = bob.listen(&world).await?;
    let port = listening.port().ok_or("no port")?;
    let stranger = in_thread("stranger", move || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        // A protocol header, and basic.publish on channel 1 to the routing key "p".
        stream.write_all(b"AMQP\0\0\x09\x01")?;
        let publish = b"\x01\x00\x01\x00\x00\x00\x0a\x00\x3c\x00\x28\x00\x00\x00\x01p\x00\xce";
        stream.write_all(publish)?;
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        Ok(answer)
    })?;
    stranger.await?;
    let refused = bob.refused().await?;
    assert_eq!(refused.name, None);
    assert!(refused.is_listener);
    assert!(bob.events.try_next().is_none());
    Ok(())
}

/// SNK-17.
async fn a_connection_that_ends_in_the_greeting_is_forgotten<R: Adapter>(
    world: World<R>,
) -> Outcome {
    let mut bob = world.start("bob")?;
    let listening = bob.listen(&world).await?;
    let port = listening.port().ok_or("no port")?;
    for greeting in [&b""[..], b"AMQP", b"AMQP\0\0\x09\x01"] {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.write_all(greeting)?;
        drop(stream);
        assert_eq!(bob.refused().await?.cause, DownCause::Transport);
    }
    // The listener goes on.
    let mut alice = world.start("alice")?;
    alice.dial(&world, &listening);
    alice.up().await?;
    bob.up().await?;
    assert_eq!(bob.peer.links().len(), 1);
    Ok(())
}

/// SNK-42.
async fn peers_that_dial_each_other_keep_one_link<R: Adapter>(world: World<R>) -> Outcome {
    let (mut alice, mut bob) = (world.start("alice")?, world.start("bob")?);
    let (at_alice, at_bob) = (alice.listen(&world).await?, bob.listen(&world).await?);
    if world.first_listens {
        alice.dial(&world, &at_bob);
        bob.dial(&world, &at_alice);
    } else {
        bob.dial(&world, &at_alice);
        alice.dial(&world, &at_bob);
    }
    // Whatever link came first, messages pass in both directions, each once.
    for number in 0..50 {
        let body = format!("{number}");
        alice
            .peer
            .send(&name("bob"), Message::new(body.clone()))
            .await?;
        bob.peer
            .send(&name("alice"), Message::new(body.clone()))
            .await?;
        for node in [&mut alice, &mut bob] {
            loop {
                match node.next().await? {
                    Event::Received(received) => {
                        assert_eq!(received.accept().body.to_vec(), body.as_bytes());
                        break;
                    }
                    Event::Up(_) | Event::Down(_) | Event::Refused(_) => {}
                    other => return Err(format!("{other:?}").into()),
                }
            }
        }
    }
    for node in [&alice, &bob] {
        let links = node.peer.links();
        assert_eq!(
            links.iter().filter(|link| link.is_up).count(),
            1,
            "{links:?}"
        );
    }
    // Both agree on the link that stays, and the connector of the other one sleeps.
    let listens = |node: &crate::rig::Node| {
        let link = node.peer.links().into_iter().find(|link| link.is_up);
        link.is_some_and(|link| link.is_listener)
    };
    assert_ne!(listens(&alice), listens(&bob));
    let state = |node: &crate::rig::Node| node.peer.connectors().remove(0).state;
    let (dials, waits, other) = if listens(&alice) {
        (&bob, &mut alice, name("bob"))
    } else {
        (&alice, &mut bob, name("alice"))
    };
    assert!(matches!(state(dials), ConnectorState::Up(_)));
    let mut clock = world.clock();
    while state(waits) != ConnectorState::Sleeping(other.clone()) {
        let pause = Duration::from_millis(10);
        let _passed = within(&mut clock, pause, std::future::pending::<()>()).await;
    }
    let attempts = waits.peer.connectors().remove(0).attempts;
    // Each waits twice as long as the one before it, on a busy machine too.
    assert!(attempts <= 6, "{attempts}");
    Ok(())
}

async fn a_connector_dials_again_after_a_loss<R: Adapter>(world: World<R>) -> Outcome {
    let (mut alice, mut bob) = world.pair().await?;
    for round in 0..3 {
        let node = if round % 2 == 0 { &alice } else { &bob };
        node.peer.disconnect(&name("alice"));
        node.peer.disconnect(&name("bob"));
        for node in [&mut alice, &mut bob] {
            node.down().await?;
            node.up().await?;
        }
    }
    Ok(())
}

async fn listeners_come_and_go<R: Adapter>(world: World<R>) -> Outcome {
    let (mut alice, mut bob) = (world.start("alice")?, world.start("bob")?);
    let first = bob.listen(&world).await?;
    let second = bob.listen(&world).await?;
    assert_eq!(bob.peer.listeners(), [first.id, second.id]);
    // A port in use is an error, and no listener.
    let in_use = Listen::tcp(first.address.to_string());
    assert!(bob.peer.add_listener(in_use).await.is_err());
    assert!(bob.peer.add_listener(Listen::tcp("no port")).await.is_err());
    assert_eq!(bob.peer.listeners(), [first.id, second.id]);

    alice.dial(&world, &second);
    alice.up().await?;
    bob.up().await?;
    assert!(bob.peer.remove_listener(first.id) && bob.peer.remove_listener(second.id));
    assert!(!bob.peer.remove_listener(second.id));
    // The link stays, and the port becomes free.
    alice.peer.send(&name("bob"), Message::new("x")).await?;
    bob.expect(b"x").await?;
    let again = Listen::tcp(first.address.to_string());
    while bob.peer.add_listener(again.clone()).await.is_err() {}
    Ok(())
}

async fn a_listener_at_ipv6<R: Adapter>(world: World<R>) -> Outcome {
    let (mut alice, mut bob) = (world.start("alice")?, world.start("bob")?);
    let listening = bob.peer.add_listener(Listen::tcp("[::1]:0")).await?;
    let port = listening.port().ok_or("no port")?;
    alice.peer.add_connector(Connect::tcp("::1", port));
    alice.up().await?;
    bob.up().await?;
    Ok(())
}

async fn a_listener_at_a_unix_socket<R: Adapter>(world: World<R>) -> Outcome {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("bob");
    // A file of a process that has ended.
    drop(std::os::unix::net::UnixListener::bind(&path)?);
    let (mut alice, mut bob) = (world.start("alice")?, world.start("bob")?);
    let listening = bob.peer.add_listener(Listen::unix(&path)).await?;
    let in_use = world.start("other")?;
    assert!(in_use.peer.add_listener(Listen::unix(&path)).await.is_err());
    // The other one has looked whether the socket is in use.
    bob.refused().await?;
    alice.peer.add_connector(Connect::unix(&path));
    alice.up().await?;
    bob.up().await?;
    alice.peer.send(&name("bob"), Message::new("x")).await?;
    bob.expect(b"x").await?;
    assert!(bob.peer.remove_listener(listening.id));
    bob.peer.stop().await;
    assert!(!path.exists());
    Ok(())
}

async fn strangers_before_their_login_are_bounded<R: Adapter>(world: World<R>) -> Outcome {
    let mut config = Config::new("bob")?;
    config.limits.pending_links = 3;
    let mut bob = world.start_with(config)?;
    let listening = bob.listen(&world).await?;
    let port = listening.port().ok_or("no port")?;
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, port));
    let strangers: Vec<TcpStream> = (0..3).map(|_| connect()).collect::<Result<_, _>>()?;
    // The fourth one is closed without a word.
    let mut fourth = connect()?;
    let read = in_thread("read", move || {
        let mut rest = Vec::new();
        let _reset = fourth.read_to_end(&mut rest);
        rest
    })?;
    assert_eq!(read.await, b"");
    assert!(matches!(bob.next().await?, Event::NotAccepted(_)));
    drop(strangers);
    for _ in 0..3 {
        assert_eq!(bob.refused().await?.cause, DownCause::Transport);
    }
    let mut alice = world.start("alice")?;
    alice.dial(&world, &listening);
    bob.up().await?;
    alice.up().await?;
    Ok(())
}

/// SNK-33.
async fn three_peers_talk_whoever_dials<R: Adapter>(world: World<R>) -> Outcome {
    let mut nodes = [
        world.start("alice")?,
        world.start("bob")?,
        world.start("jack")?,
    ];
    let names = ["alice", "bob", "jack"];
    // Each one listens, each one dials the next; in one run before, in the other one after the
    // listener is there.
    let mut ports = Vec::new();
    for _ in &nodes {
        ports.push(free_port()?);
    }
    for listens in [world.first_listens, !world.first_listens] {
        for (index, node) in nodes.iter().enumerate() {
            if listens {
                let address = format!("127.0.0.1:{}", ports[index]);
                node.peer.add_listener(Listen::tcp(address)).await?;
            } else {
                let port = ports[(index + 1) % 3];
                node.peer.add_connector(Connect::tcp("127.0.0.1", port));
            }
        }
    }
    for (index, node) in nodes.iter().enumerate() {
        for other in (0..3).filter(|other| *other != index) {
            let message = Message::new(names[index]);
            node.peer.send(&name(names[other]), message).await?;
        }
    }
    for (index, node) in nodes.iter_mut().enumerate() {
        let mut senders = Vec::new();
        while senders.len() < 2 {
            if let Event::Received(received) = node.next().await? {
                senders.push(String::from_utf8(received.accept().body.to_vec())?);
            }
        }
        senders.sort();
        let mut others = names.to_vec();
        others.remove(index);
        assert_eq!(senders, others);
    }
    Ok(())
}

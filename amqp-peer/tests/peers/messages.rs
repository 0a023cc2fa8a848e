//! Messages: whole, in order, once.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use amqp_peer::{
    Config, DropReason, Event, Message, Receipts, SendError, Sender, Undelivered,
    amqp_driver::{io::in_thread, wire::FieldTable},
    rpc::Hooks,
    storage::MemoryStorage,
};

use crate::rig::{Adapter, Node, Outcome, World, name, on_every_runtime};

on_every_runtime!(
    a_large_message_arrives_whole,
    messages_arrive_in_order,
    all_of_a_message_arrives_as_it_was_sent,
    hooks_run_for_received_messages,
    a_message_from_another_thread_wakes_a_sleeping_link,
    a_message_waits_for_a_peer_that_comes_later,
    a_delivery_ends_with_its_acceptance,
    a_delivery_ends_with_its_drop,
    receipts_follow_a_message,
    a_message_that_is_not_accepted_comes_again,
    a_full_outbox_makes_senders_wait,
    persistent_messages_survive_a_restart,
    a_receiver_that_restarts_gets_each_message_once,
    two_hundred_peers_send_a_thousand_messages_each,
);

/// SNK-03 and SNK-10.
pub(crate) async fn a_large_message_arrives_whole<R: Adapter>(world: World<R>) -> Outcome {
    let (mut alice, mut bob) = world.pair().await?;
    let body: Vec<u8> = (0..800_000_u32).map(|it| (it % 251) as u8).collect();
    alice
        .peer
        .send(&name("bob"), Message::new(body.clone()))
        .await?;
    bob.peer
        .send(&name("alice"), Message::new(body.clone()))
        .await?;
    assert!(bob.accept().await?.body.to_vec() == body);
    assert!(alice.accept().await?.body.to_vec() == body);
    Ok(())
}

/// SNK-09.
pub(crate) async fn messages_arrive_in_order<R: Adapter>(world: World<R>) -> Outcome {
    let (mut alice, mut bob) = world.pair().await?;
    for body in ["one", "two", "three", "four"] {
        alice.peer.send(&name("bob"), Message::new(body)).await?;
    }
    for body in ["one", "two", "three", "four"] {
        bob.expect(body.as_bytes()).await?;
    }
    for number in 0..5000_u32 {
        alice
            .peer
            .send(&name("bob"), Message::new(number.to_string()))
            .await?;
    }
    for number in 0..5000_u32 {
        bob.expect(number.to_string().as_bytes()).await?;
    }
    assert!(alice.events.try_next().is_none());
    Ok(())
}

/// SNK-14.
async fn all_of_a_message_arrives_as_it_was_sent<R: Adapter>(world: World<R>) -> Outcome {
    let (alice, mut bob) = world.pair().await?;
    let headers = FieldTable::new().with("number", 3).with("text", "ä");
    let messages = [
        Message::new(""),
        Message::new(&b"\0\xff"[..]).persistent(),
        Message::new("x").ttl(Duration::from_secs(5)),
        Message::new("x").ttl(Duration::ZERO),
        Message::new("x")
            .kind("greeting")?
            .correlation_id("7")?
            .content_type("text/plain")?
            .headers(headers)
            .ttl(Duration::from_millis(1234))
            .persistent(),
    ];
    for message in messages {
        let id = alice.peer.send(&name("bob"), message.clone()).await?;
        let received = bob.received().await?;
        assert_eq!(received.from, Sender::Peer(name("alice")));
        assert_eq!((received.id, received.is_repeated), (id, false));
        assert_eq!(received.accept(), message);
    }
    let reserved = FieldTable::new().with("x-peer-ttl-ms", 1);
    let refused = bob
        .peer
        .send(&name("alice"), Message::new("x").headers(reserved))
        .await;
    assert_eq!(refused, Err(SendError::ReservedHeader));
    Ok(())
}

/// SNK-19.
async fn hooks_run_for_received_messages<R: Adapter>(world: World<R>) -> Outcome {
    let (alice, mut bob) = world.pair().await?;
    let ran = Arc::<Mutex<Vec<&str>>>::default();
    let mut hooks = Hooks::new();
    for pattern in ["aa", "a", "ab"] {
        let ran = Arc::clone(&ran);
        hooks.on(pattern, move |_| ran.lock().unwrap().push(pattern))?;
    }
    for (body, expected) in [
        ("aa", &["aa", "a"][..]),
        ("aax", &["aa", "a"]),
        ("abx", &["a", "ab"]),
        ("xaa", &[]),
    ] {
        alice.peer.send(&name("bob"), Message::new(body)).await?;
        assert_eq!(hooks.run(&bob.accept().await?), expected.len());
        assert_eq!(std::mem::take(&mut *ran.lock().unwrap()), expected);
    }
    Ok(())
}

/// SNK-08.
async fn a_message_from_another_thread_wakes_a_sleeping_link<R: Adapter>(
    world: World<R>,
) -> Outcome {
    let (alice, mut bob) = world.pair().await?;
    for _ in 0..20 {
        let peer = alice.peer.clone();
        let sent = in_thread("other", move || {
            peer.try_send(&name("bob"), Message::new("x"))
        })?;
        bob.expect(b"x").await?;
        sent.await?;
    }
    assert!(bob.events.try_next().is_none());
    Ok(())
}

/// SNK-34.
async fn a_message_waits_for_a_peer_that_comes_later<R: Adapter>(world: World<R>) -> Outcome {
    let mut alice = world.start("alice")?;
    let message = Message::new("early").ttl(Duration::from_secs(600));
    alice.peer.send(&name("bob"), message).await?;
    assert_eq!(alice.peer.outbox(&name("bob")).messages, 1);
    let now_or_never = Message::new("never").ttl(Duration::ZERO);
    let refused = alice.peer.send(&name("bob"), now_or_never).await;
    assert!(matches!(refused, Err(SendError::NotConnected { .. })));
    let mut bob = world.start("bob")?;
    world.link(&mut alice, &mut bob).await?;
    let early = bob.accept().await?;
    assert_eq!(early.body.to_vec(), b"early");
    assert!(early.ttl.is_some_and(|ttl| ttl <= Duration::from_secs(600)));
    Ok(())
}

async fn a_delivery_ends_with_its_acceptance<R: Adapter>(world: World<R>) -> Outcome {
    let (mut alice, mut bob) = world.pair().await?;
    let to = name("bob");
    let receiving = async {
        for _ in 0..10 {
            bob.accept().await?;
        }
        Ok(())
    };
    let sending = async {
        for _ in 0..10 {
            alice.peer.deliver(&to, Message::new("x")).await?;
        }
        Ok(())
    };
    both(sending, receiving).await?;
    assert!(alice.events.try_next().is_none());
    assert_eq!(alice.peer.outbox(&to).messages, 0);
    Ok(())
}

/// Runs two futures at once.
pub(crate) async fn both(
    first: impl Future<Output = Outcome>,
    second: impl Future<Output = Outcome>,
) -> Outcome {
    let (mut first, mut second) = (Box::pin(first), Box::pin(second));
    let (mut ended, mut other_ended) = (false, false);
    std::future::poll_fn(|cx| {
        if !ended && let std::task::Poll::Ready(outcome) = first.as_mut().poll(cx) {
            outcome?;
            ended = true;
        }
        if !other_ended && let std::task::Poll::Ready(outcome) = second.as_mut().poll(cx) {
            outcome?;
            other_ended = true;
        }
        if ended && other_ended {
            std::task::Poll::Ready(Ok(()))
        } else {
            std::task::Poll::Pending
        }
    })
    .await
}

async fn a_delivery_ends_with_its_drop<R: Adapter>(world: World<R>) -> Outcome {
    let mut alice = world.start("alice")?;
    let to = name("bob");
    let mortal = Message::new("mortal").ttl(Duration::from_millis(50));
    let undelivered = alice.peer.deliver(&to, mortal).await;
    let reason = undelivered
        .as_ref()
        .err()
        .and_then(Undelivered::drop_reason);
    assert_eq!(reason, Some(DropReason::Expired));
    let message = undelivered.as_ref().err().and_then(Undelivered::message);
    assert!(message.is_some_and(|message| message.body == "mortal"));

    let stopping = alice.peer.clone();
    let waiting = alice.peer.deliver(&to, Message::new("waits").persistent());
    let stop = async {
        stopping.stop().await;
        Ok(())
    };
    let waiting = async {
        let undelivered = waiting.await;
        assert!(undelivered.is_err(), "{undelivered:?}");
        Ok(())
    };
    both(waiting, stop).await?;
    assert!(alice.events.next().await.is_none());
    let late = alice.peer.send(&to, Message::new("late")).await;
    assert!(matches!(late, Err(SendError::Stopped)), "{late:?}");
    Ok(())
}

async fn receipts_follow_a_message<R: Adapter>(world: World<R>) -> Outcome {
    let config = Config::new("alice")?.receipts(Receipts::All);
    let (mut alice, mut bob) = (world.start_with(config)?, world.start("bob")?);
    world.link(&mut alice, &mut bob).await?;
    let sent = alice.peer.send(&name("bob"), Message::new("x")).await?;
    match alice.next().await? {
        Event::Written { to, id } => assert_eq!((to, id), (name("bob"), sent)),
        other => return Err(format!("{other:?}").into()),
    }
    bob.expect(b"x").await?;
    match alice.next().await? {
        Event::Delivered { to, id } => assert_eq!((to, id), (name("bob"), sent)),
        other => return Err(format!("{other:?}").into()),
    }
    Ok(())
}

async fn a_message_that_is_not_accepted_comes_again<R: Adapter>(world: World<R>) -> Outcome {
    let (alice, mut bob) = world.pair().await?;
    let sent = alice.peer.send(&name("bob"), Message::new("x")).await?;
    let first = bob.received().await?;
    assert!(!first.is_repeated);
    drop(first);
    let again = bob.received().await?;
    assert_eq!(again.id, sent);
    again.requeue();
    bob.expect(b"x").await
}

async fn a_full_outbox_makes_senders_wait<R: Adapter>(world: World<R>) -> Outcome {
    let mut config = Config::new("alice")?;
    config.limits.outbox_messages = 10;
    let (mut alice, mut bob) = (world.start_with(config)?, world.start("bob")?);
    for number in 0..10 {
        alice
            .peer
            .try_send(&name("bob"), Message::new(format!("{number}")))?;
    }
    let full = alice.peer.try_send(&name("bob"), Message::new("too many"));
    assert!(matches!(full, Err(SendError::Full { .. })), "{full:?}");
    world.link(&mut alice, &mut bob).await?;
    let sending = async {
        for number in 10..500 {
            alice
                .peer
                .send(&name("bob"), Message::new(format!("{number}")))
                .await?;
        }
        Ok(())
    };
    let receiving = async {
        for number in 0..500 {
            bob.expect(format!("{number}").as_bytes()).await?;
        }
        Ok(())
    };
    both(sending, receiving).await
}

/// SNK-25 and SNK-35, after a stop.
async fn persistent_messages_survive_a_restart<R: Adapter>(world: World<R>) -> Outcome {
    let storage = MemoryStorage::new();
    let alice = world.start_with(Config::new("alice")?.storage(storage.clone()))?;
    for number in 0..5 {
        let message = Message::new(format!("{number}"));
        alice
            .peer
            .send(&name("bob"), message.clone().persistent())
            .await?;
        alice.peer.send(&name("bob"), message).await?;
    }
    stop(alice).await?;
    let mut alice = world.start_with(Config::new("alice")?.storage(storage))?;
    assert_eq!(alice.peer.outbox(&name("bob")).messages, 5);
    let mut bob = world.start("bob")?;
    world.link(&mut alice, &mut bob).await?;
    for number in 0..5 {
        bob.expect(format!("{number}").as_bytes()).await?;
    }
    alice
        .peer
        .send(&name("bob"), Message::new("the last"))
        .await?;
    bob.expect(b"the last").await
}

/// Stops a peer, and counts the messages that it has dropped.
async fn stop(mut node: Node) -> Result<usize, crate::rig::Failure> {
    node.peer.stop().await;
    let mut dropped = 0;
    while let Some(event) = node.events.next().await {
        if let Event::Dropped(dropping) = event {
            assert_eq!(dropping.reason, DropReason::Stopped);
            dropped += 1;
        }
    }
    Ok(dropped)
}

/// SNK-39.
async fn a_receiver_that_restarts_gets_each_message_once<R: Adapter>(world: World<R>) -> Outcome {
    const COUNT: usize = 50;
    let (sending, receiving) = (MemoryStorage::new(), MemoryStorage::new());
    let mut alice = world.start_with(Config::new("alice")?.storage(sending))?;
    let mut bob = world.start_with(Config::new("bob")?.storage(receiving.clone()))?;
    let body = |number: usize| {
        let mut body = vec![b'.'; 1_000_000];
        body[0] = number as u8;
        body
    };
    world.link(&mut alice, &mut bob).await?;
    let to = name("bob");
    let peer = alice.peer.clone();
    let sending = async {
        for number in 0..COUNT {
            peer.send(&to, Message::new(body(number)).persistent())
                .await?;
        }
        Ok(())
    };
    let receiving = async {
        for number in 0..5 {
            let message = bob.accept().await?;
            assert_eq!(message.body.to_vec()[0], number as u8);
        }
        let setup = Config::new("bob")?.storage(receiving);
        stop(bob).await?;
        let mut bob = world.start_with(setup)?;
        // The link comes again by another connector or listener: the old ones went with the peer.
        world.join(&alice, &bob).await?;
        bob.up().await?;
        for number in 5..COUNT {
            let message = bob.accept().await?;
            assert_eq!(message.body.to_vec()[0], number as u8);
        }
        Ok(bob)
    };
    let mut last = None;
    let receiving = async {
        last = Some(
            receiving
                .await
                .map_err(|error: crate::rig::Failure| error)?,
        );
        Ok(())
    };
    both(sending, receiving).await?;
    let mut bob = last.ok_or("no receiver")?;
    alice.peer.send(&to, Message::new("the end")).await?;
    bob.expect(b"the end").await
}

/// SNK-44.
async fn two_hundred_peers_send_a_thousand_messages_each<R: Adapter>(world: World<R>) -> Outcome {
    const PEERS: usize = 200;
    const EACH: usize = 1000;
    let mut config = Config::new("hub")?;
    config.limits.pending_links = PEERS;
    let mut hub = world.start_with(config)?;
    let mut nodes = Vec::new();
    let listening = hub.listen(&world).await?;
    for number in 0..PEERS {
        let node = world.start(&format!("peer {number}"))?;
        if world.first_listens {
            node.dial(&world, &listening);
        } else {
            let listening = node.listen(&world).await?;
            hub.dial(&world, &listening);
        }
        nodes.push(node);
    }
    for number in 0..EACH {
        for node in &nodes {
            let body = format!("{number}");
            node.peer.try_send(&name("hub"), Message::new(body))?;
        }
    }
    let mut next = std::collections::BTreeMap::new();
    let mut count = 0;
    while count < PEERS * EACH {
        if let Event::Received(received) = hub.next().await? {
            let Sender::Peer(from) = received.from.clone() else {
                return Err("not a peer".into());
            };
            let number = next.entry(from).or_insert(0);
            let body = received.accept().body.to_vec();
            assert_eq!(body, number.to_string().as_bytes());
            *number += 1;
            count += 1;
        }
    }
    assert_eq!(next.len(), PEERS);
    hub.peer.stop().await;
    Ok(())
}

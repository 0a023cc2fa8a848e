//! Failures beside the links: of the storage, of the inbox, and of the application's own values.

use amqp_peer::{
    Clients, Config, DropReason, Event, Limits, Message, Peer, PeerBroker, Receipts, SendError,
    amqp_driver::{
        self,
        protocol::{ReplyCode, basic},
    },
    broker,
    storage::{Change, Storage, StorageError, Stored},
};
use bytes::Bytes;

use crate::{
    messages::both,
    rig::{Adapter, Failure, Node, Outcome, World, name, on_every_runtime},
};

on_every_runtime!(
    a_storage_that_panics_has_stored_nothing,
    a_dropped_delivery_leaves_its_fate_to_the_events,
    an_inbox_that_is_closed_begins_again,
    an_inbox_with_a_closed_channel_keeps_its_messages,
    a_broker_without_configuration_lets_no_client_in,
    deliveries_go_on_while_events_are_not_taken,
    links_go_on_after_full_events_are_dropped,
    bodies_may_use_the_peer_when_they_are_dropped,
    a_try_send_does_not_overtake_a_send_that_waits,
);

/// A storage that panics when it is to store something.
struct Panicking;

impl Storage for Panicking {
    fn load(&mut self) -> Result<Stored, StorageError> {
        Ok(Stored::default())
    }

    fn apply(&mut self, _changes: &[Change]) -> Result<(), StorageError> {
        panic!("for a test");
    }
}

async fn a_storage_that_panics_has_stored_nothing<R: Adapter>(world: World<R>) -> Outcome {
    let bob = world.start_with(Config::new("bob")?.storage(Panicking))?;
    for _ in 0..3 {
        let message = Message::new("x").persistent();
        let error = bob.peer.send(&name("alice"), message).await.err();
        assert!(
            matches!(error, Some(SendError::Storage { .. } | SendError::Stopped)),
            "{error:?}"
        );
    }
    bob.peer.stopped().await;
    Ok(())
}

async fn a_dropped_delivery_leaves_its_fate_to_the_events<R: Adapter>(world: World<R>) -> Outcome {
    let mut bob = world.start("bob")?;
    let to = name("alice");
    {
        let mut delivery = Box::pin(bob.peer.deliver(&to, Message::new("x")));
        std::future::poll_fn(|cx| {
            assert!(delivery.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        // The end is there, and was not taken.
        bob.peer.forget(&to);
    }
    match bob.next().await? {
        Event::Dropped(dropped) => assert_eq!(dropped.reason, DropReason::Removed),
        other => return Err(format!("{other:?}").into()),
    }
    Ok(())
}

/// A peer with a broker of the user `guest`, and a client of it, once the inbox works.
async fn with_client<R: Adapter>(
    world: &World<R>,
) -> Result<(Node, amqp_driver::Connection), Failure> {
    let setup = Config::new("bob")?.clients(Clients::Allow);
    let mut bob = world.start_with(setup.broker(broker::Config::default()))?;
    let port = bob.listen(world).await?.port().ok_or("no port")?;
    let client = client_of::<R>(&mut bob, port).await?;
    Ok((bob, client))
}

/// A client of a peer, once the inbox of that works.
pub(crate) async fn client_of<R: Adapter>(
    bob: &mut Node,
    port: u16,
) -> Result<amqp_driver::Connection, Failure> {
    let uri = format!("amqp://guest:guest@127.0.0.1:{port}");
    let options = amqp_driver::Options::from_uri(&uri)?;
    let client = amqp_driver::connect(&R::default(), &options).await?;
    publish(&client).await?;
    bob.expect(b"x").await?;
    Ok(client)
}

/// Publishes to the inbox until that works.
async fn publish(client: &amqp_driver::Connection) -> Outcome {
    let channel = client.open_channel().await?.confirm_select().await?;
    let publish = basic::Publish::default()
        .routing_key("peer.inbox")
        .mandatory(true);
    let properties = basic::Properties::default();
    while channel
        .publish(&publish, &properties, "x")
        .await?
        .await
        .is_err()
    {}
    Ok(())
}

/// The connection of the inbox.
fn own_connection(broker: &PeerBroker) -> Result<broker::ConnectionKey, Failure> {
    let connections = broker.inspect().connections;
    let own = connections.iter().find(|it| it.user == "peer.inbox");
    Ok(own.ok_or("no connection")?.key)
}

async fn an_inbox_that_is_closed_begins_again<R: Adapter>(world: World<R>) -> Outcome {
    let (mut bob, client) = with_client(&world).await?;
    let broker = bob.peer.broker().ok_or("no broker")?;
    for _ in 0..2 {
        let key = own_connection(&broker)?;
        broker.with(|it| {
            it.faults()
                .close_connection(key, ReplyCode::CONNECTION_FORCED, "by a test");
        });
        match bob.next().await? {
            Event::InboxFailed(error) => assert!(error.to_string().contains("by a test")),
            other => return Err(format!("{other:?}").into()),
        }
        // Until the former connection is gone, and with it the former queue.
        while own_connection(&broker).is_ok_and(|it| it == key) {
            client.open_channel().await?.close().await?;
        }
        publish(&client).await?;
        bob.expect(b"x").await?;
    }
    bob.peer.stop().await;
    Ok(())
}

async fn an_inbox_with_a_closed_channel_keeps_its_messages<R: Adapter>(world: World<R>) -> Outcome {
    let (mut bob, client) = with_client(&world).await?;
    publish(&client).await?;
    let kept = bob.received().await?;
    let broker = bob.peer.broker().ok_or("no broker")?;
    let key = own_connection(&broker)?;
    // As after the time limit of acknowledgements.
    broker.with(|it| {
        it.faults()
            .close_channel(key, 1, ReplyCode::PRECONDITION_FAILED, "by a test");
    });
    assert!(matches!(bob.next().await?, Event::InboxFailed(_)));
    let again = bob.received().await?;
    assert!(again.is_repeated);
    again.accept();
    kept.accept();
    bob.peer.stop().await;
    Ok(())
}

async fn a_broker_without_configuration_lets_no_client_in<R: Adapter>(world: World<R>) -> Outcome {
    let bob = world.start_with(Config::new("bob")?.clients(Clients::Allow))?;
    let port = bob.listen(&world).await?.port().ok_or("no port")?;
    let uri = format!("amqp://guest:guest@127.0.0.1:{port}");
    let options = amqp_driver::Options::from_uri(&uri)?;
    let refused = amqp_driver::connect(&R::default(), &options).await;
    assert!(refused.is_err_and(|error| error.is_access_refused()));
    Ok(())
}

/// Two linked peers, the first one of which has more events than it keeps.
async fn with_full_events<R: Adapter>(world: &World<R>) -> Result<(Node, Node), Failure> {
    let mut alice = world.start_with(Config::new("alice")?.receipts(Receipts::All))?;
    let mut bob = world.start("bob")?;
    world.link(&mut alice, &mut bob).await?;
    for _ in 0..20 {
        for _ in 0..500 {
            alice.peer.send(&name("bob"), Message::new("x")).await?;
        }
        for _ in 0..500 {
            bob.accept().await?;
        }
    }
    Ok((alice, bob))
}

/// Delivers messages from the first peer to the second one.
async fn deliver(alice: &Peer, bob: &mut Node) -> Outcome {
    let to = name("bob");
    let sending = async {
        for _ in 0..10 {
            alice.deliver(&to, Message::new("y")).await?;
        }
        Ok(())
    };
    let receiving = async {
        for _ in 0..10 {
            bob.expect(b"y").await?;
        }
        Ok(())
    };
    both(sending, receiving).await
}

async fn deliveries_go_on_while_events_are_not_taken<R: Adapter>(world: World<R>) -> Outcome {
    let (mut alice, mut bob) = with_full_events(&world).await?;
    deliver(&alice.peer, &mut bob).await?;
    // Nothing is lost or noted twice: each message was written and delivered.
    bob.peer.stop().await;
    let (mut written, mut delivered) = (0, 0);
    loop {
        match alice.next().await? {
            Event::Written { .. } => written += 1,
            Event::Delivered { .. } => delivered += 1,
            Event::Unreachable(_) => {}
            Event::Down(_) => break,
            other => return Err(format!("{other:?}").into()),
        }
    }
    assert_eq!((written, delivered), (10_010, 10_000));
    Ok(())
}

async fn links_go_on_after_full_events_are_dropped<R: Adapter>(world: World<R>) -> Outcome {
    let (alice, mut bob) = with_full_events(&world).await?;
    let Node { peer, events } = alice;
    drop(events);
    deliver(&peer, &mut bob).await?;
    peer.disconnect(&name("bob"));
    bob.down().await?;
    bob.up().await?;
    deliver(&peer, &mut bob).await
}

/// A body that uses the peer when it is dropped.
struct Owner(Peer);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        b"x"
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        assert!(self.0.listeners().len() < 2);
    }
}

async fn bodies_may_use_the_peer_when_they_are_dropped<R: Adapter>(world: World<R>) -> Outcome {
    let mut limits = Limits::default();
    limits.outbox_messages = 1;
    let mut alice = world.start_with(Config::new("alice")?.limits(limits))?;
    let mut bob = world.start("bob")?;
    let peer = alice.peer.clone();
    let message = || Message::new(Bytes::from_owner(Owner(peer.clone())));
    let refused = alice.peer.send(&name("alice"), message()).await;
    assert!(matches!(refused, Err(SendError::OwnName)));
    alice.peer.try_send(&name("bob"), message())?;
    let full = alice.peer.try_send(&name("bob"), message());
    assert!(matches!(full, Err(SendError::Full { .. })));
    alice.peer.forget(&name("bob"));
    assert!(matches!(alice.events.try_next(), Some(Event::Dropped(_))));
    alice.peer.try_send(&name("bob"), message().persistent())?;
    world.link(&mut alice, &mut bob).await?;
    bob.expect(b"x").await?;
    alice.peer.send(&name("bob"), message()).await?;
    bob.expect(b"x").await?;
    bob.peer.stop().await;
    alice.down().await?;
    Ok(())
}

async fn a_try_send_does_not_overtake_a_send_that_waits<R: Adapter>(world: World<R>) -> Outcome {
    let mut limits = Limits::default();
    limits.outbox_messages = 1;
    let bob = world.start_with(Config::new("bob")?.limits(limits))?;
    let to = name("alice");
    bob.peer.try_send(&to, Message::new("first"))?;
    let mut waiting = Box::pin(bob.peer.send(&to, Message::new("second")));
    std::future::poll_fn(|cx| {
        assert!(waiting.as_mut().poll(cx).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    bob.peer.forget(&to);
    let mut events = bob.events;
    assert!(matches!(events.try_next(), Some(Event::Dropped(_))));
    let overtaking = bob.peer.try_send(&to, Message::new("third"));
    assert!(matches!(overtaking, Err(SendError::Full { .. })));
    waiting.await?;
    Ok(())
}

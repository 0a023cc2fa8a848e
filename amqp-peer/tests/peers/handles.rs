//! Handles: what ends a peer, and the blocking ones.

use amqp_peer::{
    Clients, Config, Event, Listen, Message, Sender, StartError,
    amqp_driver::{
        self,
        protocol::{basic, queue},
    },
    blocking, broker,
    storage::{Change, Storage, StorageError, Stored},
};

use crate::rig::{Adapter, Outcome, World, name, on_every_runtime};

on_every_runtime!(
    a_peer_ends_with_its_last_handle,
    a_stopped_peer_does_nothing_more,
    the_inbox_of_plain_clients,
    a_plain_client_is_refused_by_default,
    what_a_peer_publishes_a_plain_client_consumes,
);

async fn a_peer_ends_with_its_last_handle<R: Adapter>(world: World<R>) -> Outcome {
    let (mut alice, bob) = world.pair().await?;
    let peer = bob.peer.clone();
    drop(bob.peer);
    peer.send(&name("alice"), Message::new("x")).await?;
    drop(bob.events);
    alice.expect(b"x").await?;
    drop(peer);
    alice.down().await?;
    Ok(())
}

async fn a_stopped_peer_does_nothing_more<R: Adapter>(world: World<R>) -> Outcome {
    let mut bob = world.start("bob")?;
    let listening = bob.listen(&world).await?;
    bob.dial(&world, &listening);
    bob.peer.stop().await;
    bob.peer.stop().await;
    assert_eq!(
        (bob.peer.listeners(), bob.peer.connectors()),
        (vec![], vec![])
    );
    bob.dial(&world, &listening);
    assert_eq!(bob.peer.connectors(), []);
    assert!(bob.listen(&world).await.is_err());
    while bob.events.next().await.is_some() {}
    Ok(())
}

fn uri(port: u16) -> String {
    format!("amqp://guest:guest@127.0.0.1:{port}")
}

async fn the_inbox_of_plain_clients<R: Adapter>(world: World<R>) -> Outcome {
    let setup = Config::new("bob")?.clients(Clients::Allow);
    let mut bob = world.start_with(setup.broker(broker::Config::default()))?;
    let port = bob.listen(&world).await?.port().ok_or("no port")?;
    let options = amqp_driver::Options::from_uri(&uri(port))?;
    let client = amqp_driver::connect(&R::default(), &options).await?;
    let channel = client.open_channel().await?.confirm_select().await?;
    let publish = basic::Publish::default()
        .routing_key("peer.inbox")
        .mandatory(true);
    let properties = basic::Properties {
        user_id: Some("guest".try_into()?),
        kind: Some("greeting".try_into()?),
        ..basic::Properties::default()
    };
    channel
        .publish(&publish, &properties, "hello")
        .await?
        .await?;
    let first = bob.received().await?;
    let user = "guest".to_owned();
    assert_eq!(first.from, Sender::Client { user });
    assert_eq!(first.message.properties().kind.as_str(), "greeting");
    drop(first);
    let again = bob.received().await?;
    assert!(again.is_repeated);
    assert_eq!(again.accept().body.to_vec(), b"hello");
    // It cannot take what others publish there.
    let consume = basic::Consume::default().queue("peer.inbox");
    assert!(channel.consume(consume).await.is_err());
    client.close().await?;
    bob.peer.stop().await;
    Ok(())
}

async fn a_plain_client_is_refused_by_default<R: Adapter>(world: World<R>) -> Outcome {
    let mut bob = world.start("bob")?;
    let port = bob.listen(&world).await?.port().ok_or("no port")?;
    let options = amqp_driver::Options::from_uri(&uri(port))?;
    let refused = amqp_driver::connect(&R::default(), &options).await;
    assert!(refused.is_err());
    let refused = bob.refused().await?;
    assert_eq!(refused.cause, amqp_peer::DownCause::NotAPeer);
    assert!(bob.peer.broker().is_none());
    Ok(())
}

async fn what_a_peer_publishes_a_plain_client_consumes<R: Adapter>(world: World<R>) -> Outcome {
    let mut config = broker::Config::default();
    let user = broker::User::new("billing", "secret").may("/", broker::Permissions::all());
    config.users.push(user);
    let setup = Config::new("bob")?.clients(Clients::Allow).broker(config);
    let bob = world.start_with(setup)?;
    let port = bob.listen(&world).await?.port().ok_or("no port")?;
    let wrong = format!("amqp://billing:wrong@127.0.0.1:{port}");
    let wrong = amqp_driver::Options::from_uri(&wrong)?;
    let refused = amqp_driver::connect(&R::default(), &wrong).await;
    assert!(refused.is_err_and(|error| error.is_access_refused()));

    let options =
        amqp_driver::Options::from_uri(&format!("amqp://billing:secret@127.0.0.1:{port}"))?;
    let client = amqp_driver::connect(&R::default(), &options).await?;
    let channel = client.open_channel().await?;
    channel
        .call(queue::Declare::default().queue("news"))
        .await?;
    let mut consumer = channel
        .consume(basic::Consume::default().queue("news"))
        .await?;
    let broker = bob.peer.broker().ok_or("no broker")?;
    let own = broker.connect(amqp_driver::Config::default()).await?;
    let publishing = own.open_channel().await?;
    let publish = basic::Publish::default().routing_key("news");
    publishing
        .publish(&publish, &basic::Properties::default(), "new")
        .await?;
    let delivery = consumer.next().await.ok_or("no delivery")??;
    assert_eq!(delivery.body.to_vec(), b"new");
    // The stop ends both connections.
    bob.peer.stop().await;
    client.closed().await;
    own.closed().await;
    Ok(())
}

#[test]
fn blocking_calls() -> Outcome {
    let (alice, mut from_alice) = blocking::start(Config::new("alice")?)?;
    let (bob, mut from_bob) = blocking::start(Config::new("bob")?)?;
    let listening = bob.add_listener(Listen::tcp("127.0.0.1:0"))?;
    let port = listening.port().ok_or("no port")?;
    alice.add_connector(amqp_peer::Connect::tcp("127.0.0.1", port));
    assert!(matches!(from_alice.next(), Some(Event::Up(_))));
    assert!(matches!(from_bob.next(), Some(Event::Up(_))));
    let receiving = std::thread::spawn(move || {
        if let Some(Event::Received(received)) = from_bob.next() {
            received.accept();
        }
        from_bob
    });
    alice.deliver(&name("bob"), Message::new("hello"))?;
    let from_bob = receiving.join().map_err(|_| "the receiver has panicked")?;
    bob.send(&name("alice"), Message::new("well"))?;
    let Some(Event::Received(answer)) = from_alice.next() else {
        return Err("no answer".into());
    };
    assert_eq!(answer.accept().body, "well");
    // Accepted in order: after this one, the acceptance of the answer is known.
    let receiving = std::thread::spawn(move || {
        if let Some(Event::Received(last)) = from_alice.next() {
            last.accept();
        }
        from_alice
    });
    bob.deliver(&name("alice"), Message::new("bye"))?;
    let _from_alice = receiving.join().map_err(|_| "the receiver has panicked")?;
    bob.stop();
    let rest: Vec<_> = from_bob.collect();
    assert!(matches!(rest[..], [Event::Down(_)]), "{rest:?}");
    Ok(())
}

/// A storage that cannot be read.
struct Damaged;

impl Storage for Damaged {
    fn load(&mut self) -> Result<Stored, StorageError> {
        Err(StorageError::new(
            amqp_peer::storage::StorageErrorKind::Damaged,
            "damaged for a test",
        ))
    }

    fn apply(&mut self, _changes: &[Change]) -> Result<(), StorageError> {
        Ok(())
    }
}

#[test]
fn a_storage_that_cannot_be_read_starts_no_peer() -> Outcome {
    let started = blocking::start(Config::new("bob")?.storage(Damaged));
    assert!(matches!(started, Err(StartError::Storage(_))));
    Ok(())
}

#[test]
fn without_a_runtime_no_peer_is_started_on_tokio() -> Outcome {
    let started = amqp_peer::tokio::start(Config::new("bob")?);
    assert!(matches!(started, Err(StartError::Misuse(_))));
    Ok(())
}

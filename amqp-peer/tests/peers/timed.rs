//! Times to live, over links and restarts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use amqp_peer::{
    Config, DropReason, Dropped, Event, Message, MessageId,
    storage::{Change, MemoryStorage, Storage as _, StoredMessage, WallTime},
};

use crate::rig::{Adapter, Failure, Node, Outcome, World, name, on_every_runtime};

on_every_runtime!(
    without_a_time_to_live_a_message_waits_for_ever,
    after_a_restart_the_time_to_live_goes_on,
);

async fn dropped(node: &mut Node) -> Result<Dropped, Failure> {
    match node.next().await? {
        Event::Dropped(dropped) => Ok(dropped),
        other => Err(format!("not dropped: {other:?}").into()),
    }
}

/// SNK-22, beside a message that does not.
async fn without_a_time_to_live_a_message_waits_for_ever<R: Adapter>(world: World<R>) -> Outcome {
    let (mut alice, mut bob) = (world.start("alice")?, world.start("bob")?);
    let to = name("bob");
    alice.peer.send(&to, Message::new("for ever")).await?;
    let mortal = Message::new("mortal").ttl(Duration::from_millis(50));
    alice.peer.send(&to, mortal).await?;
    let expired = dropped(&mut alice).await?;
    assert_eq!(expired.reason, DropReason::Expired);
    assert_eq!(expired.message.body, "mortal");
    world.link(&mut alice, &mut bob).await?;
    // Neither does it count with a link that comes and goes.
    alice.peer.disconnect(&to);
    alice.down().await?;
    alice.up().await?;
    loop {
        match bob.next().await? {
            Event::Received(received) => {
                let message = received.accept();
                assert_eq!(
                    (message.ttl, message.body.to_vec()),
                    (None, b"for ever".to_vec())
                );
                return Ok(());
            }
            Event::Up(_) | Event::Down(_) => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
}

/// SNK-26: a process has ended three seconds ago, without a link.
async fn after_a_restart_the_time_to_live_goes_on<R: Adapter>(world: World<R>) -> Outcome {
    let mut storage = MemoryStorage::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let pushed = |sequence: u64, body: &'static str, ttl: u64| Change::Pushed {
        to: name("bob"),
        sequence,
        message: StoredMessage {
            id: MessageId::from_bytes([sequence as u8; 16]),
            body: body.into(),
            properties: Message::default().persistent().to_wire(),
            expires_at: Some(Duration::from_secs(ttl)),
        },
    };
    storage.apply(&[
        pushed(0, "1", 1),
        pushed(1, "600", 600),
        Change::Clock {
            name: name("bob"),
            disconnected: Duration::ZERO,
            since: Some(WallTime(now - Duration::from_secs(3))),
        },
    ])?;
    let mut alice = world.start_with(Config::new("alice")?.storage(storage.clone()))?;
    let expired = dropped(&mut alice).await?;
    assert_eq!(expired.reason, DropReason::Expired);
    assert_eq!(expired.message.body, "1");
    let mut bob = world.start("bob")?;
    world.link(&mut alice, &mut bob).await?;
    let received = bob.received().await?;
    assert_eq!(received.id, MessageId::from_bytes([1; 16]));
    let message = received.accept();
    assert_eq!(message.body, "600");
    let ttl = message.ttl.ok_or("no time to live")?;
    assert!(
        ttl <= Duration::from_secs(597) && ttl > Duration::from_secs(400),
        "{ttl:?}"
    );
    Ok(())
}

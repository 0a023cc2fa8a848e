//! Links with a limit of their rate.

use std::time::{Duration, Instant};

use amqp_peer::{Config, Message, Throttle};

use crate::rig::{Adapter, Outcome, World, name, on_every_runtime};

on_every_runtime!(
    messages_flow_both_ways_over_a_throttled_link,
    a_mebibyte_takes_its_time,
);

/// SNK-43.
async fn messages_flow_both_ways_over_a_throttled_link<R: Adapter>(world: World<R>) -> Outcome {
    let throttled =
        |name| Ok::<_, crate::rig::Failure>(Config::new(name)?.throttle(Throttle::both(1_000_000)));
    let mut alice = world.start_with(throttled("alice")?)?;
    let mut bob = world.start_with(throttled("bob")?)?;
    world.link(&mut alice, &mut bob).await?;
    for number in 0..50_u8 {
        let message = || Message::new(vec![number; 1000]);
        alice.peer.send(&name("bob"), message()).await?;
        bob.peer.send(&name("alice"), message()).await?;
    }
    for number in 0..50_u8 {
        alice.expect(&[number; 1000]).await?;
        bob.expect(&[number; 1000]).await?;
    }
    Ok(())
}

/// SNK-38, at ten times its rate: the throttle holds, in each of both directions. Its accuracy of 5
/// percent is that of the machine, under virtual time: on a busy machine the bytes may be late. So may
/// heartbeats be, which have seconds.
async fn a_mebibyte_takes_its_time<R: Adapter>(world: World<R>) -> Outcome {
    for (sending, receiving) in [
        (Throttle::send(1_000_000), Throttle::default()),
        (Throttle::default(), Throttle::receive(1_000_000)),
    ] {
        let mut alice = world.start_with(Config::new("alice")?.throttle(sending))?;
        let mut bob = world.start_with(Config::new("bob")?.throttle(receiving))?;
        world.link(&mut alice, &mut bob).await?;
        let start = Instant::now();
        let body = vec![7; 1 << 20];
        alice
            .peer
            .send(&name("bob"), Message::new(body.clone()))
            .await?;
        bob.expect(&body).await?;
        // 5 percent less than exactly, and twenty times as much.
        let bounds = Duration::from_millis(996)..Duration::from_secs(21);
        let elapsed = start.elapsed();
        assert!(bounds.contains(&elapsed), "{elapsed:?}");
    }
    Ok(())
}

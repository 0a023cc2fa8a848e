//! Fairness between channels, and the end of everything.

use std::time::Duration;

use amqp_sim::{
    Check, Fault, Link, Sim,
    amqp_driver::{
        Connection,
        arguments::Queue,
        protocol::basic::{Consume, Properties, Publish, Qos},
    },
    oracle::{Ledger, Turns},
};

use super::{
    programs::{Result, publish_confirmed},
    recovering, secs,
};

/// Those of one channel.
const QUEUES: [&str; 3] = ["a", "b", "c"];

/// Publishes large messages without waiting for their confirms.
pub(crate) async fn flood(connection: Connection, count: usize, size: usize) -> Result {
    let channel = connection.open_channel().await?;
    channel
        .call(Queue::classic("flood").max_length(10).declare()?)
        .await?;
    let to_flood = Publish::default().routing_key("flood");
    for _ in 0..count {
        let published = channel
            .publish(&to_flood, &Properties::default(), vec![0; size])
            .await;
        if published.is_err() {
            break;
        }
    }
    Ok(())
}

/// Publishers on channels of one connection, over a slow link.
fn fair(sim: &Sim) {
    sim.node("rabbit");
    let connector = recovering(sim, "amqp://rabbit");
    // The output holds six of the messages and takes one more: one publisher may fill it before
    // another waits, and the next room is shared.
    let turns = Turns::new(7);
    let checked = turns.clone();
    sim.always("turns", move || checked.check());
    let connecting = connector.clone();
    let connection = sim.block_on(async move { connecting.connect().await });
    let connection = connection.expect("nothing fails");
    for number in 0..4 {
        let (connection, turns) = (connection.clone(), turns.clone());
        sim.spawn(&format!("publisher{number}"), async move {
            let channel = connection.open_channel().await?;
            channel
                .call(Queue::classic("q").max_length(10).declare()?)
                .await?;
            let to_q = Publish::default().routing_key("q");
            for _ in 0..60 {
                let body = vec![0; 40_000];
                let none = Properties::default();
                let publishing = channel.publish(&to_q, &none, body);
                turns.track(number, publishing).await?;
            }
            Result::Ok(())
        });
    }
    sim.run();
}

#[test]
fn no_publisher_of_a_connection_starves() {
    Check::new().seeds(50).run(fair);
}

/// Full queues, consumed on one channel with one prefetch for all of them.
fn served(sim: &Sim) {
    const COUNT: usize = 60;
    sim.node("rabbit");
    let connector = recovering(sim, "amqp://rabbit");
    let prefetch = 1 + sim.random().below(4) as u16;
    // While a queue waits, each of the others has the deliveries of one prefetch, and those of its
    // turn.
    let turns = Turns::new(20);
    let checked = turns.clone();
    sim.always("turns", move || checked.check());
    let filled = sim.block_on(async move {
        let connection = connector.connect().await?;
        let channel = connection.open_channel().await?;
        let qos = Qos::default().prefetch_count(prefetch).global(true);
        channel.call(qos).await?;
        for queue in QUEUES {
            channel.call(Queue::classic(queue).declare()?).await?;
            let publish = Publish::default().routing_key(queue);
            for _ in 0..COUNT {
                channel
                    .publish(&publish, &Properties::default(), "x")
                    .await?;
            }
        }
        let mut consumers = Vec::new();
        for queue in QUEUES {
            let consume = Consume::default().queue(queue);
            consumers.push((queue, channel.consume(consume).await?));
        }
        Result::Ok(consumers)
    });
    for (queue, mut consumer) in filled.expect("nothing fails") {
        let turns = turns.clone();
        sim.spawn(queue, async move {
            for _ in 0..COUNT {
                turns.wait(queue);
                let delivery = consumer.next().await.ok_or("it goes on")??;
                turns.served(queue);
                delivery.ack()?;
            }
            Result::Ok(())
        });
    }
    sim.run();
}

#[test]
fn no_queue_of_a_channel_starves() {
    Check::new().seeds(50).run(served);
}

/// A world in which every wait has to end with a reason: no recovery, and a node that never comes
/// back.
fn dead(sim: &Sim) {
    sim.node("rabbit");
    let mut random = sim.random();
    let connector = sim.connector("amqp://rabbit?heartbeat=10");
    for number in 0..3 {
        let connector = connector.clone();
        sim.spawn(&format!("program{number}"), async move {
            let ended =
                publish_confirmed(connector, Ledger::new(), "publisher".into(), "q", 1000, 0);
            assert!(ended.await.is_err(), "the node is gone");
        });
    }
    let at = random.duration(Duration::ZERO, secs(20));
    let time = secs(100_000);
    let fault = match random.below(3) {
        0 => Fault::Suspend {
            process: "rabbit".into(),
            time,
        },
        1 => Fault::Kill {
            node: "rabbit".into(),
            down: time,
        },
        _ => Fault::Stall {
            link: Link::new("program0", "rabbit"),
            direction: None,
            time,
        },
    };
    let is_one = matches!(fault, Fault::Stall { .. });
    sim.at(at, fault);
    if is_one {
        sim.at(
            secs(30),
            Fault::Kill {
                node: "rabbit".into(),
                down: time,
            },
        );
    }
    sim.run();
    assert!(sim.now() < secs(200), "{:?}", sim.now());
}

#[test]
fn everything_ends_when_the_node_is_gone() {
    Check::new().seeds(400).run(dead);
}

//! No wake-up is lost: for any event between two polls of the driver or of a handle, each task with
//! work is polled. After each run the rig polls every task once more, and nothing may come of that.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use amqp_driver::{
    Channel, ConfirmChannel, Connection, Consumer, ManualAck, Requeue, Tags,
    core::wire::ShortStr,
    protocol::{basic, queue},
};
use amqp_test_support::{Order, Probe, Rig, Setup};

/// An action of another thread in between.
#[derive(Clone)]
struct Handles {
    connection: Connection,
    plain: Arc<Channel>,
    confirm: Arc<ConfirmChannel>,
    consumer: Arc<Mutex<Option<Consumer<ManualAck>>>>,
}

type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;
type Action = fn(Handles) -> Waiting;

const ACTIONS: [(&str, Action); 12] = [
    ("call", |on| {
        Box::pin(async move {
            on.plain.call(queue::Declare::default()).await.unwrap();
        })
    }),
    ("send", |on| {
        Box::pin(async move {
            let purge = queue::Purge::default();
            on.plain.send(&purge).unwrap();
        })
    }),
    ("publish", |on| {
        Box::pin(async move {
            let (to, none) = (basic::Publish::default(), basic::Properties::default());
            let confirm = on.confirm.publish(&to, &none, "x").await.unwrap();
            confirm.await.unwrap();
        })
    }),
    ("large publish", |on| {
        Box::pin(async move {
            let (to, none) = (basic::Publish::default(), basic::Properties::default());
            for _ in 0..3 {
                let body = vec![0; 200_000];
                on.plain.publish(&to, &none, body).await.unwrap();
            }
        })
    }),
    ("open_channel", |on| {
        Box::pin(async move {
            on.connection.open_channel().await.unwrap();
        })
    }),
    ("get", |on| {
        Box::pin(async move {
            on.plain.get(basic::Get::default()).await.unwrap();
        })
    }),
    ("ack", |on| {
        Box::pin(async move { on.plain.ack(Tags::All).unwrap() })
    }),
    ("take a delivery", |on| {
        Box::pin(async move {
            let consumer = on.consumer.lock().unwrap().take();
            let mut consumer = consumer.unwrap();
            let delivery = consumer.next().await.unwrap().unwrap();
            // Another one may have settled it.
            let _settled = delivery.nack(Requeue::Yes);
            *on.consumer.lock().unwrap() = Some(consumer);
        })
    }),
    ("drop the consumer", |on| {
        Box::pin(async move {
            on.consumer.lock().unwrap().take();
        })
    }),
    ("cancel the consumer", |on| {
        Box::pin(async move {
            let consumer = on.consumer.lock().unwrap().take();
            consumer.unwrap().cancel().await.unwrap();
        })
    }),
    ("close", |on| {
        Box::pin(async move { on.connection.close().await.unwrap() })
    }),
    ("abort", |on| {
        Box::pin(async move {
            on.connection.abort();
            on.connection.closed().await;
        })
    }),
];

/// The state of the connection meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    /// The driver was woken for nothing.
    Idle,
    /// A delivery comes in.
    Delivery,
    /// Something else is sent.
    Sending,
    /// The transport takes nothing for a while.
    Stalled,
    /// Reading is paused, because the consumer has too much.
    Paused,
    /// Both.
    PausedAndStalled,
    /// A deadline has come.
    Deadline,
}

const SCENES: [Scene; 7] = [
    Scene::Idle,
    Scene::Delivery,
    Scene::Sending,
    Scene::Stalled,
    Scene::Paused,
    Scene::PausedAndStalled,
    Scene::Deadline,
];

fn start(scene: Scene) -> (Rig, Handles) {
    let mut setup = Setup::default();
    // Later than requests time out.
    setup.server.heartbeat = 100;
    let (mut rig, connection) = Rig::open_with(setup);
    let plain = rig.channel(&connection);
    let confirm = rig.confirm_channel(&connection);
    let consumer = rig.wait(plain.consume(basic::Consume::default())).unwrap();
    let tag = consumer.tag().to_string();
    assert!(rig.peer().deliver(1, &tag, "first"));
    if matches!(scene, Scene::Paused | Scene::PausedAndStalled) {
        for _ in 0..9 {
            assert!(rig.peer().deliver(1, &tag, vec![0; 2 << 20]));
        }
    }
    rig.run();
    let on = Handles {
        connection,
        plain: Arc::new(plain),
        confirm: Arc::new(confirm),
        consumer: Arc::new(Mutex::new(Some(consumer))),
    };
    match scene {
        Scene::Idle | Scene::Paused => {}
        Scene::Delivery => assert!(rig.peer().deliver(1, &tag, "second")),
        Scene::Sending => on.plain.send(&queue::Purge::default()).unwrap(),
        Scene::Stalled | Scene::PausedAndStalled => {
            rig.world().set_capacity(0);
            on.plain.send(&queue::Purge::default()).unwrap();
        }
        Scene::Deadline => {
            let mut world = rig.world();
            let at = world.now + Duration::from_secs(31);
            world.set_now(at);
        }
    }
    (rig, on)
}

/// The action happens while the driver is at each of its calls to the transport and the clock.
#[test]
fn a_command_at_every_point_of_the_drivers_poll() {
    for scene in SCENES {
        for (name, action) in ACTIONS {
            for after in 0.. {
                let what = format!("{name} at call {after}, {scene:?}");
                let (mut rig, on) = start(scene);
                let future = Arc::new(Mutex::new(Some(action(on.clone()))));
                let probe = Probe::new();
                let (polled, waker) = (Arc::clone(&future), Arc::clone(&probe));
                let before = rig.hook.calls();
                rig.hook.set(
                    after,
                    Box::new(move || {
                        let mut polled = polled.lock().unwrap();
                        let future = polled.as_mut().unwrap().as_mut();
                        if waker.poll(future).is_ready() {
                            *polled = None;
                        }
                    }),
                );
                rig.poll_driver();
                rig.run();
                let done = rig.hook.is_done();
                if !done {
                    assert!(after > 2 && rig.hook.calls() > before, "{what}");
                    break;
                }
                rig.world().set_capacity(usize::MAX);
                rig.run();
                // No answer comes while reading is paused.
                on.consumer.lock().unwrap().take();
                rig.run();
                // The waiting task was woken, again and again, until it is done.
                let mut future = future.lock().unwrap();
                while let Some(waiting) = future.as_mut() {
                    assert!(probe.take(), "{what}: it hangs");
                    if probe.poll(waiting.as_mut()).is_ready() {
                        *future = None;
                    }
                    rig.run();
                }
                assert_eq!(rig.peer().violations, [""; 0], "{what}");
            }
        }
    }
}

/// All orders in which driver, server and two handles can take their turns.
#[test]
fn every_order_of_turns() {
    /// Of one pair.
    const ORDERS_MAX: usize = 150;
    for (first, one) in ACTIONS {
        for (second, other) in ACTIONS {
            if [first, second]
                .iter()
                .any(|it| ["close", "abort", "large publish"].contains(it))
            {
                continue;
            }
            let both_consume = first.contains("consumer") || first.contains("delivery");
            if both_consume && (second.contains("consumer") || second.contains("delivery")) {
                continue;
            }
            let mut choices = Vec::new();
            for _ in 0..ORDERS_MAX {
                let (mut rig, on) = start(Scene::Delivery);
                rig.order = Order::script(choices.clone());
                let tasks = [rig.spawn(one(on.clone())), rig.spawn(other(on.clone()))];
                rig.run();
                let what = format!("{first}, {second}: {choices:?}");
                assert!(tasks.iter().all(amqp_test_support::Task::is_done), "{what}");
                assert_eq!(rig.peer().violations, [""; 0], "{what}");
                match rig.order.next_script() {
                    Some(next) => choices = next,
                    None => break,
                }
            }
        }
    }
}

/// A driver that has nothing to do is left alone, and does nothing when it is woken all the same.
#[test]
fn no_task_is_woken_for_nothing() {
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.run();
    let wakes = rig.driver_wakes();
    rig.run();
    rig.poll_driver();
    rig.run();
    assert_eq!(rig.driver_wakes(), wakes);
    // Frames that do not reach the wire wake no publisher.
    let confirming = rig.confirm_channel(&connection);
    rig.peer().confirming = amqp_test_support::Confirming::ByHand;
    let (to, none) = (basic::Publish::default(), basic::Properties::default());
    let mut confirm = Box::pin(rig.wait(confirming.publish(&to, &none, "x")).unwrap());
    rig.run();
    let wakes = rig.driver_wakes();
    assert!(Probe::new().poll(confirm.as_mut()).is_pending());
    let mut closed = Box::pin(connection.closed());
    assert!(Probe::new().poll(closed.as_mut()).is_pending());
    assert_eq!(rig.driver_wakes(), wakes);
    let mut consumer = rig
        .wait(channel.consume(basic::Consume::default()))
        .unwrap();
    let tag = consumer.tag().to_string();
    for _ in 0..3 {
        assert!(rig.peer().deliver(1, &tag, "x"));
    }
    rig.run();
    let wakes = rig.driver_wakes();
    let mut next = || {
        Probe::new()
            .poll(Box::pin(consumer.next()).as_mut())
            .is_ready()
    };
    assert!(next() && next() && next() && !next());
    assert_eq!(rig.driver_wakes(), wakes);
    drop(consumer);
    drop((closed, confirm, confirming, channel));
    rig.run();
    rig.finish(connection);
}

/// A future that moves to another task is woken there.
#[test]
fn the_last_waker_counts() {
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.peer().hold = true;
    let mut call = Box::pin(channel.call(queue::Declare::default()));
    let (first, second) = (Probe::new(), Probe::new());
    assert!(first.poll(call.as_mut()).is_pending());
    assert!(second.poll(call.as_mut()).is_pending());
    let mut closed = Box::pin(connection.closed());
    assert!(first.poll(closed.as_mut()).is_pending());
    assert!(second.poll(closed.as_mut()).is_pending());
    rig.run();
    rig.peer().release();
    rig.run();
    assert!(second.take() && !first.take());
    assert!(matches!(second.poll(call.as_mut()), Poll::Ready(Ok(_))));
    rig.peer().machine.block(ShortStr::default()).unwrap();
    rig.run();
    let (to, none) = (basic::Publish::default(), basic::Properties::default());
    let mut publish = Box::pin(channel.publish(&to, &none, "x"));
    assert!(first.poll(publish.as_mut()).is_pending());
    assert!(second.poll(publish.as_mut()).is_pending());
    rig.peer().machine.unblock().unwrap();
    rig.run();
    assert!(second.take() && !first.take());
    assert!(matches!(second.poll(publish.as_mut()), Poll::Ready(Ok(()))));
    drop((call, publish, closed));
    drop(channel);
    rig.finish(connection);
}

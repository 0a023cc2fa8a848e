//! The driver in a thread of its own, and the handles in many others. REG-1.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use amqp_driver::{
    Connection, Error, Unconfirmed,
    protocol::{basic, queue},
};
use amqp_test_support::{Confirming, Rig, Setup};
use bytes::Bytes;

/// A wait of more than this has lost its wake-up.
const PATIENCE: Duration = Duration::from_secs(60);

struct Unpark {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let unpark = Arc::new(Unpark {
        thread: thread::current(),
        woken: AtomicBool::new(false),
    });
    let waker = Waker::from(Arc::clone(&unpark));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let start = Instant::now();
        while !unpark.woken.swap(false, Ordering::SeqCst) {
            thread::park_timeout(PATIENCE);
            assert!(start.elapsed() < PATIENCE, "a wake-up was lost");
        }
    }
}

/// Polls a future a few times, then drops it.
fn poll_and_drop(future: impl Future, times: usize) {
    let mut future = pin!(future);
    for _ in 0..times {
        if future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
        {
            break;
        }
        thread::yield_now();
    }
}

type Work = Box<dyn FnOnce(Connection) + Send>;

/// Runs the work of many threads against one connection, and closes it.
fn run(setup: Setup, works: Vec<Work>) -> amqp_test_support::world::Shared {
    let (connection, driver, world) = Rig::apart(setup);
    {
        let mut world = world.lock().unwrap();
        world.capacity = 32 << 10;
        world.peer.confirming = Confirming::ByBody;
        world.peer.at_once = ["1", "2", "3", "4", "5"].map(Bytes::from).into();
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let ready = {
                    let mut world = world.lock().unwrap();
                    let ready = world.server_ready();
                    if ready {
                        world.step_server();
                    }
                    ready
                };
                if !ready {
                    thread::sleep(Duration::from_micros(20));
                }
            }
        });
        let driving = scope.spawn(|| block_on(driver));
        block_on(connection.opened()).unwrap();
        let working: Vec<_> = works
            .into_iter()
            .map(|work| {
                let connection = connection.clone();
                scope.spawn(move || work(connection))
            })
            .collect();
        let results: Vec<_> = working
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        let closed = block_on(connection.close());
        driving.join().unwrap();
        over.store(true, Ordering::SeqCst);
        for result in results {
            result.unwrap();
        }
        assert_eq!(closed, Ok(()));
    });
    world
}

fn publishing(thread: usize) -> Work {
    const MESSAGES: usize = 400;
    Box::new(move |connection| {
        block_on(async {
            let channel = connection.open_channel().await?.confirm_select().await?;
            publish_all(&channel, thread, MESSAGES).await
        })
        .unwrap();
    })
}

/// Publishes messages with bodies that set their outcomes, and checks the outcome of each.
async fn publish_all(
    channel: &amqp_driver::ConfirmChannel,
    thread: usize,
    messages: usize,
) -> Result<(), Error> {
    let to = basic::Publish::default().mandatory(true);
    let mut confirms = Vec::new();
    for number in 0..messages {
        let kind = ["n", "r", "a", "a", "a"][(number * 7 + thread) % 5];
        let body = format!("{kind} {thread} {number}");
        let properties = basic::Properties::default().message_id(body.as_str());
        let confirm = channel.publish(&to, &properties, body.clone()).await?;
        confirms.push((body, confirm));
    }
    for (body, confirm) in confirms {
        match (confirm.await, &body[..1]) {
            (Ok(()), "a") | (Err(Unconfirmed::Nacked { .. }), "n") => {}
            (Err(Unconfirmed::Returned(message)), "r") => {
                assert_eq!(message.body, body.as_str());
            }
            (outcome, _) => panic!("{body}: {outcome:?}"),
        }
    }
    Ok(())
}

#[test]
fn many_threads_publish_on_many_channels() {
    run(Setup::default(), (0..6).map(publishing).collect());
}

/// Each gets the confirm of its own message, also when all publish on the same channel at once.
#[test]
fn many_threads_publish_on_one_channel() {
    let work: Work = Box::new(|connection| {
        let channel =
            block_on(async { connection.open_channel().await?.confirm_select().await }).unwrap();
        thread::scope(|scope| {
            for thread in 0..6 {
                let channel = &channel;
                scope.spawn(move || block_on(publish_all(channel, thread, 300)).unwrap());
            }
        });
    });
    let world = run(Setup::default(), vec![work]);
    let messages = world.lock().unwrap().peer.messages();
    assert_eq!(messages.len(), 6 * 300);
    // The messages of each thread are in order.
    for thread in 0..6 {
        let mut last = None;
        for message in &messages {
            let body = std::str::from_utf8(&message.body).unwrap();
            let mut words = body.split(' ').skip(1);
            let (by, number) = (words.next().unwrap(), words.next().unwrap());
            if by == thread.to_string() {
                let number: usize = number.parse().unwrap();
                assert!(last < Some(number));
                last = Some(number);
            }
        }
        assert_eq!(last, Some(299));
    }
}

#[test]
fn many_threads_do_everything() {
    const ROUNDS: usize = 150;
    let mut works: Vec<Work> = vec![publishing(0), publishing(1)];
    for thread in 0..2 {
        works.push(Box::new(move |connection| {
            let channel = block_on(connection.open_channel()).unwrap();
            for round in 0..ROUNDS {
                let name = format!("{thread}-{round}");
                let declare = queue::Declare::default().queue(&name);
                poll_and_drop(channel.call(declare.clone()), round % 4);
                poll_and_drop(channel.get(basic::Get::default()), round % 3);
                poll_and_drop(channel.consume(basic::Consume::default()), round % 5);
                poll_and_drop(connection.open_channel(), round % 3);
                let declared = block_on(channel.call(declare)).unwrap();
                assert_eq!(declared.queue, name);
            }
        }));
        works.push(Box::new(|connection| {
            for _ in 0..ROUNDS {
                let channel = block_on(connection.open_channel()).unwrap();
                let mut consumer = block_on(channel.consume(basic::Consume::default())).unwrap();
                for _ in 0..3 {
                    block_on(consumer.next()).unwrap().unwrap().ack().unwrap();
                }
                block_on(consumer.cancel()).unwrap();
                while let Some(delivery) = block_on(consumer.next()) {
                    delivery.unwrap().ack().unwrap();
                }
                block_on(channel.close()).unwrap();
            }
        }));
        works.push(Box::new(|connection| {
            let pool = block_on(connection.channel_pool(2)).unwrap();
            thread::scope(|scope| {
                for thread in 10..14 {
                    let pool = &pool;
                    scope.spawn(move || {
                        for round in 0..20 {
                            let channel = block_on(pool.checkout()).unwrap();
                            block_on(publish_all(&channel, thread, 10)).unwrap();
                            if round % 5 == 0 {
                                block_on(channel.close()).unwrap();
                            }
                            assert!(pool.idle() <= 2);
                        }
                    });
                }
            });
        }));
    }
    let mut setup = Setup::default();
    setup.server.frame_max = 8192;
    let world = run(setup, works);
    let world = world.lock().unwrap();
    assert_eq!(world.peer.violations, [""; 0]);
    assert!(world.peer.closed_in_good_order());
}

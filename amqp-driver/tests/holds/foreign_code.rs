//! No code of the application runs under the connection's lock: destructors of bodies and wakers may
//! use its handles, and a waker that panics takes no other wake-up along.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use amqp_driver::{BaseChannel, core::Limits, protocol::queue};
use amqp_test_support::{Probe, Rig, Setup, foreign::ends};
use bytes::Bytes;

use crate::{none, to_queue};

type Wait<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// The owner of a body, or a task: its destructor uses a handle.
struct UsesHandle {
    bytes: Vec<u8>,
    channel: BaseChannel,
    dropped: Arc<Mutex<u32>>,
}

impl AsRef<[u8]> for UsesHandle {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Wake for UsesHandle {
    fn wake(self: Arc<Self>) {}
}

impl Drop for UsesHandle {
    fn drop(&mut self) {
        let _open = self.channel.is_open();
        let _sent = self.channel.send(&queue::Purge::default());
        *self.dropped.lock().unwrap() += 1;
    }
}

fn body(channel: &BaseChannel, len: usize, dropped: &Arc<Mutex<u32>>) -> Bytes {
    Bytes::from_owner(UsesHandle {
        bytes: vec![7; len],
        channel: channel.clone(),
        dropped: Arc::clone(dropped),
    })
}

#[test]
fn a_body_that_is_copied_is_dropped_without_the_lock() {
    ends(|| {
        let (mut rig, connection, channel) = Rig::with_channel();
        let dropped = Arc::default();
        for len in [1, 4000, 5000, 200_000] {
            let body = body(&channel, len, &dropped);
            rig.wait(channel.publish(&to_queue(), &none(), body))
                .unwrap();
            rig.run();
        }
        assert_eq!(*dropped.lock().unwrap(), 4);
        assert_eq!(rig.peer().messages().len(), 4);
        drop(channel);
        rig.run();
        rig.finish(connection);
    });
}

#[test]
fn a_body_in_small_pieces_behind_a_large_one_is_dropped_without_the_lock() {
    ends(|| {
        let (mut rig, connection, channel) = Rig::with_channel();
        let dropped = Arc::default();
        rig.world().set_capacity(0);
        // They wait in the backlog of the channel.
        for len in [200_000, 10, 3000] {
            let body = body(&channel, len, &dropped);
            rig.wait(channel.publish(&to_queue(), &none(), body))
                .unwrap();
        }
        rig.world().set_capacity(usize::MAX);
        rig.run();
        assert_eq!(*dropped.lock().unwrap(), 3);
        drop(channel);
        rig.run();
        rig.finish(connection);
    });
}

#[test]
fn a_body_that_is_refused_is_dropped_without_the_lock() {
    ends(|| {
        let (mut rig, connection, channel) = Rig::with_channel();
        let dropped = Arc::default();
        let held = channel.clone();
        rig.wait(channel.close()).unwrap();
        for len in [10, 200_000] {
            let body = body(&held, len, &dropped);
            assert!(
                rig.wait(channel.publish(&to_queue(), &none(), body))
                    .is_err()
            );
        }
        assert_eq!(*dropped.lock().unwrap(), 2);
        drop((channel, held));
        rig.finish(connection);
    });
}

#[test]
fn bodies_that_wait_at_the_end_are_dropped_without_the_lock() {
    for by_channel in [false, true] {
        ends(move || {
            let (mut rig, connection, channel) = Rig::with_channel();
            let dropped = Arc::default();
            rig.world().set_capacity(0);
            for len in [5000, 200_000, 10, 5000] {
                let body = body(&channel, len, &dropped);
                rig.wait(channel.publish(&to_queue(), &none(), body))
                    .unwrap();
            }
            if by_channel {
                let number = channel.number();
                let code = amqp_driver::protocol::ReplyCode::NOT_FOUND;
                rig.peer().close_channel(number, code, "gone");
            } else {
                connection.abort();
            }
            rig.run();
            rig.world().set_capacity(usize::MAX);
            rig.run();
            drop(channel);
            rig.run();
            drop(connection);
            rig.run();
            assert_eq!(*dropped.lock().unwrap(), 4);
        });
    }
}

/// A waker that is the last owner of its task is replaced, and given up, in every wait there is.
#[test]
fn wakers_are_dropped_without_the_lock() {
    ends(|| {
        let (to, properties) = (to_queue(), none());
        let mut setup = Setup::default();
        setup.client.limits = Limits::default().unconfirmed(1);
        let (mut rig, connection) = Rig::open_with(setup);
        let channel = rig.confirm_channel(&connection);
        let pool = rig.wait(connection.channel_pool(1)).unwrap();
        let taken = rig.wait(pool.checkout()).unwrap();
        rig.peer().confirming = amqp_test_support::Confirming::ByHand;
        rig.peer().hold = true;
        let mut returns = channel.returns();
        let plain = channel.clone();
        let mut states = connection.states();
        let mut channel_states = channel.states();
        let mut waits: Vec<(&str, Wait<'_>)> = Vec::new();
        let confirm = rig
            .wait(channel.publish(&to_queue(), &none(), "x"))
            .unwrap();
        waits.push(("confirm", Box::pin(async { drop(confirm.await) })));
        waits.push((
            "publish",
            Box::pin(async { drop(channel.publish(&to, &properties, "y").await) }),
        ));
        waits.push((
            "call",
            Box::pin(async { drop(plain.call(queue::Purge::default()).await) }),
        ));
        waits.push((
            "closed",
            Box::pin(async { drop(connection.closed().await) }),
        ));
        waits.push(("checkout", Box::pin(async { drop(pool.checkout().await) })));
        waits.push(("returns", Box::pin(async { drop(returns.next().await) })));
        waits.push((
            "states",
            Box::pin(async { while states.next().await.is_some() {} }),
        ));
        waits.push((
            "channel states",
            Box::pin(async { while channel_states.next().await.is_some() {} }),
        ));
        waits.push((
            "within",
            Box::pin(async {
                let never = std::future::pending::<()>();
                let _ = connection.within(Duration::from_secs(99), never).await;
            }),
        ));
        let dropped = Arc::new(Mutex::new(0));
        let waker = || {
            Waker::from(Arc::new(UsesHandle {
                bytes: Vec::new(),
                channel: BaseChannel::clone(&plain),
                dropped: Arc::clone(&dropped),
            }))
        };
        for (name, wait) in &mut waits {
            for _ in 0..3 {
                let waker = waker();
                let mut cx = Context::from_waker(&waker);
                assert!(wait.as_mut().poll(&mut cx).is_pending(), "{name}");
            }
        }
        let replaced = *dropped.lock().unwrap();
        assert!(replaced >= 2 * 9, "{replaced}");
        drop(waits);
        drop((states, channel_states, returns));
        assert_eq!(*dropped.lock().unwrap() as usize, 9 * 3);
        drop((channel, plain, pool, taken));
        rig.peer().release();
        rig.run();
    });
}

/// A waker that panics leaves the other wake-ups and the driver as they are.
#[test]
fn a_waker_that_panics_takes_no_other_wake_up_along() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            std::panic::resume_unwind(Box::new("a waker panics"));
        }
    }
    let (mut rig, connection, channel) = Rig::with_confirms();
    let mut publish = || {
        rig.wait(channel.publish(&to_queue(), &none(), "x"))
            .unwrap()
    };
    let mut confirms = [publish(), publish(), publish()];
    let panics = Waker::from(Arc::new(Panics));
    let probes = [Probe::new(), Probe::new()];
    let [first, second, third] = &mut confirms;
    assert!(probes[0].poll(Pin::new(first)).is_pending());
    let mut cx = Context::from_waker(&panics);
    assert!(Pin::new(&mut *second).poll(&mut cx).is_pending());
    assert!(probes[1].poll(Pin::new(third)).is_pending());
    rig.peer().ack(1, 3, true);
    rig.run();
    assert!(probes.iter().all(|probe| probe.take()));
    for confirm in confirms {
        let mut confirm = pin!(confirm);
        assert_eq!(Probe::new().poll(confirm.as_mut()), Poll::Ready(Ok(())));
    }
    rig.check_usable(&connection);
    drop(channel);
    rig.finish(connection);
}

/// A waker uses a handle: it is woken without the lock.
#[test]
fn wakers_are_woken_without_the_lock() {
    struct Calls(BaseChannel, Mutex<u32>);
    impl Wake for Calls {
        fn wake(self: Arc<Self>) {
            assert!(self.0.send(&queue::Purge::default()).is_ok());
            *self.1.lock().unwrap() += 1;
        }
    }
    ends(|| {
        let (mut rig, connection, channel) = Rig::with_confirms();
        let calls = Arc::new(Calls(BaseChannel::clone(&channel), Mutex::new(0)));
        let waker = Waker::from(Arc::clone(&calls));
        let mut cx = Context::from_waker(&waker);
        let (to, properties) = (to_queue(), none());
        let published = rig.wait(channel.publish(&to, &properties, "x"));
        let mut confirm = pin!(published.unwrap());
        let mut call = pin!(channel.call(queue::Declare::default()));
        let mut states = channel.states();
        assert!(pin!(states.next()).poll(&mut cx).is_ready());
        let mut paused = pin!(states.next());
        assert!(paused.as_mut().poll(&mut cx).is_pending());
        assert!(confirm.as_mut().poll(&mut cx).is_pending());
        assert!(call.as_mut().poll(&mut cx).is_pending());
        rig.peer().ack(1, 1, false);
        rig.peer().flow(1, false);
        rig.run();
        assert_eq!(*calls.1.lock().unwrap(), 3);
        rig.peer().flow(1, true);
        rig.run();
        rig.check_usable(&connection);
    });
}

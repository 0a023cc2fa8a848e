//! The adapter in memory and under tokio's paused clock: timing, and streams that take and give
//! little at a time.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use amqp_test_support::Peer;
use amqp_tokio::{
    Config, Connection, Error, TokioClock,
    core::{CloseCause, Instant, MethodDef as _, TimeoutReason, server},
    from_stream,
    io::Timer as _,
    protocol::{ReplyCode, basic, queue},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::Notify,
    time,
};

/// A server at the other end of a pipe, run by a task.
#[derive(Clone)]
struct Remote {
    peer: Arc<Mutex<Peer>>,
    /// Notified after a command of the test.
    reported: Arc<Notify>,
    /// All bytes that have come from the client.
    received: Arc<Mutex<Vec<u8>>>,
}

impl Remote {
    fn start(stream: DuplexStream, heartbeat: u16) -> Self {
        let config = server::Config::default().heartbeat(heartbeat);
        let remote = Self {
            peer: Arc::new(Mutex::new(Peer::new(config, Instant::ORIGIN))),
            reported: Arc::default(),
            received: Arc::default(),
        };
        tokio::spawn(remote.clone().run(stream));
        remote
    }

    fn peer(&self) -> MutexGuard<'_, Peer> {
        self.peer.lock().unwrap()
    }

    /// Runs a command on the server.
    fn tell(&self, what: impl FnOnce(&mut Peer)) {
        what(&mut self.peer());
        self.reported.notify_one();
    }

    async fn run(self, stream: DuplexStream) {
        let clock = TokioClock::new();
        let (mut read, mut write) = tokio::io::split(stream);
        let mut bytes = vec![0; 10_000];
        loop {
            let sent = self.peer().send(clock.now());
            if write.write_all(&sent).await.is_err() {
                return;
            }
            let due = self.peer().machine.poll_timeout();
            let due = due.map_or(Duration::MAX, |(at, _)| at - clock.now());
            tokio::select! {
                biased;
                count = read.read(&mut bytes) => match count {
                    Ok(count) if count > 0 => {
                        self.received.lock().unwrap().extend_from_slice(&bytes[..count]);
                        self.peer().receive(clock.now(), &bytes[..count]);
                    }
                    _ => return self.peer().eof(clock.now()),
                },
                () = self.reported.notified() => {}
                () = time::sleep(due) => self.peer().timeout(clock.now()),
            }
        }
    }

    /// How many heartbeats have come, when nothing else has since.
    fn heartbeats(&self) -> usize {
        let received = self.received.lock().unwrap();
        let heartbeat = [8, 0, 0, 0, 0, 0, 0, 0xce];
        received
            .rchunks(heartbeat.len())
            .take_while(|it| *it == heartbeat)
            .count()
    }
}

/// A connection over a pipe that holds that many bytes.
async fn open(pipe: usize, heartbeat: u16) -> (Connection, Remote) {
    let (ours, theirs) = tokio::io::duplex(pipe);
    let remote = Remote::start(theirs, heartbeat);
    let connection = from_stream(ours, Config::default()).await.unwrap();
    (connection, remote)
}

/// Messages of all sizes, both ways, through pipes of all sizes.
#[tokio::test(start_paused = true)]
async fn messages_come_through_a_small_pipe() {
    for pipe in [1, 7, 64, 4096, 1 << 20] {
        let (connection, remote) = open(pipe, 0).await;
        let channel = connection.open_channel().await.unwrap();
        let channel = channel.confirm_select().await.unwrap();
        let sizes = [0, 1, 100, 5000, 200_000_usize.min(pipe * 10_000)];
        let (to, none) = (basic::Publish::default(), basic::Properties::default());
        let mut confirms = Vec::new();
        for size in sizes {
            let confirm = channel.publish(&to, &none, vec![7; size]).await.unwrap();
            confirms.push(confirm);
        }
        for confirm in confirms {
            confirm.await.unwrap();
        }
        let arrived = remote.peer().messages().into_iter();
        assert!(arrived.map(|it| it.body.len()).eq(sizes));

        let mut consumer = channel.consume(basic::Consume::default()).await.unwrap();
        let tag = consumer.tag().to_string();
        for size in sizes {
            remote.tell(|peer| assert!(peer.deliver(1, &tag, vec![7; size])));
        }
        for size in sizes {
            let delivery = consumer.next().await.unwrap().unwrap();
            assert_eq!(delivery.body.len(), size);
            delivery.ack().unwrap();
        }
        assert_eq!(connection.close().await, Ok(()));
        assert_eq!(remote.peer().acked.len(), sizes.len());
        assert_eq!(remote.peer().violations, [""; 0]);
        assert!(remote.peer().closed_in_good_order());
    }
}

/// SER-02, TRI-11: heartbeats are sent, and a server that sends none is taken for dead after two
/// intervals.
#[tokio::test(start_paused = true)]
async fn heartbeats_are_sent_and_awaited() {
    let (connection, remote) = open(4096, 10).await;
    time::sleep(Duration::from_secs(100)).await;
    assert!(connection.is_open());
    assert!(
        (19..=20).contains(&remote.heartbeats()),
        "{}",
        remote.heartbeats()
    );
    let start = time::Instant::now();
    remote.tell(|peer| peer.mute = true);
    let reason = connection.closed().await;
    let silent = CloseCause::TimedOut(TimeoutReason::PeerSilent);
    assert_eq!(*reason.cause(), silent);
    let took = start.elapsed();
    assert!(
        (Duration::from_secs(10)..=Duration::from_secs(20)).contains(&took),
        "{took:?}"
    );
}

/// SER-36: without heartbeats, an hour is nothing.
#[tokio::test(start_paused = true)]
async fn no_heartbeats() {
    let (connection, remote) = open(4096, 0).await;
    time::sleep(Duration::from_secs(3600)).await;
    assert!(connection.is_open());
    assert_eq!(remote.heartbeats(), 0);
    assert_eq!(connection.close().await, Ok(()));
}

/// A request that is not answered times out when its time has come, each at its own.
#[tokio::test(start_paused = true)]
async fn requests_time_out() {
    let (connection, remote) = open(4096, 0).await;
    let channel = Arc::new(connection.open_channel().await.unwrap());
    remote.tell(|peer| peer.mute = true);
    let call = |after: u64| {
        let channel = Arc::clone(&channel);
        tokio::spawn(async move {
            time::sleep(Duration::from_secs(after)).await;
            let start = time::Instant::now();
            let called = channel.call(queue::Declare::default()).await;
            (called.map(|_| ()), start.elapsed().as_secs())
        })
    };
    let calls = [call(0), call(7), call(29), call(40)];
    let unanswered = Error::Unanswered {
        request: queue::Declare::ID,
        channel: Some(1),
    };
    for call in calls {
        assert_eq!(call.await.unwrap(), (Err(unanswered.clone()), 30));
    }
    // The late answers are ignored.
    remote.tell(|peer| peer.mute = false);
    channel.call(queue::Declare::default()).await.unwrap();
    assert_eq!(connection.close().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn closing_ends_in_time() {
    let (connection, remote) = open(4096, 0).await;
    remote.tell(|peer| peer.mute = true);
    let start = time::Instant::now();
    let Err(Error::ConnectionClosed(reason)) = connection.close().await else {
        panic!("nobody has answered");
    };
    assert_eq!(*reason.cause(), CloseCause::TimedOut(TimeoutReason::Close));
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_not_waited_for() {
    let (ours, _theirs) = tokio::io::duplex(4096);
    let start = time::Instant::now();
    let Err(Error::ConnectionClosed(reason)) = from_stream(ours, Config::default()).await else {
        panic!("there is no server");
    };
    assert_eq!(
        *reason.cause(),
        CloseCause::TimedOut(TimeoutReason::Handshake)
    );
    assert_eq!(start.elapsed().as_secs(), 10);
}

/// An abandoned connect leaves nothing open.
#[tokio::test(start_paused = true)]
async fn dropping_from_stream_closes_it() {
    for hold_open in [false, true] {
        let (ours, theirs) = tokio::io::duplex(4096);
        let remote = Remote::start(theirs, 0);
        remote.peer().hold_open = hold_open;
        remote.peer().mute = !hold_open;
        let connecting = from_stream(ours, Config::default());
        assert!(
            time::timeout(Duration::from_secs(1), connecting)
                .await
                .is_err()
        );
        time::sleep(Duration::from_millis(1)).await;
        // The driver has ended, and with it the stream.
        assert!(remote.peer().closed().is_some());
    }
}

/// The driver and its stream are gone when the last handle is.
#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_closes_the_stream() {
    let (connection, remote) = open(64, 10).await;
    let channel = connection.open_channel().await.unwrap();
    drop(connection);
    channel.call(queue::Declare::default()).await.unwrap();
    drop(channel);
    time::sleep(Duration::from_millis(1)).await;
    assert!(remote.peer().closed_in_good_order());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_is_noticed_at_once() {
    let (connection, remote) = open(4096, 0).await;
    let start = time::Instant::now();
    remote.tell(|peer| peer.close(ReplyCode::CONNECTION_FORCED, "shutdown"));
    let reason = connection.closed().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(reason.code(), Some(ReplyCode::CONNECTION_FORCED));
    assert!(remote.peer().closed().is_some());
}

/// The alarm rings when it should, however often it was moved.
#[tokio::test(start_paused = true)]
async fn the_clock_rings_in_time() {
    let mut clock = TokioClock::new();
    let start = clock.now();
    let after = |millis| start + Duration::from_millis(millis);
    // The last call's time is the one that counts: sooner, later, and never in between.
    for (moves, rings) in [
        (vec![Some(100)], 100),
        (vec![Some(900), Some(200)], 200),
        (vec![Some(300), Some(900)], 900),
        (vec![Some(1000), None, Some(1500)], 1500),
        (vec![Some(1600), Some(5000), Some(1700)], 1700),
        (vec![Some(1000)], 1700),
        (vec![Some(1800), Some(2000), Some(1900), Some(2500)], 2500),
    ] {
        let mut moves = moves.into_iter();
        let last = moves.next_back().unwrap().map(after);
        poll_fn(|cx| {
            for at in moves.by_ref() {
                assert!(clock.poll_deadline(cx, at.map(after)).is_pending());
            }
            clock.poll_deadline(cx, last)
        })
        .await;
        assert_eq!(clock.now() - start, Duration::from_millis(rings));
    }
}

//! A driver of the broker yields to those of other connections, though there is always input.

use std::{
    future::Future,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use amqp_driver::{
    core::{
        ChannelId, Instant, Transmit,
        client::{Config, Connection, Event},
    },
    io::{Clock, Timer, Transport},
    protocol::{basic, queue},
};
use amqp_embedded::{
    SharedBroker,
    broker::{self, Broker},
};
use bytes::BytesMut;

/// A clock that stands still.
#[derive(Clone, Debug)]
struct Still;

impl Timer for Still {
    fn now(&self) -> Instant {
        Instant::ORIGIN
    }

    fn clock(&self) -> Clock {
        Arc::new(|| Instant::ORIGIN)
    }

    fn poll_deadline(&mut self, _: &mut Context<'_>, _: Option<Instant>) -> Poll<()> {
        Poll::Pending
    }
}

/// A client that publishes as fast as it is read from. With `consume`, it also consumes.
struct Flood {
    client: Connection,
    /// The channel, once it is requested, and once it is open.
    opening: Option<ChannelId>,
    channel: Option<ChannelId>,
    input: BytesMut,
    consume: bool,
    output: Transmit,
    /// The bytes that were read and written.
    moved: Arc<AtomicUsize>,
}

impl Flood {
    fn react(&mut self) {
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::Opened => {
                    let (channel, _) = self.client.open_channel().unwrap();
                    self.opening = Some(channel);
                }
                Event::Reply { .. } if self.channel.is_none() => {
                    self.channel = self.opening;
                    let mut channel = self.client.channel(self.opening.unwrap()).unwrap();
                    let declare = queue::Declare::default().queue("q");
                    channel.call(&declare).unwrap();
                    if self.consume {
                        let consume = basic::Consume::default().queue("q");
                        channel.consume(consume.no_ack(true)).unwrap();
                    }
                }
                _ => {}
            }
        }
    }
}

impl Transport for Flood {
    fn poll_read(&mut self, _: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        let room = buf.capacity() - buf.len();
        while self.output.len() < room {
            if let Some(channel) = self.channel {
                let publish = basic::Publish::default().routing_key("q");
                let properties = basic::Properties::default();
                let mut channel = self.client.channel(channel).unwrap();
                channel
                    .publish(&publish, &properties, vec![0; 1024])
                    .unwrap();
            }
            if !self.client.poll_transmit(Instant::ORIGIN, &mut self.output) {
                break;
            }
        }
        if self.output.is_empty() {
            return Poll::Pending;
        }
        let count = room.min(self.output.len());
        let mut taken = Transmit::new();
        self.output.move_front(count, &mut taken);
        for segment in taken.take_segments() {
            buf.extend_from_slice(&segment);
        }
        self.moved.fetch_add(count, SeqCst);
        Poll::Ready(Ok(count))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, out: &mut Transmit) -> Poll<io::Result<usize>> {
        let count = out.len();
        for segment in out.take_segments() {
            self.input.extend_from_slice(&segment);
        }
        self.client.handle_input(Instant::ORIGIN, &mut self.input);
        self.react();
        self.moved.fetch_add(count, SeqCst);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_driver_yields_after_a_bounded_number_of_bytes() {
    for consume in [false, true] {
        let broker = SharedBroker::new(Broker::new(broker::Config::default()).unwrap());
        let moved = Arc::<AtomicUsize>::default();
        let flood = Flood {
            client: Connection::new(Config::default(), Instant::ORIGIN).unwrap(),
            opening: None,
            channel: None,
            input: BytesMut::new(),
            consume,
            output: Transmit::new(),
            moved: Arc::clone(&moved),
        };
        let mut driver = pin!(broker.accept(flood, Still).unwrap());
        let wakes = Arc::<Wakes>::default();
        let waker = Waker::from(Arc::clone(&wakes));
        for poll in 1..=100 {
            let polled = driver.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
            assert!(wakes.0.swap(0, SeqCst) > 0, "it has more to do");
            let moved = moved.swap(0, SeqCst);
            // One write of all output that is ready, and one read.
            assert!(moved <= 768 << 10, "{moved} in poll {poll}");
            assert!(poll < 10 || moved >= 64 << 10, "{moved} in poll {poll}");
        }
    }
}

//! A connection with a server, in one process.

use std::{
    future::{Future, poll_fn},
    io::Result,
    pin::{Pin, pin},
    sync::{self, Arc, PoisonError, Weak},
    task::{Context, Poll, Wake, Waker, ready},
    time::Duration,
};

use amqp_core::{
    ChannelId, Instant, Timeouts, Transmit,
    client::Config,
    protocol::{ClientMethod, basic},
    server::{self, Event},
    wire::ShortStr,
};
use amqp_test_support::replies;
use bytes::{Buf as _, BytesMut};
use shuttle::{
    future::block_on,
    thread::{self, JoinHandle},
};

use super::lent;
use crate::{
    channel::Channel,
    connection::Connection,
    io::{self, LentDriver, Timer, Transport, poll_locked, wake_all},
    session::{driver_task::DriverTask, shared::Shared},
    sync::{Mutex, MutexGuard},
};

/// The maximum number of turns that a step before the exploration takes.
const TURNS: usize = 100;

/// A configuration without deadlines of requests, which would wake a driver that has overlooked the
/// request itself.
pub(super) fn untimed() -> Config {
    let timeouts = Timeouts::default()
        .request(None)
        .confirm(None)
        .publish(None)
        .flush(None);
    Config::default().timeouts(timeouts.checkout(None))
}

/// A connection that is open, and its driver, which does not run yet.
pub(super) struct World {
    pub(super) connection: Connection,
    driver: DriverTask<Wire, Clock>,
    pub(super) server: Server,
    pub(super) clock: Clock,
}

impl World {
    pub(super) fn open(config: Config) -> Self {
        Self::open_over(Writes::Inline, config)
    }

    pub(super) fn open_over(writes: Writes, config: Config) -> Self {
        let server = Server::new(writes);
        let wire = Wire(server.clone());
        let clock = Clock::default();
        let started = Connection::start(config, wire, clock.clone());
        let (connection, driver) = started.expect("the config is good");
        let mut world = Self {
            driver: DriverTask::new(driver, connection.shared()),
            connection: connection.clone(),
            server,
            clock,
        };
        world.run(connection.opened()).expect("the server accepts");
        world
    }

    /// Runs a future to its end beside the driver, in the only thread that there is yet.
    pub(super) fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        for turn in 0..TURNS {
            let shared = Arc::downgrade(self.connection.shared());
            // The only owner of the task: a waker that takes its place drops that.
            let waker = Waker::from(Arc::new(Task(shared)));
            let cx = &mut Context::from_waker(&waker);
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return output;
            }
            if turn % 2 == 1 {
                assert!(Pin::new(&mut self.driver).poll(cx).is_pending());
            }
        }
        panic!("it does not end");
    }

    /// Opens a channel.
    pub(super) fn open_channel(&mut self) -> Channel {
        let connection = self.connection.clone();
        self.run(connection.open_channel()).expect("it opens")
    }

    /// Starts the thread of the driver.
    pub(super) fn drive(self) -> Driven {
        let driver = self.driver;
        Driven {
            connection: self.connection,
            driving: thread::spawn(move || block_on(driver)),
            serving: None,
        }
    }

    /// Starts the thread of the driver, and one of the server.
    pub(super) fn drive_and_serve(self) -> Driven {
        self.server.lock().has_thread = true;
        let server = self.server.clone();
        let mut driven = self.drive();
        driven.serving = Some(thread::spawn(move || block_on(server.serve())));
        driven
    }
}

/// A task that takes the lock of the session when it is woken and when it is dropped, as an executor
/// that polls at once and a future that owns a handle do.
struct Task(Weak<Shared>);

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            let _state = shared.lock();
        }
    }
}

/// A connection, and the thread of its driver.
pub(super) struct Driven {
    pub(super) connection: Connection,
    pub(super) driving: JoinHandle<()>,
    serving: Option<JoinHandle<()>>,
}

impl Driven {
    /// Closes the connection in good order, and waits for the threads.
    pub(super) fn close(self) {
        block_on(self.connection.close()).expect("it closes in good order");
        self.join();
    }

    /// Waits for the threads, which end with the connection.
    pub(super) fn join(self) {
        drop(self.connection);
        self.driving.join().expect("the driver ends");
        if let Some(serving) = self.serving {
            serving.join().expect("the server ends");
        }
    }
}

/// The server's end.
#[derive(Clone)]
pub(super) struct Server(Arc<Mutex<State>>);

pub(super) struct State {
    pub(super) machine: server::Connection,
    to_server: BytesMut,
    to_client: BytesMut,
    /// The server acts in a thread of its own. Otherwise it acts within the client's write.
    has_thread: bool,
    /// It reads, and sends nothing.
    pub(super) mute: bool,
    /// The maximum number of bytes that the client reads at a time.
    pub(super) read_max: usize,
    /// The number of messages to deliver to each consumer.
    pub(super) deliveries: u64,
    consumer: Option<(ChannelId, ShortStr)>,
    /// The number of messages for `basic.get`.
    pub(super) gettable: u64,
    /// Delivery tags.
    last_tag: u64,
    /// The messages that were settled, by tag: whether each was acknowledged.
    pub(super) settled: Vec<(u64, bool)>,
    /// The number of channels that were opened.
    pub(super) opened: usize,
    /// The number of queues that were declared.
    pub(super) declared: usize,
    /// The bodies that were published.
    pub(super) published: Vec<Vec<u8>>,
    /// The client has ended its output.
    closed: bool,
    reader: Option<Waker>,
    /// The task that waits for room, while the transport is full.
    writer: Option<Waker>,
    pub(super) writes: Writes,
    server: Option<Waker>,
}

impl Server {
    fn new(writes: Writes) -> Self {
        let config = server::Config::default().heartbeat(0);
        Self(Arc::new(Mutex::new(State {
            machine: server::Connection::new(config, Instant::ORIGIN).expect("the default is good"),
            to_server: BytesMut::new(),
            to_client: BytesMut::new(),
            has_thread: false,
            mute: false,
            read_max: usize::MAX,
            deliveries: 0,
            consumer: None,
            gettable: 0,
            last_tag: 0,
            settled: Vec::new(),
            opened: 0,
            declared: 0,
            published: Vec::new(),
            closed: false,
            reader: None,
            writer: None,
            server: None,
            writes,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the output of the client from now on.
    pub(super) fn make_room(&self) {
        let mut state = self.lock();
        state.writes = Writes::Inline;
        let writer = state.writer.take();
        drop(state);
        wake_all(writer);
    }

    /// Sends messages to the last consumer.
    pub(super) fn deliver(&self, count: u64) {
        let mut state = self.lock();
        state.deliver(count);
        state.act();
        let reader = state.reader.take();
        drop(state);
        wake_all(reader);
    }

    /// Acts on input until the client has ended its output.
    async fn serve(self) {
        loop {
            let received = poll_fn(|cx| {
                let received = |state: &mut State| {
                    if state.to_server.is_empty() {
                        return state.closed.then_some(false);
                    }
                    Some(true)
                };
                poll_locked(&self.0, cx.waker(), received, |state| &mut state.server)
            });
            if !received.await {
                return;
            }
            let mut state = self.lock();
            state.act();
            let reader = state.reader.take();
            drop(state);
            wake_all(reader);
        }
    }
}

impl State {
    fn act(&mut self) {
        self.machine
            .handle_input(Instant::ORIGIN, &mut self.to_server);
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Authenticate(_) => self.machine.accept().expect("the handshake"),
                Event::Open { .. } => self.machine.open().expect("the handshake"),
                Event::ChannelOpened { .. } => self.opened += 1,
                Event::Request { channel, method } => self.reply(channel, method),
                Event::Published(message) => {
                    self.published.push(message.content.body.to_vec());
                    if let (Some(seq), Some(mut channel)) =
                        (message.seq, self.machine.channel(message.channel))
                    {
                        channel.confirm(seq, false).expect("it was published");
                    }
                }
                _ => {}
            }
        }
        let mut out = Transmit::new();
        while self.machine.poll_transmit(Instant::ORIGIN, &mut out) {}
        if !self.mute {
            for segment in out.segments() {
                self.to_client.extend_from_slice(segment);
            }
        }
    }

    fn deliver(&mut self, count: u64) {
        let Some((channel, tag)) = self.consumer.clone() else {
            return;
        };
        for _ in 0..count {
            self.last_tag += 1;
            let deliver = basic::Deliver {
                consumer_tag: tag.clone(),
                delivery_tag: self.last_tag,
                ..basic::Deliver::default()
            };
            let mut channel = self.machine.channel(channel).expect("it is open");
            let none = basic::Properties::default();
            let sent = channel.send_content(&deliver, &none, vec![0; 100]);
            sent.expect("it consumes");
        }
    }

    fn reply(&mut self, id: ChannelId, method: ClientMethod) {
        let Some(mut channel) = self.machine.channel(id) else {
            return;
        };
        let none = basic::Properties::default();
        match method {
            ClientMethod::BasicGet(_) if self.gettable > 0 => {
                self.gettable -= 1;
                self.last_tag += 1;
                let ok = basic::GetOk {
                    delivery_tag: self.last_tag,
                    ..basic::GetOk::default()
                };
                channel
                    .send_content(&ok, &none, "got")
                    .expect("it was requested");
            }
            ClientMethod::BasicConsume(consume) => {
                self.consumer = Some((id, consume.consumer_tag.clone()));
                replies::reply(&mut channel, consume.into()).expect("it was requested");
                self.deliver(self.deliveries);
            }
            ClientMethod::BasicAck(ack) => self.settled.push((ack.delivery_tag, true)),
            ClientMethod::BasicReject(reject) => self.settled.push((reject.delivery_tag, false)),
            ClientMethod::BasicNack(nack) => self.settled.push((nack.delivery_tag, false)),
            ClientMethod::QueueDeclare(declare) => {
                self.declared += 1;
                drop(replies::reply(&mut channel, declare.into()));
            }
            // Refused if the client has closed the channel meanwhile.
            method => drop(replies::reply(&mut channel, method)),
        }
    }
}

/// The behaviour of the client's transport.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Writes {
    /// Commands and the task write.
    Inline,
    /// As [`Inline`](Self::Inline), and the driver is lent to threads that wait.
    Lent,
    /// Only the task writes.
    ByTheTask,
    /// There is no room until the server makes some.
    Full,
    /// A write of a command panics.
    Panic,
}

/// The client's end of the transport.
pub(super) struct Wire(Server);

impl Transport for Wire {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<Result<usize>> {
        let read = |state: &mut State| {
            if state.to_client.is_empty() {
                let hung_up = state.closed || state.machine.is_finished();
                return hung_up.then_some(0);
            }
            let room = buf.capacity() - buf.len();
            let count = state.to_client.len().min(state.read_max).min(room);
            buf.extend_from_slice(&state.to_client.split_to(count));
            Some(count)
        };
        poll_locked(&self.0.0, cx.waker(), read, |state| &mut state.reader).map(Ok)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Transmit) -> Poll<Result<usize>> {
        let room = |state: &mut State| (state.writes != Writes::Full).then_some(());
        ready!(poll_locked(&self.0.0, cx.waker(), room, |state| &mut state.writer));
        let mut state = self.0.lock();
        let panics = state.writes == Writes::Panic && cx.waker().will_wake(io::no_wakeup());
        assert!(!panics, "a transport of a test");
        let count = out.len();
        for segment in out.segments() {
            state.to_server.extend_from_slice(segment);
        }
        let server = state.server.take();
        let mut reader = None;
        if !state.has_thread {
            state.act();
            // The write may be a command's, while the driver waits for input.
            if !state.to_client.is_empty() || state.machine.is_finished() {
                reader = state.reader.take();
            }
        }
        drop(state);
        out.advance(count);
        wake_all(server.into_iter().chain(reader));
        Poll::Ready(Ok(count))
    }

    fn is_inline(&self) -> bool {
        self.0.lock().writes != Writes::ByTheTask
    }

    fn lender(&self) -> Option<fn(LentDriver)> {
        (self.0.lock().writes == Writes::Lent).then_some(lent::take)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        // The task is woken for input again; a command's own flush arranges nothing.
        let lent = self.0.lock().writes == Writes::Lent;
        if lent && !cx.waker().will_wake(io::no_wakeup()) {
            let waker = cx.waker().clone();
            let mut state = self.0.lock();
            let ready = !state.to_client.is_empty() || state.closed || state.machine.is_finished();
            let before = if ready {
                Some(waker)
            } else {
                state.reader.replace(waker)
            };
            drop(state);
            if ready {
                wake_all(before);
            } else {
                drop(before);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = self.0.lock();
        state.closed = true;
        let server = state.server.take();
        drop(state);
        wake_all(server);
        Poll::Ready(Ok(()))
    }
}

/// Time that a test turns. Its lock is no point of the exploration: no thread is switched within.
#[derive(Clone, Default)]
pub(super) struct Clock(Arc<sync::Mutex<Time>>);

#[derive(Default)]
struct Time {
    now: Duration,
    /// The driver's alarm.
    alarm: Option<(Instant, Waker)>,
    /// The thread that waits for an alarm.
    watcher: Option<Waker>,
}

impl Clock {
    fn lock(&self) -> sync::MutexGuard<'_, Time> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the driver has an alarm within `limit`, and lets that time pass.
    pub(super) async fn pass(&self, limit: Duration) {
        let alarm = poll_fn(|cx| {
            let waker = cx.waker().clone();
            let mut time = self.lock();
            let end = Instant::from_origin(time.now + limit);
            if time.alarm.as_ref().is_none_or(|(at, _)| *at > end) {
                time.watcher = Some(waker);
                return Poll::Pending;
            }
            time.now += limit;
            Poll::Ready(time.alarm.take().map(|(_, waker)| waker))
        });
        wake_all(alarm.await);
    }
}

impl Timer for Clock {
    fn now(&self) -> Instant {
        Instant::from_origin(self.lock().now)
    }

    fn clock(&self) -> io::Clock {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()> {
        let waker = cx.waker().clone();
        let mut time = self.lock();
        // Dropped after the lock: the drop of a waker may be a point of the exploration.
        let before = time.alarm.take();
        let Some(at) = at else {
            drop(time);
            drop(before);
            return Poll::Pending;
        };
        if at <= Instant::from_origin(time.now) {
            drop(time);
            drop(before);
            return Poll::Ready(());
        }
        time.alarm = Some((at, waker));
        let watcher = time.watcher.take();
        drop(time);
        drop(before);
        wake_all(watcher);
        Poll::Pending
    }
}

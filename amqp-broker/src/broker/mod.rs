//! The broker: what the world tells it, and what it tells the world.

mod dead_letter;
pub(crate) mod dispatch;
mod handshake;
mod lifetime;
mod reading;

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    string::String,
};

use amqp_core::{
    ApiMisuse, ChannelId, Instant, ServerSent, Stage, TimeoutReason, Transmit, server,
};

use crate::{
    config::{Config, ConfigError, User},
    faults::FaultState,
    keys::{ChannelKey, ConnectionKey, QueueKey},
    model::{
        channel::Channel, exchange::Exchange, link::Link, message::Gauge, queue::Queue,
        vhost::Vhost,
    },
    random::Random,
    refusal::{Outcome, Refusal},
};

/// An in-memory broker: a pure state machine with many connections.
///
/// See the [crate](crate) for how it is driven.
#[derive(Debug)]
pub struct Broker {
    pub(crate) config: Config,
    /// What each connection begins with.
    server: server::Config,
    pub(crate) users: BTreeMap<String, User>,
    pub(crate) now: Instant,
    pub(crate) links: BTreeMap<ConnectionKey, Link>,
    pub(crate) vhosts: BTreeMap<String, Vhost>,
    pub(crate) queues: BTreeMap<QueueKey, Queue>,
    /// When which queue is to be looked at. A queue is in it at most once.
    deadlines: BTreeSet<(Instant, QueueKey)>,
    /// The queues that are to be looked at now.
    due: VecDeque<QueueKey>,
    /// The connections that were held from being read, and may be read again.
    resumed: VecDeque<ConnectionKey>,
    /// The connections whose drivers are to be woken.
    wakes: VecDeque<ConnectionKey>,
    /// What messages take.
    pub(crate) gauge: Gauge,
    /// Memory is short: publishers are blocked.
    pub(crate) alarm: bool,
    /// Where direct replies go, by their address.
    pub(crate) reply_addresses: BTreeMap<amqp_core::wire::ShortStr, ChannelKey>,
    pub(crate) random: Random,
    pub(crate) faults: FaultState,
    /// The number given out last.
    last_key: u64,
    /// How many connections were ever accepted.
    accepted: u64,
}

/// A connection is not taken.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcceptError {
    /// There are as many as the limits allow.
    #[error("there are {limit} connections already")]
    TooManyConnections {
        /// How many there may be.
        limit: usize,
    },
    /// The [fault switch](crate::Faults::refuse_connects) says so.
    #[error("connections are refused for a test")]
    Refused,
    /// The call was wrong in itself: nothing could drive the connection from there.
    #[error(transparent)]
    Misuse(#[from] ApiMisuse),
}

impl Broker {
    /// A broker with nothing in it but what every virtual host begins with.
    ///
    /// # Errors
    /// For a configuration that contradicts itself, or that no client could connect to.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let mut server = config.server.clone();
        server.limits.body = config.limits.message;
        server.limits.output_high = config.limits.output;
        server.limits.output_low = config.limits.output / 4;
        server.mechanisms = handshake::without_external(&server.mechanisms);
        // What no client could connect to is found now, and not with the first client.
        server::Connection::new(server.clone(), Instant::ORIGIN)?;
        let mut vhosts = BTreeMap::new();
        for name in &config.vhosts {
            let vhost = Vhost::new(name.clone());
            if vhosts.insert(name.clone(), vhost).is_some() {
                return Err(ConfigError::DuplicateVhost(name.clone()));
            }
        }
        let mut users = BTreeMap::new();
        for user in &config.users {
            if users.insert(user.name.clone(), user.clone()).is_some() {
                return Err(ConfigError::DuplicateUser(user.name.clone()));
            }
        }
        Ok(Self {
            random: Random::new(config.seed),
            config,
            server,
            users,
            now: Instant::ORIGIN,
            links: BTreeMap::new(),
            vhosts,
            queues: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            due: VecDeque::new(),
            resumed: VecDeque::new(),
            wakes: VecDeque::new(),
            gauge: Gauge::default(),
            alarm: false,
            reply_addresses: BTreeMap::new(),
            faults: FaultState::default(),
            last_key: 0,
            accepted: 0,
        })
    }

    // The world to the broker; `handle_input` is in `reading.rs`.

    /// A connection was accepted from a listener, or made in memory. It waits for the client's
    /// protocol header.
    ///
    /// # Errors
    /// When it is not taken: hang up.
    pub fn accept(&mut self, now: Instant) -> Result<ConnectionKey, AcceptError> {
        self.advance_clock(now);
        let limit = self.config.limits.connections;
        if self.links.len() >= limit {
            return Err(AcceptError::TooManyConnections { limit });
        }
        if self.faults.refuses_connect() {
            return Err(AcceptError::Refused);
        }
        // The configuration was tried when the broker was made.
        let machine = server::Connection::new(self.server.clone(), self.now)
            .map_err(|_| AcceptError::Refused)?;
        self.accepted += 1;
        let key = ConnectionKey(self.accepted);
        self.links.insert(key, Link::new(machine));
        self.faults.bytes.begin(key);
        Ok(key)
    }

    /// The transport of a connection is secured: EXTERNAL is among the mechanisms that are offered,
    /// if the [configuration](Config::server) has it, and lets the client in as this user, for whom
    /// the transport vouches. Without a name it is refused, as RabbitMQ does it to a client that has
    /// shown no certificate. To be told before the first input; afterwards it changes nothing.
    ///
    /// ```
    /// use amqp_broker::{Broker, Config};
    /// use amqp_core::Instant;
    ///
    /// let mut broker = Broker::new(Config::default())?;
    /// let key = broker.accept(Instant::ORIGIN)?;
    /// broker.handle_secured(key, Some("guest".into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn handle_secured(&mut self, key: ConnectionKey, user: Option<String>) {
        let mechanisms = &self.config.server.mechanisms;
        if let Some(link) = self.links.get_mut(&key)
            && link.machine.stage() == Stage::Greeting
        {
            link.machine.set_mechanisms(mechanisms);
            link.vouched = user;
        }
    }

    /// The transport of a connection ended.
    pub fn handle_eof(&mut self, key: ConnectionKey, now: Instant) {
        self.with_machine(key, now, |machine, now| machine.handle_eof(now));
    }

    /// The transport of a connection failed, with that message.
    pub fn handle_transport_error(&mut self, key: ConnectionKey, now: Instant, message: &str) {
        self.with_machine(key, now, |machine, now| {
            machine.handle_transport_error(now, message);
        });
    }

    /// The time named by [`poll_connection_timeout`](Self::poll_connection_timeout) has come.
    pub fn handle_connection_timeout(&mut self, key: ConnectionKey, now: Instant) {
        self.with_machine(key, now, server::Connection::handle_timeout);
    }

    /// The time named by [`poll_timeout`](Self::poll_timeout) has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance_clock(now);
        self.finish();
    }

    /// Nobody drives a connection any more: it ends at once, if it has not ended.
    pub fn remove(&mut self, key: ConnectionKey, now: Instant) {
        self.handle_eof(key, now);
        self.faults.bytes.end(key);
        if self.links.remove(&key).is_some_and(|link| link.woken) {
            self.wakes.retain(|waiting| *waiting != key);
        }
    }

    // The broker to the world.

    /// Moves what is to be sent on a connection into `out`; false if there is nothing.
    pub fn poll_transmit(&mut self, key: ConnectionKey, now: Instant, out: &mut Transmit) -> bool {
        self.advance_clock(now);
        let Some(link) = self.links.get_mut(&key) else {
            return false;
        };
        let moved = link.machine.poll_transmit(self.now, out);
        if link.stuffed && link.machine.buffered() <= self.config.limits.replies / 2 {
            link.stuffed = false;
            self.resume(key);
        }
        self.take_events(key);
        self.finish();
        moved
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called: a message or a queue expires
    /// then. Any call may change it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// When [`handle_connection_timeout`](Self::handle_connection_timeout) is to be called, and what
    /// for: it concerns nothing but that connection, such as its heartbeats.
    #[must_use]
    pub fn poll_connection_timeout(&self, key: ConnectionKey) -> Option<(Instant, TimeoutReason)> {
        self.links.get(&key)?.machine.poll_timeout()
    }

    /// A connection that has something to send, or can be read from again, since it was last polled:
    /// wake its driver.
    pub fn poll_wake(&mut self) -> Option<ConnectionKey> {
        let key = self.wakes.pop_front()?;
        if let Some(link) = self.links.get_mut(&key) {
            link.woken = false;
        }
        Some(key)
    }

    /// Whether a connection is to be read from. It is not while memory is short and it publishes,
    /// nor while it does not take the answers to what it asks.
    #[must_use]
    pub fn wants_input(&self, key: ConnectionKey) -> bool {
        self.links.get(&key).is_none_or(Link::is_read)
    }

    /// How many more bytes the frame in progress of a connection needs at least; 0 when none is in
    /// progress.
    #[must_use]
    pub fn read_hint(&self, key: ConnectionKey) -> usize {
        let link = self.links.get(&key);
        link.map_or(0, |link| link.machine.read_hint())
    }

    /// Whether a connection is all over: hang up, and [`remove`](Self::remove) it.
    #[must_use]
    pub fn is_finished(&self, key: ConnectionKey) -> bool {
        let link = self.links.get(&key);
        link.is_none_or(|link| link.machine.is_finished())
    }

    // What the rest builds on.

    /// Notes the time, and looks at what it is time for.
    fn advance_clock(&mut self, now: Instant) {
        self.now = self.now.max(now);
        while let Some(&(at, key)) = self.deadlines.first() {
            if at > self.now {
                break;
            }
            self.deadlines.pop_first();
            if let Some(queue) = self.queues.get_mut(&key) {
                queue.deadline = None;
            }
            self.schedule(key);
        }
    }

    /// Lets something happen to a connection's machine, and deals with what comes of it.
    fn with_machine(
        &mut self,
        key: ConnectionKey,
        now: Instant,
        happen: impl FnOnce(&mut server::Connection, Instant),
    ) {
        self.advance_clock(now);
        if let Some(link) = self.links.get_mut(&key) {
            happen(&mut link.machine, self.now);
            self.take_events(key);
            self.wake(key);
        }
        self.finish();
    }

    /// A number that was never given out.
    pub(crate) const fn next_key(&mut self) -> u64 {
        self.last_key += 1;
        self.last_key
    }

    /// A queue is to be looked at, once what is being done is done.
    pub(crate) fn schedule(&mut self, key: QueueKey) {
        if let Some(queue) = self.queues.get_mut(&key)
            && !queue.scheduled
        {
            queue.scheduled = true;
            self.due.push_back(key);
        }
    }

    /// Sets the time at which a queue is to be looked at.
    fn set_deadline(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.get_mut(&key) else {
            return;
        };
        let next = queue.next_deadline();
        if queue.deadline != next {
            let before = core::mem::replace(&mut queue.deadline, next);
            if let Some(at) = before {
                self.deadlines.remove(&(at, key));
            }
            self.deadlines.extend(next.map(|at| (at, key)));
        }
    }

    /// The driver of a connection is to be woken.
    pub(crate) fn wake(&mut self, key: ConnectionKey) {
        if let Some(link) = self.links.get_mut(&key)
            && !link.woken
        {
            link.woken = true;
            self.wakes.push_back(key);
        }
    }

    /// Looks at all queues that are to be looked at.
    pub(crate) fn look_at_queues(&mut self) {
        while let Some(key) = self.due.pop_front() {
            self.look_at(key);
        }
    }

    /// Ends a call: does what was left to do.
    pub(crate) fn finish(&mut self) {
        loop {
            self.look_at_queues();
            self.watch_memory();
            let Some(key) = self.resumed.pop_front() else {
                return;
            };
            self.read_pending(key);
        }
    }

    /// A connection may be read again.
    fn resume(&mut self, key: ConnectionKey) {
        if let Some(link) = self.links.get_mut(&key)
            && link.is_read()
        {
            link.machine.set_reading(self.now, true);
            self.resumed.push_back(key);
            self.wake(key);
        }
    }

    /// Blocks publishers, or lets them go on.
    fn watch_memory(&mut self) {
        let limit = self.config.limits.memory;
        let taken = self.gauge.get();
        let low = limit - limit / 8;
        let alarm = self.faults.memory_alarm || taken > if self.alarm { low } else { limit };
        if alarm || !self.alarm {
            self.alarm = alarm;
            return;
        }
        self.alarm = false;
        let blocked = self.links.iter().filter(|(_, link)| link.blocked);
        let blocked: VecDeque<ConnectionKey> = blocked.map(|(key, _)| *key).collect();
        for key in blocked {
            if let Some(link) = self.links.get_mut(&key) {
                link.blocked = false;
                // One that is not open any more needs not be told.
                let _told = link.machine.unblock();
            }
            self.wake(key);
            self.resume(key);
        }
    }

    pub(crate) fn link(&mut self, key: ConnectionKey) -> Outcome<&mut Link> {
        self.links.get_mut(&key).ok_or_else(gone)
    }

    pub(crate) fn channel(&mut self, key: ChannelKey) -> Outcome<&mut Channel> {
        let link = self.link(key.connection)?;
        link.channel(key.id).ok_or_else(gone)
    }

    /// The virtual host of a connection.
    pub(crate) fn vhost(&self, key: ConnectionKey) -> Outcome<&Vhost> {
        let link = self.links.get(&key).ok_or_else(gone)?;
        self.vhosts.get(&link.vhost).ok_or_else(gone)
    }

    pub(crate) fn vhost_mut(&mut self, key: ConnectionKey) -> Outcome<&mut Vhost> {
        let link = self.links.get(&key).ok_or_else(gone)?;
        self.vhosts.get_mut(&link.vhost).ok_or_else(gone)
    }

    pub(crate) fn exchange(
        &self,
        key: ConnectionKey,
        name: &amqp_core::wire::ShortStr,
    ) -> Outcome<&Exchange> {
        self.vhost(key)?.exchange(name)
    }

    /// Sends a method on a channel, if that is still open.
    pub(crate) fn send<M: ServerSent>(&mut self, to: ChannelKey, method: &M) {
        let Some(link) = self.links.get_mut(&to.connection) else {
            return;
        };
        if let Some(mut channel) = link.machine.channel(to.id) {
            // A channel that has been closed meanwhile needs no answer.
            let _sent = channel.send(method);
            self.wake(to.connection);
        }
    }

    /// Answers a request, unless it wants no answer.
    pub(crate) fn reply<M: ServerSent>(&mut self, to: ChannelKey, no_wait: bool, method: &M) {
        if !no_wait {
            self.send(to, method);
        }
    }

    pub(crate) fn channel_ids(&self, key: ConnectionKey) -> alloc::vec::Vec<ChannelId> {
        let link = self.links.get(&key);
        link.map(|link| link.channels.values().map(|channel| channel.id).collect())
            .unwrap_or_default()
    }
}

/// The connection or channel that something was done for is gone. Nobody reads that text: what
/// would be answered with it is gone, too.
fn gone() -> Refusal {
    Refusal::new(
        amqp_core::protocol::ReplyCode::INTERNAL_ERROR,
        "the connection is gone",
    )
}

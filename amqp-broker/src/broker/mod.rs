//! The broker: the calls of its drivers, and their results.

mod ack_timeout;
mod adopt;
mod dead_letter;
pub(crate) mod dispatch;
mod entities;
mod handshake;
mod lifetime;
mod limits;
mod reading;
mod streams;

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet, VecDeque},
    string::String,
    sync::Arc,
    vec::Vec,
};

use amqp_core::{
    ApiMisuse, ChannelId, Instant, ServerSent, Stage, TimeoutReason, Transmit, server,
};
use bytes::Bytes;

use self::dead_letter::Reason;
use crate::{
    config::{Config, ConfigError, User},
    durable::journal::Journal,
    fault_state::FaultState,
    keys::{ChannelKey, ConnectionKey, QueueKey},
    listing::MessageCounts,
    model::{
        channel::Channel, conn_state::ConnState, exchange::Exchange, message::MemoryMeter,
        message::Message, queue::Queue, spare::pop_front, stream::Stream, vhost::Vhost,
    },
    notice::Notice,
    random::Random,
    refusal::{Outcome, Refusal},
};

/// The number of deliveries, dead letters and turns after which a call leaves the rest to the next
/// one: some tens of milliseconds.
const SERVICE_WORK: u64 = 4096;

/// An in-memory broker: a pure state machine with many connections.
///
/// See the [crate documentation](crate) for how it is driven.
#[derive(Debug)]
pub struct Broker {
    pub(crate) config: Config,
    /// The configuration of each new connection.
    server: server::Config,
    pub(crate) users: BTreeMap<String, User>,
    /// The global runtime parameters, which have no meaning here
    /// (<https://www.rabbitmq.com/docs/parameters>).
    pub(crate) global_parameters: BTreeMap<String, amqp_core::wire::FieldValue>,
    pub(crate) now: Instant,
    /// The connections. Boxed, because a node of the map is half empty.
    pub(crate) connections: BTreeMap<ConnectionKey, Box<ConnState>>,
    pub(crate) vhosts: BTreeMap<String, Vhost>,
    pub(crate) queues: BTreeMap<QueueKey, Queue>,
    /// The logs of the queues that are streams.
    pub(crate) streams: BTreeMap<QueueKey, Stream>,
    /// The deadlines of queues, at most one for each queue.
    deadlines: BTreeSet<(Instant, QueueKey)>,
    /// The deadlines of acknowledgements, at most one for each channel.
    ack_deadlines: BTreeSet<(Instant, ChannelKey)>,
    /// The queues that are scheduled for processing.
    due: VecDeque<QueueKey>,
    /// The queues with an expiry that restarts at the next time that is known.
    restarted: Vec<QueueKey>,
    /// The messages that queues with the overflow `reject-publish-dlx` have rejected, to be
    /// dead-lettered.
    rejected: VecDeque<(QueueKey, Arc<Message>)>,
    /// The number of deliveries, dead letters and turns so far.
    work: u64,
    /// The value of `work` at which the current call leaves the rest.
    work_end: u64,
    /// The number of turns that queues have taken.
    turn: u64,
    /// The connections that may be read from again after a pause.
    resumed: VecDeque<ConnectionKey>,
    /// The connections with drivers that must be woken.
    wakes: VecDeque<ConnectionKey>,
    /// The memory that messages occupy.
    pub(crate) memory: MemoryMeter,
    /// `true` while the memory alarm is raised: connections that publish are blocked.
    pub(crate) alarm: bool,
    /// The channels that receive direct replies, by their addresses
    /// (<https://www.rabbitmq.com/docs/direct-reply-to>).
    pub(crate) reply_addresses: BTreeMap<amqp_core::wire::ShortStr, ChannelKey>,
    /// The notices that were not polled.
    pub(crate) notices: VecDeque<(ConnectionKey, Notice)>,
    /// The messages of all queues.
    pub(crate) messages: MessageCounts,
    pub(crate) random: Random,
    pub(crate) faults: FaultState,
    /// The last key that `next_key` returned.
    pub(crate) last_key: u64,
    /// The number of connections that were ever accepted.
    accepted: u64,
    pub(crate) journal: Journal,
    /// `true` between `stop` and `start`.
    pub(crate) stopped: bool,
}

/// The reason for which a connection is not accepted.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcceptError {
    /// The maximum number of connections is reached.
    #[error("there are {limit} connections already")]
    TooManyConnections {
        /// The maximum number of connections.
        limit: usize,
    },
    /// A [fault](crate::Faults::refuse_connects) refuses the connection.
    #[error("connections are refused for a test")]
    Refused,
    /// The broker is [stopped](Broker::stop).
    #[error("the broker is stopped")]
    Stopped,
    /// The call was invalid: nothing could drive the connection, for instance outside of a runtime.
    #[error(transparent)]
    Misuse(#[from] ApiMisuse),
}

impl Broker {
    /// Creates a broker that has only the virtual hosts with their predeclared exchanges.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or no client could connect with it.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let mut server = config.server.clone();
        server.limits.body = config.limits.message;
        server.limits.output_high = config.limits.output;
        server.limits.output_low = config.limits.output / 4;
        server.mechanisms = handshake::without_external(&server.mechanisms);
        // Detects settings that no client could connect with now, and not at the first connection.
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
        let journal = Journal::new(config.journal);
        Ok(Self {
            random: Random::new(config.seed),
            config,
            server,
            users,
            global_parameters: BTreeMap::new(),
            now: Instant::ORIGIN,
            connections: BTreeMap::new(),
            vhosts,
            queues: BTreeMap::new(),
            streams: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            ack_deadlines: BTreeSet::new(),
            due: VecDeque::new(),
            restarted: Vec::new(),
            rejected: VecDeque::new(),
            work: 0,
            work_end: SERVICE_WORK,
            turn: 0,
            resumed: VecDeque::new(),
            wakes: VecDeque::new(),
            memory: MemoryMeter::default(),
            alarm: false,
            reply_addresses: BTreeMap::new(),
            notices: VecDeque::new(),
            messages: MessageCounts::default(),
            faults: FaultState::default(),
            last_key: 0,
            accepted: 0,
            journal,
            stopped: false,
        })
    }

    // Calls of drivers; `handle_input` is in `reading.rs`.

    /// Accepts a connection from a listener, or one made in memory. It waits for the client's
    /// protocol header (section 4.2.2 of the specification).
    ///
    /// # Errors
    /// If the connection is refused: close its transport.
    pub fn accept(&mut self, now: Instant) -> Result<ConnectionKey, AcceptError> {
        self.advance_clock(now);
        self.check_acceptance()?;
        // Does not fail: `new` has tried the same configuration.
        let machine = server::Connection::new(self.server.clone(), self.now)
            .map_err(|_| AcceptError::Refused)?;
        Ok(self.add_connection(machine))
    }

    /// Marks the transport of a connection as secured. EXTERNAL is then offered, if the
    /// [configuration](Config::server) has it, and logs the client in as `user`, the name that the
    /// transport has authenticated. With `None` EXTERNAL is refused, as RabbitMQ refuses a client
    /// without a certificate (<https://www.rabbitmq.com/docs/access-control>). Call it before the
    /// first input; later it has no effect.
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
        if let Some(conn) = self.connections.get_mut(&key)
            && conn.machine.stage() == Stage::Greeting
        {
            conn.machine.set_mechanisms(mechanisms);
            conn.external_user = user;
        }
    }

    /// Records the certificate of a connection's client, in DER, for
    /// [`ConnectionInfo::certificate`](crate::ConnectionInfo::certificate).
    pub fn handle_certificate(&mut self, key: ConnectionKey, certificate: Bytes) {
        if let Some(conn) = self.connections.get_mut(&key) {
            conn.certificate = Some(certificate);
        }
    }

    /// Handles the end of the stream of a connection's transport.
    pub fn handle_eof(&mut self, key: ConnectionKey, now: Instant) {
        self.with_machine(key, now, |machine, now| machine.handle_eof(now));
    }

    /// Handles a failure of a connection's transport, with its error text.
    pub fn handle_transport_error(&mut self, key: ConnectionKey, now: Instant, message: &str) {
        self.with_machine(key, now, |machine, now| {
            machine.handle_transport_error(now, message);
        });
    }

    /// Handles the timeout that [`poll_connection_timeout`](Self::poll_connection_timeout)
    /// returned.
    pub fn handle_connection_timeout(&mut self, key: ConnectionKey, now: Instant) {
        self.with_machine(key, now, server::Connection::handle_timeout);
    }

    /// Handles the timeout that [`poll_timeout`](Self::poll_timeout) returned.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance_clock(now);
        self.finish();
    }

    /// Removes a connection without a driver. Ends it at once, if it has not ended.
    pub fn remove(&mut self, key: ConnectionKey, now: Instant) {
        self.handle_eof(key, now);
        self.faults.bytes.on_remove(key);
        if self.connections.remove(&key).is_some_and(|conn| conn.woken) {
            self.wakes.retain(|waiting| *waiting != key);
        }
    }

    // Results for drivers.

    /// Moves the output of a connection into `out`. Returns `false` if there is none.
    pub fn poll_transmit(&mut self, key: ConnectionKey, now: Instant, out: &mut Transmit) -> bool {
        self.advance_clock(now);
        let Some(conn) = self.connections.get_mut(&key) else {
            return false;
        };
        let moved = conn.machine.poll_transmit(self.now, out);
        if conn.output_full && conn.machine.buffered() <= self.config.limits.replies / 2 {
            conn.output_full = false;
            self.resume(key);
        }
        self.take_events(key);
        self.finish();
        moved
    }

    /// Returns the time for [`handle_timeout`](Self::handle_timeout): `Some` while a message or a
    /// queue has an expiry, a delivery is unacknowledged, or the last call has left work. Any call
    /// may change it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.restarted.is_empty() || !self.due.is_empty() || !self.rejected.is_empty() {
            return Some(self.now);
        }
        let of_queues = self.deadlines.first().map(|(at, _)| *at);
        let of_channels = self.ack_deadlines.first().map(|(at, _)| *at);
        of_queues.into_iter().chain(of_channels).min()
    }

    /// Returns the time for [`handle_connection_timeout`](Self::handle_connection_timeout), and its
    /// reason. It concerns only that connection, for instance its heartbeats.
    #[must_use]
    pub fn poll_connection_timeout(&self, key: ConnectionKey) -> Option<(Instant, TimeoutReason)> {
        self.connections.get(&key)?.machine.poll_timeout()
    }

    /// Returns a connection that has output, or can be read from again, since it was last returned:
    /// wake its driver.
    pub fn poll_wake(&mut self) -> Option<ConnectionKey> {
        let key = pop_front(&mut self.wakes)?;
        if let Some(conn) = self.connections.get_mut(&key) {
            conn.woken = false;
        }
        Some(key)
    }

    /// Returns whether to read from a connection: `false` while it is blocked because it published
    /// during a memory alarm, and while its queued output exceeds
    /// [`Limits::replies`](crate::Limits::replies).
    #[must_use]
    pub fn wants_input(&self, key: ConnectionKey) -> bool {
        self.connections
            .get(&key)
            .is_none_or(|conn| conn.wants_input())
    }

    /// Returns the minimum number of bytes that are missing from the frame in progress; 0 between
    /// frames.
    #[must_use]
    pub fn read_hint(&self, key: ConnectionKey) -> usize {
        let conn = self.connections.get(&key);
        conn.map_or(0, |conn| conn.machine.read_hint())
    }

    /// Returns the expected size of the next frames, in bytes, in the middle of a large body;
    /// otherwise 0.
    #[must_use]
    pub fn frame_hint(&self, key: ConnectionKey) -> usize {
        let conn = self.connections.get(&key);
        conn.map_or(0, |conn| conn.machine.frame_hint())
    }

    /// Returns whether a connection has ended: close its transport, and [`remove`](Self::remove)
    /// it.
    #[must_use]
    pub fn is_finished(&self, key: ConnectionKey) -> bool {
        let conn = self.connections.get(&key);
        conn.is_none_or(|conn| conn.machine.is_finished())
    }

    // Internal operations.

    /// Advances the clock, schedules the queues with deadlines that have passed, and closes the
    /// channels with overdue acknowledgements.
    pub(crate) fn advance_clock(&mut self, now: Instant) {
        self.begin_work();
        self.now = self.now.max(now);
        self.restart_expiry();
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
        self.check_acks();
    }

    /// Begins the bounded work of a call.
    pub(crate) const fn begin_work(&mut self) {
        self.work_end = self.work + SERVICE_WORK;
    }

    /// Applies `happen` to a connection's machine, and processes the resulting events.
    fn with_machine(
        &mut self,
        key: ConnectionKey,
        now: Instant,
        happen: impl FnOnce(&mut server::Connection, Instant),
    ) {
        self.advance_clock(now);
        if let Some(conn) = self.connections.get_mut(&key) {
            happen(&mut conn.machine, self.now);
            self.take_events(key);
            self.wake(key);
        }
        self.finish();
    }

    /// Returns the time of day at the origin of the clock, in seconds since the Unix epoch.
    pub(crate) const fn epoch(&self) -> u64 {
        match self.config.epoch {
            Some(epoch) => epoch,
            None => 0,
        }
    }

    /// Returns the time of day, in milliseconds since the Unix epoch.
    pub(crate) const fn unix_millis(&self) -> u64 {
        let elapsed = self.now.as_nanos() / 1_000_000;
        self.epoch().saturating_mul(1000).saturating_add(elapsed)
    }

    /// Returns an unused key for a queue or a consumer.
    pub(crate) const fn next_key(&mut self) -> u64 {
        self.last_key += 1;
        self.last_key
    }

    /// Schedules a queue for processing after the current operation.
    pub(crate) fn schedule(&mut self, key: QueueKey) {
        if let Some(queue) = self.queues.get_mut(&key)
            && !queue.scheduled
        {
            queue.scheduled = true;
            self.due.push_back(key);
        }
    }

    /// Removes the deadlines of all queues. Processing a queue sets its deadline again.
    pub(crate) fn clear_deadlines(&mut self) {
        self.deadlines = BTreeSet::new();
        for queue in self.queues.values_mut() {
            queue.deadline = None;
        }
    }

    /// Updates the deadline of a queue.
    pub(crate) fn set_deadline(&mut self, key: QueueKey) {
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

    /// Requests a wake-up of a connection's driver.
    pub(crate) fn wake(&mut self, key: ConnectionKey) {
        if let Some(conn) = self.connections.get_mut(&key)
            && !conn.woken
        {
            conn.woken = true;
            self.wakes.push_back(key);
        }
    }

    /// Processes all scheduled queues, turn by turn: a queue that has more to deliver goes to the
    /// end.
    ///
    /// The work of a call is bounded: dead-lettering can multiply a message along a chain of
    /// exchanges. The rest is due at once, see [`poll_timeout`](Self::poll_timeout).
    pub(crate) fn service_due(&mut self) {
        while self.work < self.work_end {
            if let Some((from, message)) = pop_front(&mut self.rejected) {
                self.dead_letter(from, &message, Reason::MaxLength);
                continue;
            }
            let Some(key) = pop_front(&mut self.due) else {
                return;
            };
            self.work += 1;
            if let Some(queue) = self.queues.get_mut(&key) {
                queue.scheduled = false;
            }
            if self.service_queue(key) {
                self.schedule(key);
            }
        }
    }

    /// Ends a call: processes scheduled queues, the memory alarm, and the input of resumed
    /// connections.
    pub(crate) fn finish(&mut self) {
        loop {
            self.service_due();
            self.update_alarm();
            let Some(key) = pop_front(&mut self.resumed) else {
                return;
            };
            self.read_pending(key);
        }
    }

    /// Resumes reading from a connection, unless it is still paused for another reason.
    pub(crate) fn resume(&mut self, key: ConnectionKey) {
        if let Some(conn) = self.connections.get_mut(&key)
            && conn.wants_input()
        {
            conn.machine.set_reading(self.now, true);
            self.resumed.push_back(key);
            self.wake(key);
        }
    }

    /// Raises the memory alarm above the limit, and clears it at 7/8 of the limit. Clearing it
    /// unblocks all connections; raising it blocks a connection at its next publish, in
    /// `pause_reading` (<https://www.rabbitmq.com/docs/alarms>).
    fn update_alarm(&mut self) {
        let limit = self.config.limits.memory;
        let used = self.memory.get();
        let low = limit - limit / 8;
        let alarm = self.faults.memory_alarm || used > if self.alarm { low } else { limit };
        if alarm || !self.alarm {
            self.alarm = alarm;
            return;
        }
        self.alarm = false;
        let blocked = self.connections.iter().filter(|(_, conn)| conn.blocked);
        let blocked: VecDeque<ConnectionKey> = blocked.map(|(key, _)| *key).collect();
        for key in blocked {
            if let Some(conn) = self.connections.get_mut(&key) {
                conn.blocked = false;
                // Fails only on a connection that is not open, which needs no notification.
                let _notified = conn.machine.unblock();
            }
            self.wake(key);
            self.resume(key);
        }
    }

    pub(crate) fn conn(&mut self, key: ConnectionKey) -> Outcome<&mut ConnState> {
        let conn = self.connections.get_mut(&key);
        conn.map(|conn| &mut **conn).ok_or_else(connection_ended)
    }

    pub(crate) fn channel(&mut self, key: ChannelKey) -> Outcome<&mut Channel> {
        let conn = self.conn(key.connection)?;
        conn.channel(key.id).ok_or_else(connection_ended)
    }

    pub(crate) fn vhost(&self, key: ConnectionKey) -> Outcome<&Vhost> {
        let conn = self.connections.get(&key).ok_or_else(connection_ended)?;
        self.vhosts.get(&conn.vhost).ok_or_else(connection_ended)
    }

    pub(crate) fn vhost_mut(&mut self, key: ConnectionKey) -> Outcome<&mut Vhost> {
        let conn = self.connections.get(&key).ok_or_else(connection_ended)?;
        self.vhosts
            .get_mut(&conn.vhost)
            .ok_or_else(connection_ended)
    }

    pub(crate) fn exchange(
        &self,
        key: ConnectionKey,
        name: &amqp_core::wire::ShortStr,
    ) -> Outcome<&Exchange> {
        self.vhost(key)?.exchange(name)
    }

    /// Sends a method on a channel, if the channel is open.
    pub(crate) fn send<M: ServerSent>(&mut self, to: ChannelKey, method: &M) {
        let Some(conn) = self.connections.get_mut(&to.connection) else {
            return;
        };
        if let Some(mut channel) = conn.machine.channel(to.id) {
            // Fails only on a channel that has been closed since, which needs no reply.
            let _sent = channel.send(method);
            self.wake(to.connection);
        }
    }

    /// Replies to a request, unless it has `no-wait` set.
    pub(crate) fn reply<M: ServerSent>(&mut self, to: ChannelKey, no_wait: bool, method: &M) {
        if !no_wait {
            self.send(to, method);
        }
    }

    pub(crate) fn channel_ids(&self, key: ConnectionKey) -> Vec<ChannelId> {
        let conn = self.connections.get(&key);
        conn.map(|conn| conn.channels.values().map(|channel| channel.id).collect())
            .unwrap_or_default()
    }
}

/// The refusal of an operation on a connection or channel that has ended. Its text is never sent,
/// because there is no receiver.
fn connection_ended() -> Refusal {
    Refusal::new(
        amqp_core::protocol::ReplyCode::INTERNAL_ERROR,
        "the connection is gone",
    )
}

//! The handle of a connection.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    time::Duration,
};

use amqp_core::{
    ApiMisuse, CloseReason, ConnectionStats, FrameLog, HeartbeatStats, Instant, TimeoutReason,
    Tuning,
    client::{self, Config, Prefetch},
    protocol::{channel::OpenOk, connection::UpdateSecretOk},
    wire::{FieldTable, IntoShortStr, Secret, ShortStr},
};

use crate::{
    channel::Channel,
    error::Error,
    io::{Driver, Timer, Transport},
    pool::ChannelPool,
    recovery::{RecoveryEvents, Topology},
    session::{
        shared::{ClientEndpoint, Shared, Wait, wait_for, within},
        state::{ChannelState, State},
    },
    states::{ConnectionState, ConnectionStates, connection_state},
    unless::unless,
};

/// A connection to a server.
///
/// Clones share the connection, and can be used from any number of tasks and threads. When the last
/// clone and the last channel are dropped, the connection is closed gracefully, as long as its
/// driver runs.
///
/// Under a resource alarm, RabbitMQ stops reading from connections that publish, including the
/// acknowledgements of their consumers ([RabbitMQ's
/// page](https://www.rabbitmq.com/docs/alarms)): use one connection to publish and
/// another to consume, such as those of a [`ConnectionPair`](crate::ConnectionPair).
#[derive(Clone, Debug)]
pub struct Connection(Arc<Handle>);

/// The state shared by a connection's handles. The driver holds no handle.
#[derive(Debug)]
pub(crate) struct Handle {
    shared: Arc<Shared>,
    /// The prefetch of consumers started without their own.
    prefetch: Prefetch,
    /// Blocks until the end of the connection when the last handle is dropped.
    linger: OnceLock<Linger>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared
            .command_and_process(|state, later| state.close("", later));
        if let Some(linger) = self.linger.get() {
            let ended = wait_for(
                &self.shared,
                |state| &mut state.state_changed,
                |state| state.closed.as_ref().map(|_| ()),
            );
            linger(pin!(ended));
        }
    }
}

/// Blocks the thread until a future is ready; see [`Connection::linger_on_drop`].
pub type Linger = fn(Pin<&mut dyn Future<Output = ()>>);

impl Connection {
    /// Starts a connection over a transport that was just made. Returns its handle and the driver
    /// to spawn. [`opened`](Self::opened) resolves when the connection can be used.
    ///
    /// Adapters call it in their `connect`.
    ///
    /// # Errors
    /// [`Error::Misuse`] for a setting that no server would accept.
    pub fn start<T: Transport, C: Timer>(
        config: Config,
        transport: T,
        clock: C,
    ) -> Result<(Self, Driver<ClientEndpoint, T, C>), Error> {
        let (timeouts, prefetch) = (config.timeouts.clone(), config.prefetch);
        #[cfg(feature = "tracing")]
        let trace = crate::trace::Trace::new(&config.properties);
        let machine = client::Connection::new(config, clock.now())?;
        let shared = Shared::new(
            machine,
            timeouts,
            clock.clock(),
            #[cfg(feature = "tracing")]
            trace,
        );
        let driver = Driver::new(ClientEndpoint::new(Arc::clone(&shared)), transport, clock);
        let handle = Handle {
            shared,
            prefetch,
            linger: OnceLock::new(),
        };
        Ok((Self(Arc::new(handle)), driver))
    }

    /// Waits for the end of the handshake.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    ///
    /// # Errors
    /// [`Error::ConnectionClosed`] with the reason why the connection could not be opened: refused
    /// credentials, an unknown virtual host, another protocol, a peer that closed the transport or
    /// sent nothing.
    pub async fn opened(&self) -> Result<(), Error> {
        self.wait(|state| match (&state.closed, state.opened) {
            (Some(reason), _) => Some(Err(Error::ConnectionClosed(reason.clone()))),
            (None, true) => Some(Ok(())),
            (None, false) => None,
        })
        .await
    }

    /// Opens a channel.
    ///
    /// # Cancel safety
    /// Dropping it closes the channel once it is opened.
    ///
    /// # Errors
    /// When all channel numbers are in use ([`ApiMisuse::NoFreeChannel`]), or the connection is
    /// closed or closes before the reply.
    #[doc(alias("create_channel", "channel"))]
    pub async fn open_channel(&self) -> Result<Channel, Error> {
        let shared = &self.0.shared;
        let opening = shared.command_when_ready(None, |state, _| {
            let (id, request) = state.open_channel()?;
            let channel = ChannelState::default();
            let stale = Arc::clone(&channel.stale);
            state.channels.insert(id, channel);
            let wait = Wait::new(shared, state, Some(id), request);
            // The handle exists before the reply, so that dropping the wait closes the channel.
            Ok((Channel::new(self.clone(), id, stale), wait))
        });
        let (channel, wait) = opening.await?;
        wait.reply::<OpenOk>().await?;
        Ok(channel)
    }

    /// Opens a pool of `size` channels, all at once.
    ///
    /// # Cancel safety
    /// Dropping it closes the channels opened so far.
    ///
    /// # Errors
    /// As [`open_channel`](Self::open_channel).
    pub async fn channel_pool(&self, size: usize) -> Result<ChannelPool, Error> {
        ChannelPool::open(self, size).await
    }

    /// Runs `body`, and drops it if the connection ends first.
    ///
    /// ```no_run
    /// # async fn example(connection: amqp_driver::Connection) -> Result<(), amqp_driver::Error> {
    /// let answer = connection.scope(async { 42 }).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// Dropping it drops the body.
    ///
    /// # Errors
    /// [`Error::ConnectionClosed`] when the connection ends before `body` does.
    pub async fn scope<T>(&self, body: impl Future<Output = T>) -> Result<T, Error> {
        let scoped = unless(self.closed(), body).await;
        scoped.map_err(Error::ConnectionClosed)
    }

    /// Sends the server a new secret, such as an OAuth 2 token, before the old one expires
    /// ([RabbitMQ's page](https://www.rabbitmq.com/docs/oauth2)). The reason is for the server's
    /// operators.
    ///
    /// # Cancel safety
    /// Dropped before the first poll, it sends nothing; afterwards the secret is sent.
    ///
    /// # Errors
    /// When the connection is closed or closes before the reply: RabbitMQ closes it if it refuses
    /// the secret.
    pub async fn update_secret(
        &self,
        secret: Secret,
        reason: impl IntoShortStr,
    ) -> Result<(), Error> {
        update_secret(&self.0.shared, secret, reason.into_short_str()).await
    }

    /// Waits until everything accepted before, publishes and acknowledgements included, was handed
    /// to the transport. It does not mean that the server has received it: a confirm does, and so
    /// does the reply to a later request on the same channel. A closed channel drops its unsent
    /// output, which is not awaited.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    ///
    /// # Errors
    /// [`Error::ConnectionClosed`] when the connection ends first; [`Error::TimedOut`] after
    /// [`Timeouts::flush`](amqp_core::Timeouts).
    pub async fn flush(&self) -> Result<(), Error> {
        let shared = self.shared();
        let marking = shared.command_when_ready(None, |state, _| {
            Ok((state.machine.flush_mark(), state.life))
        });
        let (mark, life) = marking.await?;
        let flushed = wait_for(
            shared,
            |state| &mut state.flushers,
            |state| {
                if let Some(error) = state.lost_since(life) {
                    return Some(Err(error));
                }
                let flushed = !state.in_transit && state.machine.is_flushed(&mark);
                match &state.closed {
                    _ if flushed => Some(Ok(())),
                    Some(reason) => Some(Err(Error::ConnectionClosed(reason.clone()))),
                    None => None,
                }
            },
        );
        within(shared, shared.timeouts().flush, flushed)
            .await
            .unwrap_or(Err(Error::TimedOut {
                reason: TimeoutReason::Flush,
                channel: None,
            }))
    }

    /// Runs `future` with a deadline: returns `Some` if it ends within `limit` by the connection's
    /// clock, and no later than the connection. This is the deadline of a single call: every future
    /// of this crate can be dropped at any time.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// # async fn example(connection: amqp_driver::Connection) -> Result<(), amqp_driver::Error> {
    /// let opened = connection
    ///     .within(Duration::from_secs(2), connection.open_channel())
    ///     .await;
    /// match opened {
    ///     Some(channel) => println!("channel {}", channel?.number()),
    ///     None => println!("the server is slow today"),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// Dropping it drops the future.
    pub async fn within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        within(&self.0.shared, Some(limit), future).await
    }

    /// The current state of the connection.
    #[must_use]
    pub fn state(&self) -> ConnectionState {
        connection_state(&self.0.shared.lock())
    }

    /// Returns the stream of the connection's states: opening, open, blocked by the server,
    /// closing, closed. The stream does not keep the connection open.
    #[doc(alias("on_blocked", "on_unblocked"))]
    #[must_use]
    pub fn states(&self) -> ConnectionStates {
        ConnectionStates::new(Arc::clone(&self.0.shared))
    }

    /// Returns the stream of the events of the [recovery](crate::recovery). Empty without one.
    #[doc(alias("on_recovered", "on_reconnect"))]
    #[must_use]
    pub fn recovery_events(&self) -> RecoveryEvents {
        RecoveryEvents::new(Arc::clone(&self.0.shared))
    }

    /// The topology that a recovery restores: the exchanges, queues, bindings and consumers that
    /// were declared on this connection. `Some` on a connection that recovers.
    #[must_use]
    pub fn topology(&self) -> Option<Topology> {
        self.0.shared.lock().topology().map(|it| it.clone())
    }

    /// Replaces the exchanges, queues and bindings that the next recovery restores. The channels and
    /// consumers stay those of this connection, so that a topology of another one can be given. Does
    /// nothing on a connection that does not recover.
    pub fn set_topology(&self, topology: Topology) {
        let replaced = self.0.shared.with(|state, _| {
            let current = state.topology()?;
            Some(current.replace_entities(topology))
        });
        drop(replaced);
    }

    /// Closes the connection. Everything accepted before, publishes and acknowledgements included,
    /// is sent first; all outstanding requests fail.
    ///
    /// # Cancel safety
    /// Once polled, the connection is closing, and dropping it only drops the wait.
    ///
    /// # Errors
    /// [`Error::ConnectionClosed`] when it ended without the server's `connection.close-ok`: the
    /// server closed it first, the transport ended or failed, or no answer came in time. The output
    /// sent last may then not have arrived.
    pub async fn close(&self) -> Result<(), Error> {
        self.0.shared.command_and_process(|state, later| {
            state.close("goodbye", later);
            state.dismiss_publishers(later);
            state.state_changed.wake_all(later);
        });
        let reason = self.closed().await;
        if reason.is_clean() {
            Ok(())
        } else {
            Err(Error::ConnectionClosed(reason))
        }
    }

    /// Waits for the end of the connection, and returns the reason.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    #[doc(alias("on_close", "on_error", "notify_close"))]
    pub async fn closed(&self) -> CloseReason {
        self.wait(|state| state.closed.clone()).await
    }

    /// Ends the connection at once, without `connection.close` and without sending the queued
    /// output.
    pub fn abort(&self) {
        let shared = &self.0.shared;
        shared.with(|state, later| state.stop_recovery(later));
        ClientEndpoint::new(Arc::clone(shared)).end("aborted by this side");
        shared.command(|_| ());
    }

    /// Makes dropping the last handle block until the connection has been closed gracefully: a
    /// program that publishes and ends loses nothing. `linger` is called on the thread that drops
    /// the handle, with the future of that end, which is ready at the latest when the output has
    /// made no progress for [`Timeouts::close`](amqp_core::Timeouts).
    ///
    /// For connections that are driven by a thread of their own, such as those of `amqp-blocking`:
    /// a thread that drives the connection would deadlock. A second call changes nothing.
    pub fn linger_on_drop(&self, linger: Linger) {
        let _first_wins = self.0.linger.set(linger);
    }

    /// Whether channels can be opened at once: not during the handshake, a recovery or a close. A
    /// health check takes [`state`](Self::state), which tells a connection that
    /// [recovers](ConnectionState::Recovering) or is [blocked](ConnectionState::Blocked) from one that
    /// has [ended](ConnectionState::Closed).
    #[must_use]
    pub fn is_open(&self) -> bool {
        let state = self.0.shared.lock();
        state.machine.is_open() && !state.is_held(None)
    }

    /// The reason for which the connection has ended. `Some` once it has.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.0.shared.lock().closed.clone()
    }

    /// Succeeds while commands are accepted, during the handshake as well.
    ///
    /// # Errors
    /// The error that a command would return: the connection is closing or has ended.
    pub fn check_open(&self) -> Result<(), Error> {
        let mut state = self.0.shared.lock();
        if state.closed.is_none() && state.is_held(None) {
            return Ok(());
        }
        state.opening(|_| Ok(()))
    }

    /// Waits until a channel number is free, or the connection has ended. Returns `false`, at once, if
    /// all numbers are in use and no channel is closing.
    ///
    /// [`open_channel`](Self::open_channel) fails with [`ApiMisuse::NoFreeChannel`] while all numbers
    /// are in use, those of channels whose handles were dropped included, until the server has
    /// answered their close.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn channel_released(&self) -> bool {
        wait_for(
            &self.0.shared,
            |state| &mut state.numbers,
            |state| {
                let channel_max = usize::from(state.machine.tuning().channel_max);
                let is_free = state.used_numbers() < channel_max;
                if is_free || state.closed.is_some() {
                    Some(true)
                } else {
                    (!state.has_closing_channels()).then_some(false)
                }
            },
        )
        .await
    }

    /// The negotiated limits: channels, frame size, heartbeat interval (section 1.4.2.6 of the
    /// protocol reference). [`Config`] has the requested ones.
    #[must_use]
    pub fn tuning(&self) -> Tuning {
        *self.0.shared.lock().machine.tuning()
    }

    /// The SASL mechanism of the login. `Some` once the server has offered its mechanisms.
    #[must_use]
    pub fn mechanism(&self) -> Option<ShortStr> {
        self.0.shared.lock().machine.mechanism().cloned()
    }

    /// The server's properties in `connection.start`: product, version, capabilities.
    #[must_use]
    pub fn server_properties(&self) -> FieldTable {
        self.0.shared.lock().machine.server_properties().clone()
    }

    /// Whether the server announced a capability, such as `publisher_confirms`.
    #[must_use]
    pub fn has_capability(&self, name: &str) -> bool {
        self.0.shared.lock().machine.has_capability(name)
    }

    /// Whether the server is short of a resource and has paused publishing
    /// ([`connection.blocked`](https://www.rabbitmq.com/docs/connection-blocked)).
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.0.shared.lock().machine.is_blocked()
    }

    /// The server's certificate chain, each certificate as DER, its own first. Empty unless this
    /// crate secured the connection.
    #[must_use]
    pub fn peer_certificates(&self) -> Arc<[Vec<u8>]> {
        Arc::clone(&self.0.shared.lock().certificates)
    }

    /// The number of channels that are opening, open or closing.
    #[must_use]
    pub fn channel_count(&self) -> usize {
        self.0.shared.lock().machine.channel_count()
    }

    /// The number of bytes accepted and not yet handed to the transport.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.0.shared.lock().machine.buffered()
    }

    /// The statistics of the connection: bytes, frames and messages since its start, what is
    /// outstanding and buffered now, and the time for which publishing was blocked. Also after its
    /// end. Takes the connection's lock and copies them.
    ///
    /// ```no_run
    /// # async fn example(connection: amqp_driver::Connection) -> Result<(), amqp_driver::Error> {
    /// let before = connection.stats();
    /// connection.flush().await?;
    /// let sent = connection.stats().sent.bytes - before.sent.bytes;
    /// println!("{sent} bytes flushed, {} messages so far", before.published);
    /// # Ok(()) }
    /// ```
    #[doc(alias("metrics", "counters"))]
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        let now = self.0.shared.now();
        let state = self.0.shared.lock();
        let mut stats = state.machine.stats_at(now);
        stats.untaken = state.untaken();
        stats
    }

    /// The numbers of heartbeats, the times of the last two in each direction, and their interval.
    /// The times are those of [`now`](Self::now).
    #[must_use]
    pub fn heartbeats(&self) -> HeartbeatStats {
        self.0.shared.lock().machine.heartbeats()
    }

    /// The time by the connection's clock, to compare with times that it reports.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.0.shared.now()
    }

    /// The last frames, in words and without secrets. `Some` if [`Config::frame_log`] is not 0. Also
    /// after the end of the connection; [`CloseReason::frame_log`] has those before the end.
    #[must_use]
    pub fn frame_log(&self) -> Option<FrameLog> {
        self.0.shared.lock().machine.frame_log().cloned()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// The prefetch of consumers started without their own.
    pub(crate) fn prefetch(&self) -> Prefetch {
        self.0.prefetch
    }

    /// Waits until a condition on the life of the connection holds.
    async fn wait<T>(&self, condition: impl Fn(&State) -> Option<T>) -> T {
        wait_for(&self.0.shared, |state| &mut state.state_changed, condition).await
    }
}

/// Sends the server a new secret.
pub(crate) async fn update_secret(
    shared: &Shared,
    secret: Secret,
    reason: ShortStr,
) -> Result<(), Error> {
    let updating = shared.command_when_ready(None, |state, _| {
        let (secret, reason) = (secret.clone(), reason.clone());
        let request = state.opening(|machine| machine.update_secret(secret, reason))?;
        Ok(Wait::new(shared, state, None, request))
    });
    updating.await?.reply::<UpdateSecretOk>().await?;
    Ok(())
}

impl State {
    /// Runs a command on the machine, unless the connection is closing or has ended.
    fn opening<T>(
        &mut self,
        command: impl FnOnce(&mut client::Connection) -> Result<T, ApiMisuse>,
    ) -> Result<T, Error> {
        match self.machine.close_reason() {
            Some(reason) => Err(Error::ConnectionClosed(reason.clone())),
            None => Ok(command(&mut self.machine)?),
        }
    }
}

//! The handle of a connection.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    time::Duration,
};

use amqp_core::{
    ApiMisuse, ChannelId, CloseReason, TimeoutReason, Tuning,
    client::{self, Config, Prefetch},
    protocol::{ReplyCode, connection::UpdateSecretOk},
    wire::{FieldTable, Secret, ShortStr},
};

use crate::{
    channel::Channel,
    connect::credentials::{self, CredentialsProvider},
    error::Error,
    io::{Driver, Timer, Transport},
    pool::ChannelPool,
    scope,
    session::{
        shared::{ClientEndpoint, Shared, Wait, wait_for, within},
        state::State,
    },
    states::ConnectionStates,
};

/// A connection to a server.
///
/// It can be cloned, and used from any number of tasks and threads. When the last clone and the
/// last channel are dropped, the connection is closed in good order, as long as its driver runs.
///
/// RabbitMQ stops reading from a connection that publishes while it is short of memory, and with
/// it the acknowledgements of consumers: use one connection to publish and another to consume.
#[derive(Clone, Debug)]
pub struct Connection(Arc<Handle>);

/// The handles of a connection count as one; the driver does not count.
#[derive(Debug)]
pub(crate) struct Handle {
    shared: Arc<Shared>,
    /// The prefetch of consumers that are started without one.
    prefetch: Prefetch,
    /// Waits for the end of the connection when the last handle is dropped.
    linger: OnceLock<Linger>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared
            .command_and_process(|state, _| state.machine.close(ReplyCode::SUCCESS, ""));
        if let Some(linger) = self.linger.get() {
            let ended = wait_for(
                &self.shared,
                |state| &mut state.life,
                |state| state.closed.as_ref().map(|_| ()),
            );
            linger(pin!(ended));
        }
    }
}

/// Blocks the thread until a future is ready; see [`Connection::linger_on_drop`].
pub type Linger = fn(Pin<&mut dyn Future<Output = ()>>);

impl Connection {
    /// Begins a connection over a transport that was just made: gives back its handle and the
    /// driver to spawn. [`opened`](Self::opened) tells when it can be used.
    ///
    /// Adapters call this in their `connect`.
    ///
    /// # Errors
    /// [`Error::Misuse`] for a setting that no server would accept.
    pub fn start<T: Transport, C: Timer>(
        config: Config,
        transport: T,
        clock: C,
    ) -> Result<(Self, Driver<ClientEndpoint, T, C>), Error> {
        let (timeouts, prefetch) = (config.timeouts.clone(), config.prefetch);
        let machine = client::Connection::new(config, clock.now())?;
        let shared = Shared::new(machine, timeouts, clock.clock());
        let driver = Driver::new(ClientEndpoint(Arc::clone(&shared)), transport, clock);
        let handle = Handle {
            shared,
            prefetch,
            linger: OnceLock::new(),
        };
        Ok((Self(Arc::new(handle)), driver))
    }

    /// Waits until the handshake is over.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    ///
    /// # Errors
    /// [`Error::ConnectionClosed`] with the reason why it could not be opened: wrong credentials,
    /// an unknown virtual host, another protocol, a peer that went away or said nothing.
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
    /// Dropping it closes the channel should it be opened.
    ///
    /// # Errors
    /// When all channel numbers are in use ([`ApiMisuse::NoFreeChannel`]), or the connection is or
    /// gets closed.
    pub async fn open_channel(&self) -> Result<Channel, Error> {
        let (channel, wait) = self.begin_channel()?;
        wait.reply::<amqp_core::protocol::channel::OpenOk>().await?;
        Ok(channel)
    }

    /// Asks for a channel. The handle is there from the start, so that the channel is closed
    /// wherever the wait for it is given up.
    pub(crate) fn begin_channel(&self) -> Result<(Channel, Wait<'_>), Error> {
        let shared = &self.0.shared;
        shared.command(|state| {
            let (id, request) = state.opening(client::Connection::open_channel)?;
            state.add_channel(id);
            let wait = Wait::new(shared, state, Some(id), request);
            Ok((Channel::new(self.clone(), id), wait))
        })
    }

    /// A pool of channels, all opened at once.
    ///
    /// # Cancel safety
    /// Dropping it closes those that were opened.
    ///
    /// # Errors
    /// As [`open_channel`](Self::open_channel).
    pub async fn channel_pool(&self, size: usize) -> Result<ChannelPool, Error> {
        ChannelPool::open(self, size).await
    }

    /// Runs `body`, and drops it with the reason when the connection ends.
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
    /// [`Error::ConnectionClosed`] when the connection ended before the body did.
    pub async fn scope<T>(&self, body: impl Future<Output = T>) -> Result<T, Error> {
        scope::scope(self, body).await
    }

    /// Gives the server a new secret, such as an OAuth 2 token, before the old one expires. The
    /// reason is for the server's operators.
    ///
    /// # Cancel safety
    /// Dropping it before the first poll sends nothing, afterwards the secret is sent.
    ///
    /// # Errors
    /// When the connection is or gets closed: RabbitMQ closes it if it does not like the secret.
    pub async fn update_secret(&self, secret: Secret, reason: ShortStr) -> Result<(), Error> {
        update_secret(&self.0.shared, secret, reason).await
    }

    /// Renews the secret, which holds for that long, with the help of a provider, who may take so
    /// long: to be spawned. It ends with the connection, and does not keep it.
    pub(crate) fn renew(
        &self,
        provider: Arc<dyn CredentialsProvider>,
        expires_in: Duration,
        limit: Duration,
    ) -> impl Future<Output = ()> + Send + use<> {
        credentials::renew(Arc::clone(&self.0.shared), provider, expires_in, limit)
    }

    /// Waits until all that was accepted before, publishes and acknowledgements too, was handed to
    /// the transport. That says nothing of whether the server has it: a confirm does, and so does
    /// the answer to a request that follows on the same channel. A channel that is closed drops
    /// what it has not sent, and is not waited for.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    ///
    /// # Errors
    /// [`Error::ConnectionClosed`] when the connection ends before; [`Error::TimedOut`] after
    /// [`Timeouts::flush`](amqp_core::Timeouts).
    pub async fn flush(&self) -> Result<(), Error> {
        let shared = self.shared();
        let mark = shared.lock().machine.flush_mark();
        let flushed = wait_for(
            shared,
            |state| &mut state.flushers,
            |state| {
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
            .unwrap_or(Err(Error::TimedOut(TimeoutReason::Flush)))
    }

    /// The output of `future`; none if it takes longer than `limit` by the connection's clock, or has
    /// not ended when the connection has. This is the deadline of a single call: every future of this
    /// crate can be given up at any time.
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

    /// The states of the connection, as they change: opening, open, blocked by the server, closing,
    /// closed. It does not keep the connection open.
    #[must_use]
    pub fn states(&self) -> ConnectionStates {
        ConnectionStates::new(Arc::clone(&self.0.shared))
    }

    /// Closes the connection. What was accepted before, publishes and acknowledgements too, is
    /// sent first; everything that waits for an answer fails.
    ///
    /// # Cancel safety
    /// Once polled, the connection is closing, and dropping it only drops the wait.
    ///
    /// # Errors
    /// [`Error::ConnectionClosed`] when it ended otherwise than by the server's answer: the server
    /// closed it first, the transport ended or failed, or no answer came in time. Then what was
    /// sent last may not have arrived.
    pub async fn close(&self) -> Result<(), Error> {
        self.0.shared.command_and_process(|state, later| {
            state.machine.close(ReplyCode::SUCCESS, "goodbye");
            state.dismiss_publishers(later);
            state.life.wake_all(later);
        });
        let reason = self.closed().await;
        if reason.is_clean() {
            Ok(())
        } else {
            Err(Error::ConnectionClosed(reason))
        }
    }

    /// Waits until the connection has ended, and tells why.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn closed(&self) -> CloseReason {
        self.wait(|state| state.closed.clone()).await
    }

    /// Ends the connection at once, without a word to the server and without sending what waits.
    pub fn abort(&self) {
        ClientEndpoint(Arc::clone(&self.0.shared)).end("aborted by this side");
        self.0.shared.command(|_| ());
    }

    /// Makes the last handle of the connection wait, when it is dropped, until the connection has been
    /// closed in good order: a program that publishes and ends loses nothing. `linger` gets the future
    /// of that end, which is ready at the latest when the output has made no progress for
    /// [`Timeouts::close`](amqp_core::Timeouts), and runs it on the thread that drops the handle.
    ///
    /// For connections that a thread of their own drives, such as those of `amqp-blocking`: a thread
    /// that drives the connection would wait for itself. A second call changes nothing.
    pub fn linger_on_drop(&self, linger: Linger) {
        let _first_wins = self.0.linger.set(linger);
    }

    /// Whether channels can be opened.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.shared.lock().machine.is_open()
    }

    /// Why the connection has ended; none while it has not.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.0.shared.lock().closed.clone()
    }

    /// Succeeds while commands are accepted, before the handshake is over as well.
    ///
    /// # Errors
    /// The error that a command would get: the connection is closing or has ended.
    pub fn check_open(&self) -> Result<(), Error> {
        self.0.shared.lock().opening(|_| Ok(()))
    }

    /// Waits until a channel that is closing releases its number, or the connection has ended. Returns
    /// `false`, at once, if no channel is closing.
    ///
    /// [`open_channel`](Self::open_channel) fails with [`ApiMisuse::NoFreeChannel`] while all numbers
    /// are in use, those of channels whose handles were dropped included, until the server has
    /// answered their close.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn channel_released(&self) -> bool {
        let count = {
            let state = self.0.shared.lock();
            if !state.has_closing_channels() {
                return false;
            }
            state.machine.channel_count()
        };
        wait_for(
            &self.0.shared,
            |state| &mut state.numbers,
            |state| {
                let fewer = state.machine.channel_count() < count;
                (fewer || state.closed.is_some() || !state.has_closing_channels()).then_some(())
            },
        )
        .await;
        true
    }

    /// What was negotiated with the server: channels, frame size, heartbeat interval. See
    /// [`Config`] for what is asked for.
    #[must_use]
    pub fn tuning(&self) -> Tuning {
        *self.0.shared.lock().machine.tuning()
    }

    /// The SASL mechanism of the login; none before the server has offered its own.
    #[must_use]
    pub fn mechanism(&self) -> Option<ShortStr> {
        self.0.shared.lock().machine.mechanism().cloned()
    }

    /// What the server said of itself: product, version, capabilities.
    #[must_use]
    pub fn server_properties(&self) -> FieldTable {
        self.0.shared.lock().machine.server_properties().clone()
    }

    /// Whether the server announced a capability, such as `publisher_confirms`.
    #[must_use]
    pub fn has_capability(&self, name: &str) -> bool {
        self.0.shared.lock().machine.has_capability(name)
    }

    /// Whether the server has asked not to publish because it is short of a resource.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.0.shared.lock().machine.is_blocked()
    }

    /// The certificates that the server has shown, its own first, each as DER. None for a
    /// connection that was not secured here.
    #[must_use]
    pub fn peer_certificates(&self) -> Arc<[Vec<u8>]> {
        Arc::clone(&self.0.shared.lock().certificates)
    }

    pub(crate) fn keep_certificates(&self, certificates: Vec<Vec<u8>>) {
        self.0.shared.lock().certificates = certificates.into();
    }

    /// How many channels are not free: opening, open or closing.
    #[must_use]
    pub fn channel_count(&self) -> usize {
        self.0.shared.lock().machine.channel_count()
    }

    /// How many bytes were accepted and not yet handed to the transport.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.0.shared.lock().machine.buffered()
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    pub(crate) fn shared_arc(&self) -> Arc<Shared> {
        Arc::clone(&self.0.shared)
    }

    /// The prefetch of consumers that are started without one.
    pub(crate) fn prefetch(&self) -> Prefetch {
        self.0.prefetch
    }

    /// Waits until a condition about the life of the connection holds.
    async fn wait<T>(&self, condition: impl Fn(&State) -> Option<T>) -> T {
        wait_for(&self.0.shared, |state| &mut state.life, condition).await
    }

    /// Whether the channel is still known to the server or on the way to be.
    pub(crate) fn is_channel_open(&self, id: ChannelId) -> bool {
        let mut state = self.0.shared.lock();
        state.commands(id).is_ok_and(|channel| channel.is_open())
    }
}

/// Gives the server a new secret.
pub(crate) async fn update_secret(
    shared: &Shared,
    secret: Secret,
    reason: ShortStr,
) -> Result<(), Error> {
    let wait = shared.command(|state| {
        let request = state.opening(|machine| machine.update_secret(secret, reason))?;
        Ok::<_, Error>(Wait::new(shared, state, None, request))
    })?;
    wait.reply::<UpdateSecretOk>().await?;
    Ok(())
}

impl State {
    /// Gives the machine a command that needs an open connection.
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

//! The inbox of plain AMQP clients: a queue of the broker.

use std::{sync::Arc, time::Duration};

use amqp_core::{
    protocol::{basic, queue},
    sasl::Plain,
    wire::FieldTable,
};
use amqp_driver::{Acker, Connection, Delivery, Error, Requeue, io::within, recovery::random_seed};
use amqp_embedded::{
    ServerRuntime,
    broker::{self, Permissions, User},
};

use super::{
    queue::Entry,
    received::Received,
    runner::{Run as _, Runner},
    state::{Phase, State},
    waiters::{Waiters, wait_for},
};
use crate::{
    event::Sender,
    message::{Message, MessageId},
};

/// The queue to which plain clients publish.
const QUEUE: &str = "peer.inbox";

/// The maximum number of messages of clients that are not accepted.
const PREFETCH: u16 = 128;

/// The maximum size of the messages of clients that wait in the queue, in bytes. Beyond, the broker
/// rejects them, by a `basic.nack` for a publisher with confirms.
const MAX_BYTES: i64 = 64 << 20;

/// The pause before the queue is declared again, after a failure.
const PAUSE: Duration = Duration::from_millis(100);

/// The name of the peer's own user of the broker.
const USER: &str = "peer.inbox";

/// The credentials of the peer's own user.
#[derive(Clone)]
pub(super) struct Login {
    password: String,
    vhost: String,
}

/// The broker without a configuration: it has no users, as those of a fresh RabbitMQ have a password
/// that all know, and no time limit for acknowledgements, as the application may keep a message.
pub(super) fn default_broker() -> broker::Config {
    broker::Config::default()
        .users(Vec::new())
        .consumer_timeout(None)
}

/// Adds the peer's own user to the users of the broker, with access to its first virtual host.
/// `None` if there is no virtual host.
pub(super) fn add_user(config: &mut broker::Config) -> Option<Login> {
    let vhost = config.vhosts.first()?.clone();
    let password: String = (0..4).map(|_| format!("{:016x}", random_seed())).collect();
    let user = User::new(USER, &*password).may(&*vhost, Permissions::all());
    config.users.push(user);
    Some(Login { password, vhost })
}

/// The state of the inbox, behind the lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Inbox {
    /// There is none, or it was begun: listeners accept connections.
    #[default]
    Open,
    /// The queue is not declared yet: no client is to take its name.
    Beginning,
    /// It has ended, and an event says so. It begins again.
    Failed,
}

/// Passes the messages of the inbox on, until the peer stops.
pub(super) async fn run<R: ServerRuntime>(runner: Arc<Runner<R>>, login: Login) {
    let mut clock = runner.clock();
    let stopped = |state: &mut State| (state.phase != Phase::Running).then_some(());
    let changed: fn(&mut State) -> &mut Waiters = |state| &mut state.changed;
    loop {
        let result = receive(&runner, login.clone()).await;
        if runner.shared.with(|state| stopped(state)).is_some() {
            return;
        }
        if let Err(error) = result {
            runner.shared.with(|state| state.report_inbox(error));
        }
        let stop = wait_for(&runner.shared, changed, stopped);
        if within(&mut clock, PAUSE, stop).await.is_some() {
            return;
        }
    }
}

impl State {
    /// Notes that the inbox is there, or cannot be for now: listeners go on.
    pub(super) fn open_inbox(&mut self, inbox: Inbox) {
        self.inbox = inbox;
        self.changed.wake_all(&mut self.after.wakes);
    }

    fn report_inbox(&mut self, error: Error) {
        self.after.notes.inbox_failed(&error);
        if self.inbox != Inbox::Failed {
            self.push_event(Entry::InboxFailed(Box::new(error)));
        }
        self.open_inbox(Inbox::Failed);
    }
}

/// Receives until the connection ends. The queue is exclusive to it: a channel that ends, such as by
/// the time limit of acknowledgements, is followed by another one, and no message is lost.
async fn receive<R: ServerRuntime>(runner: &Runner<R>, login: Login) -> Result<(), Error> {
    let plain = Plain::new(USER, login.password).map_err(|_| Error::Internal("NUL in a name"))?;
    let config = amqp_driver::Config::default()
        .mechanisms(vec![Box::new(plain)])
        .virtual_host(login.vhost);
    let connection = runner.connect(config)?;
    connection.opened().await?;
    let mut clock = runner.clock();
    loop {
        let ended = consume(runner, &connection).await;
        if !connection.is_open() {
            return ended;
        }
        if let Err(error) = ended {
            runner.shared.with(|state| state.report_inbox(error));
        }
        if within(&mut clock, PAUSE, connection.closed())
            .await
            .is_some()
        {
            return Ok(());
        }
    }
}

/// Receives until the channel ends.
async fn consume<R: ServerRuntime>(
    runner: &Runner<R>,
    connection: &Connection,
) -> Result<(), Error> {
    let channel = connection.open_channel().await?;
    let arguments = FieldTable::new()
        .with("x-max-length-bytes", MAX_BYTES)
        .with("x-overflow", "reject-publish");
    let declare = queue::Declare::default().queue(QUEUE).exclusive(true);
    channel.call(declare.arguments(arguments)).await?;
    let qos = basic::Qos::default().prefetch_count(PREFETCH);
    channel.call(qos).await?;
    let consume = basic::Consume::default().queue(QUEUE);
    let mut consumer = channel.consume(consume).await?;
    runner.shared.with(|state| state.open_inbox(Inbox::Open));
    while let Some(delivery) = consumer.next().await {
        let entry = Entry::Inbox(Box::new(delivery?));
        runner.shared.with(|state| state.push_event(entry));
    }
    Ok(())
}

/// A message of the inbox. Its id is that of the client, if it has the form of one, and else zero.
pub(super) fn received(delivery: Delivery) -> Received {
    let Delivery { message, acker, .. } = delivery;
    let is_repeated = message.method.redelivered;
    // Properties that cannot be decoded are left out: the client has made them.
    let properties = message.properties().unwrap_or_default();
    let id = properties
        .message_id
        .as_deref()
        .and_then(|id| id.parse().ok());
    let user = properties.user_id.as_deref().unwrap_or_default().to_owned();
    let message = Message::from_properties(message.body, properties);
    let id = id.unwrap_or(MessageId::from_bytes([0; 16]));
    Received::of_inbox(Sender::Client { user }, id, message, is_repeated, acker)
}

pub(super) fn settle(acker: Acker, is_accepted: bool) {
    // Fails only on a channel that has ended: the broker has the message again.
    let _settled = if is_accepted {
        acker.ack()
    } else {
        acker.nack(Requeue::Yes)
    };
}

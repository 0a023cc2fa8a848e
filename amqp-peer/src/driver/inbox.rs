//! The inbox of plain AMQP clients: a queue of the broker.

use std::sync::Arc;

use amqp_core::{
    protocol::{basic, queue},
    sasl::Plain,
};
use amqp_driver::{Acker, Delivery, Error, Requeue, recovery::random_seed};
use amqp_embedded::{
    ServerRuntime,
    broker::{self, Permissions, User},
};

use super::{
    queue::Entry,
    received::Received,
    runner::{Run as _, Runner},
};
use crate::{
    event::Sender,
    message::{Message, MessageId},
};

/// The queue to which plain clients publish.
const QUEUE: &str = "peer.inbox";

/// The maximum number of messages of clients that are not accepted.
const PREFETCH: u16 = 1024;

/// The name of the peer's own user of the broker.
const USER: &str = "peer.inbox";

/// The credentials of the peer's own user.
pub(super) struct Login {
    password: String,
    vhost: String,
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

/// Passes the messages of the inbox on, until the peer stops.
pub(super) async fn run<R: ServerRuntime>(runner: Arc<Runner<R>>, login: Login) {
    // Fails only when the broker is stopped.
    let _ended = receive(&runner, login).await;
}

async fn receive<R: ServerRuntime>(runner: &Runner<R>, login: Login) -> Result<(), Error> {
    let plain = Plain::new(USER, login.password).map_err(|_| Error::Internal("NUL in a name"))?;
    let config = amqp_driver::Config::default()
        .mechanisms(vec![Box::new(plain)])
        .virtual_host(login.vhost)?;
    let connection = runner.connect(config)?;
    connection.opened().await?;
    let channel = connection.open_channel().await?;
    let declare = queue::Declare::default().queue(QUEUE)?.exclusive(true);
    channel.call(declare).await?;
    let qos = basic::Qos::default().prefetch_count(PREFETCH);
    channel.call(qos).await?;
    let consume = basic::Consume::default().queue(QUEUE)?;
    let mut consumer = channel.consume(consume).await?;
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

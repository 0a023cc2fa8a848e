//! The requests of clients, by method.

mod consume;
mod exchange;
mod publish;
mod queue;
mod settle;
mod transaction;

use amqp_core::{
    MethodDef as _, MethodId,
    protocol::{ClientMethod, ReplyCode, channel, confirm},
    wire::ShortStr,
};

use crate::{
    broker::Broker,
    keys::{ChannelKey, ConnectionKey},
    model::{
        channel::{Confirms, Mode},
        exchange::ExchangeKind,
        vhost::Vhost,
    },
    permission::{Access, TopicAccess},
    refusal::{Outcome, Refusal, Resource},
};

impl Broker {
    /// Executes a request, or refuses it.
    pub(crate) fn on_request(&mut self, at: ChannelKey, method: ClientMethod) {
        if self.channel(at).is_err() {
            return;
        }
        let id = method.id();
        if let Err(refusal) = self.execute(at, method) {
            self.refuse(at, &refusal, id);
        }
    }

    fn execute(&mut self, at: ChannelKey, method: ClientMethod) -> Outcome {
        match method {
            ClientMethod::ExchangeDeclare(declare) => self.declare_exchange(at, declare),
            ClientMethod::ExchangeDelete(delete) => self.delete_exchange(at, &delete),
            ClientMethod::ExchangeBind(bind) => self.bind_exchange(at, bind),
            ClientMethod::ExchangeUnbind(unbind) => self.unbind_exchange(at, unbind),
            ClientMethod::QueueDeclare(declare) => self.declare_queue(at, declare),
            ClientMethod::QueueBind(bind) => self.bind_queue(at, bind),
            ClientMethod::QueueUnbind(unbind) => self.unbind_queue(at, unbind),
            ClientMethod::QueuePurge(purge) => self.purge_queue(at, &purge),
            ClientMethod::QueueDelete(delete) => self.delete_queue_named(at, &delete),
            ClientMethod::BasicQos(qos) => self.qos(at, &qos),
            ClientMethod::BasicConsume(consume) => self.consume(at, consume),
            ClientMethod::BasicCancel(cancel) => self.cancel(at, cancel),
            ClientMethod::BasicGet(get) => self.get(at, &get),
            ClientMethod::BasicAck(ack) => self.ack(at, &ack),
            ClientMethod::BasicNack(nack) => self.nack(at, &nack),
            ClientMethod::BasicReject(reject) => self.reject(at, &reject),
            ClientMethod::BasicRecover(recover) => self.recover(at, &recover),
            ClientMethod::BasicRecoverAsync(recover) => self.recover_async(at, &recover),
            ClientMethod::ConfirmSelect(select) => self.select_confirms(at, &select),
            ClientMethod::TxSelect(_) => self.select_transaction(at),
            ClientMethod::TxCommit(_) => self.commit(at),
            ClientMethod::TxRollback(_) => self.rollback(at),
            // The machine handles these, or reports them as other events; a reply answers no
            // request of the broker.
            ClientMethod::ConnectionStartOk(_)
            | ClientMethod::ConnectionSecureOk(_)
            | ClientMethod::ConnectionTuneOk(_)
            | ClientMethod::ConnectionOpen(_)
            | ClientMethod::ConnectionClose(_)
            | ClientMethod::ConnectionCloseOk(_)
            | ClientMethod::ConnectionUpdateSecret(_)
            | ClientMethod::ChannelOpen(_)
            | ClientMethod::ChannelFlow(_)
            | ClientMethod::ChannelFlowOk(_)
            | ClientMethod::ChannelClose(_)
            | ClientMethod::ChannelCloseOk(_)
            | ClientMethod::BasicCancelOk(_)
            | ClientMethod::BasicPublish(_) => Err(unexpected(method.id())),
        }
    }

    fn select_confirms(&mut self, at: ChannelKey, select: &confirm::Select) -> Outcome {
        let channel = self.channel(at)?;
        match channel.mode {
            Mode::Plain => channel.mode = Mode::Confirm(Confirms::default()),
            Mode::Confirm(_) => {}
            Mode::Transaction(_) => {
                return Err(Refusal::precondition(
                    "cannot switch from tx to confirm mode",
                ));
            }
        }
        self.reply(at, select.nowait, &confirm::SelectOk);
        Ok(())
    }

    /// Pauses or resumes deliveries, as the client requests (section 1.5.2.3 of the protocol
    /// reference). Refuses a pause with 540 (not-implemented) unless `rules.flow` is set. Without a
    /// preceding pause, resuming does not affect consumers: one that prefetch blocks does not gain
    /// a turn.
    pub(crate) fn on_flow(&mut self, at: ChannelKey, active: bool) {
        if active || self.config.rules.flow {
            let Ok(channel) = self.channel(at) else {
                return;
            };
            let resumed = core::mem::replace(&mut channel.paused, !active) && active;
            self.send(at, &channel::FlowOk { active });
            if resumed {
                self.unblock_consumers(at);
            }
        } else {
            let refusal = Refusal::not_implemented("active=false");
            self.refuse(at, &refusal, channel::Flow::ID);
        }
    }

    /// Checks that the user of a connection has a permission for a queue or an exchange
    /// (<https://www.rabbitmq.com/docs/access-control>).
    fn check_access(
        &self,
        key: ConnectionKey,
        access: Access,
        name: &str,
        resource: fn(&str, &str) -> alloc::string::String,
    ) -> Outcome {
        let vhost = self.vhost(key)?;
        let user = self
            .connections
            .get(&key)
            .map_or("", |conn| conn.user.as_str());
        let permissions = self
            .users
            .get(user)
            .and_then(|user| user.permissions.get(&vhost.name));
        if permissions.is_some_and(|permissions| permissions.allows(access, name)) {
            return Ok(());
        }
        Err(Refusal::access_refused(format_args!(
            "access to {} refused for user '{user}'",
            resource(name, &vhost.name)
        )))
    }

    /// Checks that the user of a connection has a permission for a routing key of an exchange, if it
    /// is a topic exchange
    /// (<https://www.rabbitmq.com/docs/access-control#topic-authorisation>).
    fn check_topic(
        &self,
        key: ConnectionKey,
        access: TopicAccess,
        exchange: &ShortStr,
        routing_key: &str,
    ) -> Outcome {
        let conn = self.connections.get(&key);
        let user = conn.and_then(|conn| self.users.get(&conn.user));
        // Most users have no permissions for routing keys.
        let Some(user) = user.filter(|user| !user.topic_permissions.is_empty()) else {
            return Ok(());
        };
        let vhost = self.vhost(key)?;
        let kind = vhost.exchanges.get(exchange).map(|found| found.kind);
        if kind != Some(ExchangeKind::Topic) {
            return Ok(());
        }
        let of_exchange = (vhost.name.clone(), exchange.as_str().into());
        match user.topic_permissions.get(&of_exchange) {
            Some(permissions) if !permissions.allows(access, routing_key) => {
                Err(Refusal::access_refused(format_args!(
                    "access to topic '{routing_key}' in exchange '{exchange}' in vhost '{}' \
                     refused for user '{}'",
                    vhost.name, user.name
                )))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses a queue above the limit of its virtual host with 406 (precondition-failed)
    /// (<https://www.rabbitmq.com/docs/vhosts#limits>).
    fn check_queue_limit(&self, vhost: &Vhost, name: &str) -> Outcome {
        match vhost.limits.max_queues {
            Some(max) if vhost.queues.len() as u64 >= max => {
                Err(Refusal::precondition(format_args!(
                    "cannot declare queue '{name}': queue limit in vhost '{}' ({max}) is reached",
                    vhost.name
                )))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_queue(&self, key: ConnectionKey, access: Access, name: &str) -> Outcome {
        self.check_access(key, access, name, |name, vhost| {
            alloc::format!("{}", Resource::queue(name, vhost))
        })
    }

    fn check_exchange(&self, key: ConnectionKey, access: Access, name: &str) -> Outcome {
        self.check_access(key, access, name, |name, vhost| {
            alloc::format!("{}", Resource::exchange(displayed_exchange(name), vhost))
        })
    }
}

/// Returns the name of an exchange in error texts: `amq.default` for the default exchange.
const fn displayed_exchange(name: &str) -> &str {
    if name.is_empty() { "amq.default" } else { name }
}

/// Refuses a name with the prefix `amq.`, which is reserved (sections 1.6.2.1 and 1.7.2.1 of the
/// protocol reference).
fn check_reserved(kind: &str, name: &str) -> Outcome {
    if name.starts_with("amq.") {
        return Err(Refusal::access_refused(format_args!(
            "{kind} name '{name}' contains reserved prefix 'amq.*'"
        )));
    }
    Ok(())
}

/// Removes CR and LF from a name, as RabbitMQ does.
fn without_newlines(name: ShortStr) -> ShortStr {
    if !name.contains(['\r', '\n']) {
        return name;
    }
    let kept: alloc::string::String = name
        .chars()
        .filter(|letter| !matches!(letter, '\r' | '\n'))
        .collect();
    crate::refusal::short(&kept)
}

fn unexpected(method: MethodId) -> Refusal {
    Refusal::new(
        ReplyCode::COMMAND_INVALID,
        format_args!("unimplemented method {method}"),
    )
}

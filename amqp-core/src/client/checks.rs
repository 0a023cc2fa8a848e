//! Local checks for misuse, before any byte is sent.
//!
//! RabbitMQ answers some mistakes by closing the channel, and others by closing the connection with
//! all its channels. A mistake that is detectable here is refused here, so that only the one call
//! fails. The features that RabbitMQ does not implement are listed in
//! <https://www.rabbitmq.com/docs/specification>.

use super::{channel_state::Mode, reply_to::REPLY_TO};
use crate::{
    error::ApiMisuse,
    method::MethodDef,
    method_id::MethodId,
    protocol::{self, Method, basic, channel},
    wire::ShortStr,
};

/// The prefix of names reserved for the server, <https://www.rabbitmq.com/docs/queues>.
const RESERVED: &str = "amq.";

/// Checks that the method has no command of its own.
pub(super) fn check_called<M: MethodDef>() -> Result<(), ApiMisuse> {
    const OWN_COMMANDS: [MethodId; 4] = [
        channel::Open::ID,
        channel::Close::ID,
        basic::Consume::ID,
        basic::Get::ID,
    ];
    let of_connection = protocol::rule(M::ID).is_none_or(|rule| rule.connection);
    if of_connection || OWN_COMMANDS.contains(&M::ID) {
        return Err(ApiMisuse::NotSentThisWay { method: M::NAME });
    }
    Ok(())
}

/// Checks a request without a reply. A `queue.declare` needs a name then: the reply is the only
/// source of a generated one (section 1.7.2.1 of the protocol reference).
pub(super) fn check_named(method: &Method) -> Result<(), ApiMisuse> {
    match method {
        Method::QueueDeclare(declare) if declare.queue.is_empty() => Err(ApiMisuse::NameRequired {
            method: method.name(),
        }),
        _ => Ok(()),
    }
}

/// Checks the method against the mode of the channel. Confirm and transaction mode exclude each
/// other, <https://www.rabbitmq.com/docs/confirms>.
pub(super) fn check_mode(method: &Method, mode: &Mode) -> Result<(), ApiMisuse> {
    let transactional = matches!(mode, Mode::Transaction { .. });
    match method {
        Method::ConfirmSelect(_) if transactional => Err(ApiMisuse::ConfirmAndTransaction),
        Method::TxSelect(_) if matches!(mode, Mode::Confirm(_)) => {
            Err(ApiMisuse::ConfirmAndTransaction)
        }
        Method::TxCommit(_) | Method::TxRollback(_) if !transactional => {
            Err(ApiMisuse::NotTransactional)
        }
        _ => Ok(()),
    }
}

/// Checks for requests that RabbitMQ refuses in any state of the broker.
pub(super) fn check_rabbitmq(method: &Method) -> Result<(), ApiMisuse> {
    let not_implemented = |feature| Err(ApiMisuse::NotImplementedByRabbitMq { feature });
    let on_default = |name: &ShortStr| {
        if name.is_empty() {
            let method = method.name();
            return Err(ApiMisuse::DefaultExchange { method });
        }
        Ok(())
    };
    match method {
        Method::BasicQos(qos) if qos.prefetch_size != 0 => {
            not_implemented("basic.qos prefetch-size")
        }
        Method::BasicRecover(basic::Recover { requeue: false })
        | Method::BasicRecoverAsync(basic::RecoverAsync { requeue: false }) => {
            not_implemented("basic.recover without requeue")
        }
        Method::ChannelFlow(channel::Flow { active: false }) => {
            not_implemented("channel.flow active=false")
        }
        Method::ExchangeDeclare(declare) => {
            on_default(&declare.exchange)?;
            if declare.kind.is_empty() && !declare.passive {
                return Err(ApiMisuse::ExchangeTypeRequired);
            }
            Ok(())
        }
        Method::ExchangeDelete(delete) => on_default(&delete.exchange),
        Method::ExchangeBind(bind) => {
            on_default(&bind.source).and_then(|()| on_default(&bind.destination))
        }
        Method::ExchangeUnbind(unbind) => {
            on_default(&unbind.source).and_then(|()| on_default(&unbind.destination))
        }
        Method::QueueBind(bind) => on_default(&bind.exchange),
        Method::QueueUnbind(unbind) => on_default(&unbind.exchange),
        // Declaring a direct reply address checks whether its requester is still connected.
        Method::QueueDeclare(declare)
            if !declare.passive
                && declare.queue.starts_with(RESERVED)
                && !declare.queue.starts_with(REPLY_TO) =>
        {
            Err(ApiMisuse::ReservedName(declare.queue.clone()))
        }
        Method::BasicConsume(consume) if consume.queue.as_str() == REPLY_TO && !consume.no_ack => {
            Err(ApiMisuse::ReplyToNeedsNoAck)
        }
        _ => Ok(()),
    }
}

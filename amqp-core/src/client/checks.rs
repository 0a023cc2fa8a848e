//! Local checks for misuse, before any byte is sent.
//!
//! RabbitMQ answers some mistakes by closing the channel, and others by closing the connection with
//! all its channels. A mistake that is detectable here is refused here, so that only the one call
//! fails. The features that RabbitMQ does not implement are listed in
//! <https://www.rabbitmq.com/docs/specification>.

use super::{Checks, channel_state::Mode, reply_to::REPLY_TO};
use crate::{
    error::ApiMisuse,
    method::MethodDef,
    protocol::{self, ClientMethod, basic, channel},
    wire::ShortStr,
};

/// The prefix of names reserved for the server, <https://www.rabbitmq.com/docs/queues>.
const RESERVED: &str = "amq.";

/// Checks that the method is one of a channel, without content, and has no command of its own.
pub(super) fn check_called<M: MethodDef>() -> Result<(), ApiMisuse> {
    let rule = protocol::rule(M::ID);
    if rule.is_none_or(|rule| rule.connection || rule.content || rule.own_command) {
        return Err(ApiMisuse::NotSentThisWay { method: M::NAME });
    }
    Ok(())
}

/// Checks the arguments of a method, and the method against the mode of its channel. Confirm and
/// transaction mode exclude each other, <https://www.rabbitmq.com/docs/confirms>.
///
/// Each method is listed: a new one does not compile before its checks are decided here, and its
/// effects in `ChannelMut::apply`.
pub(super) fn check(method: &ClientMethod, mode: &Mode, checks: Checks) -> Result<(), ApiMisuse> {
    let transactional = matches!(mode, Mode::Transaction { .. });
    match method {
        ClientMethod::ConfirmSelect(_) if transactional => Err(ApiMisuse::ConfirmAndTransaction),
        ClientMethod::TxSelect(_) if matches!(mode, Mode::Confirm(_)) => {
            Err(ApiMisuse::ConfirmAndTransaction)
        }
        ClientMethod::TxCommit(_) | ClientMethod::TxRollback(_) if !transactional => {
            Err(ApiMisuse::NotTransactional)
        }
        // The reply is the only source of a generated name (section 1.7.2.1 of the protocol
        // reference).
        ClientMethod::QueueDeclare(declare) if declare.no_wait && declare.queue.is_empty() => {
            Err(ApiMisuse::NameRequired {
                method: method.name(),
            })
        }
        _ if checks == Checks::Standard => Ok(()),
        // The others are requests that RabbitMQ refuses in any state of the broker.
        ClientMethod::BasicQos(qos) if qos.prefetch_size != 0 => {
            not_implemented("basic.qos prefetch-size")
        }
        ClientMethod::BasicRecover(basic::Recover { requeue: false })
        | ClientMethod::BasicRecoverAsync(basic::RecoverAsync { requeue: false }) => {
            not_implemented("basic.recover without requeue")
        }
        ClientMethod::ChannelFlow(channel::Flow { active: false }) => {
            not_implemented("channel.flow active=false")
        }
        ClientMethod::ExchangeDeclare(declare) => {
            check_exchanges(method, [&declare.exchange])?;
            if declare.kind.is_empty() && !declare.passive {
                return Err(ApiMisuse::ExchangeTypeRequired);
            }
            Ok(())
        }
        ClientMethod::ExchangeDelete(delete) => check_exchanges(method, [&delete.exchange]),
        ClientMethod::ExchangeBind(bind) => {
            check_exchanges(method, [&bind.source, &bind.destination])
        }
        ClientMethod::ExchangeUnbind(unbind) => {
            check_exchanges(method, [&unbind.source, &unbind.destination])
        }
        ClientMethod::QueueBind(bind) => check_exchanges(method, [&bind.exchange]),
        ClientMethod::QueueUnbind(unbind) => check_exchanges(method, [&unbind.exchange]),
        // Declaring a direct reply address checks whether its requester is still connected.
        ClientMethod::QueueDeclare(declare)
            if !declare.passive
                && declare.queue.starts_with(RESERVED)
                && !declare.queue.starts_with(REPLY_TO) =>
        {
            Err(ApiMisuse::ReservedName(declare.queue.clone()))
        }
        ClientMethod::BasicConsume(consume)
            if consume.queue.as_str() == REPLY_TO && !consume.no_ack =>
        {
            Err(ApiMisuse::ReplyToNeedsNoAck)
        }
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
        | ClientMethod::QueueDeclare(_)
        | ClientMethod::QueuePurge(_)
        | ClientMethod::QueueDelete(_)
        | ClientMethod::BasicQos(_)
        | ClientMethod::BasicConsume(_)
        | ClientMethod::BasicCancel(_)
        | ClientMethod::BasicCancelOk(_)
        | ClientMethod::BasicPublish(_)
        | ClientMethod::BasicGet(_)
        | ClientMethod::BasicAck(_)
        | ClientMethod::BasicReject(_)
        | ClientMethod::BasicRecover(_)
        | ClientMethod::BasicRecoverAsync(_)
        | ClientMethod::BasicNack(_)
        | ClientMethod::ConfirmSelect(_)
        | ClientMethod::TxSelect(_)
        | ClientMethod::TxCommit(_)
        | ClientMethod::TxRollback(_) => Ok(()),
    }
}

/// Checks that none of the exchanges is the default exchange.
fn check_exchanges<const N: usize>(
    method: &ClientMethod,
    names: [&ShortStr; N],
) -> Result<(), ApiMisuse> {
    if names.iter().any(|name| name.is_empty()) {
        return Err(ApiMisuse::DefaultExchange {
            method: method.name(),
        });
    }
    Ok(())
}

const fn not_implemented(feature: &'static str) -> Result<(), ApiMisuse> {
    Err(ApiMisuse::NotImplementedByRabbitMq { feature })
}

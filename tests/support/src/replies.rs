//! The replies of a server that holds nothing.

use amqp_core::{
    ApiMisuse,
    protocol::{ClientMethod, Method, basic, channel, confirm, exchange, queue, tx},
    server,
    wire::ShortStr,
};

/// The name of a queue that was declared without one.
const GENERATED: &str = "amq.gen-1";

/// Replies to a request as if it had succeeded on empty queues. Sends nothing for a method without
/// a reply.
///
/// Each method is listed: a new one does not compile before its reply is written here.
pub fn reply(channel: &mut server::ChannelMut<'_>, request: ClientMethod) -> Result<(), ApiMisuse> {
    if Method::from(request.clone()).no_wait() {
        return Ok(());
    }
    match request {
        ClientMethod::ChannelFlow(flow) => channel.send(&channel::FlowOk {
            active: flow.active,
        }),
        ClientMethod::ExchangeDeclare(_) => channel.send(&exchange::DeclareOk),
        ClientMethod::ExchangeDelete(_) => channel.send(&exchange::DeleteOk),
        ClientMethod::ExchangeBind(_) => channel.send(&exchange::BindOk),
        ClientMethod::ExchangeUnbind(_) => channel.send(&exchange::UnbindOk),
        ClientMethod::QueueDeclare(declare) => {
            let queue = if declare.queue.is_empty() {
                ShortStr::try_from(GENERATED).unwrap()
            } else {
                declare.queue
            };
            channel.send(&queue::DeclareOk {
                queue,
                ..queue::DeclareOk::default()
            })
        }
        ClientMethod::QueueBind(_) => channel.send(&queue::BindOk),
        ClientMethod::QueueUnbind(_) => channel.send(&queue::UnbindOk),
        ClientMethod::QueuePurge(_) => channel.send(&queue::PurgeOk::default()),
        ClientMethod::QueueDelete(_) => channel.send(&queue::DeleteOk::default()),
        ClientMethod::BasicQos(_) => channel.send(&basic::QosOk),
        ClientMethod::BasicConsume(consume) => channel.send(&basic::ConsumeOk {
            consumer_tag: consume.consumer_tag,
        }),
        ClientMethod::BasicCancel(cancel) => channel.send(&basic::CancelOk {
            consumer_tag: cancel.consumer_tag,
        }),
        ClientMethod::BasicGet(_) => channel.send(&basic::GetEmpty),
        ClientMethod::BasicRecover(_) => channel.send(&basic::RecoverOk),
        ClientMethod::ConfirmSelect(_) => channel.send(&confirm::SelectOk),
        ClientMethod::TxSelect(_) => channel.send(&tx::SelectOk),
        ClientMethod::TxCommit(_) => channel.send(&tx::CommitOk),
        ClientMethod::TxRollback(_) => channel.send(&tx::RollbackOk),
        // The machine sends the reply, or there is none.
        ClientMethod::ConnectionStartOk(_)
        | ClientMethod::ConnectionSecureOk(_)
        | ClientMethod::ConnectionTuneOk(_)
        | ClientMethod::ConnectionOpen(_)
        | ClientMethod::ConnectionClose(_)
        | ClientMethod::ConnectionCloseOk(_)
        | ClientMethod::ConnectionUpdateSecret(_)
        | ClientMethod::ChannelOpen(_)
        | ClientMethod::ChannelClose(_)
        | ClientMethod::ChannelFlowOk(_)
        | ClientMethod::ChannelCloseOk(_)
        | ClientMethod::BasicCancelOk(_)
        | ClientMethod::BasicPublish(_)
        | ClientMethod::BasicAck(_)
        | ClientMethod::BasicReject(_)
        | ClientMethod::BasicNack(_)
        | ClientMethod::BasicRecoverAsync(_) => Ok(()),
    }
}

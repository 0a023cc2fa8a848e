//! Requests that a client without visible channels refuses.

use amqp_core::{ApiMisuse, MethodDef, protocol::Method};

use super::Error;

/// Refuses an empty queue name, except in a declaration that creates the queue. It means the queue
/// last declared on the channel (section 1.1 of the protocol reference), which may be that of
/// another promise.
pub(super) fn check_queue<M: MethodDef>(request: &M) -> Result<(), Error> {
    let named = match request.clone().into() {
        Method::QueueDeclare(declare) if !declare.passive => true,
        other => other.queue().is_none_or(|queue| !queue.is_empty()),
    };
    if named {
        Ok(())
    } else {
        Err(misuse(ApiMisuse::QueueRequired { method: M::NAME }))
    }
}

pub(super) fn not_sent_this_way<M: MethodDef>() -> Error {
    misuse(ApiMisuse::NotSentThisWay { method: M::NAME })
}

fn misuse(misuse: ApiMisuse) -> Error {
    amqp_driver::Error::from(misuse).into()
}

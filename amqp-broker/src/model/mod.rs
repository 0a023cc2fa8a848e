//! The state of a broker: virtual hosts, exchanges, queues, messages, connections, channels.
//!
//! Each type enforces its own rules. Their interactions are in [`broker`](crate::broker) and
//! [`methods`](crate::methods).

pub(crate) mod arguments;
pub(crate) mod channel;
pub(crate) mod conn_state;
pub(crate) mod effective;
pub(crate) mod exchange;
pub(crate) mod headers;
mod merge;
pub(crate) mod message;
pub(crate) mod queue;
pub(crate) mod spare;
pub(crate) mod stream;
pub(crate) mod topic;
pub(crate) mod vhost;

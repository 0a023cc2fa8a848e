//! What a broker holds: virtual hosts, exchanges, queues, messages, connections, channels.
//!
//! These are values with the rules that they follow by themselves. What one of them does to another
//! is the business of [`broker`](crate::broker) and [`methods`](crate::methods).

pub(crate) mod arguments;
pub(crate) mod channel;
pub(crate) mod exchange;
pub(crate) mod headers;
pub(crate) mod link;
pub(crate) mod message;
pub(crate) mod queue;
pub(crate) mod topic;
pub(crate) mod vhost;

//! Direct reply-to.

/// The pseudo-queue of direct reply-to, <https://www.rabbitmq.com/docs/direct-reply-to>.
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

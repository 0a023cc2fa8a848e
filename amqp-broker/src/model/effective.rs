//! The arguments of a queue that are in effect: those of its declaration and of its policies
//! (<https://www.rabbitmq.com/docs/policies#combining-policy-definitions>).

use amqp_core::wire::{FieldTable, ShortStr};

use super::{
    arguments::{DeadLetter, Overflow, QueueArguments, QueueKind},
    stream::parse_interval,
};
use crate::policy::AppliedPolicies;

impl QueueArguments {
    /// Combines the arguments of a declaration, which `table` has unparsed, with policies: the
    /// lower number, and the text of the declaration. In a quorum queue `expires` and `overflow` of
    /// the policy apply, and in a stream all of its settings.
    pub(crate) fn with_policies(&self, table: &FieldTable, policies: &AppliedPolicies) -> Self {
        let lowest = |declared: Option<u64>, setting| {
            let numbers = [declared, policies.number(setting)];
            numbers.into_iter().flatten().min()
        };
        if self.kind == QueueKind::Stream {
            let age = policies.text("max-age");
            let age = age.and_then(|age| parse_interval(age.as_bytes()).ok().flatten());
            let bytes = policies.number("max-length-bytes");
            let segment_bytes = policies.number("stream-max-segment-size-bytes");
            return Self {
                max_length_bytes: bytes.or(self.max_length_bytes),
                max_age: age.or(self.max_age),
                segment_bytes: segment_bytes.or(self.segment_bytes),
                ..self.clone()
            };
        }
        let is_quorum = self.kind == QueueKind::Quorum;
        let expires = match policies.number("expires") {
            Some(expires) if is_quorum => Some(expires),
            _ => lowest(self.expires, "expires"),
        };
        let overflow = match policies.text("overflow").and_then(Overflow::from_name) {
            // Not supported by quorum queues, and replaced by the default.
            Some(Overflow::RejectPublishDlx) if is_quorum => Overflow::DropHead,
            Some(overflow) if is_quorum || !table.contains_key("x-overflow") => overflow,
            _ => self.overflow,
        };
        Self {
            message_ttl: lowest(self.message_ttl, "message-ttl"),
            expires,
            max_length: lowest(self.max_length, "max-length"),
            max_length_bytes: lowest(self.max_length_bytes, "max-length-bytes"),
            overflow,
            dead_letter: self.dead_letter_with(policies),
            delivery_limit: lowest(self.delivery_limit, "delivery-limit"),
            ..self.clone()
        }
    }

    /// Returns the target of dead-lettering: its exchange and its routing key may have different
    /// sources.
    fn dead_letter_with(&self, policies: &AppliedPolicies) -> Option<DeadLetter> {
        let declared = self.dead_letter.as_ref();
        let exchange = declared.map(|it| it.exchange.as_str());
        let exchange = exchange.or_else(|| policies.text("dead-letter-exchange"))?;
        let routing_key = declared.and_then(|it| it.routing_key.clone());
        let routing_key = routing_key.or_else(|| {
            let key = policies.text("dead-letter-routing-key")?;
            ShortStr::try_from(key).ok()
        });
        Some(DeadLetter {
            exchange: exchange.into(),
            routing_key,
        })
    }
}

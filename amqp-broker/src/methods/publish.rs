//! `basic.publish`, routing, and publisher confirms (<https://www.rabbitmq.com/docs/confirms>).

use alloc::{format, string::String, sync::Arc, vec::Vec};

use amqp_core::{
    Content, EncodedProperties,
    protocol::{
        ReplyCode,
        basic::{self, Properties},
    },
    server::Published,
    wire::{FieldTable, FieldValue, ShortStr},
};

use super::{exchange::limit_reached, queue::REPLIES};
use crate::{
    broker::{Broker, dispatch::send_message},
    durable::journal::Reply,
    keys::{ChannelKey, ConnectionKey},
    model::{
        arguments::TIME_MAX,
        channel::{ConfirmOutcome, Mode, RoutedMessage, Subscription, TxPublish},
        exchange::RouteBy,
        message::{Envelope, Message},
    },
    permission::{Access, TopicAccess},
    refusal::{Outcome, Refusal, short, type_name},
};

impl Broker {
    /// Handles a published message: checks, routes and enqueues it, or adds it to the transaction.
    /// Refuses `immediate` with 540 (not-implemented), as RabbitMQ does
    /// (<https://www.rabbitmq.com/docs/specification>).
    pub(crate) fn publish(&mut self, key: ConnectionKey, published: Published) -> Outcome {
        let at = ChannelKey {
            connection: key,
            id: published.channel,
        };
        let method = published.method;
        self.channel(at)?.incoming = None;
        if method.immediate {
            return Err(Refusal::not_implemented("immediate=true"));
        }
        self.check_exchange(key, Access::Write, &method.exchange)?;
        let vhost = self.vhost(key)?;
        if vhost.exchange(&method.exchange)?.internal {
            return Err(Refusal::access_refused(format_args!(
                "cannot publish to internal {}",
                vhost.exchange_named(&method.exchange)
            )));
        }
        self.check_topic(
            key,
            TopicAccess::Write,
            &method.exchange,
            &method.routing_key,
        )?;
        let (message, queues) = self.route_message(at, &method, published.content)?;
        let routed = RoutedMessage {
            message,
            queues,
            mandatory: method.mandatory,
        };
        if self.channel(at)?.transaction().is_some() {
            return self.add_to_transaction(at, routed);
        }
        let Some(seq) = published.seq else {
            self.enqueue_routed(at, &routed);
            return Ok(());
        };
        let before = self.journal.last();
        let outcome = match self.faults.next_confirm(&mut self.random) {
            None if self.enqueue_routed(at, &routed) => ConfirmOutcome::Acked,
            None => ConfirmOutcome::Nacked,
            Some(ConfirmOutcome::Dropped) => {
                self.enqueue_routed(at, &routed);
                ConfirmOutcome::Dropped
            }
            Some(outcome) => outcome,
        };
        let seq = seq.get();
        let is_stored = outcome != ConfirmOutcome::Acked || self.journal.last() == before;
        let conn = self.conn(key)?;
        if let Some(channel) = conn.channel(at.id)
            && let Mode::Confirm(confirms) = &mut channel.mode
        {
            if is_stored {
                confirms.add(seq, outcome);
                conn.confirming.insert(at.id);
            } else {
                confirms.add_unstored(seq);
                self.journal.wait(Reply::Confirm { channel: at, seq });
            }
        }
        Ok(())
    }

    /// Adds a message to a transaction. Bindings are evaluated now, and the names of the queues are
    /// resolved at commit: a queue that is addressed through the default exchange need not exist
    /// yet.
    fn add_to_transaction(&mut self, at: ChannelKey, routed: RoutedMessage) -> Outcome {
        let RoutedMessage {
            message,
            queues,
            mandatory,
        } = routed;
        let queues = if message.exchange.is_empty() {
            // No queue has a name of more than 255 bytes.
            let more_keys = message.more_keys.iter();
            let more_keys = more_keys.filter_map(|key| ShortStr::try_from(key.as_str()).ok());
            let mut keys = Vec::from([message.routing_key.clone()]);
            keys.extend(more_keys);
            keys.sort();
            keys.dedup();
            keys
        } else {
            let queues = queues.iter().filter_map(|key| self.queues.get(key));
            queues.map(|queue| queue.name.clone()).collect()
        };
        let limit = self.config.limits.transaction;
        if let Some(transaction) = self.channel(at)?.transaction() {
            if transaction.publishes.len() >= limit {
                return Err(limit_reached("messages in the transaction", limit));
            }
            transaction.publishes.push(TxPublish {
                message,
                queues,
                mandatory,
            });
        }
        Ok(())
    }

    /// Checks the properties of a message, and routes it. Returns it with its queues.
    fn route_message(
        &mut self,
        at: ChannelKey,
        method: &basic::Publish,
        content: Content,
    ) -> Outcome<(Arc<Message>, Vec<crate::keys::QueueKey>)> {
        let mut envelope = Envelope {
            exchange: method.exchange.clone(),
            routing_key: method.routing_key.clone(),
            more_keys: Vec::new(),
            priority: 0,
            expiration: None,
            persistent: false,
        };
        let mut encoded = content.properties;
        let mut headers = None;
        if !encoded.is_empty() {
            let mut properties = encoded.decode().map_err(Refusal::precondition)?;
            self.check_user(at.connection, &properties)?;
            envelope.expiration = read_expiration(&properties)?;
            let addressed = self.set_reply_address(at, &mut properties)?;
            check_delivery_mode(&properties)?;
            envelope.priority = properties.priority.unwrap_or(0);
            envelope.persistent = properties.delivery_mode == Some(2);
            envelope.more_keys = more_keys(properties.headers.as_ref())?;
            let bcc_removed = remove_bcc(&mut properties);
            if addressed || bcc_removed {
                encoded = EncodedProperties::from(&properties);
            }
            headers = properties.headers;
        }
        let queues = self.vhost(at.connection)?.route(
            &envelope.exchange,
            RouteBy {
                routing_key: &envelope.routing_key,
                more_keys: &envelope.more_keys,
                headers: headers.as_ref(),
            },
        );
        let message = Message::new(envelope, encoded, content.body, &self.memory);
        Ok((message, queues))
    }

    /// Checks that `user_id` is the authenticated user
    /// (<https://www.rabbitmq.com/docs/validated-user-id>).
    fn check_user(&self, key: ConnectionKey, properties: &Properties) -> Outcome {
        let conn = self.connections.get(&key);
        let user = conn.map_or("", |conn| conn.user.as_str());
        match &properties.user_id {
            Some(claimed) if *claimed != *user && !conn.is_some_and(|conn| conn.impersonator) => {
                Err(Refusal::precondition(format_args!(
                    "user_id property set to '{claimed}' but authenticated user was '{user}'"
                )))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Replaces `amq.rabbitmq.reply-to` in `reply_to` with the address of this channel's reply
    /// consumer (<https://www.rabbitmq.com/docs/direct-reply-to>). Returns whether the properties
    /// have changed.
    fn set_reply_address(&mut self, at: ChannelKey, properties: &mut Properties) -> Outcome<bool> {
        if properties.reply_to.as_deref() != Some(REPLIES) {
            return Ok(false);
        }
        let address = self.channel(at)?.reply_address.clone();
        if address.is_none() {
            return Err(Refusal::precondition("fast reply consumer does not exist"));
        }
        properties.reply_to = address;
        Ok(true)
    }

    /// Adds a message to its queues. Returns `false` if one of them rejects it. A mandatory message
    /// without a queue is returned (section 1.8.3.8 of the protocol reference).
    pub(super) fn enqueue_routed(&mut self, at: ChannelKey, routed: &RoutedMessage) -> bool {
        let message = &routed.message;
        self.messages.published += 1;
        if message.exchange.is_empty() && message.routing_key.starts_with(REPLIES) {
            self.deliver_reply(message);
        }
        if routed.queues.is_empty() && routed.mandatory {
            let returned = basic::Return {
                reply_code: ReplyCode::NO_ROUTE,
                reply_text: short("NO_ROUTE"),
                exchange: message.exchange.clone(),
                routing_key: message.routing_key.clone(),
            };
            if let Some(conn) = self.connections.get_mut(&at.connection) {
                send_message(conn, at, &returned, message, None);
                self.wake(at.connection);
            }
        }
        let mut accepted = true;
        for queue in &routed.queues {
            accepted &= self.enqueue(*queue, message);
        }
        accepted
    }

    /// Delivers a direct reply to the channel of the request. Drops it if the consumer does not
    /// exist any more, or if more than `limits.replies` bytes of output are queued on its
    /// connection.
    fn deliver_reply(&mut self, message: &Message) {
        let Some(&to) = self.reply_addresses.get(&message.routing_key) else {
            return;
        };
        let limit = self.config.limits.replies;
        let Some(conn) = self.connections.get_mut(&to.connection) else {
            return;
        };
        if conn.machine.buffered() > limit {
            return;
        }
        let Some(channel) = conn.channel(to.id) else {
            return;
        };
        let is_replies = |(tag, found): (&ShortStr, &Subscription)| {
            matches!(found, Subscription::Replies).then(|| tag.clone())
        };
        let Some(consumer_tag) = channel.consumers.iter().find_map(is_replies) else {
            return;
        };
        self.messages.delivered += 1;
        let method = basic::Deliver {
            consumer_tag,
            delivery_tag: channel.next_delivery(),
            redelivered: false,
            exchange: message.exchange.clone(),
            routing_key: message.routing_key.clone(),
        };
        send_message(conn, to, &method, message, None);
        self.wake(to.connection);
    }

    /// Sends the pending confirms of a connection. On each channel, one `multiple` confirm covers
    /// all numbers before the first with another outcome, and each later number has its own.
    pub(crate) fn send_confirms(&mut self, key: ConnectionKey) {
        let Some(conn) = self.connections.get_mut(&key) else {
            return;
        };
        for id in core::mem::take(&mut conn.confirming) {
            let Some(conn) = self.connections.get_mut(&key) else {
                return;
            };
            let Some(channel) = conn.channel(id) else {
                continue;
            };
            let Mode::Confirm(confirms) = &mut channel.mode else {
                continue;
            };
            let (acked, nacked, cut) = confirms.take();
            let at = ChannelKey {
                connection: key,
                id,
            };
            for (delivery_tag, multiple) in coalesce(&nacked, &acked, cut) {
                let nack = basic::Nack {
                    delivery_tag,
                    multiple,
                    requeue: false,
                };
                self.send(at, &nack);
            }
            for (delivery_tag, multiple) in coalesce(&acked, &nacked, cut) {
                let ack = basic::Ack {
                    delivery_tag,
                    multiple,
                };
                self.send(at, &ack);
            }
        }
    }
}

/// Coalesces confirms of equal outcome, by number in ascending order: one `multiple` confirm for
/// all numbers before the first with another outcome, and before `first_without`, and one for each
/// later number.
fn coalesce(numbers: &[u64], others: &[u64], first_without: Option<u64>) -> Vec<(u64, bool)> {
    let cut = [others.first().copied(), first_without]
        .into_iter()
        .flatten()
        .min();
    let split = cut.map_or(numbers.len(), |cut| {
        numbers.partition_point(|number| *number < cut)
    });
    let (before, after) = numbers.split_at_checked(split).unwrap_or((numbers, &[]));
    let many = before.last().map(|last| (*last, before.len() > 1));
    let ones = after.iter().map(|number| (*number, false));
    many.into_iter().chain(ones).collect()
}

/// Reads `expiration`, in milliseconds (<https://www.rabbitmq.com/docs/ttl>).
fn read_expiration(properties: &Properties) -> Outcome<Option<u64>> {
    let Some(text) = &properties.expiration else {
        return Ok(None);
    };
    let invalid = |problem: String| {
        Refusal::precondition(format_args!("invalid expiration '{text}': {problem}"))
    };
    let column = "invalid expiration '': ".len() + text.chars().count();
    let pair = |tag, value: &str| erlang_pair(column, tag, value);
    let digits_from = usize::from(text.starts_with(['+', '-']));
    let unsigned = text.get(digits_from..).unwrap_or_default();
    let len = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = unsigned.split_at_checked(len).unwrap_or((unsigned, ""));
    if digits.is_empty() {
        return Err(invalid("no_integer".into()));
    }
    if !rest.is_empty() {
        return Err(invalid(pair("leftover_string", &format!("\"{rest}\""))));
    }
    let shown = match digits.trim_start_matches('0') {
        "" => "0",
        shown => shown,
    };
    // A number that overflows `u128` is too large as well.
    let value: u128 = digits.parse().unwrap_or(u128::MAX);
    if text.starts_with('-') && value > 0 {
        return Err(invalid(pair("value_negative", &format!("-{shown}"))));
    }
    match u64::try_from(value) {
        Ok(value) if value <= TIME_MAX => Ok(Some(value)),
        Ok(_) | Err(_) => Err(invalid(pair("value_too_large", shown))),
    }
}

/// An Erlang tuple of two behind that many columns, as RabbitMQ prints it there: in two lines if it
/// does not fit into one.
fn erlang_pair(column: usize, tag: &str, value: &str) -> String {
    const LINE: usize = 78;
    let end = column + "{,}".len() + tag.len() + value.chars().count();
    let (newline, indent) = if end > LINE {
        ("\n", column + 1)
    } else {
        ("", 0)
    };
    format!("{{{tag},{newline}{:indent$}{value}}}", "")
}

fn check_delivery_mode(properties: &Properties) -> Outcome {
    match properties.delivery_mode {
        None | Some(1 | 2) => Ok(()),
        Some(other) => Err(Refusal::precondition(format_args!(
            "invalid message: {{delivery_mode_unknown,{other}}}"
        ))),
    }
}

const CC: &str = "CC";
const BCC: &str = "BCC";

/// Returns the additional routing keys of the headers `CC` and `BCC`
/// (<https://www.rabbitmq.com/docs/sender-selected>).
fn more_keys(headers: Option<&FieldTable>) -> Outcome<Vec<String>> {
    let mut keys = Vec::new();
    for name in [CC, BCC] {
        match headers.and_then(|headers| headers.get(name)) {
            None => {}
            Some(FieldValue::Array(more)) => {
                let texts = more.iter().filter_map(FieldValue::as_long_str);
                keys.extend(texts.map(|key| key.to_str_lossy().into_owned()));
            }
            Some(other) => {
                return Err(Refusal::precondition(format_args!(
                    "invalid message: {{unacceptable_type_in_header,\"{name}\",{}}}",
                    type_name(other)
                )));
            }
        }
    }
    Ok(keys)
}

/// Removes the header `BCC` before delivery. Returns `false` if there is none.
fn remove_bcc(properties: &mut Properties) -> bool {
    let headers = properties.headers.as_mut();
    headers.is_some_and(|headers| headers.remove(BCC).is_some())
}

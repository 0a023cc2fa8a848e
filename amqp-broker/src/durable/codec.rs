//! The bytes of a change: a tag, and then the fields in the encoding of the protocol (section 4.2.5
//! of the specification). Texts of any length are long strings.

use alloc::{string::String, vec::Vec};

use amqp_core::{
    Body, EncodedProperties,
    wire::{Decode as _, DecodeError, Encode as _, FieldTable, ShortStr},
};
use bytes::{BufMut as _, Bytes, BytesMut};

use super::administration_codec::{put_policy, put_policy_kind, put_user, put_value, put_vhost};
use super::change::{
    Change, DurableBinding, DurableExchange, DurableMessage, DurableQueue, MessageState,
    StreamMessage,
};
use crate::inspect::BindingTarget;

/// Bytes that are no change.
#[derive(thiserror::Error, Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadChange {
    /// There is no change with this tag.
    #[error("there is no change with the tag {0}")]
    UnknownTag(u8),
    /// A field does not decode.
    #[error("a field of the change: {0}")]
    Field(#[from] DecodeError),
    /// A field has a value that it cannot have, or that needs a feature of this crate.
    #[error("the change has an invalid {0}")]
    Invalid(&'static str),
}

const EXCHANGE_DECLARED: u8 = 1;
const EXCHANGE_DELETED: u8 = 2;
const QUEUE_DECLARED: u8 = 3;
const QUEUE_DELETED: u8 = 4;
const BOUND: u8 = 5;
const UNBOUND: u8 = 6;
const ENQUEUED: u8 = 7;
const DELIVERED: u8 = 8;
const REQUEUED: u8 = 9;
const REMOVED: u8 = 10;
const STOPPED: u8 = 11;
const STARTED: u8 = 12;
const SEGMENT_BEGUN: u8 = 13;
const APPENDED: u8 = 14;
const SEGMENTS_DROPPED: u8 = 15;
const USER_SET: u8 = 16;
const USER_DELETED: u8 = 17;
const VHOST_SET: u8 = 18;
const VHOST_DELETED: u8 = 19;
const POLICY_SET: u8 = 20;
const POLICY_CLEARED: u8 = 21;
const PARAMETER_SET: u8 = 22;
const GLOBAL_PARAMETER_SET: u8 = 23;

impl Change {
    /// Appends the change as bytes.
    ///
    /// ```
    /// use amqp_broker::Change;
    /// use bytes::BytesMut;
    ///
    /// let mut bytes = BytesMut::new();
    /// Change::Stopped.encode(&mut bytes);
    /// assert_eq!(Change::decode(&bytes), Ok(Change::Stopped));
    /// ```
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::ExchangeDeclared(exchange) => {
                out.put_u8(EXCHANGE_DECLARED);
                put_text(out, &exchange.vhost);
                exchange.name.encode(out);
                exchange.kind.encode(out);
                put_flags(out, [exchange.auto_delete, exchange.internal, false]);
                exchange.arguments.encode(out);
            }
            Self::ExchangeDeleted { vhost, name } => {
                out.put_u8(EXCHANGE_DELETED);
                put_text(out, vhost);
                name.encode(out);
            }
            Self::QueueDeclared(queue) => {
                out.put_u8(QUEUE_DECLARED);
                out.put_u64(queue.number);
                put_text(out, &queue.vhost);
                queue.name.encode(out);
                put_flags(out, [queue.auto_delete, false, false]);
                queue.arguments.encode(out);
            }
            Self::QueueDeleted { queue } => {
                out.put_u8(QUEUE_DELETED);
                out.put_u64(*queue);
            }
            Self::Bound(binding) => {
                out.put_u8(BOUND);
                put_binding(out, binding);
            }
            Self::Unbound(binding) => {
                out.put_u8(UNBOUND);
                put_binding(out, binding);
            }
            Self::Enqueued(message) => {
                out.put_u8(ENQUEUED);
                put_message(out, message);
            }
            Self::Delivered { queue, message } => {
                out.put_u8(DELIVERED);
                put_numbers(out, *queue, *message);
            }
            Self::Requeued {
                queue,
                message,
                state,
            } => {
                out.put_u8(REQUEUED);
                put_numbers(out, *queue, *message);
                put_state(out, state);
            }
            Self::Removed { queue, message } => {
                out.put_u8(REMOVED);
                put_numbers(out, *queue, *message);
            }
            Self::SegmentBegun { queue, first } => {
                out.put_u8(SEGMENT_BEGUN);
                put_numbers(out, *queue, *first);
            }
            Self::Appended(message) => {
                out.put_u8(APPENDED);
                put_stream_message(out, message);
            }
            Self::SegmentsDropped { queue, first } => {
                out.put_u8(SEGMENTS_DROPPED);
                put_numbers(out, *queue, *first);
            }
            Self::UserSet(user) => {
                out.put_u8(USER_SET);
                put_user(out, user);
            }
            Self::UserDeleted { name } => {
                out.put_u8(USER_DELETED);
                put_text(out, name);
            }
            Self::VhostSet(vhost) => {
                out.put_u8(VHOST_SET);
                put_vhost(out, vhost);
            }
            Self::VhostDeleted { name } => {
                out.put_u8(VHOST_DELETED);
                put_text(out, name);
            }
            Self::PolicySet {
                vhost,
                kind,
                policy,
            } => {
                out.put_u8(POLICY_SET);
                put_policy_kind(out, vhost, *kind);
                put_policy(out, policy);
            }
            Self::PolicyCleared { vhost, kind, name } => {
                out.put_u8(POLICY_CLEARED);
                put_policy_kind(out, vhost, *kind);
                put_text(out, name);
            }
            Self::ParameterSet {
                vhost,
                component,
                name,
                value,
            } => {
                out.put_u8(PARAMETER_SET);
                put_text(out, vhost);
                put_text(out, component);
                put_text(out, name);
                put_value(out, value);
            }
            Self::GlobalParameterSet { name, value } => {
                out.put_u8(GLOBAL_PARAMETER_SET);
                put_text(out, name);
                put_value(out, value);
            }
            Self::Stopped => out.put_u8(STOPPED),
            Self::Started => out.put_u8(STARTED),
        }
    }

    /// Decodes a change from the whole of `input`.
    ///
    /// # Errors
    /// If the bytes are no change.
    pub fn decode(input: &[u8]) -> Result<Self, BadChange> {
        let mut reader = Reader(input);
        let change = reader.change()?;
        match reader.0.len() {
            0 => Ok(change),
            left => Err(DecodeError::TrailingBytes { left }.into()),
        }
    }

    /// Returns the approximate memory that the change occupies, in bytes.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Enqueued(message) => message.body.len() + message.properties.as_bytes().len(),
                Self::Appended(message) => message.body.len() + message.properties.as_bytes().len(),
                Self::QueueDeclared(queue) => queue.arguments.encoded_len(),
                Self::ExchangeDeclared(exchange) => exchange.arguments.encoded_len(),
                Self::Bound(binding) | Self::Unbound(binding) => binding.arguments.encoded_len(),
                _ => 0,
            }
    }
}

pub(super) fn put_len(out: &mut BytesMut, len: usize) {
    // A message is far smaller: `Limits::message`.
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
}

pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    put_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_numbers(out: &mut BytesMut, queue: u64, message: u64) {
    out.put_u64(queue);
    out.put_u64(message);
}

pub(super) fn put_flags(out: &mut BytesMut, flags: [bool; 3]) {
    let [first, second, third] = flags.map(u8::from);
    out.put_u8(first | second << 1 | third << 2);
}

fn put_state(out: &mut BytesMut, state: &MessageState) {
    out.put_u64(state.position);
    out.put_u64(state.requeues);
    put_flags(out, [state.redelivered, state.returned, state.unacked]);
}

fn put_binding(out: &mut BytesMut, binding: &DurableBinding) {
    put_text(out, &binding.vhost);
    binding.source.encode(out);
    let (to_exchange, destination) = match &binding.destination {
        BindingTarget::Queue(name) => (false, name),
        BindingTarget::Exchange(name) => (true, name),
    };
    put_flags(out, [to_exchange, false, false]);
    destination.encode(out);
    binding.routing_key.encode(out);
    binding.arguments.encode(out);
}

fn put_message(out: &mut BytesMut, message: &DurableMessage) {
    put_numbers(out, message.queue, message.number);
    put_state(out, &message.state);
    put_flags(out, [message.expires.is_some(), false, false]);
    out.put_u64(message.expires.unwrap_or(0));
    message.exchange.encode(out);
    message.routing_key.encode(out);
    put_len(out, message.more_keys.len());
    for key in &message.more_keys {
        put_text(out, key);
    }
    put_content(out, &message.properties, &message.body);
}

fn put_stream_message(out: &mut BytesMut, message: &StreamMessage) {
    put_numbers(out, message.queue, message.offset);
    out.put_u64(message.timestamp);
    message.exchange.encode(out);
    message.routing_key.encode(out);
    put_content(out, &message.properties, &message.body);
}

fn put_content(out: &mut BytesMut, properties: &EncodedProperties, body: &Body) {
    put_len(out, properties.as_bytes().len());
    properties.encode(out);
    put_len(out, body.len());
    for piece in body.pieces() {
        out.extend_from_slice(piece);
    }
}

/// The rest of the input.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn change(&mut self) -> Result<Change, BadChange> {
        Ok(match self.u8()? {
            EXCHANGE_DECLARED => {
                let (vhost, name, kind) = (self.text()?, self.short()?, self.short()?);
                let [auto_delete, internal, _] = self.flags()?;
                Change::ExchangeDeclared(DurableExchange {
                    vhost,
                    name,
                    kind,
                    auto_delete,
                    internal,
                    arguments: self.table()?,
                })
            }
            EXCHANGE_DELETED => Change::ExchangeDeleted {
                vhost: self.text()?,
                name: self.short()?,
            },
            QUEUE_DECLARED => {
                let (number, vhost, name) = (self.u64()?, self.text()?, self.short()?);
                let [auto_delete, ..] = self.flags()?;
                Change::QueueDeclared(DurableQueue {
                    number,
                    vhost,
                    name,
                    auto_delete,
                    arguments: self.table()?,
                })
            }
            QUEUE_DELETED => Change::QueueDeleted { queue: self.u64()? },
            BOUND => Change::Bound(self.binding()?),
            UNBOUND => Change::Unbound(self.binding()?),
            ENQUEUED => Change::Enqueued(self.message()?),
            DELIVERED => Change::Delivered {
                queue: self.u64()?,
                message: self.u64()?,
            },
            REQUEUED => Change::Requeued {
                queue: self.u64()?,
                message: self.u64()?,
                state: self.state()?,
            },
            REMOVED => Change::Removed {
                queue: self.u64()?,
                message: self.u64()?,
            },
            SEGMENT_BEGUN => Change::SegmentBegun {
                queue: self.u64()?,
                first: self.u64()?,
            },
            APPENDED => Change::Appended(self.stream_message()?),
            SEGMENTS_DROPPED => Change::SegmentsDropped {
                queue: self.u64()?,
                first: self.u64()?,
            },
            USER_SET => Change::UserSet(self.user()?),
            USER_DELETED => Change::UserDeleted { name: self.text()? },
            VHOST_SET => Change::VhostSet(self.vhost()?),
            VHOST_DELETED => Change::VhostDeleted { name: self.text()? },
            POLICY_SET => Change::PolicySet {
                vhost: self.text()?,
                kind: self.policy_kind()?,
                policy: self.policy()?,
            },
            POLICY_CLEARED => Change::PolicyCleared {
                vhost: self.text()?,
                kind: self.policy_kind()?,
                name: self.text()?,
            },
            PARAMETER_SET => Change::ParameterSet {
                vhost: self.text()?,
                component: self.text()?,
                name: self.text()?,
                value: self.value()?,
            },
            GLOBAL_PARAMETER_SET => Change::GlobalParameterSet {
                name: self.text()?,
                value: self.value()?,
            },
            STOPPED => Change::Stopped,
            STARTED => Change::Started,
            other => return Err(BadChange::UnknownTag(other)),
        })
    }

    fn binding(&mut self) -> Result<DurableBinding, DecodeError> {
        let (vhost, source) = (self.text()?, self.short()?);
        let [to_exchange, ..] = self.flags()?;
        let destination = self.short()?;
        Ok(DurableBinding {
            vhost,
            source,
            destination: if to_exchange {
                BindingTarget::Exchange(destination)
            } else {
                BindingTarget::Queue(destination)
            },
            routing_key: self.short()?,
            arguments: self.table()?,
        })
    }

    fn message(&mut self) -> Result<DurableMessage, DecodeError> {
        let (queue, number, state) = (self.u64()?, self.u64()?, self.state()?);
        let [has_expiry, ..] = self.flags()?;
        let expires = self.u64()?;
        let (exchange, routing_key) = (self.short()?, self.short()?);
        // Not sized by the count: each key takes at least the bytes of its length.
        let mut more_keys = Vec::new();
        for _ in 0..self.u32()? {
            more_keys.push(self.text()?);
        }
        let (properties, body) = self.content()?;
        Ok(DurableMessage {
            queue,
            number,
            state,
            expires: has_expiry.then_some(expires),
            exchange,
            routing_key,
            more_keys,
            properties,
            body,
        })
    }

    fn stream_message(&mut self) -> Result<StreamMessage, DecodeError> {
        let (queue, offset, timestamp) = (self.u64()?, self.u64()?, self.u64()?);
        let (exchange, routing_key) = (self.short()?, self.short()?);
        let (properties, body) = self.content()?;
        Ok(StreamMessage {
            queue,
            offset,
            timestamp,
            exchange,
            routing_key,
            properties,
            body,
        })
    }

    fn content(&mut self) -> Result<(EncodedProperties, Body), DecodeError> {
        let properties = Bytes::copy_from_slice(self.long()?);
        let properties = EncodedProperties::new(properties)?;
        let body = Body::from(Bytes::copy_from_slice(self.long()?));
        Ok((properties, body))
    }

    fn state(&mut self) -> Result<MessageState, DecodeError> {
        let (position, requeues) = (self.u64()?, self.u64()?);
        let [redelivered, returned, unacked] = self.flags()?;
        Ok(MessageState {
            position,
            redelivered,
            requeues,
            returned,
            unacked,
        })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn flags(&mut self) -> Result<[bool; 3], DecodeError> {
        let flags = self.u8()?;
        Ok([1, 2, 4].map(|bit| flags & bit != 0))
    }

    pub(super) fn long(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u32()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    pub(super) fn text(&mut self) -> Result<String, DecodeError> {
        let text = core::str::from_utf8(self.long()?);
        text.map(Into::into).map_err(|_| DecodeError::InvalidUtf8)
    }

    fn short(&mut self) -> Result<ShortStr, DecodeError> {
        let len = self.0.first().copied().ok_or(DecodeError::Truncated)?;
        ShortStr::decode(self.take(1 + usize::from(len))?)
    }

    pub(super) fn table(&mut self) -> Result<FieldTable, DecodeError> {
        let mut ahead = Self(self.0);
        let len = ahead.u32()?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        FieldTable::decode(self.take(len.saturating_add(4))?)
    }
}

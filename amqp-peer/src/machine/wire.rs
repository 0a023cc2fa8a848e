//! Messages on the wire: the properties that the peers' protocol adds.

use std::time::Duration;

use amqp_core::{Content, EncodedProperties, protocol::basic::Properties, wire::ShortStr};

use super::outbox::Entry;
use crate::{
    limits::MAX_PROPERTIES,
    message::{Message, MessageId, PERSISTENT},
};

/// The prefix of the headers that are the protocol's.
pub(super) const RESERVED: &str = "x-peer-";

const TTL: &str = "x-peer-ttl-ms";

/// `true` for a message that is sent again to the same process of the receiver.
const REPEAT: &str = "x-peer-repeat";

/// The value of `REPEAT` for a message that another process of the receiver may have.
const ELSEWHERE: i8 = 2;

/// The routing key of messages, the queue that they are consumed from, and the consumer tag.
pub(super) const QUEUE: ShortStr = {
    let name = ShortStr::from_static("p");
    name.unwrap()
};

/// The size that the protocol's properties may take in addition to the application's, in bytes.
const OWN_PROPERTIES: usize = 192;

/// The flags of properties with only a message id (section 4.2.6.1 of the specification).
const ONLY_ID: [u8; 2] = [0x00, 0x80];

/// The flags of properties with a delivery mode and a message id.
const MODE_AND_ID: [u8; 2] = [0x10, 0x80];

const HEX_LEN: u8 = 32;

/// Sets the properties of a message that has no others than its id and its delivery mode. Returns
/// `false` if it has others. `plain` is used again and again, which saves to create it.
pub(super) fn set_plain(plain: &mut Properties, entry: &Entry) -> bool {
    if !entry.message.is_plain() || entry.expires_at.is_some() || entry.was_sent {
        return false;
    }
    plain.delivery_mode = entry.message.is_persistent.then_some(PERSISTENT);
    plain.message_id = hex(entry.id);
    true
}

fn hex(id: MessageId) -> Option<ShortStr> {
    let hex = id.to_hex();
    let hex = str::from_utf8(&hex).ok()?;
    ShortStr::try_from(hex).ok()
}

/// The properties of a message on the wire. `ttl` is what remains of its time to live.
pub(super) fn properties(entry: &Entry, ttl: Option<Duration>) -> Properties {
    let mut properties = entry.message.wire();
    properties.message_id = hex(entry.id);
    if ttl.is_some() || entry.was_sent {
        let headers = properties.headers.get_or_insert_default();
        if let Some(ttl) = ttl {
            let millis = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
            headers.push(name(TTL), millis);
        }
        if entry.may_be_elsewhere {
            headers.push(name(REPEAT), ELSEWHERE);
        } else if entry.was_sent {
            headers.push(name(REPEAT), true);
        }
    }
    properties
}

fn name(name: &'static str) -> ShortStr {
    ShortStr::from_static(name).unwrap_or_default()
}

/// A message as received.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) id: MessageId,
    pub(super) message: Message,
    pub(super) is_repeated: bool,
    /// Whether an earlier process of this peer may have it.
    pub(super) may_be_elsewhere: bool,
}

/// Reads a message of a peer. `None` if its properties are not those of the protocol.
pub(super) fn read(content: Content) -> Option<Arrived> {
    let Content { properties, body } = content;
    if let Some((id, is_persistent)) = read_plain(properties.as_bytes()) {
        let mut message = Message::new(body);
        message.is_persistent = is_persistent;
        return Some(Arrived {
            id,
            message,
            is_repeated: false,
            may_be_elsewhere: false,
        });
    }
    if properties.as_bytes().len() > MAX_PROPERTIES + OWN_PROPERTIES {
        return None;
    }
    read_all(&properties, body)
}

/// Reads the properties that most messages have: an id, and perhaps a delivery mode.
fn read_plain(encoded: &[u8]) -> Option<(MessageId, bool)> {
    let (flags, rest) = encoded.split_first_chunk::<2>()?;
    let (is_persistent, rest) = match *flags {
        ONLY_ID => (false, rest),
        MODE_AND_ID => {
            let (mode, rest) = rest.split_first()?;
            (*mode == PERSISTENT, rest)
        }
        _ => return None,
    };
    let (len, hex) = rest.split_first()?;
    if *len != HEX_LEN {
        return None;
    }
    Some((MessageId::from_hex(hex)?, is_persistent))
}

fn read_all(properties: &EncodedProperties, body: amqp_core::Body) -> Option<Arrived> {
    let mut properties = properties.decode().ok()?;
    let id = properties.message_id.take()?;
    let id = MessageId::from_hex(id.as_bytes())?;
    let (mut ttl, mut is_repeated, mut may_be_elsewhere) = (None, false, false);
    if let Some(headers) = &mut properties.headers {
        if let Some(millis) = headers.remove(TTL) {
            let millis = u64::try_from(millis.as_i64()?).ok()?;
            ttl = Some(Duration::from_millis(millis));
        }
        if let Some(repeat) = headers.remove(REPEAT) {
            may_be_elsewhere = repeat.as_i64() == Some(ELSEWHERE.into());
            is_repeated = may_be_elsewhere || repeat.as_bool() == Some(true);
        }
        if headers.is_empty() {
            properties.headers = None;
        }
    }
    let mut message = Message::from_properties(body, properties);
    message.ttl = ttl;
    Some(Arrived {
        id,
        message,
        is_repeated,
        may_be_elsewhere,
    })
}

/// Whether the application's properties are within their limit. Returns their size, in bytes, if
/// not.
pub(super) fn check_properties(message: &Message) -> Result<(), usize> {
    if message.is_plain() {
        return Ok(());
    }
    let len = message.to_wire().as_bytes().len();
    if len > MAX_PROPERTIES {
        Err(len)
    } else {
        Ok(())
    }
}

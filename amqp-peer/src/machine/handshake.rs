//! The handshake: identities, logins, and the properties in which they travel.

use amqp_core::{
    ApiMisuse, Instant, client,
    sasl::{Plain, parse_plain},
    server,
    wire::{FieldTable, FieldValue, ShortStr},
};

use super::{
    link::{Identity, Link, Side},
    tags::{Incoming, Outgoing},
    throttle::Bucket,
};
use crate::{
    cause::DownCause,
    config::{Config, Throttle},
    event::LinkKey,
    name::PeerName,
};

/// The version of the peers' protocol.
const VERSION: i32 = 1;

/// The smallest frame limit that peers agree on, in bytes: the one that holds before.
pub(super) const FRAME_MIN: u32 = 8192;

/// The largest frame limit that peers agree on, in bytes.
pub(super) const FRAME_MAX: u32 = 128 << 10;

const PRODUCT: &str = "amqp-peer";

const NAME: &str = "peer.name";

const PEER_VERSION: &str = "peer.version";

const INSTANCE: &str = "peer.instance";

const WINDOW: &str = "peer.window";

const WINDOW_BYTES: &str = "peer.window-bytes";

const BODY: &str = "peer.body";

/// The capabilities of a listener (<https://www.rabbitmq.com/docs/consumer-cancel>): the connector's
/// machine announces its own.
const CAPABILITIES: [&str; 3] = [
    "authentication_failure_close",
    "basic.nack",
    "publisher_confirms",
];

fn name(name: &'static str) -> ShortStr {
    ShortStr::from_static(name).unwrap_or_default()
}

/// The properties that tell the peer of this side.
fn properties(config: &Config) -> FieldTable {
    let mut table = FieldTable::new();
    let mut set = |key: &'static str, value: FieldValue| table.push(name(key), value);
    set("product", PRODUCT.into());
    set(NAME, config.name.as_str().into());
    set(PEER_VERSION, VERSION.into());
    set(INSTANCE, config.seed.cast_signed().into());
    set(WINDOW, i64::from(config.limits.window).into());
    set(WINDOW_BYTES, i64::from(config.limits.window_bytes).into());
    let body = i64::try_from(config.limits.body).unwrap_or(i64::MAX);
    set(BODY, body.into());
    table
}

/// Whether the properties are those of a peer.
pub(super) fn is_peer(table: &FieldTable) -> bool {
    table.contains_key(NAME)
}

/// Reads what a peer has said of itself.
pub(super) fn identity(table: &FieldTable) -> Result<Identity, DownCause> {
    let text = table.get(NAME).and_then(FieldValue::as_str);
    let text = text.ok_or(DownCause::NotAPeer)?;
    let version = table.get(PEER_VERSION).and_then(FieldValue::as_i64);
    if version != Some(VERSION.into()) {
        return Err(DownCause::Version);
    }
    let number = |key| table.get(key).and_then(FieldValue::as_i64);
    let count = |key| number(key).and_then(|count| u64::try_from(count).ok());
    let read = || {
        Some(Identity {
            name: PeerName::new(text).ok()?,
            instance: number(INSTANCE)?.cast_unsigned(),
            window: usize::try_from(count(WINDOW)?).ok()?.max(1),
            window_bytes: count(WINDOW_BYTES)?.max(1),
            body: count(BODY)?,
        })
    };
    read().ok_or(DownCause::NotAPeer)
}

/// The frame limit that suits the throttle, in bytes.
fn frame_max(throttle: &Throttle) -> u32 {
    let rates = [throttle.send, throttle.receive];
    let limits = rates.into_iter().flatten().map(Bucket::frame_max);
    limits.min().unwrap_or(FRAME_MAX)
}

fn connector(config: &Config, now: Instant) -> Result<client::Connection, ApiMisuse> {
    let plain = Plain::new(config.name.as_str(), config.secret.clone());
    let plain = plain.map_err(|_| ApiMisuse::Config {
        setting: "secret",
        problem: "must not contain NUL",
    })?;
    let mut limits = amqp_core::Limits::default()
        .body(config.limits.body)
        .unconfirmed(usize::from(u16::MAX) + 1);
    limits.assembly = config.limits.body;
    let mut timeouts = amqp_core::Timeouts::default()
        .handshake(config.handshake)
        .request(None)
        .confirm(None);
    timeouts.publish = None;
    let machine = client::Config::default()
        .mechanisms(vec![Box::new(plain)])
        .properties(properties(config))
        .frame_max(frame_max(&config.throttle))
        .heartbeat(config.heartbeat)
        .limits(limits)
        .timeouts(timeouts);
    client::Connection::new(machine, now)
}

fn listener(config: &Config, now: Instant) -> Result<server::Connection, ApiMisuse> {
    let mut machine = config.server.clone().unwrap_or_default();
    let capabilities: FieldTable = CAPABILITIES
        .into_iter()
        .map(|capability| (name(capability), true.into()))
        .collect();
    if !machine.properties.contains_key("capabilities") {
        machine.properties.push(name("capabilities"), capabilities);
    }
    for (key, value) in properties(config) {
        machine.properties.insert(key, value);
    }
    if config.server.is_none() {
        machine.mechanisms = "PLAIN".into();
        machine.channel_max = 2;
        machine.heartbeat = config.heartbeat;
        machine.timeouts.handshake = config.handshake;
        machine.limits.body = config.limits.body;
        machine.limits.assembly = config.limits.body;
    } else {
        machine.limits.body = machine.limits.body.max(config.limits.body);
    }
    machine.frame_min = FRAME_MIN;
    machine.frame_max = frame_max(&config.throttle);
    server::Connection::new(machine, now)
}

/// Begins a link.
pub(super) fn begin(
    config: &Config,
    key: LinkKey,
    is_listener: bool,
    now: Instant,
) -> Result<Link, ApiMisuse> {
    let side = if is_listener {
        Side::Listener(Box::new(listener(config, now)?))
    } else {
        Side::Connector(Box::new(connector(config, now)?))
    };
    let bucket = |rate: Option<u64>| rate.map(|rate| Bucket::new(rate, now));
    Ok(Link {
        key,
        side,
        stage: super::link::Stage::Opening,
        identity: None,
        peer: None,
        certificates: Vec::new(),
        sending: None,
        receiving: None,
        is_selected: false,
        owes_consume_ok: false,
        cause: None,
        client: None,
        outgoing: Outgoing::default(),
        incoming: Incoming::default(),
        unwritten: std::collections::VecDeque::new(),
        send_bucket: bucket(config.throttle.send),
        receive_bucket: bucket(config.throttle.receive),
        staged: amqp_core::Transmit::new(),
        join_by: now + config.handshake,
        heard: now,
        probed: None,
        awaits_flow_ok: false,
        answers: None,
        leftover: 0,
        is_woken: false,
    })
}

/// Whether a login is that of the peer that it says it is.
pub(super) fn is_login_right(config: &Config, request: &server::AuthRequest) -> bool {
    if request.mechanism.as_str() != Plain::NAME {
        return false;
    }
    let Ok(credentials) = parse_plain(request.response.expose()) else {
        return false;
    };
    let claimed = request.client_properties.get(NAME);
    let is_named = claimed.and_then(FieldValue::as_str) == Some(credentials.username.as_str());
    // Takes the same time wherever the secrets differ.
    let (given, right) = (credentials.password.expose(), config.secret.expose());
    let differs = given
        .iter()
        .zip(right)
        .fold(given.len() != right.len(), |differs, (a, b)| {
            differs | (a != b)
        });
    is_named && !differs
}

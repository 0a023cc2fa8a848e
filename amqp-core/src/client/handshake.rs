//! A client's handshake.
//!
//! ```text
//!  client                                        server
//!    │ ── protocol header ─────────────────────────> │   Greeting
//!    │ <────────────────────────────────── start ──  │
//!    │ ── start-ok (mechanism, response) ──────────> │   Authenticating
//!    │ <───────────────────── secure (challenge) ──  │
//!    │ ── secure-ok (response) ────────────────────> │   ... any number of rounds
//!    │ <─────────────────────────────────── tune ──  │
//!    │ ── tune-ok, open (virtual host) ────────────> │   Opening
//!    │ <──────────────────────────────── open-ok ──  │   Open
//! ```
//!
//! Sections 2.2.4 and 4.2.2 of the specification. The server may close at any of these points.

use alloc::{boxed::Box, string::ToString as _};

use bytes::BytesMut;

use super::{Client, Config, Event};
use crate::{
    close::{Close, CloseCause, NotAmqp, Stage},
    fault::Fault,
    frame::FrameKind,
    limits::{FRAME_MAX_BEFORE_TUNE, FRAME_OVERHEAD, Tuning, lesser_limit},
    machine::Machine,
    protocol::{FRAME_MIN_SIZE, Method, PROTOCOL_MAJOR, PROTOCOL_MINOR, ReplyCode, connection},
    sasl::Mechanism,
    wire::{Encode as _, FieldTable, FieldValue, ShortStr},
};

/// The client's part of the handshake: its properties, mechanism and limits.
#[derive(Debug)]
pub(super) struct Handshake {
    config: Config,
    /// `Some` from `start` until authentication is complete.
    mechanism: Option<Box<dyn Mechanism>>,
}

/// The capabilities that the client announces. Without them RabbitMQ hangs up on bad credentials
/// instead of closing (<https://www.rabbitmq.com/docs/auth-notification>), does not announce
/// resource alarms (<https://www.rabbitmq.com/docs/connection-blocked>), and ends consumers without
/// a `basic.cancel` (<https://www.rabbitmq.com/docs/consumer-cancel>).
const CAPABILITIES: [&str; 6] = [
    "authentication_failure_close",
    "basic.nack",
    "connection.blocked",
    "consumer_cancel_notify",
    "exchange_exchange_bindings",
    "publisher_confirms",
];

impl Handshake {
    pub(super) const fn new(config: Config) -> Self {
        Self {
            config,
            mechanism: None,
        }
    }

    /// Returns the client properties of `start-ok`.
    pub(super) fn properties(&self) -> FieldTable {
        let mut properties = self.config.properties.clone();
        let mut tell = |name: &'static str, value: FieldValue| {
            if !properties.contains_key(name) {
                properties.push(ShortStr::from_static(name).unwrap_or_default(), value);
            }
        };
        tell("product", env!("CARGO_PKG_NAME").into());
        tell("version", env!("CARGO_PKG_VERSION").into());
        tell("platform", "Rust".into());
        let capabilities: FieldTable = CAPABILITIES
            .iter()
            .map(|name| (ShortStr::from_static(name).unwrap_or_default(), true.into()))
            .collect();
        tell("capabilities", capabilities.into());
        properties
    }

    /// Removes and returns the first configured mechanism that the server offers.
    fn choose_mechanism(&mut self, offered: &str) -> Option<Box<dyn Mechanism>> {
        let at = self.config.mechanisms.iter().position(|mechanism| {
            offered
                .split_ascii_whitespace()
                .any(|name| name == mechanism.name())
        })?;
        Some(self.config.mechanisms.swap_remove(at))
    }

    /// Combines the server's limits with the configured ones. A frame limit below 4096 bytes is a
    /// fault of the server (section 1.4.2.5 of the protocol reference, connection.tune).
    fn negotiate(&self, tune: &connection::Tune) -> Result<connection::TuneOk, Fault> {
        if tune.frame_max != 0 && tune.frame_max < FRAME_MIN_SIZE {
            return Err(Fault::Tuning {
                setting: "frame_max",
                value: tune.frame_max,
            });
        }
        let frame_max = lesser_limit(self.config.frame_max, tune.frame_max);
        Ok(connection::TuneOk {
            channel_max: lesser_limit(self.config.channel_max, tune.channel_max),
            // Without a configured limit, caps the frame size: gigabyte frames were not requested.
            frame_max: match self.config.frame_max {
                0 => frame_max.min(self.config.limits.unlimited_frame),
                _ => frame_max,
            },
            // RabbitMQ uses the interval of `tune-ok`: <https://www.rabbitmq.com/docs/heartbeats>.
            heartbeat: self.config.heartbeat.unwrap_or(tune.heartbeat),
        })
    }
}

impl Tuning {
    fn agreed(tune_ok: &connection::TuneOk) -> Self {
        let unless_zero = |limit: u32, none: u32| if limit == 0 { none } else { limit };
        Self {
            channel_max: match tune_ok.channel_max {
                0 => u16::MAX,
                max => max,
            },
            frame_max: unless_zero(tune_ok.frame_max, u32::MAX),
            heartbeat: tune_ok.heartbeat,
        }
    }
}

impl Machine<Client> {
    /// Checks the first bytes of the server. Returns `true` if a method frame begins, `false` if
    /// more bytes are needed. A server that refuses the version sends a protocol header instead
    /// (section 4.2.2 of the specification).
    pub(super) fn greet_server(input: &BytesMut) -> Result<bool, CloseCause> {
        const TLS_ALERT: u8 = 0x15;
        const TLS_HANDSHAKE: u8 = 0x16;
        match input.first() {
            Some(&kind) if kind == FrameKind::Method.to_wire() => return Ok(true),
            Some(&(TLS_ALERT | TLS_HANDSHAKE)) => return Err(NotAmqp::Tls.into()),
            Some(_) | None => {}
        }
        // The other cases need eight octets, the length of a protocol header, in however many
        // pieces they arrive.
        let Some(first) = input.first_chunk::<8>() else {
            return Ok(false);
        };
        let refused = match first {
            [b'A', b'M', b'Q', b'P', version @ ..] => NotAmqp::OtherVersion(*version),
            [b'H', b'T', b'T', b'P', ..] => NotAmqp::Http,
            _ => NotAmqp::Unknown(*first),
        };
        Err(refused.into())
    }

    /// Handles a method of the handshake.
    pub(super) fn on_handshake(&mut self, stage: Stage, method: Method) -> Result<(), Fault> {
        match (stage, method) {
            (Stage::Greeting, Method::ConnectionStart(start)) => self.on_start(start),
            (Stage::Authenticating, Method::ConnectionSecure(secure)) => self.on_secure(&secure),
            (Stage::Authenticating, Method::ConnectionTune(tune)) => self.on_tune(&tune),
            (Stage::Opening, Method::ConnectionOpenOk(_)) => {
                self.set_open();
                self.push(Event::Opened);
                Ok(())
            }
            _ => Err(Fault::NotDue),
        }
    }

    fn on_start(&mut self, start: connection::Start) -> Result<(), Fault> {
        if (start.version_major, start.version_minor) != (PROTOCOL_MAJOR, PROTOCOL_MINOR) {
            let version = NotAmqp::StartVersion {
                major: start.version_major,
                minor: start.version_minor,
            };
            self.finish(CloseCause::NotAmqp(version).into());
            return Ok(());
        }
        let offered = start.mechanisms.to_str_lossy();
        let locales = start.locales.to_str_lossy();
        let handshake = &mut self.role.handshake;
        let wanted = handshake.config.locale.clone();
        if !locales
            .split_ascii_whitespace()
            .any(|name| name == wanted.as_str())
        {
            let cause = CloseCause::NoCommonLocale {
                wanted: wanted.to_string(),
                offered: locales.to_string(),
            };
            self.finish(cause.into());
            return Ok(());
        }
        let Some(mut mechanism) = handshake.choose_mechanism(&offered) else {
            let offered = offered.to_string();
            self.finish(CloseCause::NoCommonMechanism { offered }.into());
            return Ok(());
        };
        let start_ok = connection::StartOk {
            client_properties: handshake.properties(),
            mechanism: ShortStr::try_from(mechanism.name()).unwrap_or_default(),
            response: mechanism.initial_response(),
            locale: wanted,
        };
        handshake.mechanism = Some(mechanism);
        self.role.mechanism = start_ok.mechanism.clone();
        self.role.server_properties = start.server_properties;
        if self.put_urgent(&start_ok).is_err() {
            let cause = CloseCause::StartOkTooLarge {
                len: start_ok.encoded_len() + 4 + FRAME_OVERHEAD,
                limit: FRAME_MAX_BEFORE_TUNE as usize,
            };
            self.finish(cause.into());
            return Ok(());
        }
        self.set_stage(Stage::Authenticating);
        Ok(())
    }

    fn on_secure(&mut self, secure: &connection::Secure) -> Result<(), Fault> {
        let Some(mechanism) = &mut self.role.handshake.mechanism else {
            return Err(Fault::NotDue);
        };
        match mechanism.respond(&secure.challenge) {
            Ok(response) => {
                if let Err(error) = self.put_urgent(&connection::SecureOk { response }) {
                    self.give_up(&error.to_string());
                }
            }
            Err(error) => self.give_up(&error.to_string()),
        }
        Ok(())
    }

    /// Closes the connection: the challenge cannot be answered.
    fn give_up(&mut self, why: &str) {
        let close = Close {
            code: ReplyCode::ACCESS_REFUSED,
            text: why.into(),
            method: None,
        };
        let cause = CloseCause::AuthenticationFailed {
            why: why.into(),
            close: None,
        };
        self.close_for(&close, cause.into());
    }

    fn on_tune(&mut self, tune: &connection::Tune) -> Result<(), Fault> {
        let handshake = &mut self.role.handshake;
        let tune_ok = handshake.negotiate(tune)?;
        // The secrets are no longer needed.
        handshake.mechanism = None;
        handshake.config.mechanisms.clear();
        let open = connection::Open {
            virtual_host: handshake.config.virtual_host.clone(),
        };
        // Both are far smaller than any frame limit.
        let _fits = self
            .put_urgent(&tune_ok)
            .and_then(|()| self.put_urgent(&open));
        self.set_tuning(Tuning::agreed(&tune_ok));
        self.set_stage(Stage::Opening);
        Ok(())
    }
}

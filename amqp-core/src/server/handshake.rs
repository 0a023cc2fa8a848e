//! The server's side of the handshake, and its configuration.

use alloc::string::String;

use bytes::{Buf as _, BytesMut};

use super::{AuthRequest, Decision, Event, Policy, Server, Standard};
use crate::{
    close::{CloseCause, NotAmqp, Stage},
    error::ApiMisuse,
    fault::Fault,
    frame::PROTOCOL_HEADER,
    limits::{Limits, Timeouts, Tuning},
    machine::Machine,
    protocol::{FRAME_MIN_SIZE, Method, PROTOCOL_MAJOR, PROTOCOL_MINOR, connection},
    wire::{FieldTable, LongStr, Secret, ShortStr},
};

/// The protocol header of AMQP 0-9, which some clients send.
const HEADER_0_9: [u8; 8] = *b"AMQP\x01\x01\x00\x09";

/// The protocol headers of AMQP 0-8.
const HEADERS_0_8: [[u8; 8]; 2] = [*b"AMQP\x01\x01\x08\x00", *b"AMQP\x01\x01\x09\x01"];

/// The version in `connection.start` for a client of AMQP 0-8: major and minor.
const VERSION_0_8: (u8, u8) = (8, 0);

/// The configuration of a server's connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The server properties in `connection.start`: product, version, capabilities. Default empty.
    pub properties: FieldTable,
    /// The SASL mechanisms in `connection.start`, separated by spaces. Default `PLAIN AMQPLAIN`.
    pub mechanisms: String,
    /// The locales in `connection.start`, separated by spaces. Default `en_US`.
    pub locales: String,
    /// The highest channel number that a client may use, or the number of channels that it may open
    /// if the [policy](super::Tolerance::any_channel_number) allows all numbers; 0 for no limit.
    /// Default 2047, the default of RabbitMQ.
    pub channel_max: u16,
    /// The largest frame that a client may send or request, in bytes; 0 for no limit. Default
    /// 131,072, the default of RabbitMQ.
    pub frame_max: u32,
    /// The smallest frame limit that a client may request, in bytes, and up to 8192 the limit
    /// before `tune-ok`. Default 8192, the value of RabbitMQ since 4.1; at least 4096
    /// (`frame-min-size` of the specification), the value before.
    pub frame_min: u32,
    /// The suggested heartbeat interval, in seconds; 0 suggests none. Default 60, the default of
    /// RabbitMQ. The value in the client's `tune-ok` is final
    /// (<https://www.rabbitmq.com/docs/heartbeats>).
    pub heartbeat: u16,
    /// The treatment of a client that deviates from the protocol. Default [`Standard`].
    pub policy: &'static dyn Policy,
    /// The limits of memory use.
    pub limits: Limits,
    /// The timeouts for the client.
    pub timeouts: Timeouts,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            properties: FieldTable::default(),
            mechanisms: "PLAIN AMQPLAIN".into(),
            locales: "en_US".into(),
            channel_max: 2047,
            frame_max: 128 << 10,
            frame_min: 8192,
            heartbeat: 60,
            policy: &Standard,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        }
    }
}

impl Config {
    /// Sets `properties`.
    #[must_use]
    pub fn properties(mut self, properties: impl Into<FieldTable>) -> Self {
        self.properties = properties.into();
        self
    }

    /// Sets `mechanisms`.
    #[must_use]
    pub fn mechanisms(mut self, mechanisms: impl Into<String>) -> Self {
        self.mechanisms = mechanisms.into();
        self
    }

    /// Sets `locales`.
    #[must_use]
    pub fn locales(mut self, locales: impl Into<String>) -> Self {
        self.locales = locales.into();
        self
    }

    /// Sets `channel_max`.
    #[must_use]
    pub fn channel_max(mut self, channel_max: u16) -> Self {
        self.channel_max = channel_max;
        self
    }

    /// Sets `frame_max`.
    #[must_use]
    pub fn frame_max(mut self, frame_max: u32) -> Self {
        self.frame_max = frame_max;
        self
    }

    /// Sets `frame_min`.
    #[must_use]
    pub fn frame_min(mut self, frame_min: u32) -> Self {
        self.frame_min = frame_min;
        self
    }

    /// Sets `heartbeat`.
    #[must_use]
    pub fn heartbeat(mut self, heartbeat: u16) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// Sets `policy`.
    #[must_use]
    pub fn policy(mut self, policy: &'static dyn Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets `limits`.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets `timeouts`.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }
}

impl Config {
    /// Checks the rules that the types do not express.
    pub(super) fn check(&self) -> Result<(), ApiMisuse> {
        let problem = |setting, problem| Err(ApiMisuse::Config { setting, problem });
        if self.frame_min < FRAME_MIN_SIZE {
            return problem("frame_min", "must be at least 4096 bytes");
        }
        if self.frame_max != 0 && self.frame_max < self.frame_min {
            return problem("frame_max", "must be 0 or at least frame_min");
        }
        if self.limits.output_high == 0 {
            return problem("output_high", "must be at least 1 byte");
        }
        if self.limits.output_low > self.limits.output_high {
            return problem("output_low", "must not be above output_high");
        }
        Ok(())
    }

    /// Checks the limits in `tune-ok` as RabbitMQ does: each must be within the bounds of `tune`,
    /// and 0 (no limit) is an answer to 0 only (section 1.4.2.6 of the protocol reference).
    fn agree(&self, tune_ok: &connection::TuneOk) -> Result<Tuning, Fault> {
        let check = |setting, value: u32, min: u32, max: u32| {
            let too_small = value != 0 && value < min;
            let too_large = max != 0 && (value == 0 || value > max);
            if too_small || too_large {
                return Err(Fault::Tuning { setting, value });
            }
            Ok(())
        };
        let channel_max = u32::from(tune_ok.channel_max);
        check("channel_max", channel_max, 1, u32::from(self.channel_max))?;
        check(
            "frame_max",
            tune_ok.frame_max,
            self.frame_min,
            self.frame_max,
        )?;
        Ok(Tuning {
            channel_max: match tune_ok.channel_max {
                0 => u16::MAX,
                max => max,
            },
            frame_max: match tune_ok.frame_max {
                0 => u32::MAX,
                // Treats a limit this high as no limit, so that `unlimited_frame` bounds accepted
                // frames.
                max if self.frame_max == 0 && max > self.limits.unlimited_frame => u32::MAX,
                max => max,
            },
            heartbeat: tune_ok.heartbeat,
        })
    }
}

impl Machine<Server> {
    /// Consumes the client's protocol header and sends `connection.start`. Returns `Ok(false)` if
    /// the header is incomplete.
    pub(super) fn greet_client(&mut self, input: &mut BytesMut) -> Result<bool, CloseCause> {
        const TLS_HANDSHAKE: u8 = 0x16;
        let tolerance = self.role.tolerance;
        let refused = match (input.first(), input.first_chunk::<8>()) {
            (Some(&TLS_HANDSHAKE), _) => NotAmqp::Tls,
            (_, None) => return Ok(false),
            (_, Some(header))
                if *header == PROTOCOL_HEADER
                    || (tolerance.header_0_9 && *header == HEADER_0_9) =>
            {
                input.advance(PROTOCOL_HEADER.len());
                self.start((PROTOCOL_MAJOR, PROTOCOL_MINOR));
                return Ok(true);
            }
            (_, Some(header)) if tolerance.header_0_8 && HEADERS_0_8.contains(header) => {
                input.advance(PROTOCOL_HEADER.len());
                self.start(VERSION_0_8);
                return Ok(true);
            }
            (_, Some([b'A', b'M', b'Q', b'P', version @ ..])) => NotAmqp::OtherVersion(*version),
            (_, Some([b'G', b'E', b'T', b' ', ..] | [b'P', b'O', b'S', b'T', ..])) => NotAmqp::Http,
            (_, Some(first)) => NotAmqp::Unknown(*first),
        };
        // The reply is the header of a supported version (section 4.2.2 of the specification).
        self.put_raw(&PROTOCOL_HEADER);
        Err(refused.into())
    }

    fn start(&mut self, (version_major, version_minor): (u8, u8)) {
        let config = &mut self.role.config;
        let start = connection::Start {
            version_major,
            version_minor,
            server_properties: core::mem::take(&mut config.properties),
            mechanisms: LongStr::from(config.mechanisms.as_str()),
            locales: LongStr::from(config.locales.as_str()),
        };
        if let Err(error) = self.put_urgent(&start) {
            // `connection.start` does not fit into a frame: the transport is closed without a
            // method.
            let cause = CloseCause::Transport {
                stage: Stage::Greeting,
                message: alloc::string::ToString::to_string(&error),
            };
            self.finish(cause.into());
            return;
        }
        self.set_stage(Stage::Authenticating);
    }

    /// Sends `connection.tune` with the limits of the configuration.
    pub(super) fn tune(&mut self) {
        let config = &self.role.config;
        let tune = connection::Tune {
            channel_max: config.channel_max,
            frame_max: config.frame_max,
            heartbeat: config.heartbeat,
        };
        // Far smaller than any frame limit.
        let _fits = self.put_urgent(&tune);
        self.set_stage(Stage::Tuning);
    }

    /// Handles a method of the handshake.
    pub(super) fn on_handshake(&mut self, stage: Stage, method: Method) -> Result<(), Fault> {
        if self.role.decision != Decision::None {
            return Err(Fault::NotDue);
        }
        match (stage, method) {
            (Stage::Authenticating, Method::ConnectionStartOk(start_ok)) => {
                if !self.role.mechanism.is_empty() {
                    return Err(Fault::NotDue);
                }
                self.role.client_properties = start_ok.client_properties;
                self.role.mechanism = start_ok.mechanism;
                self.role.locale = start_ok.locale;
                self.ask_about(start_ok.response);
            }
            (Stage::Authenticating, Method::ConnectionSecureOk(secure_ok)) => {
                if self.role.mechanism.is_empty() {
                    return Err(Fault::NotDue);
                }
                self.ask_about(secure_ok.response);
            }
            (Stage::Tuning, Method::ConnectionTuneOk(tune_ok)) => {
                let tuning = self.role.config.agree(&tune_ok)?;
                self.set_tuning(tuning);
                self.set_stage(Stage::Opening);
            }
            (Stage::Opening, Method::ConnectionOpen(open)) => {
                self.role.decision = Decision::VirtualHost;
                self.push(Event::Open {
                    virtual_host: open.virtual_host,
                });
            }
            _ => return Err(Fault::NotDue),
        }
        Ok(())
    }

    fn ask_about(&mut self, response: Secret) {
        self.role.decision = Decision::Credentials;
        let mechanism: ShortStr = self.role.mechanism.clone();
        let locale = self.role.locale.clone();
        let client_properties = self.role.client_properties.clone();
        self.push(Event::Authenticate(AuthRequest {
            mechanism,
            response,
            locale,
            client_properties,
        }));
    }
}

//! A server's handshake: what it offers, and what it takes.

use alloc::string::String;

use bytes::{Buf as _, BytesMut};

use super::{AuthRequest, Decision, Event, Server};
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

/// The header of AMQP 0-9, which RabbitMQ takes for that of 0-9-1. Some clients send it. Unlike
/// RabbitMQ, this side does not speak 0-8, whose methods are others.
const HEADER_0_9: [u8; 8] = *b"AMQP\x01\x01\x00\x09";

/// What a server's connection begins with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// What to tell the client about this server: product, version, capabilities. Default nothing.
    pub properties: FieldTable,
    /// The SASL mechanisms on offer, separated by spaces. Default `PLAIN AMQPLAIN`.
    pub mechanisms: String,
    /// The languages of messages on offer, separated by spaces. Default `en_US`.
    pub locales: String,
    /// The highest channel number allowed; 0 for no limit. Default 2047, as RabbitMQ has.
    pub channel_max: u16,
    /// The largest frame allowed, in bytes; 0 for no limit. Default 131,072, as RabbitMQ has.
    pub frame_max: u32,
    /// The smallest frame limit that a client may ask for, in bytes. Default 8192, as RabbitMQ has
    /// since 4.1; at least 4096.
    pub frame_min: u32,
    /// The heartbeat interval to suggest, in seconds; 0 suggests none. Default 60, as RabbitMQ
    /// has. What the client answers holds.
    pub heartbeat: u16,
    /// What bounds the memory.
    pub limits: Limits,
    /// How long to wait for the client.
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
    /// Checks what the types cannot.
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

    /// Checks what the client answered to `tune`, as RabbitMQ does.
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
                // As good as none, and no licence for frames of gigabytes.
                max if self.frame_max == 0 && max > self.limits.unlimited_frame => u32::MAX,
                max => max,
            },
            heartbeat: tune_ok.heartbeat,
        })
    }
}

impl Machine<Server> {
    /// Takes the client's protocol header and offers to begin.
    pub(super) fn greet_client(&mut self, input: &mut BytesMut) -> Result<bool, CloseCause> {
        const TLS_HANDSHAKE: u8 = 0x16;
        let refused = match (input.first(), input.first_chunk()) {
            (Some(&TLS_HANDSHAKE), _) => NotAmqp::Tls,
            (_, None) => return Ok(false),
            (_, Some(&PROTOCOL_HEADER | &HEADER_0_9)) => {
                input.advance(PROTOCOL_HEADER.len());
                self.start();
                return Ok(true);
            }
            (_, Some([b'A', b'M', b'Q', b'P', version @ ..])) => NotAmqp::OtherVersion(*version),
            (_, Some([b'G', b'E', b'T', b' ', ..] | [b'P', b'O', b'S', b'T', ..])) => NotAmqp::Http,
            (_, Some(first)) => NotAmqp::Unknown(*first),
        };
        // Section 4.2.2: the answer is the header of a version that is spoken here.
        self.put_raw(&PROTOCOL_HEADER);
        Err(refused.into())
    }

    fn start(&mut self) {
        let config = &self.role.config;
        let start = connection::Start {
            version_major: PROTOCOL_MAJOR,
            version_minor: PROTOCOL_MINOR,
            server_properties: config.properties.clone(),
            mechanisms: LongStr::from(config.mechanisms.as_str()),
            locales: LongStr::from(config.locales.as_str()),
        };
        if let Err(error) = self.put_urgent(&start) {
            // Nothing could be offered; the client finds the connection closed.
            let cause = CloseCause::Transport {
                stage: Stage::Greeting,
                message: alloc::string::ToString::to_string(&error),
            };
            self.finish(cause.into());
            return;
        }
        self.set_stage(Stage::Authenticating);
    }

    /// Suggests the limits.
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

    /// A method of the handshake.
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

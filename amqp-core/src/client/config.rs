//! What a client's connection begins with.

use alloc::{boxed::Box, vec, vec::Vec};

use crate::{
    error::ApiMisuse,
    limits::{Limits, Timeouts},
    protocol::FRAME_MIN_SIZE,
    sasl::{Mechanism, Plain},
    wire::{FieldTable, ShortStr},
};

/// What a client's connection begins with: who, where, and within which bounds.
///
/// The default is RabbitMQ's: user `guest` with password `guest`, virtual host `/`, and the limits
/// that the server offers.
#[derive(Debug)]
pub struct Config {
    /// The virtual host to open. Default `/`.
    pub virtual_host: ShortStr,
    /// The SASL mechanisms to use, best first: the first one that the server offers is taken.
    /// Default PLAIN as `guest`.
    pub mechanisms: Vec<Box<dyn Mechanism>>,
    /// The language of messages. Default `en_US`, the only one that RabbitMQ has.
    pub locale: ShortStr,
    /// What to tell the server about this client, beside what is always told: `product`,
    /// `version`, `platform` and `capabilities`. A field of such a name replaces what would be
    /// told. RabbitMQ shows `connection_name` to its operators.
    pub properties: FieldTable,
    /// The highest channel number to ask for; 0 takes what the server offers. Default 0.
    pub channel_max: u16,
    /// The largest frame to ask for, in bytes, at least 4096; 0 takes what the server offers.
    /// Default 0. RabbitMQ takes no less than 8192 since 4.1.
    pub frame_max: u32,
    /// The heartbeat interval in seconds: none takes what the server offers, 0 turns heartbeats
    /// off, otherwise the lesser of the two holds. Default none.
    pub heartbeat: Option<u16>,
    /// Which mistakes to refuse. Default [`Checks::RabbitMq`].
    pub checks: Checks,
    /// What bounds the memory.
    pub limits: Limits,
    /// How long to wait for the server.
    pub timeouts: Timeouts,
}

/// Which mistakes are refused at once, before a byte leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checks {
    /// What RabbitMQ is known to answer by closing the connection or the channel.
    #[default]
    RabbitMq,
    /// Only what no server could accept, or what would confuse this client.
    Standard,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            virtual_host: ShortStr::from_static("/").unwrap_or_default(),
            mechanisms: vec![Box::new(Plain::default())],
            locale: ShortStr::from_static("en_US").unwrap_or_default(),
            properties: FieldTable::default(),
            channel_max: 0,
            frame_max: 0,
            heartbeat: None,
            checks: Checks::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        }
    }
}

impl Config {
    /// Checks what the types cannot.
    pub(crate) fn check(&self) -> Result<(), ApiMisuse> {
        let problem = |setting, problem| Err(ApiMisuse::Config { setting, problem });
        if self.frame_max != 0 && self.frame_max < FRAME_MIN_SIZE {
            return problem("frame_max", "must be 0 or at least 4096 bytes");
        }
        if self.mechanisms.is_empty() {
            return problem("mechanisms", "must name at least one");
        }
        if self.limits.output_low > self.limits.output_high {
            return problem("output_low", "must not be above output_high");
        }
        if self.limits.unconfirmed == 0 {
            return problem("unconfirmed", "must be at least 1");
        }
        if self.limits.unlimited_frame < FRAME_MIN_SIZE {
            return problem("unlimited_frame", "must be at least 4096 bytes");
        }
        Ok(())
    }
}

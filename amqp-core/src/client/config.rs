//! What a client's connection begins with.

use alloc::{boxed::Box, string::String, vec, vec::Vec};

use crate::{
    error::ApiMisuse,
    limits::{Limits, Timeouts},
    protocol::FRAME_MIN_SIZE,
    sasl::{AmqPlain, External, Mechanism, Plain},
    uri::Uri,
    wire::{FieldTable, ShortStr, ShortStrError},
};

/// What a client's connection begins with: who, where, and within which bounds.
///
/// The default is RabbitMQ's: user `guest` with password `guest`, virtual host `/`, and the limits
/// that the server offers.
///
/// ```
/// use amqp_core::{client::Config, sasl::Plain};
///
/// let config = Config::default()
///     .virtual_host("staging")?
///     .mechanisms(vec![Box::new(Plain::new("me", "secret")?)])
///     .heartbeat(20);
/// assert_eq!(config.heartbeat, Some(20));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
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
    /// The heartbeat interval in seconds, whatever the server suggests; 0 turns heartbeats off.
    /// None takes what the server suggests, which may be 0. Default none.
    pub heartbeat: Option<u16>,
    /// Which mistakes to refuse. Default [`Checks::RabbitMq`].
    pub checks: Checks,
    /// How many messages a consumer may have unacknowledged, where the application does not say.
    /// Default a third of a buffer of 3000 messages. Only the client's handles set it; the machine
    /// sends no `basic.qos` of its own.
    pub prefetch: Prefetch,
    /// What bounds the memory.
    pub limits: Limits,
    /// How long to wait for the server.
    pub timeouts: Timeouts,
}

/// How many messages a consumer may have unacknowledged before the server sends it more.
///
/// RabbitMQ: <https://www.rabbitmq.com/docs/consumer-prefetch>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Prefetch {
    /// A third of a buffer of so many messages, rounded down, at least 1: while the application works
    /// on a third, another third waits and the last is on its way.
    OfBuffer(u32),
    /// So many; 0 is no bound.
    Count(u16),
    /// No bound: the server sends the whole queue at once. What does not fit into the buffer
    /// ([`Limits::undelivered`]) travels twice. RabbitMQ 3.10 looks for each acknowledgement among all
    /// that is outstanding on the channel, so that tens of thousands of messages slow it down.
    Unlimited,
}

impl Prefetch {
    /// The number for `basic.qos`; 0 is no bound.
    #[must_use]
    pub fn count(self) -> u16 {
        match self {
            Self::OfBuffer(messages) => u16::try_from(messages / 3).unwrap_or(u16::MAX).max(1),
            Self::Count(count) => count,
            Self::Unlimited => 0,
        }
    }
}

impl Default for Prefetch {
    /// RabbitMQ's pages find no gain beyond some hundreds.
    fn default() -> Self {
        Self::OfBuffer(3000)
    }
}

/// Which mistakes are refused at once, before a byte leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
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
            prefetch: Prefetch::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        }
    }
}

impl Config {
    /// Sets `virtual_host`, unless it is longer than 255 bytes.
    ///
    /// # Errors
    /// [`ShortStrError`] if it is longer.
    pub fn virtual_host<S>(mut self, virtual_host: S) -> Result<Self, ShortStrError>
    where
        S: TryInto<ShortStr>,
        ShortStrError: From<S::Error>,
    {
        self.virtual_host = virtual_host.try_into()?;
        Ok(self)
    }

    /// Sets `mechanisms`.
    #[must_use]
    pub fn mechanisms(mut self, mechanisms: Vec<Box<dyn Mechanism>>) -> Self {
        self.mechanisms = mechanisms;
        self
    }

    /// Sets `locale`, unless it is longer than 255 bytes.
    ///
    /// # Errors
    /// [`ShortStrError`] if it is longer.
    pub fn locale<S>(mut self, locale: S) -> Result<Self, ShortStrError>
    where
        S: TryInto<ShortStr>,
        ShortStrError: From<S::Error>,
    {
        self.locale = locale.try_into()?;
        Ok(self)
    }

    /// Sets `properties`.
    #[must_use]
    pub fn properties(mut self, properties: impl Into<FieldTable>) -> Self {
        self.properties = properties.into();
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

    /// Sets `heartbeat`.
    #[must_use]
    pub fn heartbeat(mut self, heartbeat: u16) -> Self {
        self.heartbeat = Some(heartbeat);
        self
    }

    /// Sets `prefetch`.
    #[must_use]
    pub fn prefetch(mut self, prefetch: Prefetch) -> Self {
        self.prefetch = prefetch;
        self
    }

    /// Sets `checks`.
    #[must_use]
    pub fn checks(mut self, checks: Checks) -> Self {
        self.checks = checks;
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
    pub(crate) fn check(&self) -> Result<(), ApiMisuse> {
        let problem = |setting, problem| Err(ApiMisuse::Config { setting, problem });
        if self.frame_max != 0 && self.frame_max < FRAME_MIN_SIZE {
            return problem("frame_max", "must be 0 or at least 4096 bytes");
        }
        if self.mechanisms.is_empty() {
            return problem("mechanisms", "must name at least one");
        }
        if self.limits.output_high < FRAME_MIN_SIZE as usize {
            return problem("output_high", "must be at least 4096 bytes");
        }
        if self.limits.output_low > self.limits.output_high {
            return problem("output_low", "must not be above output_high");
        }
        if self.limits.output_backlog == 0 {
            return problem("output_backlog", "must be at least 1 byte");
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

impl Config {
    /// What an AMQP URI says: who, which virtual host, and the limits in its query. Where to
    /// connect is the caller's business. Without `auth_mechanism` the mechanism is PLAIN.
    ///
    /// # Errors
    /// [`ApiMisuse::Config`] for a mechanism that is not known here, or credentials that the
    /// mechanism cannot carry.
    ///
    /// ```
    /// use amqp_core::{client::Config, uri::Uri};
    ///
    /// let uri: Uri = "amqp://me:secret@broker.example.com/staging?heartbeat=20".parse()?;
    /// let config = Config::from_uri(&uri)?;
    /// assert_eq!(config.virtual_host, "staging");
    /// assert_eq!(config.heartbeat, Some(20));
    /// # Ok::<_, Box<dyn core::error::Error>>(())
    /// ```
    pub fn from_uri(uri: &Uri) -> Result<Self, ApiMisuse> {
        let (username, password) = uri.login();
        let mut names: Vec<&str> = uri.auth_mechanisms.iter().map(String::as_str).collect();
        if names.is_empty() {
            names.push(Plain::NAME);
        }
        let mut mechanisms: Vec<Box<dyn Mechanism>> = Vec::new();
        for name in names {
            mechanisms.push(match name {
                Plain::NAME => Box::new(Plain::new(username, password.clone()).map_err(|_| {
                    ApiMisuse::Config {
                        setting: "auth_mechanism",
                        problem: "PLAIN cannot carry a NUL in the user name or password",
                    }
                })?),
                AmqPlain::NAME => Box::new(AmqPlain::new(username, password.clone())),
                External::NAME => Box::new(External::new()),
                _ => {
                    return Err(ApiMisuse::Config {
                        setting: "auth_mechanism",
                        problem: "must be PLAIN, AMQPLAIN or EXTERNAL",
                    });
                }
            });
        }
        Ok(Self {
            virtual_host: uri.vhost.clone(),
            mechanisms,
            channel_max: uri.channel_max.unwrap_or_default(),
            frame_max: uri.frame_max.unwrap_or_default(),
            heartbeat: uri.heartbeat,
            ..Self::default()
        })
    }
}

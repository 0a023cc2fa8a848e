//! The configuration of a client's connection.

use alloc::{boxed::Box, string::String, vec, vec::Vec};

use crate::{
    error::ApiMisuse,
    limits::{Limits, Timeouts},
    protocol::FRAME_MIN_SIZE,
    sasl::{AmqPlain, External, Mechanism, Plain},
    uri::Uri,
    wire::{FieldTable, IntoShortStr, LongStr, ShortStr, TextTooLong},
};

/// The configuration of a client's connection: credentials, virtual host and bounds.
///
/// The default is RabbitMQ's: user `guest` with password `guest`, virtual host `/`, and the limits
/// that the server offers.
///
/// ```
/// use amqp_core::{client::Config, sasl::Plain};
///
/// let config = Config::default()
///     .virtual_host("staging")
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
    /// The SASL mechanisms to use, in order of preference: the first one that the server offers is
    /// chosen. Default PLAIN as `guest`.
    pub mechanisms: Vec<Box<dyn Mechanism>>,
    /// The locale of the server's messages. Default `en_US`, the only one that RabbitMQ has.
    pub locale: ShortStr,
    /// Additional client properties, beside the defaults `product`, `version`, `platform` and
    /// `capabilities`. A field of such a name replaces the default.
    pub properties: FieldTable,
    /// The highest channel number to request; 0 accepts the server's limit. Default 0.
    pub channel_max: u16,
    /// The largest frame to request, in bytes, at least 4096; 0 accepts the server's limit. Default
    /// 0. RabbitMQ accepts no less than 8192 since 4.1.
    pub frame_max: u32,
    /// The heartbeat interval in seconds, which overrides the server's suggestion; 0 turns
    /// heartbeats off. `None` accepts the server's suggestion, which may be 0. Default `None`.
    pub heartbeat: Option<u16>,
    /// The mistakes that are refused locally. Default [`Checks::RabbitMq`].
    pub checks: Checks,
    /// The prefetch of consumers for which the application sets none. Default a third of a buffer
    /// of 3000 messages. Only the client's handles set it; the machine sends no `basic.qos` of its
    /// own.
    pub prefetch: Prefetch,
    /// Whether channels that have ended can be [reopened](super::Connection::reopen_channel) with
    /// their numbers going on. Default `false`; connections that recover set it.
    pub resumable: bool,
    /// The number of frames that the [log of frames](crate::FrameLog) keeps, at some 300 bytes each;
    /// 0 keeps none, which costs nothing. Default 0.
    pub frame_log: usize,
    /// The bounds on memory.
    pub limits: Limits,
    /// The timeouts for the server.
    pub timeouts: Timeouts,
}

/// The maximum number of unacknowledged messages of a consumer, beyond which the server sends it no
/// more.
///
/// RabbitMQ: <https://www.rabbitmq.com/docs/consumer-prefetch>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Prefetch {
    /// A third of a buffer of that many messages, rounded down, at least 1: one third is being
    /// processed, one is queued, and one is in flight.
    OfBuffer(u32),
    /// That many messages; 0 means unlimited.
    Count(u16),
    /// No limit: the server sends the whole queue at once. Messages that exceed the buffer
    /// ([`Limits::undelivered`]) travel twice. RabbitMQ 3.10 searches all outstanding messages of
    /// the channel for each acknowledgement, so tens of thousands of messages slow it down.
    Unlimited,
}

impl Prefetch {
    /// The value for `basic.qos`; 0 means unlimited.
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
    /// RabbitMQ documents no gain beyond some hundreds: <https://www.rabbitmq.com/docs/confirms>.
    fn default() -> Self {
        Self::OfBuffer(3000)
    }
}

/// The set of mistakes that are refused locally, before any byte is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Checks {
    /// Requests to which RabbitMQ is known to respond by closing the connection or the channel.
    #[default]
    RabbitMq,
    /// Only requests that no server could accept, or that would confuse this client.
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
            resumable: false,
            frame_log: 0,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        }
    }
}

impl Config {
    /// Sets `virtual_host`. A connection with a name of more than 255 bytes is refused.
    #[must_use]
    pub fn virtual_host(mut self, virtual_host: impl IntoShortStr) -> Self {
        self.virtual_host = virtual_host.into_short_str();
        self
    }

    /// Sets `mechanisms`.
    #[must_use]
    pub fn mechanisms(mut self, mechanisms: Vec<Box<dyn Mechanism>>) -> Self {
        self.mechanisms = mechanisms;
        self
    }

    /// Sets `locale`. A connection with a name of more than 255 bytes is refused.
    #[must_use]
    pub fn locale(mut self, locale: impl IntoShortStr) -> Self {
        self.locale = locale.into_short_str();
        self
    }

    /// Sets `properties`.
    #[must_use]
    pub fn properties(mut self, properties: impl Into<FieldTable>) -> Self {
        self.properties = properties.into();
        self
    }

    /// Sets the field `connection_name` of `properties`, which RabbitMQ shows to its operators and
    /// writes to its log (<https://www.rabbitmq.com/docs/connections#client-provided-names>). It need
    /// not be unique.
    ///
    /// ```
    /// use amqp_core::client::Config;
    ///
    /// let config = Config::default().connection_name("billing");
    /// let name = config.properties.get("connection_name");
    /// assert_eq!(name.and_then(|name| name.as_str()), Some("billing"));
    /// ```
    #[must_use]
    pub fn connection_name(mut self, name: impl Into<LongStr>) -> Self {
        self.properties.insert("connection_name", name.into());
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

    /// Sets `resumable`.
    #[must_use]
    pub fn resumable(mut self, resumable: bool) -> Self {
        self.resumable = resumable;
        self
    }

    /// Sets `checks`.
    #[must_use]
    pub fn checks(mut self, checks: Checks) -> Self {
        self.checks = checks;
        self
    }

    /// Sets `frame_log`.
    #[must_use]
    pub fn frame_log(mut self, frame_log: usize) -> Self {
        self.frame_log = frame_log;
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
    /// Checks the constraints that the types do not express.
    pub(crate) fn check(&self) -> Result<(), ApiMisuse> {
        let problem = |setting, problem| Err(ApiMisuse::Config { setting, problem });
        if self.frame_max != 0 && self.frame_max < FRAME_MIN_SIZE {
            return problem("frame_max", "must be 0 or at least 4096 bytes");
        }
        let texts = [
            ("virtual_host", self.virtual_host.len()),
            ("locale", self.locale.len()),
            ("properties", self.properties.longest_name()),
        ];
        if let Some(text) = TextTooLong::find(texts) {
            return problem(text.field, "has a text of more than 255 bytes");
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
    /// Takes credentials, virtual host and limits from an AMQP URI
    /// (<https://www.rabbitmq.com/docs/uri-spec>,
    /// <https://www.rabbitmq.com/docs/uri-query-parameters>). The host is up to the caller. Without
    /// `auth_mechanism` the mechanism is PLAIN.
    ///
    /// # Errors
    /// [`ApiMisuse::Config`] for an unknown mechanism, or credentials that the mechanism cannot
    /// carry.
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

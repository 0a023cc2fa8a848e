//! The real names and numbers behind those of a program.

use amqp_tokio::{
    protocol::basic,
    wire::{FieldTable, FieldValue, ShortStr},
};

use super::program::{Argument, Exchange, Key, Kind, Traits};
use crate::harness::Failure;

/// The names of one run of a program, which no other run uses.
#[derive(Clone, Debug)]
pub struct Names {
    prefix: String,
    /// The names that the server has made for the queue, the latest last.
    pub server_named: Vec<String>,
}

/// The prefix of names that the server makes; in traces a star replaces the rest.
const GENERATED: &str = "amq.gen-";

impl Names {
    /// Names with that prefix.
    #[must_use]
    pub const fn new(prefix: String) -> Self {
        Self {
            prefix,
            server_named: Vec::new(),
        }
    }

    /// The name of a queue; empty if the server has not named it yet.
    #[must_use]
    pub fn queue(&self, queue: u8) -> String {
        if queue == super::program::SERVER_NAMED {
            self.server_named.last().cloned().unwrap_or_default()
        } else {
            format!("{}q{queue}", self.prefix)
        }
    }

    /// The name of an exchange.
    #[must_use]
    pub fn exchange(&self, exchange: Exchange) -> String {
        match exchange {
            Exchange::Default => String::new(),
            Exchange::Own(number) => format!("{}e{number}", self.prefix),
            Exchange::Direct => "amq.direct".to_owned(),
            Exchange::Reserved => format!("amq.{}e", self.prefix),
        }
    }

    /// The text of a key.
    #[must_use]
    pub fn key(&self, key: Key) -> String {
        match key {
            Key::Queue(queue) => self.queue(queue),
            Key::Text(text) => text.to_owned(),
        }
    }

    /// A text of the server without the parts that differ from run to run.
    #[must_use]
    pub fn normal(&self, text: &str) -> String {
        let text = without_vhost(&text.replace(&self.prefix, ""));
        let mut parts = text.split(GENERATED);
        let mut normal = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let rest =
                part.trim_start_matches(|it: char| it.is_ascii_alphanumeric() || "-_".contains(it));
            normal.push_str(GENERATED);
            normal.push('*');
            normal.push_str(rest);
        }
        normal
    }

    /// The arguments of a queue.
    ///
    /// # Errors
    /// Never: the names are short.
    pub fn arguments(&self, arguments: &[Argument]) -> Result<FieldTable, Failure> {
        let mut table = FieldTable::new();
        for argument in arguments {
            let (name, value): (&str, FieldValue) = match *argument {
                Argument::MaxLength(limit) => ("x-max-length", limit.into()),
                Argument::MaxBytes(limit) => ("x-max-length-bytes", limit.into()),
                Argument::Overflow(what) => ("x-overflow", what.into()),
                Argument::DeadLetter(exchange) => {
                    ("x-dead-letter-exchange", self.exchange(exchange).into())
                }
                Argument::DeadLetterKey(key) => ("x-dead-letter-routing-key", self.key(key).into()),
                Argument::MaxPriority(limit) => ("x-max-priority", limit.into()),
                Argument::Ttl(time) => ("x-message-ttl", time.into()),
                Argument::Expires(time) => ("x-expires", time.into()),
                Argument::SingleActive(yes) => ("x-single-active-consumer", yes.into()),
                Argument::Text(name) => (name, "ten".into()),
                Argument::Type(name) => ("x-queue-type", name.into()),
                Argument::DeliveryLimit(limit) => ("x-delivery-limit", limit.into()),
                Argument::MaxAge(age) => ("x-max-age", age.into()),
            };
            table.insert(ShortStr::try_from(name)?, value);
        }
        Ok(table)
    }

    /// The properties of a message.
    ///
    /// # Errors
    /// Never: the texts are short.
    pub fn properties(&self, traits: &Traits) -> Result<basic::Properties, Failure> {
        let mut properties = basic::Properties::default();
        let mut table = headers(traits.headers)?;
        for (name, key) in [("CC", traits.cc), ("BCC", traits.bcc)] {
            if let Some(key) = key {
                let keys = vec![FieldValue::from(self.key(key))];
                table.insert(ShortStr::try_from(name)?, keys);
            }
        }
        if !table.is_empty() {
            properties.headers = Some(table);
        }
        properties.priority = traits.priority;
        properties.expiration = traits.expiration.map(ShortStr::try_from).transpose()?;
        properties.user_id = traits.user_id.map(ShortStr::try_from).transpose()?;
        Ok(properties)
    }
}

/// A text of the server as if the virtual host were the default one.
fn without_vhost(text: &str) -> String {
    const BEFORE: &str = "vhost '";
    match text.split_once(BEFORE) {
        Some((before, rest)) => {
            let (_, rest) = rest.split_once('\'').unwrap_or_default();
            format!("{before}{BEFORE}/'{}", without_vhost(rest))
        }
        None => text.to_owned(),
    }
}

/// The type of an exchange, as it is written.
#[must_use]
pub const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Direct => "direct",
        Kind::Fanout => "fanout",
        Kind::Topic => "topic",
        Kind::Headers => "headers",
        Kind::Unknown => "x-nonsense",
    }
}

/// How many tables [`headers`] knows.
pub const HEADERS: u8 = 6;

/// The headers of a message.
///
/// # Errors
/// Never: the names are short.
pub fn headers(number: u8) -> Result<FieldTable, Failure> {
    let table = FieldTable::new();
    Ok(match number {
        1 => table.with("colour", "red"),
        2 => table.with("colour", "red").with("size", 7),
        3 => table.with("colour", "blue").with("size", 7),
        4 => table.with("x-colour", "red"),
        5 => table.with("colour", 7),
        _ => table,
    })
}

/// How many tables [`binding`] knows.
pub const BINDINGS: u8 = 8;

/// The arguments of a binding.
///
/// # Errors
/// Never: the names are short.
pub fn binding(number: u8) -> Result<FieldTable, Failure> {
    let table = FieldTable::new();
    Ok(match number {
        1 => table.with("colour", "red"),
        2 => table
            .with("x-match", "all")
            .with("colour", "red")
            .with("size", 7),
        3 => table
            .with("x-match", "any")
            .with("colour", "red")
            .with("size", 7),
        4 => table.with("x-match", "any-with-x").with("x-colour", "red"),
        5 => table
            .with("x-match", "all-with-x")
            .with("x-colour", "red")
            .with("colour", "red"),
        6 => table.with("x-match", "some").with("colour", "red"),
        7 => table.with("colour", FieldValue::Void),
        _ => table,
    })
}

//! The server that is measured against: the small one, or a broker.

use amqp_blocking::protocol::{basic, queue};
use amqp_blocking::wire::FieldTable;
use lapin::uri::AMQPUri;

use crate::load::{IN_FLIGHT_BYTES, Load, Shape};
use crate::wire::ROUTING_KEY;
use crate::{Error, Result, sink};

/// The address of a server, in whole and in parts.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) uri: String,
    pub(crate) parts: AMQPUri,
    /// It is a broker, with queues that hold messages.
    is_broker: bool,
}

impl Target {
    /// The small server at a port.
    pub(crate) fn sink(port: u16) -> Result<Self> {
        Self::small(format!("amqp://127.0.0.1:{port}"))
    }

    /// The small server.
    pub(crate) fn small(uri: String) -> Result<Self> {
        Self::new(uri, false)
    }

    /// A broker.
    pub(crate) fn broker(uri: String) -> Result<Self> {
        Self::new(uri, true)
    }

    fn new(uri: String, is_broker: bool) -> Result<Self> {
        let parts: AMQPUri = uri.parse().map_err(Error::from)?;
        Ok(Self {
            uri,
            parts,
            is_broker,
        })
    }

    /// Whether a shape can be measured there. A broker does not share the messages of a queue out
    /// in turn.
    pub(crate) const fn serves(&self, shape: &Shape) -> bool {
        let consumes = matches!(shape.load, Load::Deliver | Load::DeliverNoAck);
        !self.is_broker || !consumes || shape.channels == 1
    }

    /// How many messages a case has there at most.
    pub(crate) fn limit(&self, shape: &Shape) -> u64 {
        match shape.load {
            // They are all in the queue before the case begins.
            Load::Deliver | Load::DeliverNoAck | Load::Get if self.is_broker => {
                (4 * IN_FLIGHT_BYTES / shape.size).clamp(100, 200_000) as u64
            }
            // The small server counts with 32 bits.
            _ => 4_000_000_000,
        }
    }

    /// The queue that a case of that many messages takes them from.
    pub(crate) fn queue(&self, shape: &Shape, count: u64) -> String {
        match shape.load {
            _ if self.is_broker => ROUTING_KEY.to_owned(),
            Load::Get => sink::get_queue(shape.size),
            _ => sink::blast_queue(count, shape.size, shape.channels),
        }
    }

    /// Whether the server's counts are those of the small one: a broker only says that it has got
    /// that far.
    pub(crate) const fn counts(&self) -> bool {
        !self.is_broker
    }

    /// Makes the queue of a broker anew for a case: with its messages, or dropping those that come.
    pub(crate) fn prepare(&self, shape: &Shape, count: u64) -> Result<()> {
        if !self.is_broker {
            return Ok(());
        }
        self.clean()?;
        let connection = amqp_blocking::connect(&self.uri)?;
        let channel = connection.open_channel()?.confirm_select()?;
        let declare = queue::Declare::default().queue(ROUTING_KEY);
        if matches!(shape.load, Load::Publish | Load::Confirm(_)) {
            let mut arguments = FieldTable::default();
            arguments.insert("x-max-length", 0_i32);
            channel.call(declare.arguments(arguments))?;
        } else {
            channel.call(declare)?;
        }
        if matches!(shape.load, Load::Deliver | Load::DeliverNoAck | Load::Get) {
            let publish = basic::Publish::default()
                .routing_key(ROUTING_KEY)
                .mandatory(true);
            let properties = basic::Properties::default();
            let body = shape.body();
            let mut confirms = Vec::new();
            for _ in 0..count {
                confirms.push(channel.publish(&publish, &properties, body.clone())?);
            }
            for confirm in confirms {
                confirm.wait()?;
            }
        }
        connection.close()?;
        Ok(())
    }

    /// Deletes the queue of a broker.
    pub(crate) fn clean(&self) -> Result<()> {
        if self.is_broker {
            let connection = amqp_blocking::connect(&self.uri)?;
            let channel = connection.open_channel()?;
            channel.call(queue::Delete::default().queue(ROUTING_KEY))?;
            connection.close()?;
        }
        Ok(())
    }
}

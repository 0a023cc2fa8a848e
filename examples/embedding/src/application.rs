//! The application of all examples.

use std::collections::VecDeque;

use amqp_core::{
    ChannelId, PublishError, Tags,
    bytes::Bytes,
    client::{Connection, Delivery, Event, Outcome},
    protocol::{Method, ReplyCode, basic, confirm, queue},
    wire::ShortStr,
};

use crate::Failure;

/// The number of deliveries that the server sends before an acknowledgement.
const PREFETCH: u16 = 500;
/// The number of deliveries that one step processes, so that a loop gets back to its sockets.
const STEP: usize = 100;
/// The length of the queue at which the loop stops reading. It is below the prefetch so that it is
/// reached.
const BUSY: usize = 300;

/// Publishes messages with confirms to a queue of its own, consumes and acknowledges each of them,
/// and closes the connection. It knows no socket and no clock.
#[derive(Debug)]
pub struct Application {
    messages: u64,
    body: Bytes,
    has_begun: bool,
    /// The channel, and the name of the queue, once they are there.
    place: Option<(ChannelId, ShortStr)>,
    published: u64,
    confirmed: u64,
    consumed: u64,
    /// Deliveries that wait to be processed.
    queue: VecDeque<Delivery>,
}

impl Application {
    pub(crate) fn new(messages: u64, size: usize) -> Self {
        Self {
            messages,
            body: vec![b'x'; size].into(),
            has_begun: false,
            place: None,
            published: 0,
            confirmed: 0,
            consumed: 0,
            queue: VecDeque::new(),
        }
    }

    /// Takes all events of the machine, and does a bounded piece of work.
    ///
    /// # Errors
    /// If a request, a publish, or the channel fails. The end of the connection is no error here: the
    /// loop finds it in `close_reason`.
    pub fn step(&mut self, machine: &mut Connection) -> Result<(), Failure> {
        while let Some(event) = machine.poll_event() {
            self.handle(machine, event)?;
        }
        self.process(machine)
    }

    /// Whether deliveries wait for the next step: the loop must not sleep.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether so many deliveries wait that the loop should stop reading.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.queue.len() >= BUSY
    }

    /// Whether the server has let it in.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    fn handle(&mut self, machine: &mut Connection, event: Event) -> Result<(), Failure> {
        match event {
            Event::Opened => {
                self.has_begun = true;
                machine.open_channel()?;
            }
            Event::Reply { channel, reply, .. } => {
                let Some(mut channel) = channel.and_then(|id| machine.channel(id)) else {
                    return Ok(());
                };
                match reply {
                    // Requests may be pipelined: their replies come one by one.
                    Method::ChannelOpenOk(_) => {
                        channel.call(&confirm::Select::default())?;
                        channel.call(&basic::Qos::default().prefetch_count(PREFETCH))?;
                        channel.call(&queue::Declare::default().exclusive(true))?;
                    }
                    Method::QueueDeclareOk(declared) => {
                        let consume = basic::Consume::default().queue(declared.queue.clone());
                        channel.consume(consume)?;
                        self.place = Some((channel.id(), declared.queue));
                        self.publish(machine)?;
                    }
                    _ => {}
                }
            }
            Event::Settled {
                first,
                last,
                outcome: Outcome::Acked,
                ..
            } => {
                self.confirmed += last.get() + 1 - first.get();
                self.publish(machine)?; // the limit of unconfirmed publishes has room
            }
            // The end of the connection settles all that is left, and is the better reason.
            Event::Settled { outcome, .. } if machine.close_reason().is_none() => {
                return Err(format!("not confirmed: {outcome:?}").into());
            }
            Event::Delivered(delivery) => self.queue.push_back(delivery),
            // Each of these ends a reason to hold publishes back.
            Event::Writable
            | Event::BacklogWritable
            | Event::ChannelWritable { .. }
            | Event::Unblocked
            | Event::Flow { active: true, .. } => self.publish(machine)?,
            Event::Failed { cause, .. } if machine.close_reason().is_none() => {
                return Err(cause.into());
            }
            Event::ChannelClosed { reason, .. } => return Err(reason.into()),
            _ => {}
        }
        Ok(())
    }

    /// Publishes until all is published, or the machine holds publishes back. An event follows then.
    fn publish(&mut self, machine: &mut Connection) -> Result<(), Failure> {
        let Some((channel, queue)) = &self.place else {
            return Ok(());
        };
        let Some(mut channel) = machine.channel(*channel) else {
            return Ok(());
        };
        let publish = basic::Publish::default().routing_key(queue.clone());
        let properties = basic::Properties::default();
        while self.published < self.messages {
            match channel.publish(&publish, &properties, self.body.clone()) {
                Ok(_) => self.published += 1,
                Err(PublishError::HeldBack { .. }) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Processes deliveries, and acknowledges them together.
    fn process(&mut self, machine: &mut Connection) -> Result<(), Failure> {
        if machine.close_reason().is_some() {
            self.queue.clear();
            return Ok(());
        }
        let mut last = None;
        for delivery in self.queue.drain(..self.queue.len().min(STEP)) {
            if delivery.content.body != *self.body {
                return Err("another body than that which was published".into());
            }
            self.consumed += 1;
            last = delivery.tag.map(|tag| (delivery.channel, tag));
        }
        if let Some((channel, tag)) = last
            && let Some(mut channel) = machine.channel(channel)
        {
            channel.ack(Tags::UpTo(tag))?;
        }
        let is_done = self.messages == self.confirmed && self.messages == self.consumed;
        if is_done && self.place.is_some() {
            println!("published, confirmed and consumed: {}", self.consumed);
            machine.close(ReplyCode::SUCCESS, "goodbye");
        }
        Ok(())
    }
}

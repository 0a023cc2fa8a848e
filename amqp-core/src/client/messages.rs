//! Incoming messages: deliveries, replies to `basic.get`, and returns.

use bytes::{Buf as _, BytesMut};

use super::{
    Client, Event,
    channel_state::Mode,
    event::{Delivery, GetMessage, Returned},
    pending::Pending,
    returns::Found,
};
use crate::{
    body::Content,
    close::RequestError,
    fault::{Fault, ProtocolError},
    ids::{ChannelId, DeliveryTag, Requeue, Tags},
    machine::{Dropped, Events, Machine, Run},
    method::MethodDef as _,
    protocol::basic,
};

impl Machine<Client> {
    /// Handles the start of a delivery. Returns whether a consumer wants the content.
    ///
    /// A delivery tag of 0 is a fault of the server: 0 is reserved for acknowledgements (domain
    /// `delivery-tag`, <https://www.rabbitmq.com/docs/specification>).
    #[inline]
    pub(super) fn on_deliver_begun(
        &mut self,
        id: ChannelId,
        method: &basic::Deliver,
    ) -> Result<bool, Fault> {
        let Some(channel) = self.channel_mut(id) else {
            return Ok(false);
        };
        if method.delivery_tag == 0 {
            return Err(Fault::ZeroDeliveryTag);
        }
        let consumers = &mut channel.role.consumers;
        if let Some(consumer) = consumers.begin_delivery(&method.consumer_tag) {
            return Ok(!consumer.abandoned);
        }
        match consumers.take_late(&method.consumer_tag) {
            Some(_) => Ok(false),
            None => Err(Fault::UnknownConsumer(method.consumer_tag.clone())),
        }
    }

    /// Receives the deliveries at the front of `input` whose frames are all there.
    pub(super) fn receive_deliveries(&mut self, input: &mut BytesMut) {
        if !self.is_plain() {
            return;
        }
        let mut run = Run::new(input);
        while self.receive_delivery(&mut run).is_some() {}
        let len = run.len;
        input.advance(len);
    }

    /// Receives the next delivery of a run. `None` unless all frames of it are there, and a
    /// consumer wants the message.
    #[inline]
    fn receive_delivery(&mut self, run: &mut Run<'_>) -> Option<()> {
        let mut arrival = self.next_whole(run, basic::Deliver::ID)?;
        let role = &mut arrival.channel.role;
        let last = role.consumers.receive_whole(arrival.whole.arguments)?;
        let (wire, redelivered) = (last.method.delivery_tag, last.method.redelivered);
        let consumer = last.consumer;
        if consumer.abandoned || wire == 0 {
            return None;
        }
        let (number, tag) = role.number_delivery(wire, consumer);
        let content = arrival.accept(run);
        arrival.stats.delivered += 1;
        let (channel, consumer) = (arrival.id, consumer.id);
        let names = &arrival.channel.role.consumers.last_delivery()?.method;
        if let Some(consumer_tag) = names.consumer_tag.copy_inline()
            && let Some(exchange) = names.exchange.copy_inline()
            && let Some(routing_key) = names.routing_key.copy_inline()
        {
            arrival.events.push(Event::Delivered(Delivery {
                channel,
                consumer,
                tag,
                method: basic::Deliver {
                    consumer_tag,
                    delivery_tag: number,
                    redelivered,
                    exchange,
                    routing_key,
                },
                content,
            }));
        } else {
            let mut method = names.clone();
            method.delivery_tag = number;
            method.redelivered = redelivered;
            let delivery = Delivery {
                channel,
                consumer,
                tag,
                method,
                content,
            };
            push_apart(arrival.events, delivery);
        }
        Some(())
    }

    #[inline]
    pub(super) fn on_deliver(
        &mut self,
        id: ChannelId,
        mut method: basic::Deliver,
        content: Content,
    ) -> Result<(), Fault> {
        let Some(channel) = self.channel_mut(id) else {
            return Ok(());
        };
        let consumer = channel.role.consumers.end_delivery(&method.consumer_tag);
        let Some(consumer) = consumer.filter(|consumer| !consumer.abandoned) else {
            return self.on_deliver_dropped(id, &method, Dropped::Unwanted);
        };
        let role = &mut channel.role;
        let (number, tag) = role.number_delivery(method.delivery_tag, consumer);
        method.delivery_tag = number;
        self.stats.delivered += 1;
        self.push(Event::Delivered(Delivery {
            channel: id,
            consumer: consumer.id,
            tag,
            method,
            content,
        }));
        Ok(())
    }

    /// Rejects a delivery that the application does not receive. Left outstanding, it would be lost
    /// by a later acknowledgement with `multiple`.
    pub(super) fn on_deliver_dropped(
        &mut self,
        id: ChannelId,
        method: &basic::Deliver,
        why: Dropped,
    ) -> Result<(), Fault> {
        let Some(channel) = self.channel_mut(id) else {
            return Ok(());
        };
        let consumers = &channel.role.consumers;
        let consumer = consumers.owner(&method.consumer_tag);
        let acknowledged = match consumer {
            Some(consumer) => !consumer.no_ack,
            None => consumers.acknowledged(&method.consumer_tag),
        };
        let tag = channel.role.delivery_tag(method.delivery_tag);
        let tag = DeliveryTag::new(tag).filter(|_| acknowledged);
        if let Some(tag) = tag {
            channel.role.received(tag);
        }
        match why {
            Dropped::Unwanted => self.put_back(id, tag, Requeue::Yes),
            Dropped::Unreadable(fault) => {
                self.put_back(id, tag, Requeue::No);
                let consumer = consumer.filter(|consumer| !consumer.abandoned);
                if let Some(consumer) = consumer {
                    self.push(Event::Unreadable {
                        channel: id,
                        consumer: Some(consumer.id),
                        tag,
                        fault,
                    });
                }
            }
        }
        Ok(())
    }

    pub(super) fn on_return(&mut self, id: ChannelId, method: basic::Return, content: Content) {
        let Some(channel) = self.channel_mut(id) else {
            return;
        };
        let found = match &mut channel.role.mode {
            Mode::Confirm(confirms) => confirms.match_return(&method, &content),
            Mode::Plain | Mode::Transaction { .. } => Found::default(),
        };
        self.stats.returned += 1;
        self.push(Event::Returned(Returned {
            channel: id,
            seq: found.seq,
            candidates: found.candidates,
            method,
            content,
        }));
    }

    /// Handles a return after its content was dropped.
    pub(super) fn on_return_dropped(
        &mut self,
        id: ChannelId,
        method: &basic::Return,
        why: Dropped,
    ) {
        let Dropped::Unreadable(fault) = why else {
            return;
        };
        if let Some(channel) = self.channel_mut(id)
            && let Mode::Confirm(confirms) = &mut channel.role.mode
        {
            confirms.match_unread_return(method);
        }
        self.stats.returned += 1;
        self.push(Event::Unreadable {
            channel: id,
            consumer: None,
            tag: None,
            fault,
        });
    }

    /// Handles the start of a reply to `basic.get`. Returns whether the request is still pending.
    pub(super) fn on_get_ok_begun(
        &mut self,
        id: ChannelId,
        method: &basic::GetOk,
    ) -> Result<bool, Fault> {
        if method.delivery_tag == 0 {
            return Err(Fault::ZeroDeliveryTag);
        }
        let Some(channel) = self.channel_mut(id) else {
            return Ok(false);
        };
        let mut pending = channel.role.pending.iter();
        let get = pending.find(|pending| pending.method == basic::Get::ID);
        get.map(|get| !get.abandoned).ok_or(Fault::UnexpectedReply)
    }

    /// Removes the `basic.get` that the message answers, and records the message as outstanding.
    fn take_get(
        &mut self,
        id: ChannelId,
        method: &mut basic::GetOk,
    ) -> Result<(Pending, Option<DeliveryTag>), Fault> {
        let Some(pending) = self.take_pending(id, basic::GetOk::ID, None) else {
            return Err(Fault::UnexpectedReply);
        };
        let Some(channel) = self.channel_mut(id) else {
            return Ok((pending, None));
        };
        method.delivery_tag = channel.role.delivery_tag(method.delivery_tag);
        channel.role.note_delivery(method.delivery_tag);
        let tag = DeliveryTag::new(method.delivery_tag).filter(|_| !pending.no_ack);
        if let Some(tag) = tag {
            channel.role.received(tag);
        }
        Ok((pending, tag))
    }

    pub(super) fn on_get_ok(
        &mut self,
        id: ChannelId,
        mut method: basic::GetOk,
        content: Content,
    ) -> Result<(), Fault> {
        let (pending, tag) = self.take_get(id, &mut method)?;
        if pending.abandoned {
            self.put_back(id, tag, Requeue::Yes);
        } else {
            self.stats.fetched += 1;
            self.push(Event::Got {
                channel: id,
                request: pending.id,
                message: Some(GetMessage {
                    tag,
                    method,
                    content,
                }),
            });
        }
        Ok(())
    }

    pub(super) fn on_get_ok_dropped(
        &mut self,
        id: ChannelId,
        mut method: basic::GetOk,
        why: Dropped,
    ) -> Result<(), Fault> {
        let (pending, tag) = self.take_get(id, &mut method)?;
        match why {
            Dropped::Unwanted => self.put_back(id, tag, Requeue::Yes),
            Dropped::Unreadable(fault) => {
                self.put_back(id, tag, Requeue::No);
                if !pending.abandoned {
                    self.push(Event::Failed {
                        request: pending.id,
                        cause: RequestError::Unreadable(ProtocolError {
                            fault,
                            channel: Some(id.number()),
                            method: Some(basic::Get::ID),
                            code: None,
                        }),
                    });
                }
            }
        }
        Ok(())
    }

    /// Rejects a delivery that does not reach the application, if it is outstanding.
    fn put_back(&mut self, id: ChannelId, tag: Option<DeliveryTag>, requeue: Requeue) {
        let Some(tag) = tag else {
            return;
        };
        let Some(channel) = self.channel_mut(id) else {
            return;
        };
        if !channel.role.unacked.settle(Tags::One(tag)) {
            return;
        }
        let delivery_tag = channel.role.wire_tag(tag);
        match requeue {
            // Since RabbitMQ 4.3 a reject counts towards the queue's delivery limit and a nack does
            // not: <https://github.com/rabbitmq/rabbitmq-server/pull/15387>.
            Requeue::Yes => self.put_method_anyway(
                id,
                &basic::Nack {
                    delivery_tag,
                    multiple: false,
                    requeue: true,
                },
            ),
            Requeue::No => self.put_method_anyway(
                id,
                &basic::Reject {
                    delivery_tag,
                    requeue: false,
                },
            ),
        }
    }
}

/// Queues a delivery with a name that is not inline. Apart from the others, so that their events are
/// written with no copy in between.
#[cold]
#[inline(never)]
fn push_apart(events: &mut Events<Client>, delivery: Delivery) {
    events.push(Event::Delivered(delivery));
}

//! The commands of a test: deliveries, confirms, closes.

use amqp_driver::core::{
    MethodId,
    protocol::{ReplyCode, basic},
    server,
    wire::ShortStr,
};
use bytes::Bytes;

use super::{Message, Peer};

impl Peer {
    /// Its side of a channel.
    pub fn channel(&mut self, number: u16) -> server::ChannelMut<'_> {
        let id = self.channels[&number];
        self.machine.channel(id).unwrap()
    }

    /// The channels that are open.
    pub fn open_channels(&self) -> Vec<u16> {
        self.channels.keys().copied().collect()
    }

    /// Delivers a message; false, with nothing done, if there is no such consumer.
    pub fn deliver(&mut self, number: u16, tag: &str, body: impl Into<Bytes>) -> bool {
        self.deliver_as(number, tag, body, false)
    }

    /// Sets the delivery tag behind which those of a channel continue.
    pub fn set_last_tag(&mut self, number: u16, tag: u64) {
        self.tags.insert(number, tag);
    }

    /// Delivers a message with properties.
    pub fn deliver_with(
        &mut self,
        number: u16,
        tag: &str,
        properties: &basic::Properties,
        body: impl Into<Bytes>,
    ) {
        let body = body.into();
        let method = basic::Deliver {
            consumer_tag: ShortStr::try_from(tag).unwrap(),
            delivery_tag: self.next_tag(number, false, &body),
            ..basic::Deliver::default()
        };
        self.channel(number)
            .send_content(&method, properties, body)
            .unwrap();
    }

    pub(super) fn deliver_as(
        &mut self,
        number: u16,
        tag: &str,
        body: impl Into<Bytes>,
        redelivered: bool,
    ) -> bool {
        let Some(&no_ack) = self.consumers.get(&(number, tag.to_owned())) else {
            return false;
        };
        let body = body.into();
        let method = basic::Deliver {
            consumer_tag: ShortStr::try_from(tag).unwrap(),
            delivery_tag: self.next_tag(number, no_ack, &body),
            redelivered,
            ..basic::Deliver::default()
        };
        self.channel(number)
            .send_content(&method, &basic::Properties::default(), body)
            .unwrap();
        true
    }

    /// Cancels a consumer as RabbitMQ does when its queue is deleted: without an answer.
    pub fn cancel(&mut self, number: u16, tag: &str) {
        self.consumers.remove(&(number, tag.to_owned()));
        let cancel = basic::Cancel {
            consumer_tag: ShortStr::try_from(tag).unwrap(),
            no_wait: true,
        };
        self.channel(number).send(&cancel).unwrap();
    }

    pub fn ack(&mut self, number: u16, seq: u64, multiple: bool) {
        let ack = basic::Ack {
            delivery_tag: seq,
            multiple,
        };
        self.channel(number).send(&ack).unwrap();
    }

    pub fn nack(&mut self, number: u16, seq: u64, multiple: bool) {
        let nack = basic::Nack {
            delivery_tag: seq,
            multiple,
            requeue: false,
        };
        self.channel(number).send(&nack).unwrap();
    }

    /// Returns a message that was published: no queue took it.
    pub fn return_message(&mut self, number: u16, message: &Message) {
        let method = basic::Return {
            reply_code: ReplyCode::NO_ROUTE,
            reply_text: ShortStr::try_from("NO_ROUTE").unwrap(),
            exchange: message.method.exchange.clone(),
            routing_key: message.method.routing_key.clone(),
        };
        self.channel(number)
            .send_content(&method, &message.properties, message.body.clone())
            .unwrap();
    }

    pub fn close_channel(&mut self, number: u16, code: ReplyCode, text: &str) {
        self.close_channel_for(number, code, text, None);
    }

    /// Closes a channel because of a method.
    pub fn close_channel_for(
        &mut self,
        number: u16,
        code: ReplyCode,
        text: &str,
        method: Option<MethodId>,
    ) {
        self.channel(number).close(code, text, method).unwrap();
        self.end_channel(number);
    }

    /// Pauses or resumes publishing on a channel: the machine has no command for that, because no
    /// server of today does it.
    pub fn flow(&mut self, number: u16, active: bool) {
        let frame = |method: u8| {
            let [c1, c0] = number.to_be_bytes();
            vec![
                1,
                c1,
                c0,
                0,
                0,
                0,
                5,
                0,
                20,
                0,
                method,
                u8::from(active),
                0xce,
            ]
        };
        self.raw.extend_from_slice(&frame(20));
        self.flow_oks.push(frame(21));
    }

    /// Whether it has something to send.
    pub fn sends(&self) -> bool {
        !self.mute && (self.machine.buffered() > 0 || !self.raw.is_empty())
    }

    pub fn close(&mut self, code: ReplyCode, text: &str) {
        self.machine.close(code, text);
    }
}

//! The server's application.

use std::collections::BTreeSet;

use amqp_core::{
    ChannelId, CloseReason, Instant,
    protocol::{ClientMethod, ReplyCode, basic, queue},
    server::{ChannelMut, Config, Connection, Event, Published},
};
use amqp_test_support::replies::reply;
use bytes::BytesMut;

use crate::{body, client::MESSAGES, world::HEARTBEAT};

/// The name of a queue. Its declaration is not answered.
pub(crate) const SILENT: &str = "silent";

pub(crate) struct Server {
    pub(crate) machine: Connection,
    input: BytesMut,
    large: bool,
    /// Whether a consumer gets its messages at once.
    pub(crate) delivers: bool,
    /// Whether publishes are confirmed at once.
    pub(crate) confirms: bool,
    pub(crate) channel: Option<ChannelId>,
    /// The last delivery tag.
    pub(crate) deliveries: u64,
    /// The numbers of the messages that were published.
    pub(crate) published: Vec<u64>,
    pub(crate) acked: BTreeSet<u64>,
    pub(crate) nacked: BTreeSet<u64>,
    /// The deliveries that the client has acknowledged or rejected.
    pub(crate) settled: BTreeSet<u64>,
    pub(crate) consuming: bool,
    pub(crate) closed: Option<CloseReason>,
    pub(crate) events: Vec<Event>,
}

impl Server {
    pub(crate) fn new(large: bool, now: Instant) -> Self {
        let mut config = Config::default().heartbeat(HEARTBEAT);
        (config.frame_min, config.frame_max) = (4096, 4096);
        Self {
            machine: Connection::new(config, now).unwrap(),
            input: BytesMut::new(),
            large,
            delivers: true,
            confirms: true,
            channel: None,
            deliveries: 0,
            published: Vec::new(),
            acked: BTreeSet::new(),
            nacked: BTreeSet::new(),
            settled: BTreeSet::new(),
            consuming: false,
            closed: None,
            events: Vec::new(),
        }
    }

    pub(crate) fn receive(&mut self, now: Instant, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        // One frame at a time, so that a reply precedes the close-ok of the machine.
        while self.machine.handle_frame(now, &mut self.input) {
            self.react();
        }
        self.react();
    }

    pub(crate) fn react(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            self.events.push(event.clone());
            self.on_event(event);
        }
    }

    fn on_event(&mut self, event: Event) {
        assert!(self.closed.is_none(), "{event:?} after the last event");
        match event {
            // The connection may have ended meanwhile.
            Event::Authenticate(_) => drop(self.machine.accept()),
            Event::Open { .. } => drop(self.machine.open()),
            Event::ChannelOpened { channel } => {
                self.channel.get_or_insert(channel);
            }
            Event::Request { channel, method } => self.serve(channel, method),
            Event::Published(published) => self.publish(published),
            Event::Closed(reason) => self.closed = Some(reason),
            Event::Opened | Event::ChannelClosed { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    fn serve(&mut self, id: ChannelId, method: ClientMethod) {
        match &method {
            ClientMethod::QueueDeclare(declare) if declare.queue == SILENT => return,
            ClientMethod::BasicAck(ack) => self.settle(ack.delivery_tag, ack.multiple),
            ClientMethod::BasicNack(nack) => self.settle(nack.delivery_tag, nack.multiple),
            ClientMethod::BasicConsume(_) => self.consuming = true,
            ClientMethod::BasicCancel(_) => self.consuming = false,
            ClientMethod::BasicGet(_) => {
                self.deliveries += 1;
                let (number, large) = (self.deliveries, self.large);
                let got = basic::GetOk::default().delivery_tag(number);
                if let Some(mut channel) = self.machine.channel(id) {
                    let properties = basic::Properties::default();
                    let _ended = channel.send_content(&got, &properties, body(number, large));
                }
                return;
            }
            _ => {}
        }
        let consumes = matches!(method, ClientMethod::BasicConsume(_));
        if let Some(mut channel) = self.machine.channel(id) {
            let _ended = reply(&mut channel, method);
        }
        if consumes && self.delivers {
            for _ in 0..MESSAGES {
                self.deliver();
            }
        }
    }

    fn settle(&mut self, tag: u64, multiple: bool) {
        assert!((1..=self.deliveries).contains(&tag), "{tag} is unknown");
        if multiple {
            self.settled.extend(1..=tag);
        } else {
            assert!(self.settled.insert(tag), "{tag} is settled twice");
        }
    }

    fn publish(&mut self, published: Published) {
        let key = published.method.routing_key.as_str();
        let number: u64 = key[1..].parse().unwrap();
        assert_eq!(published.content.body.to_vec(), body(number, self.large));
        assert!(!self.published.contains(&number), "{number} comes twice");
        self.published.push(number);
        let Some(seq) = published.seq.filter(|_| self.confirms) else {
            return;
        };
        assert_eq!(seq.get(), number);
        match number {
            // It is confirmed with the next one.
            1 => {}
            2 => {
                self.give_back(&published);
                self.confirm(number, true);
            }
            _ => {
                self.nacked.insert(number);
                let nack = basic::Nack::default().delivery_tag(number);
                let _ended = self.channel().map(|mut channel| channel.send(&nack));
            }
        }
    }

    fn give_back(&mut self, published: &Published) {
        let returned = basic::Return {
            reply_code: ReplyCode::NO_ROUTE,
            exchange: published.method.exchange.clone(),
            routing_key: published.method.routing_key.clone(),
            ..basic::Return::default()
        };
        let content = &published.content;
        if let Some(mut channel) = self.channel() {
            let _ended = channel.send_content(
                &returned,
                &content.properties.decode().unwrap(),
                content.body.to_vec(),
            );
        }
    }

    pub(crate) fn channel(&mut self) -> Option<ChannelMut<'_>> {
        self.channel.and_then(|id| self.machine.channel(id))
    }

    pub(crate) fn deliver(&mut self) {
        let number = self.deliveries + 1;
        let deliver = basic::Deliver::default().consumer_tag("t");
        let body = body(number, self.large);
        let sent = self.channel().map(|mut channel| {
            let properties = basic::Properties::default();
            channel.send_content(&deliver.delivery_tag(number), &properties, body)
        });
        self.deliveries += u64::from(matches!(sent, Some(Ok(()))));
    }

    pub(crate) fn confirm(&mut self, number: u64, multiple: bool) {
        let ack = basic::Ack {
            delivery_tag: number,
            multiple,
        };
        if let Some(Ok(())) = self.channel().map(|mut channel| channel.send(&ack)) {
            let first = if multiple { 1 } else { number };
            self.acked.extend(first..=number);
        }
    }

    /// Answers the declaration that was not answered.
    pub(crate) fn declare_ok(&mut self) {
        let ok = queue::DeclareOk::default().queue(SILENT);
        let _ended = self.channel().map(|mut channel| channel.send(&ok));
    }

    pub(crate) fn cancel(&mut self) {
        if core::mem::take(&mut self.consuming) {
            let cancel = basic::Cancel::default().consumer_tag("t");
            let _ended = self
                .channel()
                .map(|mut channel| channel.send(&cancel.no_wait(true)));
        }
    }

    pub(crate) fn close_channel(&mut self) {
        let _ended = self
            .channel()
            .map(|mut channel| channel.close(ReplyCode::NOT_FOUND, "gone", None));
    }
}

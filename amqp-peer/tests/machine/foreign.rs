//! Peers of another make, which say what no peer of this crate would.

use amqp_core::{
    Transmit,
    client::{self, Event as ClientEvent},
    protocol::{
        basic::{self, Properties},
        confirm,
    },
    sasl::Plain,
    server::{self, Event as ServerEvent},
    wire::{FieldTable, FieldValue, ShortStr},
};
use amqp_peer::{DownCause, LinkKey};
use bytes::BytesMut;

use crate::rig::World;

pub(crate) fn short(text: &str) -> ShortStr {
    text.parse().unwrap()
}

pub(crate) fn identity(name: &str, version: i32) -> FieldTable {
    let mut table = FieldTable::new();
    let mut set = |key: &str, value: FieldValue| table.push(short(key), value);
    set("peer.name", name.into());
    set("peer.version", version.into());
    set("peer.instance", 1_i64.into());
    set("peer.window", 1_000_000_i64.into());
    set("peer.window-bytes", i64::MAX.into());
    set("peer.body", i64::MAX.into());
    table
}

/// A connector of another make, and its link to peer 0.
pub(crate) struct Connector {
    pub(crate) machine: client::Connection,
    pub(crate) link: LinkKey,
    pub(crate) input: BytesMut,
    pub(crate) events: Vec<ClientEvent>,
}

impl Connector {
    pub(crate) fn new(world: &mut World, properties: FieldTable, user: &str) -> Self {
        let plain = Plain::new(user, "").unwrap();
        let config = client::Config::default()
            .properties(properties)
            .mechanisms(vec![Box::new(plain)]);
        let link = world.nodes[0].machine.accept(world.now).unwrap();
        let mut connector = Self {
            machine: client::Connection::new(config, world.now).unwrap(),
            link,
            input: BytesMut::new(),
            events: Vec::new(),
        };
        connector.exchange(world);
        connector
    }

    /// One whose link is up.
    pub(crate) fn up(world: &mut World) -> Self {
        let mut connector = Self::new(world, identity("mallory", 1), "mallory");
        connector.join(world);
        connector
    }

    /// Brings the link up.
    pub(crate) fn join(&mut self, world: &mut World) {
        for _ in 0..2 {
            self.machine.open_channel().unwrap();
        }
        self.exchange(world);
        let mut sending = self.channel(1);
        sending.call(&confirm::Select::default()).unwrap();
        let mut receiving = self.channel(2);
        receiving.consume(consume()).unwrap();
        self.exchange(world);
        assert_eq!(world.links_up(0), 1);
    }

    pub(crate) fn channel(&mut self, number: u16) -> client::ChannelMut<'_> {
        let ids = self.events.iter().filter_map(|event| match event {
            ClientEvent::Reply {
                channel: Some(id), ..
            } => Some(*id),
            _ => None,
        });
        let id = ids.into_iter().find(|id| id.number() == number).unwrap();
        self.machine.channel(id).unwrap()
    }

    pub(crate) fn exchange(&mut self, world: &mut World) {
        let now = world.now;
        let mut wire = BytesMut::new();
        for _ in 0..20 {
            let mut out = Transmit::new();
            self.machine.poll_transmit(now, &mut out);
            wire.extend(out.take_segments());
            let peer = &mut world.nodes[0].machine;
            if !wire.is_empty() {
                peer.handle_input(self.link, now, &mut wire);
            }
            peer.poll_transmit(self.link, now, &mut out);
            self.input.extend(out.take_segments());
            self.machine.handle_input(now, &mut self.input);
            self.events
                .extend(std::iter::from_fn(|| self.machine.poll_event()));
            world.run();
        }
    }

    pub(crate) fn publish(&mut self, properties: &Properties, body: &'static str) {
        let publish = basic::Publish {
            routing_key: short("p"),
            ..basic::Publish::default()
        };
        self.channel(1).publish(&publish, properties, body).unwrap();
    }
}

pub(crate) fn consume() -> basic::Consume {
    basic::Consume {
        queue: short("p"),
        consumer_tag: short("p"),
        ..basic::Consume::default()
    }
}

pub(crate) fn with_id(number: u64) -> Properties {
    Properties {
        message_id: Some(short(&format!("{number:032x}"))),
        ..Properties::default()
    }
}

/// The cause of the end of the link of peer 0.
pub(crate) fn end(world: &World) -> DownCause {
    let node = &world.nodes[0];
    let downs = node.downs().into_iter().map(|down| down.cause.clone());
    let mut causes = downs.chain(node.refusals());
    let cause = causes.next().unwrap();
    assert_eq!(causes.next(), None);
    cause
}

pub(crate) fn broken(code: u16) -> DownCause {
    let code = amqp_core::protocol::ReplyCode(code);
    DownCause::Protocol { code }
}

/// A listener of another make, and its link to peer 0.
pub(crate) struct Listener {
    pub(crate) machine: server::Connection,
    pub(crate) link: LinkKey,
    pub(crate) input: BytesMut,
    pub(crate) channels: Vec<amqp_core::ChannelId>,
    pub(crate) events: Vec<ServerEvent>,
}

impl Listener {
    pub(crate) fn up(world: &mut World) -> Self {
        let config = server::Config::default().properties(identity("mallory", 1));
        let mut listener = Self {
            machine: server::Connection::new(config, world.now).unwrap(),
            link: world.nodes[0].machine.dial(world.now).unwrap(),
            input: BytesMut::new(),
            channels: Vec::new(),
            events: Vec::new(),
        };
        listener.exchange(world);
        assert_eq!(world.links_up(0), 1);
        listener
    }

    pub(crate) fn exchange(&mut self, world: &mut World) {
        let now = world.now;
        let mut wire = BytesMut::new();
        for _ in 0..20 {
            let mut out = Transmit::new();
            let peer = &mut world.nodes[0].machine;
            peer.poll_transmit(self.link, now, &mut out);
            self.input.extend(out.take_segments());
            self.machine.handle_input(now, &mut self.input);
            while let Some(event) = self.machine.poll_event() {
                self.answer(&event);
                self.events.push(event);
            }
            self.machine.poll_transmit(now, &mut out);
            wire.extend(out.take_segments());
            if !wire.is_empty() {
                world.nodes[0]
                    .machine
                    .handle_input(self.link, now, &mut wire);
            }
            world.run();
        }
    }

    pub(crate) fn answer(&mut self, event: &ServerEvent) {
        match event {
            ServerEvent::Authenticate(_) => self.machine.accept().unwrap(),
            ServerEvent::Open { .. } => self.machine.open().unwrap(),
            ServerEvent::ChannelOpened { channel } => self.channels.push(*channel),
            ServerEvent::Request { channel, method } => {
                use amqp_core::protocol::ClientMethod;
                let mut channel = self.machine.channel(*channel).unwrap();
                match method {
                    ClientMethod::ConfirmSelect(_) => channel.send(&confirm::SelectOk).unwrap(),
                    ClientMethod::BasicConsume(consume) => {
                        let consumer_tag = consume.consumer_tag.clone();
                        channel.send(&basic::ConsumeOk { consumer_tag }).unwrap();
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    pub(crate) fn deliver(&mut self, tag: u64) {
        let deliver = basic::Deliver {
            consumer_tag: short("p"),
            delivery_tag: tag,
            routing_key: short("p"),
            ..basic::Deliver::default()
        };
        let mut channel = self.machine.channel(self.channels[1]).unwrap();
        channel
            .send_content(&deliver, &with_id(tag), "body")
            .unwrap();
    }
}

//! Peers that break the rules, by bytes that no peer of this crate would send.

use amqp_core::{
    Transmit,
    client::{self, Event as ClientEvent},
    protocol::{
        basic::{self, Properties},
        channel, confirm, queue,
    },
    sasl::Plain,
    server::{self, Event as ServerEvent},
    wire::{FieldTable, FieldValue, ShortStr},
};
use amqp_peer::{DownCause, DropReason, Limits, LinkKey, Message, SendError, machine::Event};
use bytes::BytesMut;

use crate::rig::{Application, World, config, name};

fn short(text: &str) -> ShortStr {
    text.parse().unwrap()
}

fn identity(name: &str, version: i32) -> FieldTable {
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
struct Connector {
    machine: client::Connection,
    link: LinkKey,
    input: BytesMut,
    events: Vec<ClientEvent>,
}

impl Connector {
    fn new(world: &mut World, properties: FieldTable, user: &str) -> Self {
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
    fn up(world: &mut World) -> Self {
        let mut connector = Self::new(world, identity("mallory", 1), "mallory");
        for _ in 0..2 {
            connector.machine.open_channel().unwrap();
        }
        connector.exchange(world);
        let mut sending = connector.channel(1);
        sending.call(&confirm::Select::default()).unwrap();
        let mut receiving = connector.channel(2);
        receiving.consume(consume()).unwrap();
        connector.exchange(world);
        assert_eq!(world.links_up(0), 1);
        connector
    }

    fn channel(&mut self, number: u16) -> client::ChannelMut<'_> {
        let ids = self.events.iter().filter_map(|event| match event {
            ClientEvent::Reply {
                channel: Some(id), ..
            } => Some(*id),
            _ => None,
        });
        let id = ids.into_iter().find(|id| id.number() == number).unwrap();
        self.machine.channel(id).unwrap()
    }

    fn exchange(&mut self, world: &mut World) {
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

    fn publish(&mut self, properties: &Properties, body: &'static str) {
        let publish = basic::Publish {
            routing_key: short("p"),
            ..basic::Publish::default()
        };
        self.channel(1).publish(&publish, properties, body).unwrap();
    }
}

fn consume() -> basic::Consume {
    basic::Consume {
        queue: short("p"),
        consumer_tag: short("p"),
        ..basic::Consume::default()
    }
}

fn with_id(number: u64) -> Properties {
    Properties {
        message_id: Some(short(&format!("{number:032x}"))),
        ..Properties::default()
    }
}

/// The cause of the end of the link of peer 0.
fn end(world: &World) -> DownCause {
    let node = &world.nodes[0];
    let downs = node.downs().into_iter().map(|down| down.cause.clone());
    let mut causes = downs.chain(node.refusals());
    let cause = causes.next().unwrap();
    assert_eq!(causes.next(), None);
    cause
}

fn broken(code: u16) -> DownCause {
    let code = amqp_core::protocol::ReplyCode(code);
    DownCause::Protocol { code }
}

#[test]
fn another_version_is_refused_and_told() {
    let mut world = World::named(&["alice"]);
    let connector = Connector::new(&mut world, identity("mallory", 2), "mallory");
    assert_eq!(end(&world), DownCause::Version);
    let reason = connector.machine.close_reason().unwrap();
    assert_eq!(reason.code().map(|code| code.0), Some(530));
    assert!(reason.to_string().contains("version"), "{reason}");
}

#[test]
fn names_that_are_none_are_refused() {
    for long in ["x".repeat(5000), "a\0b".into(), String::new()] {
        let mut world = World::named(&["alice"]);
        let _connector = Connector::new(&mut world, identity(&long, 1), "mallory");
        assert_eq!(end(&world), DownCause::Secret, "the login is another's");
    }
    let mut world = World::named(&["alice"]);
    let long = "x".repeat(200);
    let _connector = Connector::new(&mut world, identity(&long, 1), &long);
    assert_eq!(end(&world), DownCause::NotAPeer);
}

#[test]
fn a_login_under_the_name_of_another_is_refused() {
    let mut world = World::named(&["alice"]);
    let _connector = Connector::new(&mut world, identity("bob", 1), "mallory");
    assert_eq!(end(&world), DownCause::Secret);
}

#[test]
fn messages_before_the_consumer_are_refused() {
    for selects in [false, true] {
        let mut world = World::named(&["alice"]);
        let mut connector = Connector::new(&mut world, identity("mallory", 1), "mallory");
        connector.machine.open_channel().unwrap();
        connector.exchange(&mut world);
        if selects {
            connector
                .channel(1)
                .call(&confirm::Select::default())
                .unwrap();
        }
        connector.publish(&with_id(1), "early");
        connector.exchange(&mut world);
        assert_eq!(end(&world), broken(503));
        assert_eq!(world.nodes[0].bodies(), [""; 0]);
    }
}

#[test]
fn a_consumer_without_acknowledged_publishes_or_of_another_queue_is_refused() {
    let wrong = [
        basic::Consume {
            queue: short("q"),
            ..consume()
        },
        basic::Consume {
            no_ack: true,
            ..consume()
        },
        consume(),
    ];
    for (consume, selects) in wrong.into_iter().zip([true, true, false]) {
        let mut world = World::named(&["alice"]);
        let mut connector = Connector::new(&mut world, identity("mallory", 1), "mallory");
        connector.machine.open_channel().unwrap();
        connector.machine.open_channel().unwrap();
        connector.exchange(&mut world);
        if selects {
            connector
                .channel(1)
                .call(&confirm::Select::default())
                .unwrap();
        }
        connector.channel(2).consume(consume).unwrap();
        connector.exchange(&mut world);
        assert_eq!(end(&world), broken(503));
    }
}

#[test]
fn methods_of_a_broker_are_not_implemented() {
    let mut world = World::named(&["alice"]);
    let mut connector = Connector::up(&mut world);
    let declare = queue::Declare {
        queue: short("peer.inbox"),
        ..queue::Declare::default()
    };
    connector.channel(1).call(&declare).unwrap();
    connector.exchange(&mut world);
    assert_eq!(end(&world), broken(540));
}

#[test]
fn a_third_channel_and_the_end_of_one_end_the_link() {
    let mut world = World::named(&["alice"]);
    let mut connector = Connector::up(&mut world);
    assert!(
        connector.machine.open_channel().is_err(),
        "no more were agreed on"
    );
    connector
        .channel(2)
        .close(amqp_core::protocol::ReplyCode::SUCCESS, "")
        .unwrap();
    connector.exchange(&mut world);
    assert!(matches!(
        end(&world),
        DownCause::ByPeer | DownCause::Protocol { .. }
    ));
}

#[test]
fn messages_without_a_proper_id_are_refused() {
    let wrong = [
        Properties::default(),
        Properties {
            message_id: Some(short("1")),
            ..Properties::default()
        },
        Properties {
            message_id: Some(short(&"X".repeat(32))),
            ..Properties::default()
        },
    ];
    for properties in wrong {
        let mut world = World::named(&["alice"]);
        let mut connector = Connector::up(&mut world);
        connector.publish(&properties, "body");
        connector.exchange(&mut world);
        assert_eq!(end(&world), broken(502));
    }
}

#[test]
fn a_peer_that_exceeds_the_window_ends_the_link() {
    let small = Limits::default().window(5);
    let bytes = Limits::default().window_bytes(10);
    for (limits, body) in [(small, "1"), (bytes, "12")] {
        let mut world = World::new([config("alice").limits(limits)]);
        world.nodes[0].application = Application::Keeps;
        let mut connector = Connector::up(&mut world);
        for number in 0..5 {
            connector.publish(&with_id(number), body);
        }
        connector.exchange(&mut world);
        assert_eq!(world.links_up(0), 1);
        connector.publish(&with_id(5), body);
        connector.exchange(&mut world);
        assert_eq!(end(&world), broken(506));
        assert_eq!(world.nodes[0].bodies().len(), 5);
    }
}

#[test]
fn unaccepted_messages_of_many_links_are_bounded() {
    let limits = Limits::default().window(5);
    let mut world = World::new([config("alice").limits(limits)]);
    world.nodes[0].application = Application::Keeps;
    for round in 0..10 {
        let mut connector = Connector::up(&mut world);
        for number in 0..5 {
            connector.publish(&with_id(round * 5 + number), "body");
        }
        connector.exchange(&mut world);
        let now = world.now;
        world.nodes[0].machine.remove(connector.link, now);
    }
    assert_eq!(world.nodes[0].bodies().len(), 10);
}

#[test]
fn the_same_repeat_again_and_again_costs_no_memory() {
    let limits = Limits::default().window(5);
    let mut world = World::new([config("alice").limits(limits)]);
    let mut connector = Connector::up(&mut world);
    let mut repeat = with_id(1);
    repeat.headers = Some(FieldTable::new().with("x-peer-repeat", true).unwrap());
    for _ in 0..100 {
        for id in 1..=3 {
            repeat.message_id = with_id(id).message_id;
            connector.publish(&repeat, "body");
        }
        connector.exchange(&mut world);
    }
    assert_eq!(world.links_up(0), 1);
    assert_eq!(world.nodes[0].bodies().len(), 3);
}

#[test]
fn a_message_over_the_limit_is_refused_at_the_sender() {
    let limits = Limits::default().body(1000);
    let mut world = World::new([config("alice"), config("bob").limits(limits.clone())]);
    let now = world.now;
    let large = || Message::new("x".repeat(1001));
    // Without a link, the limit of the receiver is not known.
    world.nodes[0].try_send(now, "bob", large()).unwrap();
    world.nodes[0].send(now, "bob", "small");
    world.connect(0, 1);
    world.run();
    assert_eq!(world.nodes[0].dropped()[0].reason, DropReason::TooLarge);
    assert_eq!(world.nodes[1].bodies(), ["small"]);
    let (len, limit) = (1001, 1000);
    let refused = world.nodes[0].try_send(now, "bob", large());
    assert_eq!(refused, Err(SendError::TooLarge { len, limit }));
    let refused = world.nodes[1].try_send(now, "alice", large());
    assert_eq!(refused, Err(SendError::TooLarge { len, limit }));
    let headers = FieldTable::new().with("a", "x".repeat(8000)).unwrap();
    let refused = world.nodes[0].try_send(now, "bob", Message::new("").headers(headers));
    assert!(matches!(
        refused,
        Err(SendError::TooLarge { limit: 8000, .. })
    ));
    // Properties of the largest size arrive.
    let headers = FieldTable::new().with("a", "x".repeat(7900)).unwrap();
    let message = Message::new("")
        .headers(headers)
        .ttl(crate::rig::seconds(1));
    world.nodes[0].try_send(now, "bob", message).unwrap();
    world.run();
    assert_eq!(world.nodes[1].bodies(), ["small", ""]);
}

#[test]
fn a_body_over_the_limit_from_a_foreign_peer_ends_the_link() {
    let limits = Limits::default().body(10);
    let mut world = World::new([config("alice").limits(limits)]);
    let mut connector = Connector::up(&mut world);
    connector.publish(&with_id(1), "eleven byte");
    connector.exchange(&mut world);
    assert_eq!(end(&world), broken(311));
}

#[test]
fn a_peer_that_never_acknowledges_gets_no_more_than_its_window() {
    let mut world = World::named(&["alice"]);
    let mut properties = identity("mallory", 1);
    properties.insert(short("peer.window"), 3_i64);
    let mut connector = Connector::new(&mut world, properties, "mallory");
    for _ in 0..2 {
        connector.machine.open_channel().unwrap();
    }
    connector.exchange(&mut world);
    connector
        .channel(1)
        .call(&confirm::Select::default())
        .unwrap();
    connector.channel(2).consume(consume()).unwrap();
    let now = world.now;
    for number in 0..10 {
        world.nodes[0].send(now, "mallory", &number.to_string());
    }
    connector.exchange(&mut world);
    let delivered = |connector: &Connector| {
        let delivered = |it: &&ClientEvent| matches!(it, ClientEvent::Delivered(_));
        connector.events.iter().filter(delivered).count()
    };
    assert_eq!(delivered(&connector), 3);
    connector.channel(2).ack(amqp_core::Tags::All).unwrap();
    connector.exchange(&mut world);
    assert_eq!(delivered(&connector), 6);
    let outbox = world.nodes[0].machine.outbox(&name("mallory"));
    assert_eq!((outbox.messages, outbox.in_flight), (7, 3));
}

/// A listener of another make, and its link to peer 0.
struct Listener {
    machine: server::Connection,
    link: LinkKey,
    input: BytesMut,
    channels: Vec<amqp_core::ChannelId>,
    events: Vec<ServerEvent>,
}

impl Listener {
    fn up(world: &mut World) -> Self {
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

    fn exchange(&mut self, world: &mut World) {
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

    fn answer(&mut self, event: &ServerEvent) {
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

    fn deliver(&mut self, tag: u64) {
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

#[test]
fn a_listener_that_exceeds_the_window_ends_the_link() {
    let limits = Limits::default().window(5);
    let mut world = World::new([config("alice").limits(limits)]);
    world.nodes[0].application = Application::Keeps;
    let mut listener = Listener::up(&mut world);
    for tag in 1..=6 {
        listener.deliver(tag);
    }
    listener.exchange(&mut world);
    assert_eq!(end(&world), broken(506));
    assert_eq!(world.nodes[0].bodies().len(), 5);
}

#[test]
fn a_listener_that_skips_tags_ends_the_link() {
    let mut world = World::named(&["alice"]);
    let mut listener = Listener::up(&mut world);
    listener.deliver(1);
    listener.deliver(3);
    listener.exchange(&mut world);
    assert_eq!(end(&world), broken(503));
}

#[test]
fn a_listener_that_confirms_what_was_not_sent_does_no_harm() {
    let mut world = World::named(&["alice"]);
    let mut listener = Listener::up(&mut world);
    let now = world.now;
    world.nodes[0].send(now, "mallory", "one");
    listener.exchange(&mut world);
    for (delivery_tag, multiple) in [(7, true), (1, false), (1, false), (0, true)] {
        let ack = basic::Ack {
            delivery_tag,
            multiple,
        };
        if let Some(mut channel) = listener.machine.channel(listener.channels[0]) {
            let _ended = channel.send(&ack);
        }
        listener.exchange(&mut world);
    }
    let messages = world.nodes[0].machine.outbox(&name("mallory")).messages;
    assert!(messages <= 1);
}

#[test]
fn a_listener_that_cancels_or_closes_a_channel_ends_the_link() {
    let mut world = World::named(&["alice"]);
    let mut listener = Listener::up(&mut world);
    let mut channel = listener.machine.channel(listener.channels[0]).unwrap();
    let code = amqp_core::protocol::ReplyCode::SUCCESS;
    channel.close(code, "enough", None).unwrap();
    listener.exchange(&mut world);
    end(&world);
}

#[test]
fn a_connector_that_pauses_deliveries_gets_none_and_the_rest_goes_on() {
    let mut world = World::named(&["alice"]);
    let mut connector = Connector::up(&mut world);
    let flow = channel::Flow { active: true };
    connector.channel(2).call(&flow).unwrap();
    connector.exchange(&mut world);
    assert_eq!(world.links_up(0), 1);
    let answered = connector.events.iter().any(|event| {
        matches!(event, ClientEvent::Reply { reply, .. } if reply.name() == "channel.flow-ok")
    });
    assert!(answered);
}

#[test]
fn any_bytes_end_a_link_and_nothing_else() {
    let mut random = 1_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for _ in 0..300 {
        let mut world = World::named(&["alice"]);
        let now = world.now;
        let machine = &mut world.nodes[0].machine;
        let is_listener = next() % 2 == 0;
        let link = if is_listener {
            machine.accept(now).unwrap()
        } else {
            machine.dial(now).unwrap()
        };
        let mut input = BytesMut::new();
        if is_listener && next() % 2 == 0 {
            input.extend_from_slice(b"AMQP\0\0\x09\x01");
        }
        for _ in 0..20 {
            let len = next() % 40;
            input.extend((0..len).map(|_| (next() & 0xff) as u8));
            machine.handle_input(link, now, &mut input);
            machine.poll_transmit(link, now, &mut Transmit::new());
        }
        world.run();
        let later = now + crate::rig::seconds(30);
        let machine = &mut world.nodes[0].machine;
        machine.handle_link_timeout(link, later);
        machine.poll_transmit(link, later, &mut Transmit::new());
        let events = world.nodes[0].turn_events(later);
        assert!(events.iter().all(|it| matches!(it, Event::Refused(_))));
        assert_eq!(events.len(), 1);
    }
}

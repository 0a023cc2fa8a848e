//! Work of a client that `.ci/instructions` counts, one case at a time. Only the functions whose
//! names begin with `counted` are counted.

use std::{env, mem};

use amqp_core::{
    ChannelId, Instant, Tags, Transmit,
    client::{Config, Connection, Event, PreparedPublish},
    frame::{Frame, FrameKind},
    protocol::{Method, basic, confirm, queue},
    server,
    wire::Encode as _,
};
use bytes::{Buf as _, BytesMut};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const NOW: Instant = Instant::ORIGIN;

/// The number of messages in a turn: about as many small ones as a read brings.
const TURN: u64 = 500;

/// The number of turns.
const TURNS: u64 = 20;

/// The number of deliveries for each acknowledgement.
const ACK_EVERY: u64 = 100;

/// The body of a small message.
const SMALL: &[u8; 16] = b"sixteen bytes...";

/// The body of a larger message.
const LARGE: &[u8; 1024] = &[b'x'; 1024];

/// A client with a channel on which it publishes with confirms and consumes, and a server's bytes.
///
/// Its own buffers are kept from message to message: memory that it returned to the allocator
/// between two counted calls would be consolidated within one of them.
struct Rig {
    client: Connection,
    id: ChannelId,
    input: BytesMut,
    /// The payload of the frame being made.
    payload: BytesMut,
    output: Transmit,
    /// The deliveries to acknowledge.
    tags: Vec<Tags>,
    /// The delivery tag of the last delivery.
    delivered: u64,
    /// The number of the last confirmed publish.
    confirmed: u64,
}

impl Rig {
    fn open() -> Result<Self> {
        let mut client = Connection::new(Config::default(), NOW)?;
        let mut server = server::Connection::new(server::Config::default(), NOW)?;
        let mut bytes = BytesMut::new();
        let mut output = Transmit::new();
        while !client.is_open() {
            while client.poll_transmit(NOW, &mut output) {}
            take(&mut output, &mut bytes);
            server.handle_input(NOW, &mut bytes);
            while let Some(event) = server.poll_event() {
                match event {
                    server::Event::Authenticate(_) => server.accept()?,
                    server::Event::Open { .. } => server.open()?,
                    _ => {}
                }
            }
            while server.poll_transmit(NOW, &mut output) {}
            take(&mut output, &mut bytes);
            client.handle_input(NOW, &mut bytes);
        }
        let (id, _) = client.open_channel()?;
        let mut rig = Self {
            client,
            id,
            input: BytesMut::new(),
            payload: BytesMut::new(),
            output,
            tags: Vec::new(),
            delivered: 0,
            confirmed: 0,
        };
        rig.put_method(amqp_core::protocol::channel::OpenOk);
        rig.hear();
        let consume = basic::Consume::default().consumer_tag("ctag-1");
        let mut channel = rig.client.channel(id).ok_or("no channel")?;
        channel.consume(consume.no_wait(true))?;
        channel.call(&confirm::Select::default())?;
        rig.put_method(confirm::SelectOk);
        rig.hear();
        Ok(rig)
    }

    fn put_method(&mut self, method: impl Into<Method>) {
        let method = method.into();
        self.payload.clear();
        let ids = [method.id().class, method.id().method];
        self.payload
            .extend(ids.into_iter().flat_map(u16::to_be_bytes));
        method.encode(&mut self.payload);
        let frame = Frame {
            kind: FrameKind::Method,
            channel: self.id.number(),
            payload: &self.payload,
        };
        frame.encode(&mut self.input);
    }

    fn put_delivery(&mut self, body: &[u8]) {
        self.delivered += 1;
        let deliver = basic::Deliver::default()
            .consumer_tag("ctag-1")
            .delivery_tag(self.delivered)
            .exchange("amq.topic");
        self.put_method(deliver.routing_key("stock.nyse.ibm"));
        let mut header = [0; 14];
        header[1] = 60; // the class of basic
        header[4..12].copy_from_slice(&(body.len() as u64).to_be_bytes());
        let channel = self.id.number();
        for (kind, payload) in [(FrameKind::Header, &header[..]), (FrameKind::Body, body)] {
            let frame = Frame {
                kind,
                channel,
                payload,
            };
            frame.encode(&mut self.input);
        }
    }

    /// Handles the input and drops events and output.
    fn hear(&mut self) {
        self.client.handle_input(NOW, &mut self.input);
        while self.client.poll_event().is_some() {}
        self.drain();
    }

    fn drain(&mut self) {
        while self.client.poll_transmit(NOW, &mut self.output) {
            self.output.advance(self.output.remaining());
        }
    }

    /// Publishes messages of 16 bytes, and takes the output.
    #[inline(never)]
    fn counted_publish(
        &mut self,
        publish: &basic::Publish,
        properties: &basic::Properties,
    ) -> Result<()> {
        for _ in 0..TURN {
            let mut channel = self.client.channel(self.id).ok_or("no channel")?;
            channel.publish(publish, properties, SMALL)?;
        }
        self.drain();
        Ok(())
    }

    /// As `counted_publish`, with a method and properties that are encoded.
    #[inline(never)]
    fn counted_publish_prepared(&mut self, prepared: &PreparedPublish) -> Result<()> {
        for _ in 0..TURN {
            let mut channel = self.client.channel(self.id).ok_or("no channel")?;
            channel.publish_prepared(prepared, SMALL)?;
        }
        self.drain();
        Ok(())
    }

    /// Handles deliveries, and acknowledges some.
    #[inline(never)]
    fn counted_deliver(&mut self) -> Result<()> {
        self.client.handle_input(NOW, &mut self.input);
        while let Some(ref event) = self.client.poll_event() {
            let Event::Delivered(delivery) = event else {
                return Err("not a delivery".into());
            };
            let tag = delivery.tag.ok_or("no tag")?;
            if tag.get().is_multiple_of(ACK_EVERY) {
                let mut channel = self.client.channel(self.id).ok_or("no channel")?;
                channel.ack(Tags::UpTo(tag))?;
            }
        }
        self.drain();
        Ok(())
    }

    /// Handles confirms of one publish each, or replies.
    #[inline(never)]
    fn counted_events(&mut self) {
        self.client.handle_input(NOW, &mut self.input);
        while self.client.poll_event().is_some() {}
    }

    /// Acknowledges deliveries one by one.
    #[inline(never)]
    fn counted_ack(&mut self, tags: &[Tags]) -> Result<()> {
        for tag in tags {
            let mut channel = self.client.channel(self.id).ok_or("no channel")?;
            channel.ack(*tag)?;
        }
        self.drain();
        Ok(())
    }

    /// Declares a queue.
    #[inline(never)]
    fn counted_declare(&mut self, declare: &queue::Declare) -> Result<()> {
        let mut channel = self.client.channel(self.id).ok_or("no channel")?;
        channel.call(declare)?;
        self.drain();
        Ok(())
    }

    fn turn(&mut self, case: &str) -> Result<()> {
        match case {
            "deliver" | "deliver-1k" => {
                let body: &[u8] = if case == "deliver" { SMALL } else { LARGE };
                for _ in 0..TURN {
                    self.put_delivery(body);
                }
                self.counted_deliver()?;
            }
            "publish" => {
                self.publish(true)?;
                self.confirm(false);
            }
            "publish-prepared" => {
                let properties = basic::Properties::default();
                self.counted_publish_prepared(&PreparedPublish::new(publish(), &properties)?)?;
                self.confirm(false);
            }
            "confirm" => {
                self.publish(false)?;
                self.confirm(true);
            }
            "ack" => {
                for _ in 0..TURN {
                    self.put_delivery(SMALL);
                }
                self.client.handle_input(NOW, &mut self.input);
                let mut tags = mem::take(&mut self.tags);
                while let Some(event) = self.client.poll_event() {
                    if let Event::Delivered(delivery) = event {
                        tags.extend(delivery.tag.map(Tags::One));
                    }
                }
                assert_eq!(tags.len() as u64, TURN);
                self.counted_ack(&tags)?;
                tags.clear();
                self.tags = tags;
            }
            "declare" => {
                let declare = queue::Declare::default().queue("orders");
                for _ in 0..TURN {
                    self.counted_declare(&declare)?;
                    self.put_method(queue::DeclareOk::default().queue("orders"));
                    self.counted_events();
                }
            }
            other => return Err(format!("no case is called {other}").into()),
        }
        Ok(())
    }

    fn publish(&mut self, counted: bool) -> Result<()> {
        let publish = publish();
        let properties = basic::Properties::default();
        if counted {
            return self.counted_publish(&publish, &properties);
        }
        for _ in 0..TURN {
            let mut channel = self.client.channel(self.id).ok_or("no channel")?;
            channel.publish(&publish, &properties, SMALL)?;
        }
        self.drain();
        Ok(())
    }

    fn confirm(&mut self, counted: bool) {
        for _ in 0..TURN {
            self.confirmed += 1;
            self.put_method(basic::Ack::default().delivery_tag(self.confirmed));
        }
        if counted {
            self.counted_events();
        } else {
            self.hear();
        }
    }
}

fn publish() -> basic::Publish {
    basic::Publish::default()
        .exchange("amq.topic")
        .routing_key("stock.nyse.ibm")
}

fn take(from: &mut Transmit, to: &mut BytesMut) {
    while from.has_remaining() {
        to.extend_from_slice(from.chunk());
        from.advance(from.chunk().len());
    }
}

fn main() -> Result<()> {
    let case = env::args().nth(1).ok_or("which case?")?;
    let mut rig = Rig::open()?;
    for _ in 0..TURNS {
        rig.turn(&case)?;
    }
    println!("{}", TURN * TURNS);
    Ok(())
}

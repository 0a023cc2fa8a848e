//! Both sides of a connection, fed by hand, and the frames to feed.

use amqp_core::{
    ChannelId, Endpoint, Instant, Transmit,
    client::{self, Checks},
    frame::{Frame, FrameKind},
    protocol::{Method, basic},
    server,
    wire::Encode as _,
};
use amqp_test_support::meter::peak_of;
use bytes::{Buf as _, BytesMut};

pub(crate) const NOW: Instant = Instant::ORIGIN;

/// The memory of a case beyond its subject: partial frames, a close in flight.
pub(crate) const ROOM: usize = 256 << 10;

/// How much a driver reads at a time.
pub(crate) const READ: usize = 64 << 10;

/// Either side, with an application that notes the end and no more.
pub(crate) struct Side {
    pub(crate) machine: Machine,
    input: BytesMut,
    /// Its open channels.
    pub(crate) channels: Vec<ChannelId>,
    /// How many final events there were.
    pub(crate) ends: usize,
    /// How many bytes it was fed.
    fed: usize,
}

pub(crate) enum Machine {
    Client(client::Connection),
    Server(server::Connection),
}

impl Side {
    pub(crate) fn new(machine: Machine) -> Self {
        Self {
            machine,
            input: BytesMut::new(),
            channels: Vec::new(),
            ends: 0,
            fed: 0,
        }
    }

    /// Feeds bytes in reads of at most [`READ`] bytes. Events and output are dropped at once.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for read in bytes.chunks(READ) {
            self.fed += read.len();
            self.input.extend_from_slice(read);
            let mut out = Transmit::new();
            let ends = match &mut self.machine {
                Machine::Client(client) => {
                    client.handle_input(NOW, &mut self.input);
                    while client.poll_transmit(NOW, &mut out) {}
                    core::iter::from_fn(|| client.poll_event())
                        .filter(|event| matches!(event, client::Event::Closed(_)))
                        .count()
                }
                Machine::Server(server) => {
                    server.handle_input(NOW, &mut self.input);
                    while server.poll_transmit(NOW, &mut out) {}
                    core::iter::from_fn(|| server.poll_event())
                        .filter(|event| matches!(event, server::Event::Closed(_)))
                        .count()
                }
            };
            self.ends += ends;
        }
    }

    pub(crate) const fn role(&self) -> &'static str {
        match self.machine {
            Machine::Client(_) => "client",
            Machine::Server(_) => "server",
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        match &mut self.machine {
            Machine::Client(client) => client.handle_timeout(now),
            Machine::Server(server) => server.handle_timeout(now),
        }
    }

    pub(crate) fn endpoint(&self) -> &dyn Endpoint {
        match &self.machine {
            Machine::Client(client) => client,
            Machine::Server(server) => server,
        }
    }
}

/// A client and a server with two channels open, on both of which the client consumes as `t`.
pub(crate) fn open_pair(server: server::Config) -> [Side; 2] {
    let client = client::Config::default().checks(Checks::Standard);
    let mut client = client::Connection::new(client, NOW).unwrap();
    let mut server = server::Connection::new(server, NOW).unwrap();
    let exchange = |client: &mut client::Connection, server: &mut server::Connection| {
        let mut out = Transmit::new();
        loop {
            let mut to_server = BytesMut::new();
            while client.poll_transmit(NOW, &mut out) {}
            while out.has_remaining() {
                to_server.extend_from_slice(out.chunk());
                out.advance(out.chunk().len());
            }
            server.handle_input(NOW, &mut to_server);
            while let Some(event) = server.poll_event() {
                match event {
                    server::Event::Authenticate(_) => server.accept().unwrap(),
                    server::Event::Open { .. } => server.open().unwrap(),
                    _ => {}
                }
            }
            let mut to_client = BytesMut::new();
            while server.poll_transmit(NOW, &mut out) {}
            if out.is_empty() && !client.has_transmit() {
                return;
            }
            while out.has_remaining() {
                to_client.extend_from_slice(out.chunk());
                out.advance(out.chunk().len());
            }
            client.handle_input(NOW, &mut to_client);
            while client.poll_event().is_some() {}
        }
    };
    exchange(&mut client, &mut server);
    let mut channels = Vec::new();
    for _ in 0..2 {
        let (id, _) = client.open_channel().unwrap();
        channels.push(id);
        exchange(&mut client, &mut server);
        let consume = basic::Consume::default().consumer_tag("t");
        let mut channel = client.channel(id).unwrap();
        channel.consume(consume.no_wait(true)).unwrap();
        exchange(&mut client, &mut server);
    }
    assert!(client.is_open() && server.is_open());
    [Machine::Client(client), Machine::Server(server)].map(|machine| Side {
        channels: channels.clone(),
        ..Side::new(machine)
    })
}

/// Measures the memory that a case makes either side hold, against that bound. Returns the sides.
pub(crate) fn measure(name: &str, allowed: usize, case: impl Fn(&mut Side)) -> [Side; 2] {
    open_pair(server::Config::default()).map(|side| measure_one(name, allowed, side, &case))
}

pub(crate) fn measure_one(
    name: &str,
    allowed: usize,
    mut side: Side,
    case: impl Fn(&mut Side),
) -> Side {
    let ((), peak) = peak_of(|| case(&mut side));
    let role = side.role();
    println!(
        "{name}, {role}: {peak} bytes at most, of {allowed}; fed {}",
        side.fed
    );
    assert!(peak <= allowed, "{name}, {role}: {peak} of {allowed} bytes");
    side
}

pub(crate) fn frame(kind: FrameKind, channel: u16, payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    let frame = Frame {
        kind,
        channel,
        payload,
    };
    frame.encode(&mut out);
    out
}

pub(crate) fn method(channel: u16, method: impl Into<Method>) -> BytesMut {
    let method = method.into();
    let mut payload = BytesMut::new();
    payload.extend_from_slice(&method.id().class.to_be_bytes());
    payload.extend_from_slice(&method.id().method.to_be_bytes());
    method.encode(&mut payload);
    frame(FrameKind::Method, channel, &payload)
}

/// The header of a message with so long a body.
pub(crate) fn header(channel: u16, body_size: u64, properties: &[u8]) -> BytesMut {
    let mut payload = BytesMut::from(&[0, 60, 0, 0][..]);
    payload.extend_from_slice(&body_size.to_be_bytes());
    payload.extend_from_slice(properties);
    frame(FrameKind::Header, channel, &payload)
}

/// The method that a message for that side begins with.
pub(crate) fn begin(side: &Side, channel: u16, number: u64) -> BytesMut {
    match side.machine {
        Machine::Client(_) => {
            let deliver = basic::Deliver::default().consumer_tag("t");
            method(channel, deliver.delivery_tag(number))
        }
        Machine::Server(_) => method(channel, basic::Publish::default()),
    }
}

pub(crate) fn body(channel: u16, piece: &[u8]) -> BytesMut {
    frame(FrameKind::Body, channel, piece)
}

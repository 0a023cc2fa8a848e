//! A client and a server in one thread, joined by bytes, under virtual time.

use alloc::{collections::VecDeque, vec::Vec};

use bytes::{Buf as _, BytesMut};
use core::time::Duration;

use crate::{
    ChannelId, Instant, RequestId, Transmit,
    client::{self, Event as ClientEvent},
    protocol::Method,
    server::{self, Event as ServerEvent},
};

/// A client and a server, the bytes between them, and their clock.
pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) client: client::Connection,
    pub(crate) server: server::Connection,
    /// Bytes on their way to the server and to the client.
    pub(crate) to_server: BytesMut,
    pub(crate) to_client: BytesMut,
    /// How many bytes are handed over at a time; all when none.
    pub(crate) chunk: Option<usize>,
    /// All events and frames of the server.
    pub(crate) client_events: VecDeque<ClientEvent>,
    pub(crate) server_events: VecDeque<ServerEvent>,
    server_input: BytesMut,
    client_input: BytesMut,
}

impl Pair {
    pub(crate) fn new(client: client::Config, server: server::Config) -> Self {
        let now = Instant::ORIGIN + Duration::from_secs(1000);
        Self {
            now,
            client: client::Connection::new(client, now).unwrap(),
            server: server::Connection::new(server, now).unwrap(),
            to_server: BytesMut::new(),
            to_client: BytesMut::new(),
            chunk: None,
            client_events: VecDeque::new(),
            server_events: VecDeque::new(),
            server_input: BytesMut::new(),
            client_input: BytesMut::new(),
        }
    }

    /// A pair after the handshake, with default configurations.
    pub(crate) fn open() -> Self {
        Self::open_with(client::Config::default(), server::Config::default())
    }

    pub(crate) fn open_with(client: client::Config, server: server::Config) -> Self {
        let mut pair = Self::new(client, server);
        pair.shake_hands();
        pair
    }

    /// Runs the handshake to its end, accepting everything.
    pub(crate) fn shake_hands(&mut self) {
        for _ in 0..8 {
            self.exchange();
            for event in self.take_server_events() {
                match event {
                    ServerEvent::Authenticate(_) => self.server.accept().unwrap(),
                    ServerEvent::Open { .. } => self.server.open().unwrap(),
                    ServerEvent::Opened => {}
                    other => panic!("{other:?} during the handshake"),
                }
            }
        }
        assert_eq!(self.take_client_events(), [ClientEvent::Opened]);
        assert!(self.client.is_open() && self.server.is_open());
    }

    /// Moves bytes both ways, and decides on credentials with `decide`.
    pub(crate) fn shake_hands_with(&mut self, decide: impl Fn(&mut server::Connection)) {
        self.exchange();
        for event in self.take_server_events() {
            if let ServerEvent::Authenticate(_) = event {
                decide(&mut self.server);
            }
        }
        self.exchange();
    }

    /// Opens a channel on both sides.
    pub(crate) fn open_channel(&mut self) -> ChannelId {
        let (id, request) = self.client.open_channel().unwrap();
        self.exchange();
        let events = self.take_client_events();
        assert!(
            matches!(&events[..], [ClientEvent::Reply { request: answered, .. }] if *answered == request),
            "{events:?}"
        );
        let events = self.take_server_events();
        assert!(
            matches!(&events[..], [ServerEvent::ChannelOpened { channel }] if channel.number() == id.number()),
            "{events:?}"
        );
        id
    }

    /// Moves bytes both ways until nothing is left to move, and collects the events.
    pub(crate) fn exchange(&mut self) {
        loop {
            self.collect_output();
            if self.to_server.is_empty() && self.to_client.is_empty() {
                break;
            }
            self.deliver_to_server();
            self.deliver_to_client();
        }
    }

    /// Takes the output of both sides.
    pub(crate) fn collect_output(&mut self) {
        let mut out = Transmit::new();
        while self.client.poll_transmit(self.now, &mut out) {}
        take(&mut out, &mut self.to_server);
        while self.server.poll_transmit(self.now, &mut out) {}
        take(&mut out, &mut self.to_client);
    }

    pub(crate) fn deliver_to_server(&mut self) {
        let bytes = self.to_server.split();
        for piece in pieces(&bytes, self.chunk) {
            self.server_input.extend_from_slice(piece);
            self.server.handle_input(self.now, &mut self.server_input);
        }
        while let Some(event) = self.server.poll_event() {
            self.server_events.push_back(event);
        }
    }

    pub(crate) fn deliver_to_client(&mut self) {
        let bytes = self.to_client.split();
        for piece in pieces(&bytes, self.chunk) {
            self.client_input.extend_from_slice(piece);
            self.client.handle_input(self.now, &mut self.client_input);
        }
        self.poll_client();
    }

    fn poll_client(&mut self) {
        while let Some(event) = self.client.poll_event() {
            self.client_events.push_back(event);
        }
    }

    /// Lets time pass, step by step from deadline to deadline, moving bytes in between.
    pub(crate) fn advance(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.exchange();
            let next = [self.client.poll_timeout(), self.server.poll_timeout()]
                .into_iter()
                .flatten()
                .map(|(at, _)| at)
                .min()
                .filter(|&at| at <= end);
            let Some(at) = next else { break };
            self.now = self.now.max(at);
            self.client.handle_timeout(self.now);
            self.server.handle_timeout(self.now);
        }
        self.now = end;
        self.client.handle_timeout(end);
        self.server.handle_timeout(end);
        self.exchange();
        self.poll_client();
    }

    pub(crate) fn take_client_events(&mut self) -> Vec<ClientEvent> {
        self.poll_client();
        self.client_events.drain(..).collect()
    }

    pub(crate) fn take_server_events(&mut self) -> Vec<ServerEvent> {
        while let Some(event) = self.server.poll_event() {
            self.server_events.push_back(event);
        }
        self.server_events.drain(..).collect()
    }

    /// The reply to a request, when it is all that happened on the client's side.
    pub(crate) fn only_reply(&mut self, request: RequestId) -> Method {
        let mut events = self.take_client_events();
        match (events.pop(), events.is_empty()) {
            (
                Some(ClientEvent::Reply {
                    request: answered,
                    reply,
                    ..
                }),
                true,
            ) if answered == request => reply,
            (last, _) => panic!("{events:?} {last:?}"),
        }
    }

    /// The server's side of a channel.
    pub(crate) fn server_channel(&mut self, id: ChannelId) -> server::ChannelMut<'_> {
        self.server.channel(id).unwrap()
    }

    /// The client's side of a channel.
    pub(crate) fn client_channel(&mut self, id: ChannelId) -> client::ChannelMut<'_> {
        self.client.channel(id).unwrap()
    }
}

/// Appends the output of a machine to `to`.
fn take(out: &mut Transmit, to: &mut BytesMut) {
    while out.has_remaining() {
        let len = out.chunk().len();
        to.extend_from_slice(out.chunk());
        out.advance(len);
    }
}

fn pieces(bytes: &BytesMut, chunk: Option<usize>) -> impl Iterator<Item = &[u8]> {
    bytes.chunks(chunk.unwrap_or(usize::MAX))
}

//! A broker and several clients in one thread, joined in memory under virtual time.

mod messages;
mod methods;
mod requests;
mod transport;

use std::{collections::VecDeque, time::Duration};

use amqp_broker::{AcceptError, Broker, Config, ConnectionKey, QueueInfo};
use amqp_core::{
    ChannelId, CloseReason, Instant, Transmit,
    client::{self, Checks, Event},
    protocol::ReplyCode,
    sasl::Plain,
    server,
};
use bytes::BytesMut;

pub(crate) use self::{methods::*, transport::frame};

/// A broker and its clients. A client is named by its number, counted from 0.
pub(crate) struct Rig {
    pub(crate) broker: Broker,
    pub(crate) now: Instant,
    peers: Vec<Peer>,
}

struct Peer {
    client: client::Connection,
    key: ConnectionKey,
    to_broker: BytesMut,
    to_client: BytesMut,
    events: VecDeque<Event>,
    /// It takes nothing from its transport.
    stalled: bool,
}

impl Peer {
    fn new(client: client::Connection, key: ConnectionKey) -> Self {
        Self {
            client,
            key,
            to_broker: BytesMut::new(),
            to_client: BytesMut::new(),
            events: VecDeque::new(),
            stalled: false,
        }
    }
}

/// How a request was refused: the code and the text.
pub(crate) type Refused = (u16, String);

pub(crate) fn refused(code: u16, text: &str) -> Refused {
    (code, text.into())
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Self {
        Self {
            broker: Broker::new(config).unwrap(),
            now: Instant::ORIGIN + Duration::from_secs(100),
            peers: Vec::new(),
        }
    }

    /// A broker, a client and a channel.
    pub(crate) fn open() -> (Self, usize, ChannelId) {
        let mut rig = Self::new();
        let client = rig.connect();
        let channel = rig.channel(client);
        (rig, client, channel)
    }

    pub(crate) fn connect(&mut self) -> usize {
        let client = self.begin(client::Config::default());
        assert!(self.client(client).is_open());
        client
    }

    /// Begins to connect, and goes as far as it comes.
    pub(crate) fn begin(&mut self, config: client::Config) -> usize {
        let key = self.broker.accept(self.now).unwrap();
        self.begin_at(key, config)
    }

    /// As `begin`, over a transport that is secured and vouches for that user.
    pub(crate) fn begin_secured(&mut self, config: client::Config, user: Option<&str>) -> usize {
        let key = self.broker.accept(self.now).unwrap();
        self.broker.handle_secured(key, user.map(Into::into));
        self.begin_at(key, config)
    }

    /// Begins to connect to a machine that the broker adopts at the login.
    pub(crate) fn begin_adopted(&mut self, config: client::Config) -> Result<usize, AcceptError> {
        let config = config.checks(Checks::Standard);
        let mut client = client::Connection::new(config, self.now).unwrap();
        let server = self.broker.server_config().clone();
        let mut server = server::Connection::new(server, self.now).unwrap();
        let mut out = Transmit::new();
        let request = loop {
            client.poll_transmit(self.now, &mut out);
            let mut bytes = bytes(&mut out);
            server.handle_input(self.now, &mut bytes);
            if let Some(server::Event::Authenticate(request)) = server.poll_event() {
                break request;
            }
            server.poll_transmit(self.now, &mut out);
            client.handle_input(self.now, &mut self::bytes(&mut out));
        };
        let key = self.broker.adopt(server, &request, self.now)?;
        Ok(self.begin_with(key, client))
    }

    fn begin_at(&mut self, key: ConnectionKey, config: client::Config) -> usize {
        let config = config.checks(Checks::Standard);
        let client = client::Connection::new(config, self.now).unwrap();
        self.begin_with(key, client)
    }

    fn begin_with(&mut self, key: ConnectionKey, client: client::Connection) -> usize {
        self.peers.push(Peer::new(client, key));
        self.exchange();
        let client = self.peers.len() - 1;
        if self.client(client).is_open() {
            assert_eq!(self.events(client), [Event::Opened]);
        }
        client
    }

    pub(crate) fn begin_as(&mut self, user: &str, password: &str, vhost: &str) -> usize {
        self.begin(
            client::Config::default()
                .mechanisms(vec![Box::new(Plain::new(user, password).unwrap())])
                .virtual_host(vhost),
        )
    }

    pub(crate) fn client(&mut self, client: usize) -> &mut client::Connection {
        &mut self.peers[client].client
    }

    pub(crate) fn key(&self, client: usize) -> ConnectionKey {
        self.peers[client].key
    }

    pub(crate) fn stall(&mut self, client: usize, stalled: bool) {
        self.peers[client].stalled = stalled;
        self.exchange();
    }

    /// Gives up all clients, as if each had its transport cut.
    pub(crate) fn forget_clients(&mut self) {
        self.peers.clear();
    }

    /// The transport of a client is cut.
    pub(crate) fn cut(&mut self, client: usize) {
        let peer = &mut self.peers[client];
        peer.client.handle_eof(self.now);
        peer.to_client.clear();
        self.broker.handle_eof(peer.key, self.now);
        self.broker.remove(peer.key, self.now);
        self.exchange();
    }

    pub(crate) fn close(&mut self, client: usize) {
        self.client(client).close(ReplyCode::SUCCESS, "bye");
        self.exchange();
    }

    pub(crate) fn channel(&mut self, client: usize) -> ChannelId {
        let (channel, request) = self.client(client).open_channel().unwrap();
        self.exchange();
        self.reply(client, request).unwrap();
        channel
    }

    /// The code and text with which the broker closed a client's connection.
    pub(crate) fn closed(&mut self, client: usize) -> Option<Refused> {
        let reason = self.client(client).close_reason()?;
        refusal(reason)
    }

    /// The code and text of the last channel that the broker closed.
    pub(crate) fn channel_closed(&mut self, client: usize) -> Option<Refused> {
        let reasons = self.take(client, |event| match event {
            Event::ChannelClosed { reason, .. } => Some(reason.clone()),
            _ => None,
        });
        refusal(reasons.last()?)
    }

    pub(crate) fn inspect(&self, queue: &str) -> QueueInfo {
        let inspection = self.broker.inspect();
        inspection
            .queue(queue)
            .unwrap_or_else(|| panic!("no {queue}"))
            .clone()
    }

    pub(crate) fn has_queue(&self, queue: &str) -> bool {
        self.broker.inspect().queue(queue).is_some()
    }
}

fn bytes(out: &mut Transmit) -> BytesMut {
    let mut bytes = BytesMut::new();
    for segment in out.take_segments() {
        bytes.extend_from_slice(&segment);
    }
    bytes
}

fn refusal(reason: &CloseReason) -> Option<Refused> {
    let close = reason.by_peer()?;
    Some((close.code.0, close.text.clone()))
}

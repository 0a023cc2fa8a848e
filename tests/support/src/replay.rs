//! The bytes of one side, replayed to a client or a server.
//!
//! Both functions take any bytes. Methods that can be read are looked at before they are fed, and
//! the machine is made to send the requests that they answer, so that a recorded stream runs to its
//! end and a damaged one runs far. The fuzz targets `client`, `server` and `frames` run them: see
//! `fuzz/`.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use amqp_core::{
    ChannelId, ClientSent, CloseReason, Endpoint, Instant, Limits, Request, Transmit, Tuning,
    client::{self, Checks, Event as ClientEvent},
    frame::{Frame, FrameKind, PROTOCOL_HEADER, split_method},
    protocol::{
        ClientMethod, FRAME_HEADER, Method, ReplyCode, ServerMethod, basic, channel, confirm,
        exchange, queue, tx,
    },
    sasl::{AmqPlain, Plain},
    server::{self, Event as ServerEvent},
    wire::{Secret, ShortStr},
};
use bytes::{Buf as _, BytesMut};

/// The result of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How many events there were before the end of the stream.
    pub events: usize,
    /// Why the connection was closing or closed at the end of the stream; none if it was not.
    pub reason: Option<CloseReason>,
    /// All events, including those at the end.
    pub digest: u64,
}

/// Replays the bytes of a server to a client: each frame in pieces of that many bytes, whole when
/// 0.
pub fn client(pieces: usize, stream: &[u8]) -> Outcome {
    let config = client::Config::default()
        .checks(Checks::Standard)
        .mechanisms(vec![
            Box::new(Plain::default()),
            Box::new(AmqPlain::new("guest", "guest")),
        ])
        .limits(
            Limits::default()
                .unconfirmed(usize::MAX)
                .output_high(usize::MAX),
        );
    let mut watched = Watched::new(Client {
        connection: client::Connection::new(config, Instant::ORIGIN).unwrap(),
        channels: BTreeMap::new(),
        published: 0,
    });
    watched.play(pieces, stream);
    watched.end()
}

/// Replays the bytes of a client to a server, from the protocol header on.
pub fn server(pieces: usize, stream: &[u8]) -> Outcome {
    let config = server::Config::default().frame_min(4096);
    let mut watched = Watched::new(Server {
        connection: server::Connection::new(config, Instant::ORIGIN).unwrap(),
        channels: BTreeMap::new(),
    });
    let (header, frames) = stream.split_at(PROTOCOL_HEADER.len().min(stream.len()));
    watched.feed(pieces, header);
    watched.play(pieces, frames);
    watched.end()
}

/// A machine, and an application that makes the calls that the stream expects.
trait Player {
    type Event: Debug;

    /// The largest content header frame beside the frame limit.
    const HEADER_MAX: u32;

    fn endpoint(&mut self) -> &mut dyn Endpoint;
    fn event(&mut self) -> Option<Self::Event>;
    fn tuning(&self) -> &Tuning;
    fn reason(&self) -> Option<&CloseReason>;
    fn is_final(event: &Self::Event) -> bool;
    /// Something has happened.
    fn react(&mut self, event: &Self::Event);
    /// A method will come in.
    fn prepare(&mut self, number: u16, method: Method);
}

/// A player under check of all invariants.
struct Watched<P> {
    player: P,
    now: Instant,
    input: BytesMut,
    events: usize,
    digest: DefaultHasher,
    /// The final event has come.
    ended: bool,
}

impl<P: Player> Watched<P> {
    fn new(player: P) -> Self {
        let mut watched = Self {
            player,
            now: Instant::ORIGIN,
            input: BytesMut::new(),
            events: 0,
            digest: DefaultHasher::new(),
            ended: false,
        };
        watched.look();
        watched
    }

    fn play(&mut self, pieces: usize, mut stream: &[u8]) {
        while !stream.is_empty() {
            let frame = Frame::parse(stream, u32::MAX).ok().flatten();
            if let Some(frame) = frame
                && frame.kind == FrameKind::Method
                && let Ok((id, arguments)) = split_method(frame.payload)
                && let Ok(method) = Method::decode(id, arguments)
            {
                self.player.prepare(frame.channel, method);
                self.look();
            }
            let len = frame.map_or(stream.len(), |frame| frame.len());
            let (bytes, rest) = stream.split_at(len);
            self.feed(pieces, bytes);
            stream = rest;
        }
    }

    fn feed(&mut self, pieces: usize, bytes: &[u8]) {
        let size = if pieces == 0 { bytes.len() } else { pieces };
        for piece in bytes.chunks(size.max(1)) {
            self.input.extend_from_slice(piece);
            let now = self.now;
            self.player.endpoint().handle_input(now, &mut self.input);
            let tuning = self.player.tuning();
            let limit = if tuning.is_frame_unlimited() {
                Limits::default().unlimited_frame
            } else {
                tuning.frame_max + 8
            };
            let is_header = self.input.first() == Some(&FRAME_HEADER);
            let limit = if is_header {
                limit.max(P::HEADER_MAX + 8)
            } else {
                limit
            };
            assert!(self.input.len() < limit as usize, "a whole frame was left");
            assert!(self.player.endpoint().read_hint() <= limit as usize);
            self.look();
        }
    }

    /// Takes the output, and the events.
    fn look(&mut self) {
        loop {
            self.take_output();
            let Some(event) = self.player.event() else {
                break;
            };
            assert!(!self.ended, "{event:?} after the end");
            self.ended = P::is_final(&event);
            self.events += 1;
            format!("{event:?}").hash(&mut self.digest);
            self.player.react(&event);
        }
        assert!(!self.ended || self.player.reason().is_some());
    }

    /// Whole frames are sent, which can be read; before them perhaps a protocol header.
    fn take_output(&mut self) {
        let mut out = Transmit::new();
        let now = self.now;
        while self.player.endpoint().poll_transmit(now, &mut out) {}
        let mut sent = BytesMut::new();
        while out.has_remaining() {
            let len = out.chunk().len();
            sent.extend_from_slice(out.chunk());
            out.advance(len);
        }
        if sent.starts_with(&PROTOCOL_HEADER) {
            sent.advance(PROTOCOL_HEADER.len());
        }
        while !sent.is_empty() {
            let frame = Frame::parse(&sent, u32::MAX).unwrap().unwrap();
            if frame.kind == FrameKind::Method {
                let (id, arguments) = split_method(frame.payload).unwrap();
                Method::decode(id, arguments).unwrap();
            }
            let len = frame.len();
            sent.advance(len);
        }
    }

    /// The end of the stream: in any state, the machine comes to its end.
    fn end(mut self) -> Outcome {
        let (events, reason) = (self.events, self.player.reason().cloned());
        for _ in 0..20 {
            let Some((at, _)) = self.player.endpoint().poll_timeout() else {
                break;
            };
            self.now = self.now.max(at);
            let now = self.now;
            self.player.endpoint().handle_timeout(now);
            self.look();
            let next = self.player.endpoint().poll_timeout();
            assert!(next.is_none_or(|(next, _)| next > at), "it waits for ever");
        }
        let now = self.now;
        self.player.endpoint().handle_eof(now);
        self.look();
        assert!(self.ended && self.player.endpoint().is_finished());
        assert_eq!(self.player.endpoint().poll_timeout(), None);
        self.feed(0, b"\x01\x00\x00 whatever");
        assert!(self.input.is_empty());
        Outcome {
            events,
            reason,
            digest: self.digest.finish(),
        }
    }
}

struct Server {
    connection: server::Connection,
    channels: BTreeMap<u16, ChannelId>,
}

impl Player for Server {
    type Event = ServerEvent;

    const HEADER_MAX: u32 = 0;

    fn endpoint(&mut self) -> &mut dyn Endpoint {
        &mut self.connection
    }

    fn event(&mut self) -> Option<ServerEvent> {
        self.connection.poll_event()
    }

    fn tuning(&self) -> &Tuning {
        self.connection.tuning()
    }

    fn reason(&self) -> Option<&CloseReason> {
        self.connection.close_reason()
    }

    fn is_final(event: &ServerEvent) -> bool {
        matches!(event, ServerEvent::Closed(_))
    }

    fn react(&mut self, event: &ServerEvent) {
        match event {
            ServerEvent::Authenticate(_) => self.connection.accept().unwrap(),
            ServerEvent::Open { .. } => self.connection.open().unwrap(),
            ServerEvent::ChannelOpened { channel } => {
                self.channels.insert(channel.number(), *channel);
            }
            _ => {}
        }
    }

    /// Sends the request that `method` replies to. Of the replies after the handshake, the machine
    /// has no request for `channel.flow-ok`.
    ///
    /// Each method is listed: a new one does not compile before its request is written here.
    fn prepare(&mut self, number: u16, method: Method) {
        let Ok(method) = ClientMethod::try_from(method) else {
            return;
        };
        let id = self.channels.get(&number);
        let channel = id.and_then(|id| self.connection.channel(*id));
        // A request that is refused is none of the stream's faults.
        match method {
            ClientMethod::ConnectionCloseOk(_) => {
                self.connection.close(ReplyCode::CONNECTION_FORCED, "");
            }
            ClientMethod::ChannelCloseOk(_) => {
                if let Some(mut channel) = channel {
                    channel.close(ReplyCode::NOT_FOUND, "", None).ok();
                }
            }
            ClientMethod::BasicCancelOk(ok) => {
                let cancel = basic::Cancel {
                    consumer_tag: ok.consumer_tag,
                    no_wait: false,
                };
                if let Some(mut channel) = channel {
                    channel.send(&cancel).ok();
                }
            }
            ClientMethod::ConnectionStartOk(_)
            | ClientMethod::ConnectionSecureOk(_)
            | ClientMethod::ConnectionTuneOk(_)
            | ClientMethod::ConnectionOpen(_)
            | ClientMethod::ConnectionClose(_)
            | ClientMethod::ConnectionUpdateSecret(_)
            | ClientMethod::ChannelOpen(_)
            | ClientMethod::ChannelFlow(_)
            | ClientMethod::ChannelFlowOk(_)
            | ClientMethod::ChannelClose(_)
            | ClientMethod::ExchangeDeclare(_)
            | ClientMethod::ExchangeDelete(_)
            | ClientMethod::ExchangeBind(_)
            | ClientMethod::ExchangeUnbind(_)
            | ClientMethod::QueueDeclare(_)
            | ClientMethod::QueueBind(_)
            | ClientMethod::QueueUnbind(_)
            | ClientMethod::QueuePurge(_)
            | ClientMethod::QueueDelete(_)
            | ClientMethod::BasicQos(_)
            | ClientMethod::BasicConsume(_)
            | ClientMethod::BasicCancel(_)
            | ClientMethod::BasicPublish(_)
            | ClientMethod::BasicGet(_)
            | ClientMethod::BasicAck(_)
            | ClientMethod::BasicReject(_)
            | ClientMethod::BasicRecover(_)
            | ClientMethod::BasicRecoverAsync(_)
            | ClientMethod::BasicNack(_)
            | ClientMethod::ConfirmSelect(_)
            | ClientMethod::TxSelect(_)
            | ClientMethod::TxCommit(_)
            | ClientMethod::TxRollback(_) => {}
        }
    }
}

struct Client {
    connection: client::Connection,
    channels: BTreeMap<u16, Channel>,
    /// How many publishes were made in confirm mode.
    published: u64,
}

struct Channel {
    id: ChannelId,
    /// How many publishes were made in confirm mode.
    published: u64,
}

/// How many publishes are made at most for one confirm: no server confirms more at a time.
const PUBLISHES: u64 = 5000;

/// How many publishes are made at most for all confirms of a stream.
const PUBLISHES_MAX: u64 = 10_000;

impl Player for Client {
    type Event = ClientEvent;

    /// That of `Limits`.
    const HEADER_MAX: u32 = 1 << 20;

    fn endpoint(&mut self) -> &mut dyn Endpoint {
        &mut self.connection
    }

    fn event(&mut self) -> Option<ClientEvent> {
        self.connection.poll_event()
    }

    fn tuning(&self) -> &Tuning {
        self.connection.tuning()
    }

    fn reason(&self) -> Option<&CloseReason> {
        self.connection.close_reason()
    }

    fn is_final(event: &ClientEvent) -> bool {
        matches!(event, ClientEvent::Closed(_))
    }

    fn react(&mut self, _event: &ClientEvent) {}

    fn prepare(&mut self, number: u16, method: Method) {
        let Ok(method) = ServerMethod::try_from(method) else {
            return;
        };
        match method {
            ServerMethod::ChannelOpenOk(_) => {
                if let Ok((id, _)) = self.connection.open_channel_at(number) {
                    self.channels.insert(number, Channel { id, published: 0 });
                }
            }
            ServerMethod::ConnectionUpdateSecretOk(_) => {
                let secret = Secret::from("secret");
                self.connection.update_secret(secret, ShortStr::new()).ok();
            }
            ServerMethod::ConnectionCloseOk(_) => self.connection.close(ReplyCode::SUCCESS, ""),
            answer => self.ask(number, answer),
        }
    }
}

impl Client {
    /// Sends the request, or the publishes, that `answer` refers to.
    ///
    /// Each method is listed: a new one does not compile before its request is written here.
    fn ask(&mut self, number: u16, answer: ServerMethod) {
        let Some(channel) = self.channels.get_mut(&number) else {
            return;
        };
        let Some(mut commands) = self.connection.channel(channel.id) else {
            return;
        };
        fn call(commands: &mut client::ChannelMut<'_>, request: &(impl Request + ClientSent)) {
            // A request that is refused is none of the stream's faults.
            commands.call(request).ok();
        }
        let it = &mut commands;
        match answer {
            ServerMethod::ChannelFlowOk(_) => call(it, &channel::Flow { active: true }),
            ServerMethod::ChannelCloseOk(_) => drop(it.close(ReplyCode::SUCCESS, "")),
            ServerMethod::ExchangeDeclareOk(_) => call(it, &exchange::Declare::default()),
            ServerMethod::ExchangeDeleteOk(_) => call(it, &exchange::Delete::default()),
            ServerMethod::ExchangeBindOk(_) => call(it, &exchange::Bind::default()),
            ServerMethod::ExchangeUnbindOk(_) => call(it, &exchange::Unbind::default()),
            ServerMethod::QueueDeclareOk(_) => call(it, &queue::Declare::default()),
            ServerMethod::QueueBindOk(_) => call(it, &queue::Bind::default()),
            ServerMethod::QueueUnbindOk(_) => call(it, &queue::Unbind::default()),
            ServerMethod::QueuePurgeOk(_) => call(it, &queue::Purge::default()),
            ServerMethod::QueueDeleteOk(_) => call(it, &queue::Delete::default()),
            ServerMethod::BasicQosOk(_) => call(it, &basic::Qos::default()),
            ServerMethod::BasicRecoverOk(_) => call(it, &basic::Recover::default()),
            ServerMethod::BasicGetOk(_) | ServerMethod::BasicGetEmpty(_) => {
                it.get(&basic::Get::default()).ok();
            }
            ServerMethod::BasicCancelOk(ok) => call(
                it,
                &basic::Cancel {
                    consumer_tag: ok.consumer_tag,
                    no_wait: false,
                },
            ),
            ServerMethod::BasicConsumeOk(ok) => {
                it.consume(basic::Consume {
                    consumer_tag: ok.consumer_tag,
                    ..basic::Consume::default()
                })
                .ok();
            }
            // Its consumer was not to be confirmed; otherwise its tag is taken.
            ServerMethod::BasicDeliver(deliver) => {
                it.consume(basic::Consume {
                    consumer_tag: deliver.consumer_tag,
                    no_wait: true,
                    ..basic::Consume::default()
                })
                .ok();
            }
            ServerMethod::BasicAck(basic::Ack { delivery_tag, .. })
            | ServerMethod::BasicNack(basic::Nack { delivery_tag, .. }) => {
                let publish = basic::Publish::default();
                let properties = basic::Properties::default();
                let wanted = delivery_tag.saturating_sub(channel.published) <= PUBLISHES;
                while wanted
                    && channel.published < delivery_tag
                    && self.published < PUBLISHES_MAX
                    && it.publish(&publish, &properties, "").is_ok()
                {
                    channel.published += 1;
                    self.published += 1;
                }
            }
            ServerMethod::ConfirmSelectOk(_) => call(it, &confirm::Select::default()),
            ServerMethod::TxSelectOk(_) => call(it, &tx::Select),
            ServerMethod::TxCommitOk(_) => call(it, &tx::Commit),
            ServerMethod::TxRollbackOk(_) => call(it, &tx::Rollback),
            ServerMethod::ConnectionStart(_)
            | ServerMethod::ConnectionSecure(_)
            | ServerMethod::ConnectionTune(_)
            | ServerMethod::ConnectionOpenOk(_)
            | ServerMethod::ConnectionClose(_)
            | ServerMethod::ConnectionCloseOk(_)
            | ServerMethod::ConnectionBlocked(_)
            | ServerMethod::ConnectionUnblocked(_)
            | ServerMethod::ConnectionUpdateSecretOk(_)
            | ServerMethod::ChannelOpenOk(_)
            | ServerMethod::ChannelFlow(_)
            | ServerMethod::ChannelClose(_)
            | ServerMethod::BasicCancel(_)
            | ServerMethod::BasicReturn(_) => {}
        }
    }
}

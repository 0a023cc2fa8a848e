//! The same bytes in other pieces are the same conversation: a dialogue in which everything happens
//! that can, cut wherever it can be.

use alloc::{boxed::Box, collections::BTreeSet, vec, vec::Vec};

use amqp_test_support::cases;
use proptest::prelude::*;

use super::{
    pair::Pair,
    side::{body_frame, header_frame, method_frame, raw_frame},
};
use crate::{
    ChannelId, ConnectionStats, Limits, PublishError, Requeue, Tags,
    client::{self, Checks, Event as ClientEvent},
    protocol::{FRAME_MIN_SIZE, Method, ReplyCode, basic, channel, confirm, queue, tx},
    sasl::{Mechanism, SaslError},
    server::{self, Event as ServerEvent},
    strategies::Cuts,
    wire::{FieldTable, Secret, ShortStr},
};

/// A mechanism of two rounds.
#[derive(Clone, Debug)]
struct Echo;

impl Mechanism for Echo {
    fn name(&self) -> &'static str {
        "ECHO"
    }

    fn initial_response(&mut self) -> Secret {
        Secret::from("hello")
    }

    fn respond(&mut self, challenge: &[u8]) -> Result<Secret, SaslError> {
        Ok(challenge.into())
    }

    fn boxed(&self) -> Box<dyn Mechanism> {
        Box::new(self.clone())
    }
}

/// How the bytes to a side are cut.
#[derive(Clone, Debug)]
pub(super) enum Cut {
    Whole,
    /// The bytes of one carry, in two pieces at that position.
    At(usize),
    /// Into pieces of that many bytes.
    Every(usize),
    /// Into any pieces: the bytes of each carry at these places.
    Any(Cuts),
}

impl Cut {
    /// Cuts the bytes of one carry.
    fn pieces<'a>(&self, bytes: &'a [u8]) -> Vec<&'a [u8]> {
        match self {
            Self::Whole => vec![bytes],
            Self::At(at) => {
                let (first, second) = bytes.split_at((*at).min(bytes.len()));
                vec![first, second]
            }
            Self::Every(size) => bytes.chunks(*size).collect(),
            Self::Any(cuts) => cuts.pieces(bytes),
        }
    }
}

/// The events of a dialogue.
#[derive(Debug, PartialEq)]
pub(super) struct Record {
    pub(super) client: Vec<ClientEvent>,
    pub(super) server: Vec<ServerEvent>,
    /// All bytes that came to each side.
    pub(super) to_client: Vec<u8>,
    pub(super) to_server: Vec<u8>,
    /// The statistics of each side at the end.
    pub(super) client_stats: ConnectionStats,
    pub(super) server_stats: ConnectionStats,
    /// The most that was carried at a time.
    longest: usize,
    /// The ends of frames, counted from the beginning of what was carried with them.
    ends: BTreeSet<usize>,
}

impl Record {
    /// Notes the length of what is carried, and the ends of its frames.
    fn carried(&mut self, bytes: &[u8]) {
        self.longest = self.longest.max(bytes.len());
        let mut end = if bytes.starts_with(b"AMQP") { 8 } else { 0 };
        while let Some(&size) = bytes.get(end + 3..).and_then(|it| it.first_chunk::<4>()) {
            self.ends.insert(end);
            end += u32::from_be_bytes(size) as usize + 8;
        }
        self.ends.insert(end);
    }

    /// Whether a frame ends within a few bytes of a position: its end octet, and the head and the
    /// ids of the next one.
    fn is_near_an_end(&self, at: usize) -> bool {
        let near = at.saturating_sub(12)..=at + 1;
        self.ends.range(near).next().is_some()
    }
}

/// A pair with a line between them that cuts the bytes.
struct Line {
    pair: Pair,
    record: Record,
    client_cut: Cut,
    server_cut: Cut,
}

impl Line {
    fn new(client_cut: Cut, server_cut: Cut) -> Self {
        let limits = Limits {
            body: 10_000,
            header: 8000,
            output_high: 4096,
            output_low: 100,
            ..Limits::default()
        };
        let client = client::Config {
            mechanisms: vec![Box::new(Echo)],
            checks: Checks::Standard,
            limits: limits.clone(),
            properties: FieldTable::new().with("product", "test"),
            ..client::Config::default()
        };
        let server = server::Config {
            mechanisms: "PLAIN ECHO".into(),
            frame_min: FRAME_MIN_SIZE,
            frame_max: FRAME_MIN_SIZE,
            limits,
            ..server::Config::default()
        };
        let record = Record {
            client: Vec::new(),
            server: Vec::new(),
            to_client: Vec::new(),
            to_server: Vec::new(),
            client_stats: ConnectionStats::default(),
            server_stats: ConnectionStats::default(),
            longest: 0,
            ends: BTreeSet::new(),
        };
        Self {
            pair: Pair::new(client, server),
            record,
            client_cut,
            server_cut,
        }
    }

    /// Carries bytes both ways until there are none left, and returns the events meanwhile.
    fn carry(&mut self) -> (Vec<ClientEvent>, Vec<ServerEvent>) {
        loop {
            self.pair.collect_output();
            let to_server = self.pair.to_server.split();
            let to_client = self.pair.to_client.split();
            if to_server.is_empty() && to_client.is_empty() {
                break;
            }
            self.hand_to_server(&to_server);
            self.hand_to_client(&to_client);
        }
        let reported = (
            self.pair.take_client_events(),
            self.pair.take_server_events(),
        );
        self.record.client.extend(reported.0.iter().cloned());
        self.record.server.extend(reported.1.iter().cloned());
        reported
    }

    fn hand_to_server(&mut self, bytes: &[u8]) {
        self.record.carried(bytes);
        for piece in self.server_cut.pieces(bytes) {
            self.pair.to_server.extend_from_slice(piece);
            self.pair.deliver_to_server();
        }
        self.record.to_server.extend(bytes);
    }

    fn hand_to_client(&mut self, bytes: &[u8]) {
        self.record.carried(bytes);
        for piece in self.client_cut.pieces(bytes) {
            self.pair.to_client.extend_from_slice(piece);
            self.pair.deliver_to_client();
        }
        self.record.to_client.extend(bytes);
    }

    fn client(&mut self, id: ChannelId) -> client::ChannelMut<'_> {
        self.pair.client_channel(id)
    }

    fn server(&mut self, id: ChannelId) -> server::ChannelMut<'_> {
        self.pair.server_channel(id)
    }
}

fn short(text: &'static str) -> ShortStr {
    ShortStr::from_static(text).unwrap()
}

/// Everything that can happen on a connection.
pub(super) fn dialogue(client_cut: Cut, server_cut: Cut) -> Record {
    let mut line = Line::new(client_cut, server_cut);
    shake_hands(&mut line);
    let ids = [(); 4].map(|()| line.pair.client.open_channel().unwrap().0);
    line.carry();
    let [publishes, consumes, transacts, fails] = ids;
    publish(&mut line, publishes);
    consume(&mut line, consumes);
    transact(&mut line, transacts);
    of_the_connection(&mut line, consumes);
    channel_ends(&mut line, ids, fails);
    line.pair.client.close(ReplyCode::SUCCESS, "bye");
    let reported = line.carry();
    assert!(matches!(reported.0[..], [ClientEvent::Closed(_)]));
    assert!(matches!(reported.1[..], [ServerEvent::Closed(_)]));
    assert!(line.pair.client.is_finished() && line.pair.server.is_finished());
    line.record.client_stats = line.pair.client.stats();
    line.record.server_stats = line.pair.server.stats();
    line.record
}

fn shake_hands(line: &mut Line) {
    let (_, reported) = line.carry();
    assert!(matches!(reported[..], [ServerEvent::Authenticate(_)]));
    line.pair.server.challenge("who is there?").unwrap();
    let (_, reported) = line.carry();
    assert!(matches!(reported[..], [ServerEvent::Authenticate(_)]));
    line.pair.server.accept().unwrap();
    let (_, reported) = line.carry();
    assert!(matches!(reported[..], [ServerEvent::Open { .. }]));
    line.pair.server.open().unwrap();
    line.carry();
    assert!(line.pair.client.is_open() && line.pair.server.is_open());
}

/// Publishes, confirms and a returned message.
fn publish(line: &mut Line, id: ChannelId) {
    let arguments = FieldTable::new().with("x-max-length", 5);
    let declare = queue::Declare::default().arguments(arguments);
    line.client(id).call(&declare).unwrap();
    line.client(id).send(&queue::Purge::default()).unwrap();
    line.client(id).call(&confirm::Select::default()).unwrap();
    line.carry();
    let declared = queue::DeclareOk::default().queue("q");
    line.server(id).send(&declared).unwrap();
    line.server(id).send(&confirm::SelectOk).unwrap();
    line.carry();

    let publish = basic::Publish::default().routing_key("q");
    let properties = basic::Properties::default()
        .delivery_mode(2)
        .headers(FieldTable::new().with("number", 7));
    // A piece that is shared with the read buffer, and one that is copied.
    for (number, len) in [0, 10, 100, 2100].into_iter().enumerate() {
        let mandatory = publish.clone().mandatory(number == 2);
        let body = vec![0xCE; len];
        line.client(id)
            .publish(&mandatory, &properties, body)
            .unwrap();
    }
    let (_, reported) = line.carry();
    let seqs: Vec<_> = reported
        .into_iter()
        .map(|event| match event {
            ServerEvent::Published(published) => published.seq.unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    let returned = basic::Return::default().reply_code(ReplyCode::NO_ROUTE);
    let returned = returned.routing_key("q");
    let mut server = line.server(id);
    server
        .send_content(&returned, &properties, vec![0xCE; 100])
        .unwrap();
    server.confirm(seqs[1], true).unwrap();
    server.confirm(seqs[2], false).unwrap();
    let nack = basic::Nack::default().delivery_tag(seqs[3].get());
    server.send(&nack).unwrap();
    line.carry();

    // More than there is room for.
    let held_back = (0..)
        .map(|_| {
            let body = vec![1; 600];
            line.client(id).publish(&publish, &properties, body)
        })
        .find_map(Result::err);
    assert!(matches!(held_back, Some(PublishError::HeldBack { .. })));
    line.carry();
}

/// Deliveries, acknowledgements, messages that were fetched, and consumers that end.
fn consume(line: &mut Line, id: ChannelId) {
    for tag in ["one", "two", "three"] {
        let consume = basic::Consume::default().queue("q");
        let consume = consume.consumer_tag(tag);
        line.client(id).consume(consume).unwrap();
        line.carry();
        let ok = basic::ConsumeOk::default().consumer_tag(tag);
        line.server(id).send(&ok).unwrap();
    }
    let properties = basic::Properties::default().priority(0);
    let deliver = basic::Deliver::default().consumer_tag("one");
    for (tag, len) in (1..).zip([0, 5, 2100, 1]) {
        line.server(id)
            .send_content(
                &deliver.clone().delivery_tag(tag),
                &properties,
                vec![0xCE; len],
            )
            .unwrap();
    }
    let (reported, _) = line.carry();
    let tags: Vec<_> = reported
        .iter()
        .filter_map(|event| match event {
            ClientEvent::Delivered(delivery) => delivery.tag,
            _ => None,
        })
        .collect();
    let mut client = line.client(id);
    client.ack(Tags::UpTo(tags[1])).unwrap();
    client.nack(Tags::One(tags[2]), Requeue::No).unwrap();
    client.reject(tags[3], Requeue::Yes).unwrap();
    client.get(&basic::Get::default()).unwrap();
    client.get(&basic::Get::default()).unwrap();
    client.call(&basic::Recover::default()).unwrap();
    let cancel = basic::Cancel::default().consumer_tag("two");
    client.call(&cancel).unwrap();
    line.carry();
    let mut server = line.server(id);
    let got = basic::GetOk::default().delivery_tag(5);
    server.send_content(&got, &properties, "got").unwrap();
    server.send(&basic::GetEmpty).unwrap();
    server.send(&basic::RecoverOk).unwrap();
    let ok = basic::CancelOk::default().consumer_tag("two");
    server.send(&ok).unwrap();
    let cancel = basic::Cancel::default().consumer_tag("three");
    server.send(&cancel).unwrap();
    line.carry();
}

fn transact(line: &mut Line, id: ChannelId) {
    line.client(id).call(&tx::Select).unwrap();
    line.carry();
    line.server(id).send(&tx::SelectOk).unwrap();
    line.carry();
    let publish = basic::Publish::default();
    let properties = basic::Properties::default();
    line.client(id)
        .publish(&publish, &properties, "in a transaction")
        .unwrap();
    line.client(id).call(&tx::Commit).unwrap();
    // It waits for the end of the commit.
    line.client(id).publish(&publish, &properties, "x").unwrap();
    line.carry();
    line.server(id).send(&tx::CommitOk).unwrap();
    line.carry();
}

/// Flow, heartbeats, alarms and a new secret.
fn of_the_connection(line: &mut Line, id: ChannelId) {
    let heartbeats = raw_frame(8, 0, &[], 0xCE).repeat(2);
    line.hand_to_client(&heartbeats);
    line.hand_to_server(&heartbeats);
    for active in [false, true] {
        line.client(id).call(&channel::Flow { active }).unwrap();
        line.carry();
        // The server has no command for it, and would not expect the answer.
        let flow = channel::Flow { active };
        line.hand_to_client(&method_frame(id.number(), &flow.into()));
        line.pair.collect_output();
        let answer = channel::FlowOk { active };
        let answer = method_frame(id.number(), &answer.into());
        assert_eq!(line.pair.to_server.split(), answer[..]);
    }
    line.pair.server.block(short("low on memory")).unwrap();
    line.carry();
    line.pair.server.unblock().unwrap();
    let secret = Secret::from("a new token");
    line.pair
        .client
        .update_secret(secret, short("it expires"))
        .unwrap();
    line.carry();
}

/// Channels that are closed by either side, for faults of either side, with something under way.
fn channel_ends(line: &mut Line, ids: [ChannelId; 4], fails: ChannelId) {
    line.client(fails).call(&queue::Delete::default()).unwrap();
    line.carry();
    let text = "no queue 'q'";
    line.server(fails)
        .close(ReplyCode::NOT_FOUND, text, None)
        .unwrap();
    line.carry();

    let [publishes, consumes, transacts, _] = ids;
    line.client(transacts)
        .close(ReplyCode::SUCCESS, "bye")
        .unwrap();
    line.carry();

    // Messages of several frames, the first of which could have held more.
    let pieces = |id: ChannelId, method: Method| {
        let number = id.number();
        let mut message = method_frame(number, &method);
        message.extend(header_frame(number, 60, 0, 2500, &[0x10, 0, 2]));
        for len in [1, 0, 2048, 450, 1] {
            message.extend(body_frame(number, &vec![8; len]));
        }
        message
    };
    let deliver = basic::Deliver::default().consumer_tag("one");
    let deliver = deliver.delivery_tag(9);
    line.hand_to_server(&pieces(publishes, basic::Publish::default().into()));
    line.hand_to_client(&pieces(consumes, deliver.into()));
    // Bodies that are announced as larger than the limit, and come all the same.
    let too_large = |id: ChannelId, method: Method| {
        let number = id.number();
        [
            method_frame(number, &method),
            header_frame(number, 60, 0, 10_001, &[]),
            body_frame(number, &[7; 300]),
        ]
        .concat()
    };
    line.hand_to_server(&too_large(publishes, basic::Publish::default().into()));
    let deliver = basic::Deliver::default().consumer_tag("one");
    let deliver = |number| deliver.clone().delivery_tag(number).into();
    // A header that is larger than the limit, and one that is larger than a frame.
    for (number, len) in [(10, 9000), (11, 5000)] {
        let header = [&[0x20, 0][..], &headers_of(len)].concat();
        let message = [
            method_frame(consumes.number(), &deliver(number)),
            header_frame(consumes.number(), 60, 0, 2, &header),
            body_frame(consumes.number(), b"x"),
            body_frame(consumes.number(), b"y"),
        ];
        line.hand_to_client(&message.concat());
    }
    line.hand_to_client(&too_large(consumes, deliver(12)));
    line.carry();
}

/// A table with one field, which takes that many bytes or so.
fn headers_of(len: u32) -> Vec<u8> {
    let head = [&(len + 7).to_be_bytes()[..], b"\x01hS", &len.to_be_bytes()];
    [&head.concat()[..], &vec![b'h'; len as usize]].concat()
}

/// A word for each kind of event.
fn client_kind(event: &ClientEvent) -> &'static str {
    match event {
        ClientEvent::Opened => "opened",
        ClientEvent::Reply { channel: None, .. } => "reply of the connection",
        ClientEvent::Reply { .. } => "reply",
        ClientEvent::Got { message: None, .. } => "got nothing",
        ClientEvent::Got { .. } => "got",
        ClientEvent::Failed { .. } => "failed",
        ClientEvent::Delivered(_) => "delivered",
        ClientEvent::Unreadable { .. } => "unreadable",
        ClientEvent::Returned(_) => "returned",
        ClientEvent::Settled { .. } => "settled",
        ClientEvent::ConsumerCancelled { .. } => "consumer cancelled",
        ClientEvent::Flow { .. } => "flow",
        ClientEvent::SecretDue => "secret due",
        ClientEvent::Blocked { .. } => "blocked",
        ClientEvent::Unblocked => "unblocked",
        ClientEvent::Writable => "writable",
        ClientEvent::BacklogWritable => "backlog_writable",
        ClientEvent::ChannelWritable { .. } => "channel_writable",
        ClientEvent::ChannelClosed { .. } => "channel closed",
        ClientEvent::Closed(_) => "closed",
    }
}

fn server_kind(event: &ServerEvent) -> &'static str {
    match event {
        ServerEvent::Authenticate(_) => "authenticate",
        ServerEvent::Open { .. } => "open",
        ServerEvent::Opened => "opened",
        ServerEvent::ChannelOpened { .. } => "channel opened",
        ServerEvent::Request { .. } => "request",
        ServerEvent::Published(_) => "published",
        ServerEvent::Flow { .. } => "flow",
        ServerEvent::SecretUpdated { .. } => "secret updated",
        ServerEvent::ChannelClosed { .. } => "channel closed",
        ServerEvent::Writable => "writable",
        ServerEvent::Closed(_) => "closed",
    }
}

#[test]
fn everything_happens_in_the_dialogue() {
    let record = dialogue(Cut::Whole, Cut::Whole);
    let client: BTreeSet<_> = record.client.iter().map(client_kind).collect();
    let server: BTreeSet<_> = record.server.iter().map(server_kind).collect();
    assert_eq!(client.len(), 17, "{client:?}");
    // A server has the event of new room only after a refusal.
    assert_eq!(server.len(), 10, "{server:?}");
}

/// At every position near the end of a frame, and at some of the others: `tests/exhaustive/splits.rs`
/// has every position of smaller ones.
#[test]
fn the_dialogue_in_two_pieces() {
    let whole = dialogue(Cut::Whole, Cut::Whole);
    std::println!(
        "{} bytes to the client, {} to the server, {} at a time",
        whole.to_client.len(),
        whole.to_server.len(),
        whole.longest
    );
    let (mut count, positions) = (0, 1..whole.longest);
    for at in positions.filter(|at| whole.is_near_an_end(*at) || at % 31 == 0) {
        let cut = Cut::At(at);
        assert_eq!(dialogue(cut.clone(), cut), whole, "cut at {at}");
        count += 1;
    }
    std::println!("{count} positions");
}

#[test]
fn the_dialogue_in_pieces_of_one_size() {
    let whole = dialogue(Cut::Whole, Cut::Whole);
    for size in (1..100).chain([2047, 2048, 2049, 4095, 4096, 4097]) {
        let cut = Cut::Every(size);
        assert_eq!(dialogue(cut.clone(), cut), whole, "pieces of {size}");
    }
}

proptest! {
    #![proptest_config(cases(50))]

    #[test]
    fn the_dialogue_in_any_pieces(client: Cuts, server: Cuts) {
        let whole = dialogue(Cut::Whole, Cut::Whole);
        prop_assert_eq!(dialogue(Cut::Any(client), Cut::Any(server)), whole);
    }
}

//! The handshake by chosen arguments, and the responses of SASL.

use amqp_core::{
    Endpoint, Instant, Transmit,
    client::{self, Event as ClientEvent},
    frame::{Frame, FrameKind, PROTOCOL_HEADER, split_method},
    protocol::{Method, connection},
    sasl::{AmqPlain, External, Mechanism, Plain, SaslError, parse_amqplain, parse_plain},
    server::{self, Event as ServerEvent},
    wire::{FieldTable, LongStr, Secret, ShortStr},
};
use amqp_test_support::frames::method;
use bytes::BytesMut;

use crate::script::Script;

/// Limits of either side: none, too small ones, and usual ones.
const CHANNELS: [u16; 5] = [0, 1, 20, 2047, u16::MAX];
const FRAMES: [u32; 7] = [0, 1, 4095, 4096, 8192, 131_072, u32::MAX];
const HEARTBEATS: [u16; 4] = [0, 1, 60, u16::MAX];

/// The first byte chooses the side that is checked, or the parsers of SASL; the rest is the arguments
/// of the other side.
pub fn handshake(input: &[u8]) {
    let mut script = Script::new(input);
    match script.byte() % 3 {
        0 => client(&mut script),
        1 => server(&mut script),
        _ => sasl(script.rest()),
    }
}

/// The response of a login that was read is read alike. No error shows it.
fn sasl(response: &[u8]) {
    if let Ok(read) = parse_plain(response) {
        let plain = Plain::new(read.username.clone(), read.password.clone());
        let mut plain = plain.expect("no NUL is in it");
        assert_eq!(plain.initial_response().expose(), response);
    }
    if let Ok(read) = parse_amqplain(response) {
        let mut again = AmqPlain::new(read.username.clone(), read.password.clone());
        let again = again.initial_response();
        assert_eq!(parse_amqplain(again.expose()), Ok(read));
    }
    let (before, behind) = response.split_at(response.len() / 2);
    let marked = [before, b"C4n4ry", behind].concat();
    let show = |error: SaslError| {
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("C4n4ry"), "{shown}");
    };
    parse_plain(&marked).err().into_iter().for_each(show);
    parse_amqplain(&marked).err().into_iter().for_each(show);
}

fn table(script: &mut Script<'_>) -> FieldTable {
    let mut table = FieldTable::new();
    for _ in 0..script.below(3) {
        let name = script.pick(&["product", "capabilities", "basic.nack", "x"]);
        let name: ShortStr = name.parse().unwrap();
        if script.one_in(3) {
            let inner = FieldTable::new().with("basic.nack", script.one_in(2));
            table.push(name, inner);
        } else {
            let len = script.below(16);
            table.push(name, String::from_utf8_lossy(script.take(len)).into_owned());
        }
    }
    table
}

fn names(script: &mut Script<'_>) -> LongStr {
    const USUAL: [&str; 6] = ["PLAIN", "AMQPLAIN", "EXTERNAL PLAIN", "", " ", "en_US"];
    match USUAL.get(usize::from(script.byte() % 8)) {
        Some(usual) => LongStr::from(*usual),
        None => {
            let len = script.below(16);
            LongStr::from(script.take(len))
        }
    }
}

fn mechanisms(script: &mut Script<'_>) -> Vec<Box<dyn Mechanism>> {
    let mut all: Vec<Box<dyn Mechanism>> = vec![
        Box::new(Plain::default()),
        Box::new(AmqPlain::new("guest", "guest")),
        Box::new(External::new()),
    ];
    let first = script.below(3);
    all.drain(first..).collect()
}

fn client(script: &mut Script<'_>) {
    let mut config = client::Config::default();
    config.mechanisms = mechanisms(script);
    config.channel_max = script.pick(&CHANNELS);
    config.frame_max = script.pick(&FRAMES);
    let heartbeat = script.pick(&HEARTBEATS);
    config.heartbeat = script.one_in(2).then_some(heartbeat);
    let offered = config.clone();
    let Ok(mut machine) = client::Connection::new(config, Instant::ORIGIN) else {
        return;
    };
    let mut from_server = BytesMut::new();
    let start = connection::Start {
        version_major: script.byte() % 8 / 7,
        version_minor: if script.one_in(8) { script.byte() } else { 9 },
        server_properties: table(script),
        mechanisms: names(script),
        locales: names(script),
    };
    method(0, start.clone(), &mut from_server);
    if script.one_in(4) {
        let len = script.below(16);
        let challenge = LongStr::from(script.take(len));
        method(0, connection::Secure { challenge }, &mut from_server);
    }
    let tune = connection::Tune {
        channel_max: script.pick(&CHANNELS),
        frame_max: script.pick(&FRAMES),
        heartbeat: script.pick(&HEARTBEATS),
    };
    method(0, tune.clone(), &mut from_server);
    method(0, connection::OpenOk, &mut from_server);
    let mut opened = false;
    let mut said = Vec::new();
    let mut input = BytesMut::new();
    for piece in pieces(script, &from_server) {
        input.extend_from_slice(piece);
        machine.handle_input(Instant::ORIGIN, &mut input);
        said.extend(output(&mut machine));
        while let Some(event) = machine.poll_event() {
            opened |= matches!(event, ClientEvent::Opened);
        }
    }
    for method in &said {
        match method {
            Method::ConnectionStartOk(it) => {
                let known = offered
                    .mechanisms
                    .iter()
                    .any(|one| &*it.mechanism == one.name());
                let offered = String::from_utf8_lossy(&start.mechanisms);
                let offered = offered
                    .split_ascii_whitespace()
                    .any(|name| &*it.mechanism == name);
                assert!(known && offered, "{it:?}");
            }
            Method::ConnectionTuneOk(it) => {
                within(
                    it.channel_max.into(),
                    offered.channel_max.into(),
                    tune.channel_max.into(),
                );
                within(it.frame_max, offered.frame_max, tune.frame_max);
                assert!(it.frame_max == 0 || it.frame_max >= 4096, "{it:?}");
                assert_eq!(it.heartbeat, offered.heartbeat.unwrap_or(tune.heartbeat));
            }
            _ => {}
        }
    }
    assert_eq!(opened, machine.is_open());
    if opened {
        assert_eq!(
            machine.tuning().heartbeat,
            offered.heartbeat.unwrap_or(tune.heartbeat)
        );
    }
}

fn server(script: &mut Script<'_>) {
    let mut config = server::Config::default();
    config.channel_max = script.pick(&CHANNELS);
    config.frame_max = script.pick(&FRAMES);
    config.frame_min = script.pick(&FRAMES[3..5]);
    config.heartbeat = script.pick(&HEARTBEATS);
    let offered = config.clone();
    let Ok(mut machine) = server::Connection::new(config, Instant::ORIGIN) else {
        return;
    };
    let mut from_client = BytesMut::from(&PROTOCOL_HEADER[..]);
    let mechanism = script.pick(&["PLAIN", "AMQPLAIN", "EXTERNAL", "", "plain"]);
    let len = script.below(40);
    let start_ok = connection::StartOk {
        client_properties: table(script),
        mechanism: mechanism.parse().unwrap(),
        response: Secret::from(script.take(len)),
        locale: "en_US".parse().unwrap(),
    };
    method(0, start_ok.clone(), &mut from_client);
    let challenged = script.one_in(4);
    if challenged {
        let len = script.below(16);
        let response = Secret::from(script.take(len));
        method(0, connection::SecureOk { response }, &mut from_client);
    }
    let tune_ok = connection::TuneOk {
        channel_max: script.pick(&CHANNELS),
        frame_max: script.pick(&FRAMES),
        heartbeat: script.pick(&HEARTBEATS),
    };
    method(0, tune_ok, &mut from_client);
    let vhost = script.pick(&["/", "", "v"]);
    let open = connection::Open {
        virtual_host: vhost.parse().unwrap(),
    };
    method(0, open, &mut from_client);
    // A decision is refused if the connection has ended behind the question.
    let mut rounds = usize::from(challenged);
    let mut opened = false;
    let mut input = BytesMut::new();
    for piece in pieces(script, &from_client) {
        input.extend_from_slice(piece);
        machine.handle_input(Instant::ORIGIN, &mut input);
        while let Some(event) = machine.poll_event() {
            match event {
                ServerEvent::Authenticate(request) if rounds > 0 => {
                    rounds -= 1;
                    assert_eq!(request.response, start_ok.response);
                    let _ended = machine.challenge("again");
                }
                ServerEvent::Authenticate(request) => {
                    assert_eq!(request.mechanism, start_ok.mechanism);
                    sasl(request.response.expose());
                    let _ended = machine.accept();
                }
                ServerEvent::Open { virtual_host, .. } => {
                    assert_eq!(&*virtual_host, vhost);
                    opened = machine.open().is_ok();
                }
                _ => {}
            }
        }
        output(&mut machine);
    }
    if opened {
        let tuning = machine.tuning();
        assert!(offered.frame_max == 0 || tuning.frame_max <= offered.frame_max);
        assert!(offered.channel_max == 0 || tuning.channel_max <= offered.channel_max);
        assert!(tuning.frame_max >= offered.frame_min && tuning.channel_max > 0);
    }
}

/// A limit is neither above that of either side, nor none if one of them has one.
fn within(agreed: u32, ours: u32, theirs: u32) {
    for limit in [ours, theirs] {
        let kept = limit == 0 || (agreed != 0 && agreed <= limit);
        assert!(kept, "{agreed} of {ours} and {theirs}");
    }
}

/// The bytes in whole frames, as each side waits for the other.
fn pieces<'a>(script: &mut Script<'_>, bytes: &'a [u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let header = if bytes.starts_with(&PROTOCOL_HEADER) {
        8
    } else {
        0
    };
    let (first, mut rest) = bytes.split_at(header);
    if !first.is_empty() {
        pieces.push(first);
    }
    let all_at_once = script.one_in(8);
    while let Ok(Some(frame)) = Frame::parse(rest, u32::MAX) {
        let len = if all_at_once { rest.len() } else { frame.len() };
        let (piece, behind) = rest.split_at(len);
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

fn output(machine: &mut impl Endpoint) -> Vec<Method> {
    let mut out = Transmit::new();
    while machine.poll_transmit(Instant::ORIGIN, &mut out) {}
    let mut sent = BytesMut::new();
    for segment in out.take_segments() {
        sent.extend_from_slice(&segment);
    }
    let mut rest = &sent[..];
    rest = rest.strip_prefix(&PROTOCOL_HEADER).unwrap_or(rest);
    let mut methods = Vec::new();
    while let Ok(Some(frame)) = Frame::parse(rest, u32::MAX) {
        if frame.kind == FrameKind::Method {
            let (id, arguments) = split_method(frame.payload).unwrap();
            methods.push(Method::decode(id, arguments).unwrap());
        }
        rest = &rest[frame.len()..];
    }
    assert!(rest.is_empty(), "only whole frames are sent");
    methods
}

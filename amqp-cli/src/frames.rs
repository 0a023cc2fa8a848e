//! The frames of a byte stream, in words and without secrets.

use std::fmt::Write as _;

use amqp_tokio::{
    core::{
        Fault,
        frame::{ContentHeader, Frame, FrameKind, PROTOCOL_HEADER, split_method},
        text::{self, Escaped, Quoted},
    },
    protocol::{Method, basic::Properties},
    wire::{Decode as _, FieldValue},
};

/// The largest frame that is read, in bytes.
const FRAME_MAX: u32 = 128 << 20;

/// The parts of messages that are shown, which may be secret.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Detail {
    /// The values of properties and headers.
    pub(crate) properties: bool,
    /// The number of bytes of each body frame.
    pub(crate) body: usize,
}

/// A frame in words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Words {
    /// 0 is the connection itself.
    pub(crate) channel: u16,
    pub(crate) text: String,
}

/// Reads one direction of a connection.
#[derive(Debug)]
pub(crate) struct Decoder {
    input: Vec<u8>,
    /// The number of bytes of the input that were read.
    read: usize,
    state: State,
    detail: Detail,
}

/// ```text
/// Start ──> Frames ──> Lost
///   └─────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The protocol header may come.
    Start,
    Frames,
    /// The beginning of the next frame is unknown.
    Lost,
}

impl Decoder {
    pub(crate) const fn new(detail: Detail) -> Self {
        Self {
            input: Vec::new(),
            read: 0,
            state: State::Start,
            detail,
        }
    }

    /// Takes bytes of the stream.
    pub(crate) fn handle(&mut self, bytes: &[u8]) {
        if self.state == State::Lost {
            return;
        }
        self.input.drain(..self.read);
        self.read = 0;
        self.input.extend_from_slice(bytes);
    }

    /// Returns the next frame that is complete.
    pub(crate) fn poll(&mut self) -> Option<Words> {
        match self.state {
            State::Start => self.poll_header(),
            State::Frames => self.poll_frame(),
            State::Lost => None,
        }
    }

    /// The protocol header (section 4.2.2 of the specification). A broker sends one as well, to refuse
    /// that of the client.
    fn poll_header(&mut self) -> Option<Words> {
        let input = self.input.get(self.read..)?;
        let name = &PROTOCOL_HEADER[..4];
        if !name.starts_with(&input[..input.len().min(name.len())]) {
            self.state = State::Frames;
            return self.poll_frame();
        }
        let header = input.first_chunk::<8>()?;
        let text = match *header == PROTOCOL_HEADER {
            true => "AMQP 0-9-1".into(),
            false => format!("AMQP with the octets {:?}", &header[4..]),
        };
        self.read += header.len();
        self.state = State::Frames;
        Some(Words { channel: 0, text })
    }

    fn poll_frame(&mut self) -> Option<Words> {
        let frame = match Frame::parse(self.input.get(self.read..)?, FRAME_MAX) {
            Ok(frame) => frame?,
            Err(fault) => return Some(self.lose(&fault)),
        };
        let words = Words {
            channel: frame.channel,
            text: describe(&frame, self.detail),
        };
        self.read += frame.len();
        Some(words)
    }

    fn lose(&mut self, fault: &Fault) -> Words {
        self.state = State::Lost;
        (self.input, self.read) = (Vec::new(), 0);
        let text = format!("not a frame, the rest is not shown: {fault}");
        Words { channel: 0, text }
    }
}

fn describe(frame: &Frame<'_>, detail: Detail) -> String {
    let payload = frame.payload;
    match frame.kind {
        FrameKind::Method => match split_method(payload) {
            Ok((id, arguments)) => match Method::decode(id, arguments) {
                Ok(method) => method.to_string(),
                Err(error) => format!("{id}, of {} bytes: {error}", payload.len()),
            },
            Err(_) => format!("a method of {} bytes", payload.len()),
        },
        FrameKind::Header => match ContentHeader::parse(payload) {
            Ok(header) => describe_header(&header, detail),
            Err(_) => format!("header of {} bytes", payload.len()),
        },
        FrameKind::Body => describe_body(payload, detail),
        FrameKind::Heartbeat => "heartbeat".into(),
    }
}

fn describe_header(header: &ContentHeader<'_>, detail: Detail) -> String {
    let mut text = format!("header, {} bytes of body", header.body_size);
    match Properties::decode(header.properties) {
        Err(error) => {
            let size = header.properties.len();
            let _infallible = write!(text, ", {size} bytes of properties: {error}");
        }
        Ok(properties) if detail.properties => put_properties(&mut text, &properties),
        Ok(_) => {
            let size = header.properties.len();
            let _infallible = write!(text, ", {size} bytes of properties");
        }
    }
    text
}

/// The properties that are set, with the headers.
pub(crate) fn put_properties(line: &mut String, properties: &Properties) {
    for (name, value) in properties.present() {
        let _infallible = match &value {
            FieldValue::LongStr(text) => write!(line, " {name}={}", Quoted(&text.to_str_lossy())),
            FieldValue::Timestamp(time) => write!(line, " {name}={}", time.0),
            FieldValue::Table(headers) => {
                let json = serde_json::to_string(headers).unwrap_or_default();
                write!(line, " {name}={}", Escaped(&json))
            }
            number => write!(line, " {name}={}", number.as_i64().unwrap_or_default()),
        };
    }
}

fn describe_body(payload: &[u8], detail: Detail) -> String {
    let mut text = format!("body, {} bytes", payload.len());
    if detail.body > 0 {
        let front = &payload[..payload.len().min(detail.body)];
        let _infallible = write!(text, ": {}", octets_in_words(front, payload.len()));
    }
    text
}

/// The most octets that are shown of a text that is none.
const OCTETS: usize = 64;

/// The front of a body as text, with control characters escaped, or as octets. An ellipsis stands for
/// the rest of a body of that length.
pub(crate) fn octets_in_words(octets: &[u8], len: usize) -> String {
    let (mut words, shown) = match text::front(octets, octets.len() < len) {
        Some(text) => (Escaped(text).to_string(), text.len()),
        None => {
            let octets = &octets[..octets.len().min(OCTETS)];
            let digits: Vec<String> = octets.iter().map(|octet| format!("{octet:02x}")).collect();
            (digits.join(" "), octets.len())
        }
    };
    if shown < len {
        words.push('\u{2026}');
    }
    words
}

#[cfg(test)]
mod tests {
    use amqp_tokio::{
        core::{
            bytes::BytesMut,
            frame::{Frame, FrameKind},
        },
        protocol::{basic, connection},
        wire::{Encode as _, LongStr, Secret},
    };

    use super::{Decoder, Detail, octets_in_words};

    fn method<M: amqp_tokio::core::MethodDef + amqp_tokio::wire::Encode>(method: &M) -> Vec<u8> {
        let mut payload = BytesMut::new();
        payload.extend_from_slice(&M::ID.class.to_be_bytes());
        payload.extend_from_slice(&M::ID.method.to_be_bytes());
        method.encode(&mut payload);
        frame(FrameKind::Method, &payload)
    }

    fn frame(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        Frame {
            kind,
            channel: 1,
            payload,
        }
        .encode(&mut out);
        out.to_vec()
    }

    fn words(detail: Detail, input: &[u8], at_a_time: usize) -> Vec<String> {
        let mut decoder = Decoder::new(detail);
        let mut words = Vec::new();
        for piece in input.chunks(at_a_time) {
            decoder.handle(piece);
            words.extend(std::iter::from_fn(|| decoder.poll()).map(|it| it.text));
        }
        words
    }

    fn login() -> Vec<u8> {
        method(&connection::StartOk {
            response: Secret::from(LongStr::from_static("\0me\0hunter2")),
            ..Default::default()
        })
    }

    #[test]
    fn frames_are_the_same_however_the_bytes_are_cut() {
        let mut input = b"AMQP\x00\x00\x09\x01".to_vec();
        input.extend(login());
        input.extend(frame(FrameKind::Body, b"private"));
        input.extend(frame(FrameKind::Heartbeat, b""));
        let whole = words(Detail::default(), &input, input.len());
        assert_eq!(whole.len(), 4, "{whole:?}");
        assert_eq!(whole[0], "AMQP 0-9-1");
        assert_eq!(whole[2..], ["body, 7 bytes", "heartbeat"]);
        for at_a_time in 1..20 {
            assert_eq!(words(Detail::default(), &input, at_a_time), whole);
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let all = Detail {
            properties: true,
            body: 1000,
        };
        let update = connection::UpdateSecret {
            new_secret: Secret::from(LongStr::from_static("hunter2")),
            ..Default::default()
        };
        for input in [login(), method(&update)] {
            let words = words(all, &input, 1000).concat();
            assert!(words.contains("(secret)"), "{words}");
            assert!(!words.contains("hunter2"), "{words}");
        }
    }

    #[test]
    fn properties_and_bodies_are_shown_if_so_asked() {
        let mut payload = BytesMut::new();
        payload.extend_from_slice(&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        let properties = basic::Properties::default().header("token", "abc\n");
        properties.encode(&mut payload);
        let mut input = frame(FrameKind::Header, &payload);
        input.extend(frame(FrameKind::Body, b"private"));
        let shown = words(Detail::default(), &input, 1000).join("|");
        assert!(
            !shown.contains("abc") && !shown.contains("private"),
            "{shown}"
        );
        let detail = Detail {
            properties: true,
            body: 4,
        };
        let shown = words(detail, &input, 1000).join("|");
        assert!(shown.contains(r#"headers={"token":"abc\n"}"#), "{shown}");
        assert!(shown.ends_with("body, 7 bytes: priv\u{2026}"), "{shown}");
    }

    #[test]
    fn a_stream_that_has_no_frames_is_given_up() {
        let mut decoder = Decoder::new(Detail::default());
        decoder.handle(b"GET / HTTP/1.1\r\n");
        let words = decoder.poll().expect("a fault");
        assert!(words.text.starts_with("not a frame"), "{}", words.text);
        decoder.handle(&[8, 0, 0, 0, 0, 0, 0, 0xce]);
        assert_eq!(decoder.poll(), None);
        assert!(decoder.input.is_empty());
    }

    #[test]
    fn octets_are_text_if_they_can_be() {
        assert_eq!(octets_in_words("gr\u{fc}n".as_bytes(), 5), "gr\u{fc}n");
        assert_eq!(
            octets_in_words(&"gr\u{fc}n".as_bytes()[..3], 5),
            "gr\u{2026}"
        );
        assert_eq!(octets_in_words(b"\x1b[2J\n", 5), r"\u{1b}[2J\n");
        assert_eq!(octets_in_words(&[0xff, 0], 2), "ff 00");
    }
}

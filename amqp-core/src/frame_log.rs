//! The last frames of a connection, in words.

use alloc::{collections::VecDeque, string::String};
use core::fmt::{self, Write as _};

use crate::{
    frame::{ContentHeader, FrameHead, FrameKind, split_method},
    protocol::Method,
    time::Instant,
};

/// The maximum length of the words of a frame, in bytes.
const TEXT_MAX: usize = 240;

/// The last frames of a connection, in words: to be printed with an error.
///
/// Has no secrets: credentials are left out, and of message bodies, properties and the values of
/// tables, headers included, only sizes are kept. Names of queues, exchanges and routing keys are.
/// Each frame takes some 300 bytes at most, however large it is.
///
/// [`Config::frame_log`](crate::client::Config::frame_log) sets the number of frames. A
/// [`CloseReason`](crate::CloseReason::frame_log) has the log as it was at that end.
///
/// ```
/// use amqp_core::{Instant, Transmit, client::{Config, Connection}};
///
/// let now = Instant::ORIGIN;
/// let mut connection = Connection::new(Config::default().frame_log(32), now)?;
/// connection.poll_transmit(now, &mut Transmit::new());
/// let log = connection.frame_log().expect("it is on");
/// assert_eq!(
///     log.to_string(),
///     "the last 1 of 1 frames:\n    0.000000 s  sent      AMQP 0-9-1"
/// );
/// # Ok::<_, amqp_core::ApiMisuse>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameLog {
    frames: VecDeque<LoggedFrame>,
    capacity: usize,
    /// The number of frames ever recorded.
    count: u64,
}

/// A frame in words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoggedFrame {
    /// The time at which it was processed, or handed out.
    pub time: Instant,
    /// Its direction.
    pub direction: Direction,
    /// The channel number; 0 is the connection itself.
    pub channel: u16,
    /// The method and its arguments, or the kind and the size.
    pub text: String,
}

/// The direction of a frame, as this side sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the peer.
    Sent,
    /// From the peer.
    Received,
}

impl FrameLog {
    pub(crate) const fn new(capacity: usize) -> Self {
        Self {
            frames: VecDeque::new(),
            capacity,
            count: 0,
        }
    }

    /// The frames, the oldest first.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = &LoggedFrame> {
        self.frames.iter()
    }

    /// The number of frames since the start of the connection, those that are kept no more
    /// included.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Records a frame, of which the payload may be only the front; that of a body is not read.
    pub(crate) fn record(
        &mut self,
        time: Instant,
        direction: Direction,
        head: &FrameHead,
        payload: &[u8],
    ) {
        let mut text = Cut::default();
        // Fails if there is more text than is kept.
        let _whole = describe(&mut text, head, payload);
        self.push(time, direction, head.channel, text.0);
    }

    /// Records the protocol header, which is no frame (section 4.2.2 of the specification).
    pub(crate) fn record_header(&mut self, time: Instant, direction: Direction) {
        self.push(time, direction, 0, "AMQP 0-9-1".into());
    }

    fn push(&mut self, time: Instant, direction: Direction, channel: u16, text: String) {
        if self.frames.len() >= self.capacity {
            self.frames.pop_front();
        }
        self.count += 1;
        self.frames.push_back(LoggedFrame {
            time,
            direction,
            channel,
            text,
        });
    }
}

fn describe(out: &mut Cut, head: &FrameHead, payload: &[u8]) -> fmt::Result {
    match head.kind {
        FrameKind::Method => match split_method(payload) {
            Ok((id, arguments)) => match Method::decode(id, arguments) {
                Ok(method) => write!(out, "{method}"),
                Err(error) => write!(out, "{id}, of {} bytes: {error}", head.size),
            },
            Err(_) => write!(out, "a method of {} bytes", head.size),
        },
        FrameKind::Header => match ContentHeader::parse(payload) {
            Ok(header) => {
                let fixed = payload.len() - header.properties.len();
                let properties = head.size.saturating_sub(fixed);
                let body = header.body_size;
                write!(
                    out,
                    "header, {properties} bytes of properties, {body} bytes of body"
                )
            }
            Err(_) => write!(out, "header of {} bytes", head.size),
        },
        FrameKind::Body => write!(out, "body, {} bytes", head.size),
        FrameKind::Heartbeat => out.write_str("heartbeat"),
    }
}

/// One frame a line, without a newline at the end.
impl fmt::Display for FrameLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the last {} of {} frames:",
            self.frames.len(),
            self.count
        )?;
        self.frames
            .iter()
            .try_for_each(|frame| write!(f, "\n{frame}"))
    }
}

impl fmt::Display for LoggedFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.time.as_nanos() / 1000;
        let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
        let direction = match self.direction {
            Direction::Sent => "sent",
            Direction::Received => "received",
        };
        write!(f, "{seconds:5}.{rest:06} s  {direction:8}  ")?;
        if self.channel > 0 {
            write!(f, "channel {}: ", self.channel)?;
        }
        f.write_str(&self.text)
    }
}

/// A text that ends with an ellipsis where it would grow too long.
#[derive(Default)]
struct Cut(String);

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = TEXT_MAX.saturating_sub(self.0.len());
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let mut end = room;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.0.push_str(text.get(..end).unwrap_or_default());
        self.0.push('\u{2026}');
        Err(fmt::Error)
    }
}

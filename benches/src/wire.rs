//! Frames, written by hand: those of the small server, and those of the raw socket.
//!
//! Nothing here comes from `amqp-core`: the measured code does not measure itself.

/// A client's first bytes.
pub(crate) const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";

/// The octet at the end of every frame.
pub(crate) const FRAME_END: u8 = 0xCE;

/// Type, channel and size before a payload, in bytes.
pub(crate) const FRAME_HEAD: usize = 7;

/// The bytes of a frame beside its payload.
pub(crate) const FRAME_OVERHEAD: usize = FRAME_HEAD + 1;

/// The largest frame, in bytes: RabbitMQ's own default.
pub(crate) const FRAME_MAX: u32 = 131_072;

/// The highest channel number: RabbitMQ's own default.
pub(crate) const CHANNEL_MAX: u16 = 2047;

/// The consumer tag of every client.
pub(crate) const CONSUMER_TAG: &str = "c";

/// The routing key of every message, and a broker's queue.
pub(crate) const ROUTING_KEY: &str = "amqp-bench";

/// The class and method numbers of the methods that pass between a client and the server.
pub(crate) mod method {
    pub(crate) const START: (u16, u16) = (10, 10);
    pub(crate) const START_OK: (u16, u16) = (10, 11);
    pub(crate) const TUNE: (u16, u16) = (10, 30);
    pub(crate) const TUNE_OK: (u16, u16) = (10, 31);
    pub(crate) const OPEN: (u16, u16) = (10, 40);
    pub(crate) const OPEN_OK: (u16, u16) = (10, 41);
    pub(crate) const CLOSE: (u16, u16) = (10, 50);
    pub(crate) const CLOSE_OK: (u16, u16) = (10, 51);
    pub(crate) const CHANNEL_OPEN: (u16, u16) = (20, 10);
    pub(crate) const CHANNEL_OPEN_OK: (u16, u16) = (20, 11);
    pub(crate) const CHANNEL_CLOSE: (u16, u16) = (20, 40);
    pub(crate) const CHANNEL_CLOSE_OK: (u16, u16) = (20, 41);
    pub(crate) const QUEUE_DECLARE: (u16, u16) = (50, 10);
    pub(crate) const QUEUE_DECLARE_OK: (u16, u16) = (50, 11);
    pub(crate) const QOS: (u16, u16) = (60, 10);
    pub(crate) const QOS_OK: (u16, u16) = (60, 11);
    pub(crate) const CONSUME: (u16, u16) = (60, 20);
    pub(crate) const CONSUME_OK: (u16, u16) = (60, 21);
    pub(crate) const CANCEL: (u16, u16) = (60, 30);
    pub(crate) const CANCEL_OK: (u16, u16) = (60, 31);
    pub(crate) const PUBLISH: (u16, u16) = (60, 40);
    pub(crate) const DELIVER: (u16, u16) = (60, 60);
    pub(crate) const GET: (u16, u16) = (60, 70);
    pub(crate) const GET_OK: (u16, u16) = (60, 71);
    pub(crate) const ACK: (u16, u16) = (60, 80);
    pub(crate) const CONFIRM_SELECT: (u16, u16) = (85, 10);
    pub(crate) const CONFIRM_SELECT_OK: (u16, u16) = (85, 11);
}

/// A payload being written.
#[derive(Debug, Default)]
pub(crate) struct Arguments(Vec<u8>);

impl Arguments {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn octet(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn short(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn long(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn long_long(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A text of at most 255 bytes.
    pub(crate) fn short_str(self, value: &str) -> Self {
        let len = u8::try_from(value.len()).expect("the texts here are short");
        self.octet(len).bytes(value.as_bytes())
    }

    pub(crate) fn long_str(self, value: &[u8]) -> Self {
        let len = u32::try_from(value.len()).expect("the texts here are short");
        self.long(len).bytes(value)
    }

    fn bytes(mut self, value: &[u8]) -> Self {
        self.0.extend_from_slice(value);
        self
    }
}

/// Appends a frame.
pub(crate) fn put_frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) {
    let size = u32::try_from(payload.len()).expect("a frame is smaller");
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(payload);
    out.push(FRAME_END);
}

/// Appends a method frame.
pub(crate) fn put_method(
    out: &mut Vec<u8>,
    channel: u16,
    (class, method): (u16, u16),
    arguments: Arguments,
) {
    let mut payload = Arguments::new().short(class).short(method);
    payload.0.extend(arguments.0);
    put_frame(out, 1, channel, &payload.0);
}

/// Appends a content header without properties, and a body.
fn put_content(out: &mut Vec<u8>, channel: u16, body: &[u8]) {
    let header = Arguments::new()
        .short(60)
        .short(0)
        .long_long(body.len() as u64)
        .short(0);
    put_frame(out, 2, channel, &header.0);
    for piece in body.chunks(FRAME_MAX as usize - FRAME_OVERHEAD) {
        put_frame(out, 3, channel, piece);
    }
}

/// Appends a message to the default exchange.
pub(crate) fn put_publish(out: &mut Vec<u8>, channel: u16, body: &[u8]) {
    let arguments = Arguments::new()
        .short(0)
        .short_str("")
        .short_str(ROUTING_KEY)
        .octet(0);
    put_method(out, channel, method::PUBLISH, arguments);
    put_content(out, channel, body);
}

/// Appends a delivery; gives back where in `out` its delivery tag stands.
pub(crate) fn put_deliver(
    out: &mut Vec<u8>,
    channel: u16,
    consumer_tag: &str,
    body: &[u8],
) -> usize {
    let tag_at = out.len() + FRAME_HEAD + 4 + 1 + consumer_tag.len();
    let arguments = Arguments::new()
        .short_str(consumer_tag)
        .long_long(0)
        .octet(0)
        .short_str("")
        .short_str(ROUTING_KEY);
    put_method(out, channel, method::DELIVER, arguments);
    put_content(out, channel, body);
    tag_at
}

/// Appends `basic.get` without an acknowledgement.
pub(crate) fn put_get(out: &mut Vec<u8>, channel: u16, queue: &str) {
    let arguments = Arguments::new().short(0).short_str(queue).octet(1);
    put_method(out, channel, method::GET, arguments);
}

/// Appends `basic.get-ok` with its message.
pub(crate) fn put_get_ok(out: &mut Vec<u8>, channel: u16, body: &[u8]) {
    let arguments = Arguments::new()
        .long_long(1)
        .octet(0)
        .short_str("")
        .short_str(ROUTING_KEY)
        .long(0);
    put_method(out, channel, method::GET_OK, arguments);
    put_content(out, channel, body);
}

/// Appends an acknowledgement of everything up to a tag.
pub(crate) fn put_ack(out: &mut Vec<u8>, channel: u16, tag: u64) {
    let arguments = Arguments::new().long_long(tag).octet(1);
    put_method(out, channel, method::ACK, arguments);
}

/// Appends the question how many messages have come: a passive declare, which the small server
/// answers with a count.
pub(crate) fn put_count(out: &mut Vec<u8>, channel: u16) {
    let arguments = Arguments::new()
        .short(0)
        .short_str(ROUTING_KEY)
        .octet(1)
        .long(0);
    put_method(out, channel, method::QUEUE_DECLARE, arguments);
}

/// Appends `connection.start`, the server's first word.
pub(crate) fn put_start(out: &mut Vec<u8>) {
    let capabilities = ["publisher_confirms", "basic.nack", "consumer_cancel_notify"]
        .iter()
        .fold(Arguments::new(), |table, name| {
            table.short_str(name).octet(b't').octet(1)
        });
    let properties = Arguments::new()
        .short_str("product")
        .octet(b'S')
        .long_str(b"amqp-bench sink")
        .short_str("capabilities")
        .octet(b'F')
        .long_str(&capabilities.0);
    let arguments = Arguments::new()
        .octet(0)
        .octet(9)
        .long_str(&properties.0)
        .long_str(b"PLAIN AMQPLAIN")
        .long_str(b"en_US");
    put_method(out, 0, method::START, arguments);
}

/// Appends `connection.tune`, without heartbeats.
pub(crate) fn put_tune(out: &mut Vec<u8>) {
    put_tuning(out, method::TUNE);
}

/// Appends `connection.start-ok`.
pub(crate) fn put_start_ok(out: &mut Vec<u8>, user: &str, password: &str) {
    let start_ok = Arguments::new()
        .long(0)
        .short_str("PLAIN")
        .long_str(format!("\0{user}\0{password}").as_bytes())
        .short_str("en_US");
    put_method(out, 0, method::START_OK, start_ok);
}

/// Appends `connection.tune-ok` and `connection.open`.
pub(crate) fn put_open(out: &mut Vec<u8>, vhost: &str) {
    put_tuning(out, method::TUNE_OK);
    let open = Arguments::new().short_str(vhost).short_str("").octet(0);
    put_method(out, 0, method::OPEN, open);
}

/// Appends `connection.close`.
pub(crate) fn put_close(out: &mut Vec<u8>) {
    let arguments = Arguments::new().short(200).short_str("").long(0);
    put_method(out, 0, method::CLOSE, arguments);
}

/// Appends `confirm.select`.
pub(crate) fn put_confirm_select(out: &mut Vec<u8>, channel: u16) {
    put_method(
        out,
        channel,
        method::CONFIRM_SELECT,
        Arguments::new().octet(0),
    );
}

fn put_tuning(out: &mut Vec<u8>, method: (u16, u16)) {
    let arguments = Arguments::new().short(CHANNEL_MAX).long(FRAME_MAX).short(0);
    put_method(out, 0, method, arguments);
}

/// Appends `connection.open-ok`.
pub(crate) fn put_open_ok(out: &mut Vec<u8>) {
    put_method(out, 0, method::OPEN_OK, Arguments::new().short_str(""));
}

/// Appends `channel.open`.
pub(crate) fn put_channel_open(out: &mut Vec<u8>, channel: u16) {
    let arguments = Arguments::new().short_str("");
    put_method(out, channel, method::CHANNEL_OPEN, arguments);
}

/// Appends `channel.open-ok`.
pub(crate) fn put_channel_open_ok(out: &mut Vec<u8>, channel: u16) {
    let arguments = Arguments::new().long_str(b"");
    put_method(out, channel, method::CHANNEL_OPEN_OK, arguments);
}

/// Appends `basic.consume`.
pub(crate) fn put_consume(out: &mut Vec<u8>, channel: u16, queue: &str, no_ack: bool) {
    let arguments = Arguments::new()
        .short(0)
        .short_str(queue)
        .short_str(CONSUMER_TAG)
        .octet(if no_ack { 2 } else { 0 })
        .long(0);
    put_method(out, channel, method::CONSUME, arguments);
}

/// Appends `basic.consume-ok`.
pub(crate) fn put_consume_ok(out: &mut Vec<u8>, channel: u16, consumer_tag: &str) {
    let arguments = Arguments::new().short_str(consumer_tag);
    put_method(out, channel, method::CONSUME_OK, arguments);
}

/// The target of a blast of deliveries.
#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    pub(crate) channel: u16,
    pub(crate) tag: String,
}

/// A stream of deliveries, encoded in advance but for the delivery tags: a block that is sent over
/// and over. The consumers take turns, and delivery tags count from 1 on each channel.
#[derive(Debug)]
pub(crate) struct Blast {
    block: Vec<u8>,
    /// Of each message in the block: where its delivery tag stands, and where the message ends.
    messages: Vec<(usize, usize)>,
    consumers: usize,
    /// How many messages were handed out.
    sent: u64,
    /// How many are left.
    left: u64,
}

impl Blast {
    /// `count` messages for the consumers, in blocks of at least `block` bytes.
    pub(crate) fn new(consumers: &[Consumer], body: &[u8], count: u64, block: usize) -> Self {
        let mut blast = Self {
            block: Vec::new(),
            messages: Vec::new(),
            consumers: consumers.len(),
            sent: 0,
            left: count,
        };
        while blast.block.len() < block {
            for consumer in consumers {
                let tag_at = put_deliver(&mut blast.block, consumer.channel, &consumer.tag, body);
                blast.messages.push((tag_at, blast.block.len()));
            }
        }
        blast
    }

    /// How many consumers take turns.
    pub(crate) const fn consumers(&self) -> u64 {
        self.consumers as u64
    }

    /// The next block, and how many messages are in it; none at the end.
    pub(crate) fn next_block(&mut self) -> Option<(&[u8], u64)> {
        let count = (self.messages.len() as u64).min(self.left);
        let messages = &self.messages[..usize::try_from(count).ok()?];
        let &(_, end) = messages.last()?;
        let round = self.sent / self.consumers as u64;
        for (tags, messages) in (round + 1..).zip(messages.chunks(self.consumers)) {
            for &(tag_at, _) in messages {
                self.block[tag_at..tag_at + 8].copy_from_slice(&tags.to_be_bytes());
            }
        }
        self.sent += count;
        self.left -= count;
        Some((&self.block[..end], count))
    }
}

/// How many bytes a delivery has on the wire.
pub(crate) fn delivery_len(body: &[u8]) -> usize {
    let mut one = Vec::new();
    put_deliver(&mut one, 1, CONSUMER_TAG, body);
    one.len()
}

//! The memory that a kept message keeps alive, and that of its copy: the table in
//! `docs/embedding.md`.

use amqp_core::{
    Body, ChannelId, Instant, TimeoutReason, Transmit,
    bytes::{Bytes, BytesMut},
    client::{self, Checks},
    protocol::basic,
    server,
};
use amqp_test_support::meter;

#[global_allocator]
static COUNTING: meter::Counting = meter::Counting;

const NOW: Instant = Instant::ORIGIN;
/// The size of a read.
const READ: usize = 64 << 10;
/// The number of messages, and of those one of which is kept.
const MESSAGES: usize = 4000;
const ONE_OF: usize = 100;

/// A client with a consumer, and its server.
struct Pair {
    client: client::Connection,
    server: server::Connection,
    input: BytesMut,
    /// The channel, as the server has it.
    channel: Option<ChannelId>,
}

/// Takes the output of a side.
fn taken(poll: impl FnOnce(&mut Transmit)) -> BytesMut {
    let mut out = Transmit::new();
    poll(&mut out);
    let mut bytes = BytesMut::new();
    for segment in out.take_segments() {
        bytes.extend_from_slice(&segment);
    }
    bytes
}

impl Pair {
    fn new() -> Self {
        let config = client::Config::default().checks(Checks::Standard);
        let mut pair = Self {
            client: client::Connection::new(config, NOW).unwrap(),
            server: server::Connection::new(server::Config::default(), NOW).unwrap(),
            input: BytesMut::new(),
            channel: None,
        };
        for _ in 0..8 {
            pair.exchange();
        }
        let (id, _) = pair.client.open_channel().unwrap();
        pair.exchange();
        let consume = basic::Consume::default().consumer_tag("t");
        let mut channel = pair.client.channel(id).unwrap();
        channel.consume(consume.no_wait(true).no_ack(true)).unwrap();
        pair.exchange();
        pair
    }

    fn exchange(&mut self) {
        let Self {
            client,
            server,
            channel: opened,
            ..
        } = self;
        let mut bytes = taken(|out| while client.poll_transmit(NOW, out) {});
        server.handle_input(NOW, &mut bytes);
        while let Some(event) = server.poll_event() {
            match event {
                server::Event::Authenticate(_) => server.accept().unwrap(),
                server::Event::Open { .. } => server.open().unwrap(),
                server::Event::ChannelOpened { channel } => *opened = Some(channel),
                _ => {}
            }
        }
        let mut bytes = taken(|out| while server.poll_transmit(NOW, out) {});
        client.handle_input(NOW, &mut bytes);
        while client.poll_event().is_some() {}
    }

    /// Delivers `messages` messages of that size, `together` at a time, and passes each on.
    fn deliver(
        &mut self,
        size: usize,
        messages: usize,
        together: usize,
        mut each: impl FnMut(client::Delivery),
    ) {
        let body = Bytes::from(vec![1; size]);
        for number in 1..=messages {
            let deliver = basic::Deliver::default().consumer_tag("t");
            let deliver = deliver.delivery_tag(number as u64);
            let mut channel = self.server.channel(self.channel.unwrap()).unwrap();
            let properties = basic::Properties::default();
            channel
                .send_content(&deliver, &properties, body.clone())
                .unwrap();
            if number % together > 0 {
                continue;
            }
            let server = &mut self.server;
            let bytes = taken(|out| while server.poll_transmit(NOW, out) {});
            for read in bytes.chunks(READ) {
                self.input.reserve(READ);
                self.input.extend_from_slice(read);
                self.client.handle_input(NOW, &mut self.input);
            }
            while let Some(event) = self.client.poll_event() {
                if let client::Event::Delivered(delivery) = event {
                    each(delivery);
                }
            }
        }
        while let Some((at, TimeoutReason::Idle)) = self.client.poll_timeout() {
            self.client.handle_timeout(at);
        }
    }

    /// Delivers messages of that size one by one, and returns the kept part of one of each hundred.
    fn keep_some<T>(&mut self, size: usize, keep: impl Fn(client::Delivery) -> T) -> Vec<T> {
        let mut kept = Vec::with_capacity(MESSAGES / ONE_OF);
        let mut count = 0;
        self.deliver(size, MESSAGES, 1, |delivery| {
            count += 1;
            if count % ONE_OF == 0 {
                kept.push(keep(delivery));
            }
        });
        assert_eq!(count, MESSAGES);
        kept
    }

    /// Delivers messages of that size, `count` in each read, and returns their bodies.
    fn keep_all(&mut self, size: usize, count: usize) -> Vec<Body> {
        let mut kept = Vec::with_capacity(200 * count);
        self.deliver(size, 200 * count, count, |delivery| {
            kept.push(delivery.content.body);
        });
        kept
    }
}

/// The bytes that the thread holds more for each kept message, with a connection at rest.
fn cost<T>(size: usize, keep: impl Fn(client::Delivery) -> T) -> usize {
    let mut pair = Pair::new();
    drop(pair.keep_some(size, |_| ())); // until all buffers have their size
    let before = meter::held();
    let kept = pair.keep_some(size, keep);
    (meter::held() - before) / kept.len()
}

/// The rows of the table: the size of a body, and the bounds of the memory that a kept body and a
/// copy of it take.
const ROWS: [(usize, usize, usize); 6] = [
    (100, 8_200, 150),
    (600, 8_200, 700),
    (4_000, 4_100, 4_100),
    (20_000, 20_100, 20_100),
    (30_000, 90_000, 30_100),
    (60_000, 66_000, 60_100),
];

#[test]
fn a_kept_body_costs_no_more_than_the_guide_says() {
    for (size, kept, copied) in ROWS {
        let body = cost(size, |delivery| delivery.content.body);
        let copy = cost(size, |delivery| {
            Bytes::copy_from_slice(&delivery.content.body.as_slice())
        });
        println!("of {size} bytes: kept {body}, copied {copy}");
        assert!(body <= kept, "{size}: {body}");
        assert!(copy <= copied, "{size}: {copy}");
    }
}

/// Several messages in each read, all of which are kept. They fill the blocks that they share: no room for
/// another one is left.
#[test]
fn bodies_that_are_all_kept_fill_the_blocks_that_they_share() {
    let shapes = [
        (1950, 5),
        (1700, 5),
        (1500, 6),
        (1180, 9),
        (1123, 7),
        (1024, 8),
        (1024, 2),
        (700, 6),
        (500, 10),
        (100, 50),
    ];
    for (size, count) in shapes {
        let mut pair = Pair::new();
        drop(pair.keep_all(size, count));
        let before = meter::held();
        let kept = pair.keep_all(size, count);
        let each = (meter::held() - before) / kept.len();
        println!("of {size} bytes, {count} in a read: {each}");
        // The frames around a body are copied with it.
        let bound = (size + 60) * 7 / 6 + 100;
        assert!(
            each <= bound,
            "{size}, {count} in a read: {each} of {bound}"
        );
    }
}

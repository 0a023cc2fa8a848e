//! The handles of a client under faults, with megabytes of input that no task takes.

use std::{cell::Cell, rc::Rc, time::Duration};

use amqp_driver::{
    Channel, Connection, Consumer, ManualAck, Returns,
    core::{
        frame::FrameKind,
        protocol::{ReplyCode, basic, connection},
        wire::{Encode as _, FieldTable},
    },
};
use amqp_test_support::{
    Cut, Rig, Setup, Task,
    frames::{frame, method},
    meter::{held, peak_of},
};
use bytes::BytesMut;

use crate::script::Script;

/// The limits of the client, in bytes.
const UNDELIVERED: usize = 64 << 10;
const BODY: usize = 256 << 10;
const OUTPUT: usize = 64 << 10;

/// The bytes of publishes that wait for room, which their futures hold.
const WAITING: usize = 256 << 10;

/// The most that the client keeps of messages that nothing takes: those that were returned, eight times
/// the limit while a publish waits; deliveries, twice the limit, and one of any size for each consumer.
const UNTAKEN: usize = 10 * UNDELIVERED + 2 * BODY;

/// The most that the client holds: messages, of which each may be a slice of a buffer that is twice as
/// large, unfinished ones, output and backlog, what waits, and buffers of the transport.
const ALLOWED: usize = 2 * UNTAKEN + 2 * BODY + 4 * OUTPUT + WAITING + (1 << 20);

/// The bytes on the way to a client that does not read, beyond which there are no more.
const UNREAD: usize = 256 << 10;

/// The input of one run, in bytes.
const INPUT: usize = 16 << 20;

/// The most bytes of the headers of a message.
const HEADERS: usize = 60_000;

/// The most that the transport holds on the way to the server, in bytes.
const CAPACITY: usize = 100_000;

/// The time behind which everything has ended: every timeout of the client, one after the other.
const PATIENCE: Duration = Duration::from_secs(1000);

struct Client {
    rig: Rig,
    connection: Connection,
    channel: Rc<Channel>,
    consumers: [Consumer<ManualAck>; 2],
    /// The returned messages, which nothing takes.
    returns: Returns,
    /// The publishes that were begun.
    publishes: Vec<Task<()>>,
    waiting: Rc<Cell<usize>>,
    tag: u64,
    /// The bytes that may still be injected.
    left: usize,
}

/// The input is a list of things that happen. Nothing but single deliveries is taken.
pub fn handles(input: &[u8]) {
    let before = held();
    let ((), peak) = peak_of(|| {
        let mut client = Client::open();
        let mut script = Script::new(input);
        while !script.is_empty() {
            client.step(&mut script);
        }
        client.end();
    });
    assert!(peak <= ALLOWED, "{peak} of {ALLOWED} bytes");
    let left = held().saturating_sub(before);
    assert!(left < 4096, "{left} bytes are left");
}

impl Client {
    fn open() -> Self {
        let mut setup = Setup::default();
        let limits = &mut setup.client.limits;
        limits.undelivered = UNDELIVERED;
        limits.body = BODY as u64;
        limits.assembly = 2 * BODY as u64;
        limits.output_high = OUTPUT;
        limits.output_low = OUTPUT / 4;
        limits.output_backlog = OUTPUT;
        limits.header = 64 << 10;
        let (mut rig, connection) = Rig::open_with(setup);
        rig.world().set_capacity(CAPACITY);
        let channel = rig.channel(&connection);
        let consumers = [(); 2].map(|()| {
            rig.wait(channel.consume(basic::Consume::default()))
                .unwrap()
        });
        Self {
            rig,
            connection,
            returns: channel.returns(),
            channel: Rc::new(channel),
            consumers,
            publishes: Vec::new(),
            waiting: Rc::default(),
            tag: 0,
            left: INPUT,
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 16 {
            kind @ 0..3 => {
                let count = 1 + script.below(64);
                let size = script.pick(&[0, 1, 1000, 30_000, 120_000, BODY, BODY + 1]);
                let at = script.below(3);
                let (size, headers) = if kind == 2 {
                    (0, size.min(HEADERS))
                } else {
                    (size, 0)
                };
                for _ in 0..count {
                    self.deliver(at, size, headers);
                }
            }
            3 => {
                let count = 1 + script.below(64);
                let size = script.pick(&[0, 1000, 120_000]);
                for _ in 0..count {
                    self.send_back(size);
                }
            }
            4 => self.begin_message(script),
            5 => self.publish(script),
            6 => {
                let len = script.below(32);
                let bytes = script.take(len).to_vec();
                self.inject(&bytes);
            }
            7 => {
                let mut bytes = BytesMut::new();
                match script.byte() % 5 {
                    0 => method(0, connection::Blocked::default(), &mut bytes),
                    1 => method(0, connection::Unblocked, &mut bytes),
                    2 => {
                        let cancel = basic::Cancel {
                            consumer_tag: self.consumers[script.below(2)].tag().clone(),
                            no_wait: true,
                        };
                        method(1, cancel, &mut bytes);
                    }
                    how => {
                        let active = script.one_in(2);
                        let mut peer = self.rig.peer();
                        let open = peer.machine.is_open() && peer.open_channels().contains(&1);
                        if open && how == 3 {
                            peer.flow(1, active);
                        } else if open {
                            peer.close_channel(1, ReplyCode::NOT_FOUND, "");
                        }
                    }
                }
                self.inject(&bytes);
            }
            8 => {
                let capacity = script.pick(&[0, 1, 100, 10_000, CAPACITY]);
                self.rig.world().set_capacity(capacity);
            }
            9 => {
                let most = script.pick(&[50, 1000, usize::MAX]);
                // Small reads of megabytes take long, and are the same.
                self.rig.world().read_max = most.max(1000);
                self.rig.world().write_max = most;
            }
            10 => {
                let mut world = self.rig.world();
                world.stutter = !world.stutter;
            }
            11 => {
                let deaf = !self.rig.peer().deaf;
                self.rig.peer().deaf = deaf;
            }
            12 => {
                let seconds = script.pick(&[0, 1, 5, 11, 40, 100]);
                self.rig.advance(Duration::from_secs(seconds));
            }
            13 => {
                let cut = script.pick(&[Cut::Eof, Cut::ReadError, Cut::WriteError, Cut::Reset]);
                self.rig.world().cut(cut);
            }
            14 => {
                let at = script.below(2);
                if let Some(Some(Ok(delivery))) = self.rig.ready(self.consumers[at].next()) {
                    let _ended = delivery.ack();
                }
            }
            _ => {
                let number = script.below(8);
                if number < self.publishes.len() {
                    let task = self.publishes.swap_remove(number);
                    self.rig.cancel(&task);
                }
            }
        }
        self.rig.run();
        self.forget();
    }

    /// Drops the records of the server, which are not the client's memory.
    fn forget(&mut self) {
        let mut peer = self.rig.peer();
        peer.saw.clear();
        peer.violations.clear();
        peer.requeued.clear();
        peer.rejected.clear();
        drop(peer);
        self.publishes.retain(|task| !task.is_done());
    }

    /// Puts bytes on the way to the client, which reads them if it reads.
    fn inject(&mut self, bytes: &[u8]) {
        let mut world = self.rig.world();
        if bytes.len() > self.left || world.to_client.len() > UNREAD || world.cut.is_some() {
            return;
        }
        self.left -= bytes.len();
        world.inject(bytes);
        drop(world);
        self.rig.run();
    }

    fn content(size: usize, headers: usize, out: &mut BytesMut) {
        let mut header = BytesMut::from(&[0, 60, 0, 0][..]);
        header.extend_from_slice(&(size as u64).to_be_bytes());
        let mut properties = basic::Properties::default();
        if headers > 0 {
            let table = FieldTable::new().with("h", "x".repeat(headers).as_str());
            properties = properties.headers(table);
        }
        properties.encode(&mut header);
        frame(FrameKind::Header, 1, &header, out);
        for piece in vec![7; size].chunks(100_000) {
            frame(FrameKind::Body, 1, piece, out);
        }
    }

    /// Delivers a message to a consumer, or to one that there is not.
    fn deliver(&mut self, at: usize, size: usize, headers: usize) {
        let consumer_tag = self.consumers.get(at).map(|it| it.tag().clone());
        self.tag += 1;
        let deliver = basic::Deliver {
            consumer_tag: consumer_tag.unwrap_or_default(),
            delivery_tag: self.tag,
            ..basic::Deliver::default()
        };
        let mut bytes = BytesMut::new();
        method(1, deliver, &mut bytes);
        Self::content(size, headers, &mut bytes);
        self.inject(&bytes);
    }

    fn send_back(&mut self, size: usize) {
        let mut bytes = BytesMut::new();
        method(1, basic::Return::default(), &mut bytes);
        Self::content(size, 0, &mut bytes);
        self.inject(&bytes);
    }

    /// Begins a message that never ends.
    fn begin_message(&mut self, script: &mut Script<'_>) {
        let mut bytes = BytesMut::new();
        let deliver = basic::Deliver {
            consumer_tag: self.consumers[0].tag().clone(),
            delivery_tag: self.tag + 1,
            ..basic::Deliver::default()
        };
        method(1, deliver, &mut bytes);
        let announced = script.pick(&[1, 100_000, BODY as u64, BODY as u64 + 1, u64::MAX]);
        let mut header = BytesMut::from(&[0, 60, 0, 0][..]);
        header.extend_from_slice(&announced.to_be_bytes());
        basic::Properties::default().encode(&mut header);
        frame(FrameKind::Header, 1, &header, &mut bytes);
        let size = script.pick(&[0, 1, 1000, 100_000]);
        frame(FrameKind::Body, 1, &vec![7; size], &mut bytes);
        self.inject(&bytes);
    }

    /// Publishes, and leaves the future to itself.
    fn publish(&mut self, script: &mut Script<'_>) {
        let size = script.pick(&[0, 1000, 30_000, 131_064, 150_000]);
        if self.waiting.get() + size > WAITING || self.publishes.len() > 8 {
            return;
        }
        let waiting = Rc::clone(&self.waiting);
        waiting.set(waiting.get() + size);
        let begun = Waiting { waiting, size };
        let publish = basic::Publish::default().mandatory(script.one_in(2));
        let channel = Rc::clone(&self.channel);
        let task = self.rig.spawn(async move {
            let properties = basic::Properties::default();
            let _ended = channel.publish(&publish, &properties, vec![0; size]).await;
            drop(begun);
        });
        self.publishes.push(task);
    }

    /// Whatever has happened, everything comes to its end.
    fn end(self) {
        let Self {
            mut rig,
            connection,
            channel,
            consumers,
            returns,
            publishes,
            ..
        } = self;
        rig.advance(PATIENCE);
        assert!(publishes.iter().all(Task::is_done), "a publish waits");
        drop((consumers, returns, channel, connection));
        rig.advance(PATIENCE);
        assert!(rig.driver_ended(), "the driver has not ended");
    }
}

/// The bytes of a publish that has not ended.
struct Waiting {
    waiting: Rc<Cell<usize>>,
    size: usize,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.waiting.set(self.waiting.get() - self.size);
    }
}

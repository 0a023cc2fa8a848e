//! Peers, their storages, and the transports between them, in one thread under virtual time.

use std::{collections::VecDeque, time::Duration};

use amqp_core::{Instant, Transmit};
use amqp_peer::{
    Config, Down, DownCause, Keepalive, Message, MessageId, PeerName, Refused, SendError, Up,
    machine::{Dropped, Event, LinkKey, Machine, Received, Token},
    storage::{Batch, Change, Stored, StoredClock, WallTime},
};
use bytes::{Buf as _, BytesMut};

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn name(name: &str) -> PeerName {
    name.parse().unwrap()
}

pub(crate) fn config(name: &str) -> Config {
    Config::new(name).unwrap()
}

pub(crate) fn keepalive(interval: Duration, wait: Duration) -> Keepalive {
    Keepalive { interval, wait }
}

/// A naive storage.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(pub(crate) Stored);

impl Disk {
    fn apply(&mut self, batch: Batch) {
        for change in batch.changes {
            self.change(change);
        }
    }

    fn change(&mut self, change: Change) {
        let Stored {
            outbox,
            accepted,
            clocks,
        } = &mut self.0;
        match change {
            Change::Pushed {
                to,
                sequence,
                message,
            } => {
                let queue = outbox.entry(to).or_default();
                assert!(queue.last().is_none_or(|(last, _)| *last < sequence));
                queue.push((sequence, message));
            }
            Change::Removed { to, sequence } => {
                let queue = outbox.entry(to).or_default();
                queue.retain(|(it, _)| *it != sequence);
            }
            Change::RemovedTo { to, up_to } => {
                outbox.entry(to).or_default().retain(|(it, _)| *it > up_to);
            }
            Change::Cleared { to } => {
                outbox.remove(&to);
                clocks.remove(&to);
            }
            Change::Accepted { from, id, position } => {
                let queue = accepted.entry(from).or_default();
                assert!(queue.last().is_none_or(|(last, _)| *last < position));
                queue.push((position, id));
            }
            Change::Forgotten { from, below } => {
                accepted
                    .entry(from)
                    .or_default()
                    .retain(|(it, _)| *it >= below);
            }
            Change::Clock {
                name,
                disconnected,
                since,
            } => {
                let clock = StoredClock {
                    disconnected,
                    since,
                };
                clocks.insert(name, clock);
            }
            other => panic!("{other:?}"),
        }
        outbox.retain(|_, queue| !queue.is_empty());
    }

    /// The bodies of the messages for a receiver.
    pub(crate) fn bodies(&self, to: &str) -> Vec<String> {
        let queue = self.0.outbox.get(&name(to));
        let bodies = queue.into_iter().flatten().map(|(_, it)| text(&it.body));
        bodies.collect()
    }
}

pub(crate) fn text(body: &amqp_core::Body) -> String {
    String::from_utf8(body.to_vec()).unwrap()
}

/// The treatment of received messages by the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Application {
    Accepts,
    Keeps,
    /// Keeps one in so many, and accepts the others.
    KeepsOneIn(usize),
}

pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) machine: Machine,
    pub(crate) disk: Disk,
    /// Batches that were handed out and are not stored.
    pub(crate) batches: VecDeque<Batch>,
    /// Whether batches are stored at once.
    pub(crate) stores: bool,
    pub(crate) application: Application,
    /// Messages that the application has not accepted.
    pub(crate) kept: VecDeque<Token>,
    /// All messages that were given to the application, over all runs.
    pub(crate) got: Vec<(MessageId, String)>,
    /// All other events, and received messages as well, since they were last taken.
    pub(crate) events: Vec<Event>,
}

impl Node {
    pub(crate) fn send(&mut self, now: Instant, to: &str, body: &str) -> MessageId {
        self.try_send(now, to, Message::new(body.to_owned()))
            .unwrap()
    }

    pub(crate) fn persist(&mut self, now: Instant, to: &str, body: &str) -> MessageId {
        let message = Message::new(body.to_owned()).persistent();
        self.try_send(now, to, message).unwrap()
    }

    pub(crate) fn try_send(
        &mut self,
        now: Instant,
        to: &str,
        message: Message,
    ) -> Result<MessageId, SendError> {
        self.machine.send(now, &name(to), message)
    }

    pub(crate) fn bodies(&self) -> Vec<&str> {
        self.got.iter().map(|(_, body)| body.as_str()).collect()
    }

    /// Takes events, and lets the application treat received messages. Returns whether there was
    /// anything.
    fn turn(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(event) = self.machine.poll_event() {
            any = true;
            if let Event::Received(received) = &event {
                self.got.push((received.id, text(&received.message.body)));
                let keeps = match self.application {
                    Application::Accepts => false,
                    Application::Keeps => true,
                    Application::KeepsOneIn(count) => self.got.len().is_multiple_of(count),
                };
                if keeps {
                    self.kept.push_back(received.token);
                } else {
                    self.machine.settle(now, received.token);
                }
            }
            self.events.push(event);
        }
        while let Some(batch) = self.machine.poll_changes() {
            any = true;
            self.batches.push_back(batch);
        }
        if self.stores {
            any |= self.store();
        }
        any |= std::iter::from_fn(|| self.machine.poll_wake()).count() > 0;
        any
    }

    /// Stores everything up to now.
    pub(crate) fn settle_storage(&mut self) {
        while let Some(batch) = self.machine.poll_changes() {
            self.batches.push_back(batch);
        }
        self.store();
    }

    /// Takes a turn, and all events since the last call.
    pub(crate) fn turn_events(&mut self, now: Instant) -> Vec<Event> {
        self.turn(now);
        self.take_events()
    }

    /// Stores all batches. Returns whether there were any.
    pub(crate) fn store(&mut self) -> bool {
        let Some(last) = self.batches.back().map(|batch| batch.id) else {
            return false;
        };
        for batch in std::mem::take(&mut self.batches) {
            self.disk.apply(batch);
        }
        self.machine.handle_stored(Instant::ORIGIN, last);
        true
    }

    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub(crate) fn ups(&self) -> Vec<&Up> {
        let events = self.events.iter().filter_map(|event| match event {
            Event::Up(up) => Some(up),
            _ => None,
        });
        events.collect()
    }

    pub(crate) fn downs(&self) -> Vec<&Down> {
        let events = self.events.iter().filter_map(|event| match event {
            Event::Down(down) => Some(down),
            _ => None,
        });
        events.collect()
    }

    pub(crate) fn refused(&self) -> Vec<&Refused> {
        let events = self.events.iter().filter_map(|event| match event {
            Event::Refused(refused) => Some(refused),
            _ => None,
        });
        events.collect()
    }

    /// The causes of links that did not come up.
    pub(crate) fn refusals(&self) -> Vec<DownCause> {
        self.refused().iter().map(|it| it.cause.clone()).collect()
    }

    pub(crate) fn dropped(&self) -> Vec<&Dropped> {
        let events = self.events.iter().filter_map(|event| match event {
            Event::Dropped(dropped) => Some(dropped),
            _ => None,
        });
        events.collect()
    }

    pub(crate) fn received(&self) -> Vec<&Received> {
        let events = self.events.iter().filter_map(|event| match event {
            Event::Received(received) => Some(received),
            _ => None,
        });
        events.collect()
    }
}

/// One end of a transport.
pub(crate) struct End {
    pub(crate) node: usize,
    pub(crate) link: LinkKey,
    /// Output that is not on its way.
    output: Transmit,
    /// Bytes on their way to the other end.
    pub(crate) wire: BytesMut,
    input: BytesMut,
    /// The number of bytes that were read.
    pub(crate) read: usize,
    /// The number of bytes after which the transport is cut, once read.
    pub(crate) cut_after: Option<usize>,
    is_open: bool,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    /// The wall time at the origin.
    pub(crate) wall: Duration,
    pub(crate) nodes: Vec<Node>,
    /// The transports: connector and listener.
    pub(crate) pipes: Vec<[End; 2]>,
    /// The bytes that are read at a time; all if `None`.
    pub(crate) chunk: Option<usize>,
    /// Whether bytes that were written do not arrive: pipes by number.
    pub(crate) stalled: Vec<usize>,
    restarts: u64,
}

impl World {
    pub(crate) fn new(configs: impl IntoIterator<Item = Config>) -> Self {
        let mut world = Self {
            now: Instant::ORIGIN + seconds(1000),
            wall: seconds(1_700_000_000),
            nodes: Vec::new(),
            pipes: Vec::new(),
            chunk: None,
            stalled: Vec::new(),
            restarts: 0,
        };
        for config in configs {
            let config = world.seeded(config);
            let machine = world.machine(&config, &Disk::default());
            world.nodes.push(Node {
                config,
                machine,
                disk: Disk::default(),
                batches: VecDeque::new(),
                stores: true,
                application: Application::Accepts,
                kept: VecDeque::new(),
                got: Vec::new(),
                events: Vec::new(),
            });
        }
        world
    }

    /// Peers with these names.
    pub(crate) fn named(names: &[&str]) -> Self {
        Self::new(names.iter().map(|name| config(name)))
    }

    fn seeded(&mut self, config: Config) -> Config {
        self.restarts += 1;
        config.seed(self.restarts << 32)
    }

    fn machine(&self, config: &Config, disk: &Disk) -> Machine {
        let wall = WallTime(self.wall + (self.now - Instant::ORIGIN));
        Machine::new(config.clone(), disk.0.clone(), self.now, wall).unwrap()
    }

    /// Connects a transport from one peer to another. Returns its number.
    pub(crate) fn connect(&mut self, from: usize, to: usize) -> usize {
        let now = self.now;
        let dialled = self.nodes[from].machine.dial(now).unwrap();
        let accepted = self.nodes[to].machine.accept(now).unwrap();
        self.pipe([(from, dialled), (to, accepted)])
    }

    pub(crate) fn pipe(&mut self, ends: [(usize, LinkKey); 2]) -> usize {
        self.pipes.push(ends.map(|(node, link)| End {
            node,
            link,
            output: Transmit::new(),
            wire: BytesMut::new(),
            input: BytesMut::new(),
            read: 0,
            cut_after: None,
            is_open: true,
        }));
        self.pipes.len() - 1
    }

    /// Moves bytes until there is nothing left to do at this time.
    pub(crate) fn run(&mut self) {
        for turn in 0.. {
            assert!(turn < 1_000_000, "it does not come to rest");
            if !self.turn() {
                break;
            }
        }
    }

    fn turn(&mut self) -> bool {
        let mut any = false;
        for pipe in 0..self.pipes.len() {
            any |= self.write(pipe, 0) | self.write(pipe, 1);
            any |= self.read(pipe, 0) | self.read(pipe, 1);
        }
        for node in &mut self.nodes {
            any |= node.turn(self.now);
        }
        any
    }

    /// Lets one end of a transport take a turn, and its peer.
    pub(crate) fn step(&mut self, pipe: usize, end: usize) {
        self.write(pipe, 1 - end);
        self.read(pipe, end);
        self.write(pipe, end);
        let node = self.pipes[pipe][end].node;
        self.nodes[node].turn(self.now);
    }

    /// Writes the output of one end.
    pub(crate) fn write(&mut self, pipe: usize, end: usize) -> bool {
        let now = self.now;
        let end = &mut self.pipes[pipe][end];
        if !end.is_open {
            return false;
        }
        let machine = &mut self.nodes[end.node].machine;
        let promised = machine.has_transmit(end.link, now);
        let wrote = machine.poll_transmit(end.link, now, &mut end.output);
        assert!(wrote || !promised, "output was promised");
        assert_eq!(wrote, !end.output.is_empty());
        end.wire
            .extend_from_slice(&end.output.copy_to_bytes(end.output.remaining()));
        wrote
    }

    /// Lets one end read what the other one has written.
    fn read(&mut self, pipe: usize, end: usize) -> bool {
        if self.stalled.contains(&pipe) {
            return false;
        }
        let now = self.now;
        let [a, b] = &mut self.pipes[pipe];
        let (reader, writer) = if end == 0 { (a, b) } else { (b, a) };
        if !reader.is_open {
            return false;
        }
        let machine = &mut self.nodes[reader.node].machine;
        if writer.wire.is_empty() {
            let is_over = !writer.is_open || self.is_over(pipe, 1 - end);
            if is_over {
                self.close(pipe, end);
            }
            return is_over;
        }
        if !machine.wants_input(reader.link, now) {
            return false;
        }
        let mut len = writer.wire.len().min(self.chunk.unwrap_or(usize::MAX));
        len = len.min(machine.read_budget(reader.link, now));
        if let Some(cut_after) = reader.cut_after {
            len = len.min(cut_after - reader.read);
        }
        reader.input.extend_from_slice(&writer.wire.split_to(len));
        reader.read += len;
        if len > 0 {
            machine.handle_input(reader.link, now, &mut reader.input);
        }
        if reader.cut_after == Some(reader.read) {
            self.cut(pipe);
        }
        true
    }

    /// Lets one end read, and leaves its events where they are.
    pub(crate) fn read_only(&mut self, pipe: usize, end: usize) {
        self.read(pipe, end);
    }

    fn is_over(&self, pipe: usize, end: usize) -> bool {
        let end = &self.pipes[pipe][end];
        self.nodes[end.node].machine.is_finished(end.link)
    }

    /// Closes one end: the other one has.
    fn close(&mut self, pipe: usize, end: usize) {
        let now = self.now;
        let end = &mut self.pipes[pipe][end];
        let machine = &mut self.nodes[end.node].machine;
        machine.handle_eof(end.link, now);
        machine.remove(end.link, now);
        end.is_open = false;
    }

    /// Cuts a transport: what is on its way is lost.
    pub(crate) fn cut(&mut self, pipe: usize) {
        self.cut_end(pipe, 0);
        self.cut_end(pipe, 1);
    }

    /// Cuts a transport for one end, which notices.
    pub(crate) fn cut_end(&mut self, pipe: usize, end: usize) {
        let now = self.now;
        let end = &mut self.pipes[pipe][end];
        end.wire.clear();
        if std::mem::replace(&mut end.is_open, false) {
            let machine = &mut self.nodes[end.node].machine;
            machine.handle_transport_error(end.link, now, "cut");
            machine.remove(end.link, now);
        }
    }

    /// Lets the time pass, with all deadlines on the way.
    pub(crate) fn advance(&mut self, span: Duration) {
        let end = self.now + span;
        self.run();
        for turn in 0.. {
            assert!(turn < 1_000_000, "the deadlines do not end");
            let Some(next) = self.next_deadline().filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            self.handle_deadlines();
            self.run();
        }
        self.now = end;
    }

    fn next_deadline(&self) -> Option<Instant> {
        let of_nodes = self.nodes.iter().filter_map(|it| it.machine.poll_timeout());
        let ends = self.pipes.iter().flatten().filter(|end| end.is_open);
        let of_links = ends.filter_map(|end| {
            let machine = &self.nodes[end.node].machine;
            Some(machine.poll_link_timeout(end.link)?.0)
        });
        of_nodes.chain(of_links).min()
    }

    fn handle_deadlines(&mut self) {
        let now = self.now;
        for node in &mut self.nodes {
            node.machine.handle_timeout(now);
        }
        for end in self.pipes.iter().flatten().filter(|end| end.is_open) {
            let machine = &mut self.nodes[end.node].machine;
            if machine
                .poll_link_timeout(end.link)
                .is_some_and(|(at, _)| at <= now)
            {
                machine.handle_link_timeout(end.link, now);
            }
        }
    }

    /// Ends the process of a peer at once, and starts it again from its storage.
    pub(crate) fn restart(&mut self, node: usize) {
        for pipe in 0..self.pipes.len() {
            if self.pipes[pipe].iter().any(|end| end.node == node) {
                self.cut(pipe);
            }
        }
        self.restart_silently(node);
    }

    /// Starts the process of a peer again. Its transports are cut for the other ends only if they
    /// were before.
    pub(crate) fn restart_silently(&mut self, node: usize) {
        let config = self.seeded(self.nodes[node].config.clone());
        let machine = self.machine(&config, &self.nodes[node].disk);
        let node = &mut self.nodes[node];
        (node.config, node.machine) = (config, machine);
        node.batches.clear();
        node.kept.clear();
    }

    /// Lets the application accept what it has kept.
    pub(crate) fn accept_kept(&mut self, node: usize) {
        let now = self.now;
        let node = &mut self.nodes[node];
        for token in std::mem::take(&mut node.kept) {
            node.machine.settle(now, token);
        }
    }

    pub(crate) fn links_up(&self, node: usize) -> usize {
        let links = self.nodes[node].machine.links();
        links.filter(|link| link.is_up).count()
    }
}

/// The two roles of a link between peers 0 and 1: the one that connects, and the one that listens.
pub(crate) const ROLES: [(usize, usize); 2] = [(0, 1), (1, 0)];

//! Random worlds against a naive model: what is accepted is accepted once, in the order in which it
//! was sent; what is persistent is never lost, and what is transient only with the process.

use std::collections::{BTreeMap, BTreeSet};

use amqp_peer::{Keepalive, Limits, MessageId, Throttle};

use crate::rig::{Application, World, config, millis, name, seconds};

/// Random numbers from a seed: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }
}

const NAMES: [&str; 3] = ["alice", "bob", "jack"];

/// A message, as the model knows it.
struct Sent {
    id: MessageId,
    body: String,
    is_persistent: bool,
    /// The run of the sender's process.
    run: u32,
}

#[derive(Default)]
struct Model {
    /// The messages by sender and receiver.
    sent: BTreeMap<(usize, usize), Vec<Sent>>,
    /// The run of each peer's process.
    runs: [u32; 3],
    /// The messages that were accepted by the application, and stored if persistent.
    accepted: BTreeSet<MessageId>,
}

/// How many messages applications keep, and how many are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// All or none are kept for a while.
    Few,
    /// Single ones are kept for long, while many pass them.
    HeldBack,
}

fn random_world(random: &mut Random, kind: Kind) -> World {
    let window = match kind {
        Kind::Few => [1, 2, 5, 100][random.below(4)],
        Kind::HeldBack => [20, 100, 1000][random.below(3)],
    };
    // A throttle delays the answer to a probe.
    let is_throttled = random.one_in(2);
    let mut world = World::new(NAMES.map(|name| {
        let limits = Limits::default().window(window);
        let mut config = config(name).limits(limits);
        if is_throttled && random.one_in(2) {
            config = config.throttle(Throttle::both(50_000));
        }
        if !is_throttled && random.one_in(2) {
            let (interval, wait) = (millis(300), millis(300));
            config = config.keepalive(Keepalive { interval, wait });
        }
        config
    }));
    if random.one_in(3) {
        world.chunk = Some(1 + random.below(300));
    }
    world
}

/// Sends a message from one peer to another.
fn send(world: &mut World, model: &mut Model, random: &mut Random) {
    let from = random.below(3);
    let to = (from + 1 + random.below(2)) % 3;
    let queue = model.sent.entry((from, to)).or_default();
    let mut body = format!("{from}>{to} {}", queue.len());
    if random.one_in(20) {
        let len = if world.chunk.is_some() {
            10_000
        } else {
            200_000
        };
        body.push_str(&"x".repeat(random.below(len)));
    }
    let is_persistent = random.one_in(2);
    let now = world.now;
    let node = &mut world.nodes[from];
    let id = if is_persistent {
        node.persist(now, NAMES[to], &body)
    } else {
        node.send(now, NAMES[to], &body)
    };
    // Stored at once: a message that is not stored may be lost with its process.
    if is_persistent {
        node.settle_storage();
    }
    queue.push(Sent {
        id,
        body,
        is_persistent,
        run: model.runs[from],
    });
}

/// Does one thing at random.
fn act(world: &mut World, model: &mut Model, random: &mut Random, kind: Kind) {
    match random.below(12) {
        0..=4 if kind == Kind::HeldBack => {
            for _ in 0..random.below(40) {
                send(world, model, random);
            }
        }
        0..=4 => send(world, model, random),
        5 => {
            let from = random.below(3);
            let to = (from + 1 + random.below(2)) % 3;
            world.connect(from, to);
        }
        6 if !world.pipes.is_empty() => {
            let pipe = random.below(world.pipes.len());
            let end = random.below(2);
            let read = world.pipes[pipe][end].read;
            world.pipes[pipe][end].cut_after = Some(read + 1 + random.below(2000));
        }
        7 if random.one_in(4) => {
            let node = random.below(3);
            model.runs[node] += 1;
            world.restart(node);
        }
        8 => {
            let node = random.below(3);
            world.nodes[node].application = match (kind, random.below(3)) {
                (Kind::Few, 0) => Application::Keeps,
                (Kind::Few, _) => Application::Accepts,
                (Kind::HeldBack, _) => Application::KeepsOneIn(20),
            };
        }
        9 => accept_some(world, random),
        10 => {
            let node = random.below(3);
            world.nodes[node].stores = !random.one_in(3);
        }
        11 => world.advance(millis(random.next() % 500)),
        _ => {
            for _ in 0..random.below(10) {
                if !world.pipes.is_empty() {
                    let pipe = random.below(world.pipes.len());
                    world.step(pipe, random.below(2));
                }
            }
        }
    }
    if random.one_in(2) {
        world.run();
    }
}

/// Lets an application accept some of what it has kept, in any order.
fn accept_some(world: &mut World, random: &mut Random) {
    let node = random.below(3);
    let now = world.now;
    for _ in 0..random.below(5) {
        let kept = world.nodes[node].kept.len();
        if kept > 0 {
            let at = random.below(kept);
            let token = world.nodes[node].kept.remove(at).unwrap();
            world.nodes[node].machine.settle(now, token);
        }
    }
}

/// Brings everything that is left to its receiver.
fn finish(world: &mut World) {
    for pipe in 0..world.pipes.len() {
        world.cut(pipe);
    }
    for node in 0..3 {
        world.nodes[node].stores = true;
        world.nodes[node].application = Application::Accepts;
    }
    world.run();
    for node in 0..3 {
        world.accept_kept(node);
    }
    world.run();
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        world.connect(from, to);
    }
    for _ in 0..100 {
        world.advance(seconds(1));
        let is_empty = |from: usize| {
            let machine = &world.nodes[from].machine;
            NAMES
                .iter()
                .all(|to| machine.outbox(&name(to)).messages == 0)
        };
        if (0..3).all(is_empty) {
            return;
        }
    }
    panic!("something is left");
}

/// Checks what the application of each peer was given.
fn check(world: &World, model: &Model, seed: u64) {
    for (&(from, to), sent) in &model.sent {
        let node = &world.nodes[to];
        let of_sender: BTreeMap<MessageId, usize> = sent
            .iter()
            .enumerate()
            .map(|(at, it)| (it.id, at))
            .collect();
        let mut given: BTreeMap<usize, usize> = BTreeMap::new();
        let mut order = Vec::new();
        for (id, body) in &node.got {
            if let Some(&at) = of_sender.get(id) {
                assert_eq!(*body, sent[at].body, "seed {seed}");
                *given.entry(at).or_default() += 1;
                order.push(at);
            }
        }
        for (at, message) in sent.iter().enumerate() {
            let count = given.get(&at).copied().unwrap_or_default();
            let is_lost = !message.is_persistent && message.run != model.runs[from];
            assert!(
                count > 0 || is_lost,
                "seed {seed}: {from}>{to} {at} is lost"
            );
            // The application of a process that has ended may have had it as well.
            if model.runs[to] == 0 {
                assert!(count <= 1, "seed {seed}: {from}>{to} {at} was given twice");
            }
        }
        if model.runs[to] == 0 && model.runs[from] == 0 {
            assert!(order.is_sorted(), "seed {seed}: {from}>{to} {order:?}");
        }
        assert!(world.nodes[from].disk.bodies(NAMES[to]).is_empty());
    }
    for node in &world.nodes {
        assert!(node.machine.links().filter(|link| link.is_up).count() <= 2);
        for id in &model.accepted {
            assert!(node.got.iter().filter(|(got, _)| got == id).count() <= 1);
        }
    }
}

fn run(seeds: std::ops::Range<u64>, kind: Kind) {
    for seed in seeds {
        let mut random = Random(seed);
        let mut world = random_world(&mut random, kind);
        let mut model = Model::default();
        for _ in 0..60 {
            act(&mut world, &mut model, &mut random, kind);
        }
        finish(&mut world);
        check(&world, &model, seed);
    }
}

#[test]
fn random_worlds_accept_each_message_once_and_in_order() {
    run(0..250, Kind::Few);
}

#[test]
fn more_random_worlds_accept_each_message_once_and_in_order() {
    run(250..500, Kind::Few);
}

#[test]
fn still_more_random_worlds_accept_each_message_once_and_in_order() {
    run(500..750, Kind::Few);
}

#[test]
fn a_thousand_random_worlds_accept_each_message_once_and_in_order() {
    run(750..1000, Kind::Few);
}

#[test]
fn worlds_in_which_single_messages_are_held_back_accept_each_once_and_in_order() {
    run(1000..1060, Kind::HeldBack);
}

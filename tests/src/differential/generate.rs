//! Random programs.
//!
//! Behaviour that RabbitMQ itself does not determine is left out: times between zero and for ever,
//! simultaneous actions of several channels, and the order of messages that go back to a queue
//! while the prefetch limit of a whole channel holds them up. All else may come in any order,
//! sensible or not; the generator keeps a rough idea of the entities only so that most steps meet
//! some.

use super::{
    kinds::{QueueType, is_mistaken},
    names::{BINDINGS, HEADERS},
    program::{
        Argument, CHANNELS, EXCHANGES, Exchange, Key, Kind, Program, QUEUES, SERVER_NAMED, Step,
        TAGS, TRANSACTIONAL, Traits, connection_of,
    },
};

/// A time in milliseconds that does not come while a test runs.
const LONG: i32 = 3_600_000;

/// The keys that are published with.
const KEYS: [&str; 5] = ["", "a", "a.b", "a.b.c", "b.c"];

/// The keys that are bound with.
const PATTERNS: [&str; 8] = ["", "a", "a.b", "a.*", "#", "*.b.#", "#.c", "*"];

/// A small generator of random numbers, the same on every machine: SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of that seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below that one.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A number below that one.
    pub const fn small(&mut self, limit: u8) -> u8 {
        self.below(limit as u64) as u8
    }

    /// True as often in a hundred times.
    pub const fn percent(&mut self, often: u64) -> bool {
        self.below(100) < often
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Makes the program of that seed.
#[must_use]
pub fn generate(seed: u64, steps: usize) -> Program {
    let mut generator = Generator {
        random: Random::new(seed),
        shared_limit: seed.is_multiple_of(8),
        queue_type: QueueType::of(seed),
        queues: [false; QUEUES as usize],
        exchanges: [None; EXCHANGES as usize],
        consumers: Vec::new(),
    };
    let mut steps: Vec<Step> = (0..steps).map(|at| generator.step(at)).collect();
    // RabbitMQ's classic queue lets the next single active consumer wait after a cancel, and then
    // delivers a new message before the older ones (seed 30948).
    let is_single = |step: &Step| match step {
        Step::Queue { arguments, .. } => arguments.contains(&Argument::SingleActive(true)),
        _ => false,
    };
    if steps.iter().any(is_single) {
        steps.retain(|step| !matches!(step, Step::Cancel { .. }));
    }
    Program { seed, steps }
}

struct Generator {
    random: Random,
    /// Prefetch limits are those of whole channels, and nothing goes back to a queue.
    shared_limit: bool,
    queue_type: QueueType,
    /// Which queues are probably there.
    queues: [bool; QUEUES as usize],
    /// Which exchanges are probably there, and of which kind.
    exchanges: [Option<Kind>; EXCHANGES as usize],
    /// Channels and tags of consumers that are probably there.
    consumers: Vec<(u8, u8)>,
}

impl Generator {
    /// A step, mostly one with existing targets.
    fn step(&mut self, at: usize) -> Step {
        let mut step = self.any_step(at);
        for _ in 0..if self.random.percent(90) { 10 } else { 0 } {
            if self.is_supplied(&step) {
                break;
            }
            step = self.any_step(at);
        }
        let step = self.queue_type.adapt(&mut self.random, step);
        self.note(&step);
        step
    }

    fn any_step(&mut self, at: usize) -> Step {
        let on = self.channel();
        // Programs begin with something to work on.
        let roll = match at {
            0 => 0,
            1 => 20,
            2 | 3 => self.random.below(60),
            4 => 990,
            _ => self.random.below(1000) * 2,
        };
        match roll {
            0..20 => self.declare(on),
            20..40 => self.declare_exchange(on),
            40..60 => self.bind(on),
            60..160 => self.declare(on),
            160..210 => self.declare_exchange(on),
            210..300 => self.bind(on),
            300..325 => self.unbind(on),
            325..365 => self.bind_exchange(on),
            365..380 => self.unbind_exchange(on),
            380..940 => self.publish(on),
            940..980 => Step::Qos {
                on,
                prefetch: self.random.pick(&[0, 1, 1, 2, 3]),
                global: self.shared_limit,
            },
            980..1160 => self.consume(on),
            1160..1220 => self.cancel(on),
            1220..1340 => Step::Get {
                on,
                queue: self.queue(),
                no_ack: self.random.percent(40),
            },
            1340..1460 => Step::Ack {
                on: self.consuming(on),
                pick: self.random.small(8),
                multiple: self.random.percent(40),
            },
            1460..1540 => Step::Nack {
                on: self.consuming(on),
                pick: self.random.small(8),
                multiple: self.random.percent(40),
                requeue: !self.shared_limit && self.random.percent(60),
            },
            1540..1610 => Step::Reject {
                on: self.consuming(on),
                pick: self.random.small(8),
                requeue: !self.shared_limit && self.random.percent(60),
            },
            1610..1620 => Step::AckUnknown {
                on,
                multiple: self.random.percent(50),
            },
            1620..1626 => {
                let (on, tag) = self.consumer(on);
                Step::ConsumeTwice { on, tag }
            }
            1626..1666 if !self.shared_limit => Step::Recover {
                on: self.consuming(on),
                requeue: self.random.percent(95),
            },
            1626..1706 => Step::Purge {
                on,
                queue: self.queue(),
            },
            1706..1766 => self.delete(on),
            1766..1796 => Step::DeleteExchange {
                on,
                exchange: self.exchange(true),
                if_unused: self.random.percent(50),
            },
            1796..1880 => {
                if self.random.percent(70) {
                    Step::Commit
                } else {
                    Step::Rollback
                }
            }
            1880..1940 => Step::Close { on },
            1940..1980 => self.consume(on),
            _ => Step::Disconnect {
                connection: self.random.below(2) as usize,
            },
        }
    }

    fn has_queue(&self, queue: u8) -> bool {
        self.queues[usize::from(queue)]
    }

    fn has_exchange(&self, exchange: Exchange) -> bool {
        match exchange {
            Exchange::Default | Exchange::Direct => true,
            Exchange::Own(number) => self.exchanges[usize::from(number)].is_some(),
            Exchange::Reserved => false,
        }
    }

    /// Whether a step is probably no mistake.
    fn is_supplied(&self, step: &Step) -> bool {
        match *step {
            Step::Queue { queue, passive, .. } => passive == self.has_queue(queue),
            Step::Exchange {
                exchange, passive, ..
            } => passive == self.has_exchange(exchange),
            Step::Bind {
                queue, exchange, ..
            }
            | Step::Unbind {
                queue, exchange, ..
            } => {
                self.has_queue(queue)
                    && exchange != Exchange::Default
                    && self.has_exchange(exchange)
            }
            Step::BindExchange {
                destination,
                source,
                ..
            }
            | Step::UnbindExchange {
                destination,
                source,
                ..
            } => [destination, source]
                .into_iter()
                .all(|it| it != Exchange::Default && self.has_exchange(it)),
            Step::Publish { exchange, key, .. } => {
                let at_queue = matches!(key, Key::Queue(queue) if self.has_queue(queue));
                self.has_exchange(exchange) && (exchange != Exchange::Default || at_queue)
            }
            Step::Consume { on, queue, tag, .. } | Step::Read { on, queue, tag, .. } => {
                self.has_queue(queue) && !self.consumers.contains(&(on, tag))
            }
            Step::Cancel { on, tag } | Step::ConsumeTwice { on, tag } => {
                self.consumers.contains(&(on, tag))
            }
            Step::Get { queue, .. } | Step::Purge { queue, .. } => self.has_queue(queue),
            Step::DeleteQueue { queue, .. } => self.has_queue(queue),
            Step::DeleteExchange { exchange, .. } => self.has_exchange(exchange),
            Step::Ack { on, .. } | Step::Nack { on, .. } | Step::Reject { on, .. } => {
                self.consumers.iter().any(|(channel, _)| *channel == on)
            }
            Step::Qos { .. }
            | Step::AckUnknown { .. }
            | Step::Recover { .. }
            | Step::Commit
            | Step::Rollback
            | Step::Close { .. }
            | Step::Disconnect { .. } => true,
        }
    }

    /// Notes the probable effect of a step.
    fn note(&mut self, step: &Step) {
        if !self.is_supplied(step) {
            // A mistake costs the channel.
            if let Step::Bind { on, .. } | Step::Publish { on, .. } | Step::Get { on, .. } = step {
                self.consumers.retain(|(channel, _)| channel != on);
            }
            return;
        }
        match *step {
            Step::Queue {
                queue,
                passive: false,
                ref arguments,
                ..
            } => self.queues[usize::from(queue)] = !is_mistaken(arguments),
            Step::Exchange {
                exchange: Exchange::Own(number),
                kind,
                passive: false,
                ..
            } if kind != Kind::Unknown => self.exchanges[usize::from(number)] = Some(kind),
            Step::DeleteQueue {
                queue,
                if_unused: false,
                if_empty: false,
                ..
            } => self.queues[usize::from(queue)] = false,
            Step::DeleteExchange {
                exchange: Exchange::Own(number),
                if_unused: false,
                ..
            } => self.exchanges[usize::from(number)] = None,
            Step::Consume { on, tag, .. } | Step::Read { on, tag, .. } => {
                self.consumers.push((on, tag));
            }
            Step::Cancel { on, tag } => self.consumers.retain(|it| *it != (on, tag)),
            Step::Close { on } | Step::AckUnknown { on, .. } => {
                self.consumers.retain(|(channel, _)| *channel != on);
            }
            Step::Disconnect { connection } => self
                .consumers
                .retain(|(channel, _)| connection_of(*channel) != connection),
            _ => {}
        }
    }

    fn channel(&mut self) -> u8 {
        match self.random.below(100) {
            0..40 => 0,
            40..65 => 1,
            65..85 => 2,
            _ => TRANSACTIONAL,
        }
        .min(CHANNELS - 1)
    }

    /// A queue, mostly one that is there.
    fn queue(&mut self) -> u8 {
        for _ in 0..if self.random.percent(90) { 20 } else { 0 } {
            let queue = self.random.small(QUEUES);
            if self.queues[usize::from(queue)] {
                return queue;
            }
        }
        self.random.small(SERVER_NAMED)
    }

    /// An exchange, mostly one that is there.
    fn exchange(&mut self, own: bool) -> Exchange {
        let roll = self.random.below(100);
        match roll {
            0..2 => Exchange::Reserved,
            2..6 => Exchange::Direct,
            6..40 if !own => Exchange::Default,
            6..8 => Exchange::Default,
            _ => {
                for _ in 0..if self.random.percent(90) { 20 } else { 0 } {
                    let number = self.random.small(EXCHANGES);
                    if self.exchanges[usize::from(number)].is_some() {
                        return Exchange::Own(number);
                    }
                }
                Exchange::Own(self.random.small(EXCHANGES))
            }
        }
    }

    fn key(&mut self, exchange: Exchange, words: &[&'static str]) -> Key {
        let by_queue = match exchange {
            Exchange::Default => self.random.percent(95),
            Exchange::Direct | Exchange::Reserved => true, // others use it at the same time
            Exchange::Own(_) => self.random.percent(10),
        };
        if by_queue {
            Key::Queue(self.queue())
        } else {
            Key::Text(self.random.pick(words))
        }
    }

    /// A channel that probably has deliveries outstanding.
    fn consuming(&mut self, otherwise: u8) -> u8 {
        self.consumer(otherwise).0
    }

    fn consumer(&mut self, otherwise: u8) -> (u8, u8) {
        if self.consumers.is_empty() || self.random.percent(5) {
            (otherwise, self.random.small(TAGS))
        } else {
            let at = self.random.below(self.consumers.len() as u64) as usize;
            self.consumers[at]
        }
    }

    fn declare(&mut self, on: u8) -> Step {
        let queue = self.random.small(QUEUES);
        let passive = self.random.percent(10);
        let mut arguments = Vec::new();
        while arguments.len() < 4 && self.random.percent(35) {
            let argument = self.argument();
            let same = std::mem::discriminant(&argument);
            if arguments
                .iter()
                .all(|it| std::mem::discriminant(it) != same)
            {
                arguments.push(argument);
            }
        }
        Step::Queue {
            on,
            queue,
            passive,
            durable: self.random.percent(30),
            exclusive: self.random.percent(12),
            auto_delete: self.random.percent(12),
            arguments,
        }
    }

    fn argument(&mut self) -> Argument {
        match self.random.below(100) {
            0..18 => Argument::MaxLength(self.random.pick(&[0, 1, 2, 2, 3, 5, -1])),
            18..24 => Argument::MaxBytes(self.random.pick(&[0, 10, 40])),
            24..40 => Argument::Overflow(self.random.pick(&[
                "drop-head",
                "reject-publish",
                "reject-publish-dlx",
                "nonsense",
            ])),
            40..62 => Argument::DeadLetter(self.exchange(false)),
            62..74 => Argument::DeadLetterKey(if self.random.percent(70) {
                Key::Queue(self.queue())
            } else {
                Key::Text(self.random.pick(&KEYS))
            }),
            74..82 => Argument::MaxPriority(self.random.pick(&[0, 1, 3, 5, 255, 256])),
            82..88 => Argument::Ttl(self.random.pick(&[0, LONG, LONG, -1])),
            88..92 => Argument::Expires(self.random.pick(&[LONG, 0, -1])),
            92..98 => Argument::SingleActive(self.random.percent(80)),
            _ => Argument::Text(self.random.pick(&[
                "x-max-length",
                "x-message-ttl",
                "x-expires",
                "x-max-priority",
                "x-single-active-consumer",
                "x-own",
            ])),
        }
    }

    fn declare_exchange(&mut self, on: u8) -> Step {
        let exchange = match self.random.below(100) {
            0..3 => Exchange::Direct,
            3..6 => Exchange::Reserved,
            6..8 => Exchange::Default,
            _ => Exchange::Own(self.random.small(EXCHANGES)),
        };
        let kind = match self.random.below(100) {
            0..25 => Kind::Direct,
            25..50 => Kind::Fanout,
            50..75 => Kind::Topic,
            75..99 => Kind::Headers,
            _ => Kind::Unknown,
        };
        let passive = self.random.percent(10);
        Step::Exchange {
            on,
            exchange,
            kind,
            passive,
            durable: self.random.percent(20),
            auto_delete: self.random.percent(15),
            internal: self.random.percent(8),
            alternate: if self.random.percent(20) {
                Some(self.exchange(true))
            } else {
                None
            },
        }
    }

    fn binding(&mut self, exchange: Exchange) -> (Key, u8) {
        let kind = match exchange {
            Exchange::Own(number) => self.exchanges[usize::from(number)],
            _ => None,
        };
        let table = match kind {
            Some(Kind::Headers) => self.random.small(BINDINGS),
            _ if self.random.percent(5) => self.random.small(BINDINGS),
            _ => 0,
        };
        (self.key(exchange, &PATTERNS), table)
    }

    fn bind(&mut self, on: u8) -> Step {
        let exchange = self.exchange(true);
        let (key, table) = self.binding(exchange);
        Step::Bind {
            on,
            queue: self.queue(),
            exchange,
            key,
            table,
        }
    }

    fn unbind(&mut self, on: u8) -> Step {
        let exchange = self.exchange(true);
        let (key, table) = self.binding(exchange);
        Step::Unbind {
            on,
            queue: self.queue(),
            exchange,
            key,
            table,
        }
    }

    fn bind_exchange(&mut self, on: u8) -> Step {
        let source = self.exchange(true);
        let (key, table) = self.binding(source);
        Step::BindExchange {
            on,
            destination: self.own_exchange(),
            source,
            key,
            table,
        }
    }

    fn unbind_exchange(&mut self, on: u8) -> Step {
        let source = self.exchange(true);
        let (key, table) = self.binding(source);
        Step::UnbindExchange {
            on,
            destination: self.own_exchange(),
            source,
            key,
            table,
        }
    }

    /// As [`exchange`](Self::exchange), but none that others use: a binding to it would stay.
    fn own_exchange(&mut self) -> Exchange {
        match self.exchange(true) {
            Exchange::Direct => Exchange::Own(0),
            exchange => exchange,
        }
    }

    fn publish(&mut self, on: u8) -> Step {
        let exchange = self.exchange(false);
        let key = self.key(exchange, &KEYS);
        let traits = Traits {
            headers: if self.random.percent(50) {
                self.random.small(HEADERS)
            } else {
                0
            },
            priority: if self.random.percent(15) {
                Some(self.random.pick(&[0, 1, 2, 4, 9, 200]))
            } else {
                None
            },
            expiration: if self.random.percent(6) {
                Some(self.random.pick(&["0", "3600000", "3600000", "soon", "-1"]))
            } else {
                None
            },
            cc: self.copy(),
            bcc: self.copy(),
            user_id: if self.random.percent(3) {
                Some(self.random.pick(&["guest", "guest", "nobody"]))
            } else {
                None
            },
            padding: if self.random.percent(5) {
                self.random.pick(&[50, 5000])
            } else {
                0
            },
        };
        Step::Publish {
            on,
            exchange,
            key,
            mandatory: self.random.percent(40),
            count: self.random.pick(&[1, 1, 1, 2, 3, 5]),
            traits,
        }
    }

    fn copy(&mut self) -> Option<Key> {
        if !self.random.percent(4) {
            return None;
        }
        Some(if self.random.percent(70) {
            Key::Queue(self.queue())
        } else {
            Key::Text(self.random.pick(&KEYS))
        })
    }

    fn consume(&mut self, on: u8) -> Step {
        let tag = self.random.small(TAGS);
        Step::Consume {
            on,
            queue: self.queue(),
            tag,
            no_ack: self.random.percent(25),
            exclusive: self.random.percent(7),
            priority: if self.random.percent(12) {
                Some(self.random.pick(&[-1, 0, 1, 10]))
            } else {
                None
            },
        }
    }

    fn cancel(&mut self, on: u8) -> Step {
        let (on, tag) = self.consumer(on);
        Step::Cancel { on, tag }
    }

    fn delete(&mut self, on: u8) -> Step {
        let queue = self.queue();
        let (if_unused, if_empty) = (self.random.percent(30), self.random.percent(30));
        Step::DeleteQueue {
            on,
            queue,
            if_unused,
            if_empty,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_one_program() {
        assert_eq!(generate(7, 30), generate(7, 30));
        assert_ne!(generate(7, 30).steps, generate(8, 30).steps);
        assert_eq!(generate(7, 30).steps.len(), 30);
    }
}

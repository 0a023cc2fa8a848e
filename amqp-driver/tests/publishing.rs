//! A publisher on a scripted server: the outcome of each message is the server's.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use amqp_driver::{
    ConfirmChannel, Connection, Error,
    core::{CloseCause, TimeoutReason},
    protocol::{ReplyCode, basic},
    publishing::{
        Acknowledgements, NotPublishedReason, Outcome, OutgoingMessage, Publisher,
        PublisherOptions, Window,
    },
    wire::FieldTable,
};
use amqp_test_support::{Confirming, Cut, Message, Rig, Setup};
use bytes::Bytes;

/// A mandatory message with a key of its own.
fn message(number: usize) -> OutgoingMessage {
    let body = number.to_string();
    let to = basic::Publish::default().routing_key(&*body);
    OutgoingMessage::new(to.mandatory(true), body)
}

fn publisher(channel: &ConfirmChannel) -> Publisher {
    Publisher::new(channel.clone(), PublisherOptions::default())
}

/// Publishes many messages while the server confirms them, and checks that each outcome is there, in
/// order, and that no more are in flight than the window allows.
#[test]
fn publish_many_yields_every_outcome_in_order() {
    let (mut rig, connection, channel) = Rig::with_confirms();
    rig.peer().confirming = Confirming::ByBody;
    let window = Window {
        messages: 7,
        bytes: 1 << 20,
    };
    let publisher = Publisher::new(channel, PublisherOptions::default().window(window));
    let body = |number: usize| match number % 5 {
        0 => format!("n{number}"),
        3 => format!("r{number}"),
        _ => format!("a{number}"),
    };
    let messages = (0..500).map(|number| {
        let to = basic::Publish::default().routing_key(body(number));
        OutgoingMessage::new(to.mandatory(true), body(number))
    });
    let seen = publisher.clone();
    let outcomes = rig.wait(async move {
        let mut many = publisher.publish_many(messages);
        let mut outcomes = Vec::new();
        while let Some(outcome) = many.next().await {
            assert!(publisher.in_flight() <= 7);
            outcomes.push(outcome);
        }
        outcomes
    });
    assert_eq!(outcomes.len(), 500);
    for (number, outcome) in outcomes.iter().enumerate() {
        match (number % 5, outcome) {
            (0, Outcome::Nacked) | (1 | 2 | 4, Outcome::Acked) => {}
            (3, Outcome::Returned(returned)) => assert_eq!(returned.body, body(number).as_str()),
            other => panic!("{number}: {other:?}"),
        }
    }
    assert_eq!((seen.in_flight(), seen.bytes_in_flight()), (0, 0));
    drop(seen);
    rig.finish(connection);
}

/// Given a server that confirms nothing, then each message ends at its own time, or at that of the
/// publisher, and the channel lives on.
#[test]
fn a_confirm_that_never_comes_ends_too() {
    let (mut rig, connection, channel) = Rig::with_confirms();
    let options = PublisherOptions::default().confirm_timeout(Duration::from_secs(20));
    let publisher = Publisher::new(channel, options);
    let short = message(1).confirm_timeout(Duration::from_secs(2));
    let receipts = [short, message(2)].map(|message| rig.wait(publisher.publish(message)));
    let [first, second] = receipts.map(|receipt| rig.spawn(receipt));
    rig.advance(Duration::from_secs(1));
    assert!(!first.is_done() && publisher.in_flight() == 2);
    rig.advance(Duration::from_secs(2));
    let late = CloseCause::TimedOut(TimeoutReason::Confirm).into();
    assert_eq!(first.take(), Some(Outcome::Unknown(late)));
    assert!(!second.is_done() && publisher.in_flight() == 1);
    rig.advance(Duration::from_secs(20));
    assert!(matches!(second.take(), Some(Outcome::Unknown(_))));
    rig.wait(publisher.settled());
    let third = rig.wait(publisher.publish(message(3)));
    rig.peer().ack(1, 3, true);
    assert_eq!(rig.wait(third), Outcome::Acked);
    drop(publisher);
    rig.finish(connection);
}

/// Given a server that does not read, then messages wait, and come back when the channel ends.
#[test]
fn a_message_without_room_comes_back() {
    let (mut rig, connection, channel) = Rig::with_confirms();
    let publisher = publisher(&channel);
    rig.world().set_capacity(0);
    let large = OutgoingMessage::new(basic::Publish::default(), vec![1; 400_000]);
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let (publisher, large) = (publisher.clone(), large.clone());
        waiting.push(rig.spawn(async move { publisher.publish(large).await.await }));
    }
    rig.run();
    let refused = publisher.try_publish(large.clone());
    let refused = refused.expect_err("there is no room");
    assert!(matches!(refused.reason, NotPublishedReason::HeldBack(_)));
    assert_eq!(*refused.message, large);
    rig.world().cut(Cut::Eof);
    rig.run();
    let outcomes: Vec<_> = waiting.iter().filter_map(|task| task.take()).collect();
    assert_eq!(outcomes.len(), 3);
    let unsent = |outcome: &&Outcome| match outcome {
        Outcome::NotSent { message, cause } => {
            assert!(matches!(cause, Error::ConnectionClosed(_)));
            **message == large
        }
        _ => false,
    };
    assert_eq!(outcomes.iter().filter(unsent).count(), 2, "{outcomes:?}");
    assert_eq!(publisher.in_flight(), 0);
    let refused = publisher.try_publish(message(1)).expect_err("it is closed");
    assert!(matches!(refused.reason, NotPublishedReason::Failed(_)));
    drop((publisher, channel, connection));
}

/// Without acknowledgements, a message is done when it is accepted.
#[test]
fn without_acknowledgements_nothing_is_awaited() {
    let (mut rig, connection, channel) = Rig::with_channel();
    let options = PublisherOptions::default();
    let publisher = rig.wait(Publisher::open(channel, Acknowledgements::Off, options));
    let publisher = publisher.unwrap();
    assert!(!publisher.has_confirms());
    let receipt = rig.wait(publisher.publish(message(1)));
    assert_eq!(publisher.in_flight(), 0);
    assert_eq!(rig.ready(receipt), Some(Outcome::Unacknowledged));
    let receipt = publisher.try_publish(message(2)).unwrap();
    assert_eq!(rig.wait(receipt), Outcome::Unacknowledged);
    drop(publisher);
    rig.finish(connection);
}

/// PUK-44. As the server can: it confirms if it has announced so.
#[test]
fn the_capability_of_the_server_decides() {
    for capable in [false, true] {
        let mut setup = Setup::default();
        let capabilities = FieldTable::new().with("publisher_confirms", capable);
        let properties = FieldTable::new().with("capabilities", capabilities);
        setup.server.properties = properties;
        let (mut rig, connection) = Rig::open_with(setup);
        let channel = rig.channel(&connection);
        let options = PublisherOptions::default();
        let opening = Publisher::open(channel, Acknowledgements::IfSupported, options);
        let publisher = rig.wait(opening).unwrap();
        assert_eq!(publisher.has_confirms(), capable);
        let receipt = rig.wait(publisher.publish(message(1)));
        let expected = match capable {
            true => Outcome::Acked,
            false => Outcome::Unacknowledged,
        };
        assert_eq!(rig.wait(receipt), expected);
        drop(publisher);
        rig.finish(connection);
    }
}

/// A body may use the publisher when it is dropped: no lock is held then.
#[test]
fn bodies_are_dropped_without_the_lock() {
    struct Owner(Publisher, Arc<AtomicUsize>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            b"body"
        }
    }
    impl Drop for Owner {
        fn drop(&mut self) {
            assert!(self.0.in_flight() < 3);
            self.1.fetch_add(1, SeqCst);
        }
    }
    let (mut rig, connection, channel) = Rig::with_confirms();
    let publisher = publisher(&channel);
    let dropped = Arc::default();
    let message = || {
        let owner = Owner(publisher.clone(), Arc::clone(&dropped));
        OutgoingMessage::new(basic::Publish::default(), Bytes::from_owner(owner))
    };
    // One receipt is dropped before, one after the confirm, and one is awaited.
    drop(rig.wait(publisher.publish(message())));
    let receipts = [(); 2].map(|()| rig.wait(publisher.publish(message())));
    rig.run();
    rig.peer().ack(1, 3, true);
    rig.run();
    assert_eq!(publisher.in_flight(), 0);
    let [left, awaited] = receipts;
    drop(left);
    assert_eq!(rig.wait(awaited), Outcome::Acked);
    assert_eq!(dropped.load(SeqCst), 3);
    drop((publisher, channel));
    rig.finish(connection);
}

/// Given a message that is not confirmed, then the bodies of those behind it that are do not stay in
/// memory until their receipts are taken.
#[test]
fn a_confirmed_message_gives_its_body_up() {
    struct Owner(Arc<AtomicUsize>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            b"body"
        }
    }
    impl Drop for Owner {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let (mut rig, connection, channel) = Rig::with_confirms();
    rig.peer().confirming = Confirming::ByHand;
    let publisher = publisher(&channel);
    let dropped = Arc::<AtomicUsize>::default();
    let receipts = [(); 3].map(|()| {
        let body = Bytes::from_owner(Owner(Arc::clone(&dropped)));
        let message = OutgoingMessage::new(basic::Publish::default(), body);
        rig.wait(publisher.publish(message))
    });
    rig.run();
    assert_eq!(dropped.load(SeqCst), 0);
    rig.peer().ack(1, 2, false);
    rig.peer().ack(1, 3, false);
    rig.run();
    assert_eq!((dropped.load(SeqCst), publisher.in_flight()), (2, 1));
    rig.peer().ack(1, 1, false);
    for receipt in receipts {
        assert_eq!(rig.wait(receipt), Outcome::Acked);
    }
    drop((publisher, channel));
    rig.finish(connection);
}

/// A panic of the destructor of a body does not stop the publisher.
#[test]
fn a_body_may_panic_when_it_is_dropped() {
    struct Owner;
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            b"body"
        }
    }
    impl Drop for Owner {
        fn drop(&mut self) {
            panic!("the test asks for it");
        }
    }
    let (mut rig, connection, channel) = Rig::with_confirms();
    rig.peer().confirming = Confirming::ByHand;
    let publisher = publisher(&channel);
    let bomb = || OutgoingMessage::new(basic::Publish::default(), Bytes::from_owner(Owner));
    drop(rig.wait(publisher.publish(bomb())));
    let kept = rig.wait(publisher.publish(bomb()));
    let last = rig.wait(publisher.publish(message(3)));
    rig.run();
    rig.peer().ack(1, 3, true);
    assert_eq!(rig.wait(last), Outcome::Acked);
    assert_eq!(rig.wait(kept), Outcome::Acked);
    drop((publisher, channel));
    rig.finish(connection);
}

/// A loop that only publishes yields, so that the driver runs.
#[test]
fn a_loop_of_publishes_yields() {
    let (mut rig, connection, channel) = Rig::with_channel();
    let options = PublisherOptions::default();
    let publisher = rig.wait(Publisher::open(channel, Acknowledgements::Off, options));
    let publisher = publisher.unwrap();
    let publishing = publisher.clone();
    let task = rig.spawn(async move {
        for number in 0..20_000 {
            publishing.publish(message(number)).await.await;
        }
    });
    let before = rig.steps;
    rig.run();
    assert!(task.is_done() && rig.steps - before > 10);
    drop(publisher);
    rig.finish(connection);
}

/// The server's treatment of a message that it has received.
#[derive(Clone, Copy, Debug, Default)]
struct Verdict {
    acked: bool,
    nacked: bool,
    returned: bool,
}

/// Random publishes, acks, nacks, `multiple`, returns, and the death of the channel or the
/// connection: each message has exactly one outcome, which is that of the server, and none is
/// confirmed that the server has not.
#[test]
fn random_confirms() {
    for seed in 1..=400 {
        Run::new(seed).run();
    }
}

struct Run {
    rig: Rig,
    connection: Connection,
    publisher: Publisher,
    random: u64,
    seed: u64,
    outcomes: Rc<RefCell<BTreeMap<usize, Outcome>>>,
    published: usize,
    cancelled: BTreeSet<usize>,
    verdicts: BTreeMap<usize, Verdict>,
    /// The messages that the server has received on the channel, by sequence number.
    settled: BTreeSet<u64>,
    /// Returns and confirms come in the order of routing.
    returned_up_to: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let setup = Setup {
            seed: Some(seed),
            ..Setup::default()
        };
        let (mut rig, connection) = Rig::open_with(setup);
        let channel = rig.confirm_channel(&connection);
        rig.peer().confirming = Confirming::ByHand;
        let window = Window {
            messages: 1 + usize::try_from(seed % 9).unwrap(),
            bytes: 2000 + usize::try_from(seed % 7).unwrap() * 1000,
        };
        let options = PublisherOptions::default().window(window);
        Self {
            rig,
            connection,
            publisher: Publisher::new(channel, options),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            seed,
            outcomes: Rc::default(),
            published: 0,
            cancelled: BTreeSet::new(),
            verdicts: BTreeMap::new(),
            settled: BTreeSet::new(),
            returned_up_to: 0,
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    fn run(mut self) {
        for _ in 0..80 {
            match self.below(10) {
                0..=4 => self.publish(),
                5..=7 => self.confirm(),
                8 => self.return_one(),
                _ => self.rig.run(),
            }
            for _ in 0..self.below(6) {
                self.rig.step();
            }
        }
        match self.below(4) {
            0 => self
                .rig
                .peer()
                .close_channel(1, ReplyCode::NOT_FOUND, "gone"),
            1 => self.rig.world().cut(Cut::Eof),
            _ => {
                // The server confirms the rest.
                while self.outcomes.borrow().len() + self.cancelled.len() < self.published {
                    self.rig.run();
                    self.confirm();
                }
            }
        }
        self.rig.run();
        self.check();
    }

    fn publish(&mut self) {
        self.published += 1;
        let number = self.published;
        let (publisher, outcomes) = (self.publisher.clone(), Rc::clone(&self.outcomes));
        let task = self.rig.spawn(async move {
            let outcome = publisher.publish(message(number)).await.await;
            let twice = outcomes.borrow_mut().insert(number, outcome);
            assert!(twice.is_none());
        });
        if self.below(12) == 0 {
            // Dropped at once, or after some steps.
            for _ in 0..self.below(4) {
                self.rig.step();
            }
            if !task.is_done() {
                self.rig.cancel(&task);
                self.cancelled.insert(number);
            }
        }
    }

    /// The messages that the server has and has not confirmed.
    fn open(&self) -> Vec<Message> {
        let mut messages = self.rig.peer().messages();
        messages.retain(|it| !self.settled.contains(&it.seq.unwrap().get()));
        messages
    }

    /// Confirms a message, or all up to it.
    fn confirm(&mut self) {
        let open = self.open();
        if open.is_empty() {
            return;
        }
        let last = usize::try_from(self.below(open.len() as u64)).unwrap();
        let multiple = self.below(2) == 0;
        let nacks = self.below(4) == 0;
        let seq = open[last].seq.unwrap().get();
        let first = if multiple { 0 } else { last };
        for message in &open[first..=last] {
            let number = String::from_utf8(message.body.to_vec()).unwrap();
            let verdict = self.verdicts.entry(number.parse().unwrap()).or_default();
            verdict.acked |= !nacks;
            verdict.nacked |= nacks;
            self.settled.insert(message.seq.unwrap().get());
        }
        match nacks {
            true => self.rig.peer().nack(1, seq, multiple),
            false => self.rig.peer().ack(1, seq, multiple),
        }
    }

    fn return_one(&mut self) {
        let mut open = self.open();
        open.retain(|it| it.seq.unwrap().get() > self.returned_up_to);
        if let Some(message) = open.first() {
            self.returned_up_to = message.seq.unwrap().get();
            let number = String::from_utf8(message.body.to_vec()).unwrap();
            let verdict = self.verdicts.entry(number.parse().unwrap()).or_default();
            verdict.returned = true;
            self.rig.peer().return_message(1, message);
        }
    }

    fn check(self) {
        let seed = self.seed;
        let outcomes = self.outcomes.take();
        let number_of = |it: &Message| String::from_utf8(it.body.to_vec()).unwrap().parse();
        let messages = self.rig.peer().messages();
        let received: BTreeSet<usize> = messages.iter().map(|it| number_of(it).unwrap()).collect();
        for number in 1..=self.published {
            let verdict = self.verdicts.get(&number).copied().unwrap_or_default();
            let Some(outcome) = outcomes.get(&number) else {
                assert!(self.cancelled.contains(&number), "seed {seed}: {number}");
                continue;
            };
            let is_true = match outcome {
                Outcome::Acked => verdict.acked && !verdict.returned,
                Outcome::Returned(returned) => {
                    verdict.returned && returned.body == number.to_string().as_str()
                }
                Outcome::Nacked => verdict.nacked,
                Outcome::NotSent { message: back, .. } => {
                    !received.contains(&number) && **back == message(number)
                }
                Outcome::Unknown(_) => !self.publisher.channel().is_open(),
                _ => false,
            };
            assert!(is_true, "seed {seed}: {number} {outcome:?} {verdict:?}");
        }
        assert_eq!(self.publisher.in_flight(), 0, "seed {seed}");
        drop((self.publisher, self.connection));
    }
}

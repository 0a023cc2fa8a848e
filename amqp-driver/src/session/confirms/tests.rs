//! The ring of confirms, against a plain map.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Wake,
};

use amqp_core::{CloseCause, CloseReason, EncodedProperties, TimeoutReason, protocol::ReplyCode};
use proptest::{collection::vec as list, prelude::*};

use super::*;

/// A position among the publishes: from the first, from the last, or a number as it is.
#[derive(Clone, Copy, Debug)]
enum At {
    Front(u64),
    Back(u64),
    Exactly(u64),
}

#[derive(Clone, Debug)]
enum Step {
    Expect {
        count: usize,
        tracked: bool,
    },
    Take(At),
    /// Takes from the front on.
    TakeMany(At, u64),
    Wait(At),
    Abandon(At),
    AbandonMany(At, u64),
    KeepReturned(At, usize),
    KeepPossiblyReturned(At, usize),
    Settle(At, At, Outcome),
}

fn any_at() -> impl Strategy<Value = At> {
    prop_oneof![
        8 => (0u64..12).prop_map(At::Front),
        8 => (0u64..12).prop_map(At::Back),
        2 => (0u64..10_000).prop_map(At::Front),
        1 => prop_oneof![Just(0), Just(u64::MAX), Just(u64::MAX - 1)].prop_map(At::Exactly),
    ]
}

/// The number of the channel.
const CHANNEL: u16 = 1;

fn reason() -> CloseReason {
    CloseCause::TimedOut(TimeoutReason::Confirm).into()
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        6 => Just(Outcome::Acked),
        2 => Just(Outcome::PossiblyReturned),
        2 => Just(Outcome::Nacked),
        1 => Just(Outcome::NotSent(reason())),
        1 => Just(Outcome::Unknown(reason())),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let expect = |count, tracked| Step::Expect { count, tracked };
    prop_oneof![
        6 => (1usize..5, prop::bool::weighted(0.8)).prop_map(move |(count, tracked)| expect(count, tracked)),
        1 => (SLOTS_MAX - 3..SLOTS_MAX + 8, any::<bool>()).prop_map(move |(count, tracked)| expect(count, tracked)),
        6 => any_at().prop_map(Step::Take),
        2 => (any_at(), 1u64..10_000).prop_map(|(at, count)| Step::TakeMany(at, count)),
        6 => any_at().prop_map(Step::Wait),
        4 => any_at().prop_map(Step::Abandon),
        1 => (any_at(), 1u64..10_000).prop_map(|(at, count)| Step::AbandonMany(at, count)),
        4 => (any_at(), 0usize..9).prop_map(|(at, len)| Step::KeepReturned(at, len)),
        4 => (any_at(), 0usize..9).prop_map(|(at, len)| Step::KeepPossiblyReturned(at, len)),
        8 => (any_at(), any_at(), any_outcome()).prop_map(|(from, to, outcome)| Step::Settle(from, to, outcome)),
        3 => (any_at(), any_outcome()).prop_map(|(at, outcome)| Step::Settle(at, at, outcome)),
    ]
}

/// A waker that counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A publish.
#[derive(Default)]
struct Publish {
    /// A future may still take the outcome.
    has_future: bool,
    waker: Option<Arc<Count>>,
    /// The returned message, and whether it is certain.
    returned: Option<(ReturnedMessage, bool)>,
    outcome: Option<Result<(), Unconfirmed>>,
    is_settled: bool,
}

/// The publishes, all of them.
#[derive(Default)]
struct Model {
    publishes: BTreeMap<u64, Publish>,
    /// The wakers that were stored.
    wakers: Vec<Arc<Count>>,
}

impl Model {
    fn last(&self) -> u64 {
        self.publishes.len() as u64
    }

    /// The first publish with a future or without an outcome.
    fn first(&self) -> u64 {
        let needed = |it: &Publish| it.has_future || !it.is_settled;
        let found = self.publishes.iter().find(|(_, it)| needed(it));
        found.map_or(1, |(seq, _)| *seq)
    }

    fn seq(&self, at: At) -> u64 {
        match at {
            At::Front(by) => self.first() + by,
            // One may be beyond the last.
            At::Back(by) => (self.last() + 1).saturating_sub(by),
            At::Exactly(seq) => seq,
        }
    }

    fn waiting(&mut self, seq: u64) -> Option<&mut Publish> {
        let waits = |it: &&mut Publish| it.has_future && !it.is_settled;
        self.publishes.get_mut(&seq).filter(waits)
    }

    fn take(&mut self, seq: u64) -> Poll<Result<(), Unconfirmed>> {
        let Some(publish) = self.publishes.get_mut(&seq) else {
            return Poll::Pending;
        };
        let Some(outcome) = publish.outcome.take() else {
            return Poll::Pending;
        };
        publish.has_future = false;
        Poll::Ready(outcome)
    }

    /// Returns the wakers that are woken.
    fn settle(&mut self, run: RangeInclusive<u64>, outcome: &Outcome) -> Vec<Arc<Count>> {
        let mut woken = Vec::new();
        if run.is_empty() {
            return woken;
        }
        for publish in self.publishes.range_mut(run).map(|(_, it)| it) {
            if std::mem::replace(&mut publish.is_settled, true) {
                continue;
            }
            let returned = publish.returned.take();
            woken.extend(publish.waker.take());
            if !publish.has_future {
                continue;
            }
            publish.outcome = Some(match (outcome, returned) {
                (Outcome::Nacked, _) => Err(Unconfirmed::Nacked { channel: CHANNEL }),
                (_, Some((message, true))) => Err(Unconfirmed::Returned(message.into())),
                (Outcome::PossiblyReturned, returned) => {
                    let message = returned.map(|(message, _)| message.into());
                    Err(Unconfirmed::PossiblyReturned(message))
                }
                (Outcome::Acked, _) => Ok(()),
                (Outcome::NotSent(reason), _) => Err(Unconfirmed::NotSent(reason.clone())),
                (Outcome::Unknown(reason), _) => Err(Unconfirmed::Unknown(reason.clone())),
            });
        }
        woken
    }

    fn awaited(&self) -> usize {
        let wakers = self.publishes.values().map(|it| it.waker.as_ref());
        wakers.flatten().count()
    }

    fn returned(&self) -> usize {
        let bytes = |it: &Publish| {
            let kept = it.returned.as_ref().map(|(message, _)| message);
            let settled = it.outcome.as_ref().and_then(returned_in);
            kept.into_iter()
                .chain(settled)
                .map(ReturnedMessage::memory)
                .sum::<usize>()
        };
        self.publishes.values().map(bytes).sum()
    }
}

/// A message with a body of that many bytes.
fn message(len: usize) -> ReturnedMessage {
    ReturnedMessage {
        channel: CHANNEL,
        code: ReplyCode::NO_ROUTE,
        text: "NO_ROUTE".try_into().unwrap(),
        exchange: "".try_into().unwrap(),
        routing_key: "nowhere".try_into().unwrap(),
        encoded_properties: EncodedProperties::default(),
        body: vec![b'x'; len].into(),
        body_omitted: false,
    }
}

/// The ring and the model, which get the same operations.
#[derive(Default)]
struct Both {
    confirms: Confirms,
    totals: Totals,
    model: Model,
}

impl Both {
    fn expect(&mut self, tracked: bool) {
        self.confirms.expect(tracked);
        let seq = self.model.last() + 1;
        let publish = Publish {
            has_future: tracked,
            ..Publish::default()
        };
        self.model.publishes.insert(seq, publish);
    }

    fn take(&mut self, seq: u64) {
        let taken = self.confirms.take(seq, &mut self.totals);
        assert_eq!(taken, self.model.take(seq), "the outcome of {seq}");
    }

    fn wait(&mut self, seq: u64) {
        let waker = Arc::<Count>::default();
        let mut later = Later::default();
        let stored = Waker::from(Arc::clone(&waker));
        self.confirms
            .wait(seq, &mut self.totals, stored, &mut later);
        later.run();
        if let Some(publish) = self.model.waiting(seq) {
            publish.waker = Some(Arc::clone(&waker));
        }
        self.model.wakers.push(waker);
    }

    fn abandon(&mut self, seq: u64) {
        let mut later = Later::default();
        self.confirms.abandon(seq, &mut self.totals, &mut later);
        later.run();
        if let Some(publish) = self.model.publishes.get_mut(&seq) {
            publish.has_future = false;
            publish.waker = None;
            publish.returned = None;
            publish.outcome = None;
        }
    }

    fn keep_returned(&mut self, seq: u64, message: ReturnedMessage) {
        let kept = self
            .confirms
            .keep_returned(seq, message.clone(), &mut self.totals);
        match self.model.waiting(seq) {
            Some(publish) => {
                publish.returned = Some((message, true));
                assert_eq!(kept, Ok(()));
            }
            None => assert_eq!(kept, Err(message)),
        }
    }

    fn keep_possibly_returned(&mut self, seq: u64, message: ReturnedMessage) {
        self.confirms
            .keep_possibly_returned(seq, &message, &mut self.totals);
        if let Some(publish) = self.model.waiting(seq)
            && !matches!(publish.returned, Some((_, true)))
        {
            publish.returned = Some((message, false));
        }
    }

    fn settle(&mut self, run: RangeInclusive<u64>, outcome: &Outcome) {
        let mut later = Later::default();
        self.confirms.settle(
            run.clone(),
            (CHANNEL, outcome),
            &mut self.totals,
            &mut later,
        );
        later.run();
        for waker in self.model.settle(run, outcome) {
            assert_eq!(waker.0.swap(0, Ordering::Relaxed), 1, "woken once");
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Expect { count, tracked } => {
                (0..count).for_each(|_| self.expect(tracked));
                // Sweeps, which a publish leaves to the next outcome. There is no publish 0.
                self.abandon(0);
            }
            Step::Take(at) => self.take(self.model.seq(at)),
            Step::TakeMany(at, count) => {
                let first = self.model.seq(at);
                (first..first.saturating_add(count)).for_each(|seq| self.take(seq));
            }
            Step::Wait(at) => self.wait(self.model.seq(at)),
            Step::Abandon(at) => self.abandon(self.model.seq(at)),
            Step::AbandonMany(at, count) => {
                let first = self.model.seq(at);
                (first..first.saturating_add(count)).for_each(|seq| self.abandon(seq));
            }
            Step::KeepReturned(at, len) => self.keep_returned(self.model.seq(at), message(len)),
            Step::KeepPossiblyReturned(at, len) => {
                self.keep_possibly_returned(self.model.seq(at), message(len));
            }
            Step::Settle(from, to, outcome) => {
                self.settle(self.model.seq(from)..=self.model.seq(to), &outcome);
            }
        }
        self.check();
    }

    /// Checks the sums, the wakers and the memory.
    fn check(&mut self) {
        let model = &mut self.model;
        assert_eq!(self.totals.awaited, model.awaited());
        assert_eq!(self.totals.returned, model.returned());
        let stored = |waker: &Arc<Count>| Arc::strong_count(waker) > 1;
        model.wakers.retain(stored);
        assert_eq!(model.wakers.len(), model.awaited(), "others are dropped");
        for waker in &model.wakers {
            // The list, the publish and the ring.
            assert_eq!(Arc::strong_count(waker), 3);
            assert_eq!(waker.0.load(Ordering::Relaxed), 0, "woken too early");
        }

        let returned = model.publishes.values().filter(|it| it.returned.is_some());
        assert_eq!(self.confirms.returned.len(), returned.count());
        let first = self.confirms.first;
        let is_beside = |(seq, publish): &(&u64, &Publish)| match publish.outcome {
            Some(Ok(())) => **seq < first,
            Some(Err(_)) => true,
            None => false,
        };
        let beside = model.publishes.iter().filter(is_beside).count();
        assert_eq!(self.confirms.outcomes.len(), beside);

        // The ring begins with the first publish that needs a slot.
        let front = self.confirms.slots.front();
        let is_long = self.confirms.slots.len() > SLOTS_MAX;
        match front {
            Some(Slot::Waiting(_) | Slot::Abandoned) => {}
            Some(Slot::Acked | Slot::Failed) => assert!(!is_long),
            Some(Slot::Taken) => panic!("the front is taken"),
            None => assert_eq!(first, model.last() + 1),
        }
        assert_eq!(
            first + self.confirms.slots.len() as u64,
            model.last() + 1,
            "a slot for each publish from the first on"
        );
    }

    /// Settles all publishes, and takes or abandons each outcome. Nothing stays.
    fn finish(mut self, abandons: bool) {
        self.settle(1..=self.model.last(), &Outcome::Acked);
        self.check();
        for seq in 1..=self.model.last() {
            if abandons {
                self.abandon(seq);
            } else {
                self.take(seq);
            }
        }
        self.check();
        assert!(self.confirms.slots.is_empty());
        assert!(self.confirms.outcomes.is_empty() && self.confirms.returned.is_empty());
        assert_eq!((self.totals.awaited, self.totals.returned), (0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn outcomes_are_those_of_a_map(steps in list(any_step(), 0..60), abandons in any::<bool>()) {
        let mut both = Both::default();
        for step in steps {
            both.step(step);
        }
        both.finish(abandons);
    }
}

#[test]
fn a_publish_is_alone_after_one_that_was() {
    let mut confirms = Confirms::default();
    let (mut totals, mut later) = (Totals::default(), Later::default());
    let mut batch = |confirms: &mut Confirms, numbers: RangeInclusive<u64>| {
        let alone = confirms.is_alone();
        for _ in numbers.clone() {
            confirms.expect(true);
            assert!(!confirms.is_alone(), "one is in flight");
        }
        let acked = (CHANNEL, &Outcome::Acked);
        confirms.settle(numbers.clone(), acked, &mut totals, &mut later);
        for number in numbers {
            assert!(confirms.take(number, &mut totals).is_ready());
        }
        alone
    };
    assert!(batch(&mut confirms, 1..=1));
    assert!(batch(&mut confirms, 2..=2));
    assert!(batch(&mut confirms, 3..=5));
    assert!(!batch(&mut confirms, 6..=8), "the first of another batch");
    assert!(!batch(&mut confirms, 9..=9));
    assert!(batch(&mut confirms, 10..=10));
    later.run();
}

//! The engine on a scripted channel that is lost and comes back, against a plain record.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use amqp_core::{Body, CloseCause, CloseReason, Hold, Stage, TimeoutReason, protocol::basic};

use super::{
    engine::{Engine, Publishing, Receipt},
    message::OutgoingMessage,
    options::{PublisherOptions, Republish, Window},
    outcome::{NotPublishedReason, Outcome},
    target::{Boxed, Sent, Target},
};
use crate::{
    error::{Error, TryPublishError},
    session::budget::Budget,
    unconfirmed::Unconfirmed,
};

/// A channel that a test answers on, loses and recovers.
#[derive(Clone, Default)]
struct Line(Arc<Mutex<Wire>>);

#[derive(Default)]
struct Wire {
    /// Publishes wait, as while a connection recovers.
    is_down: bool,
    /// The number of messages that are accepted before others wait. `None` for all.
    room: Option<usize>,
    dead: Option<Error>,
    /// Everything that was accepted, in order, with the number of losses before.
    sent: Vec<(usize, OutgoingMessage)>,
    losses: usize,
    /// The publishes without an answer that was taken, by their place in `sent`.
    answers: BTreeMap<usize, Answering>,
    waiting: Vec<Waker>,
}

#[derive(Default)]
struct Answering {
    answer: Option<Result<(), Unconfirmed>>,
    waker: Option<Waker>,
}

struct Answer(Line, usize);

impl Line {
    fn lock(&self) -> MutexGuard<'_, Wire> {
        self.0.try_lock().expect("no lock is held over a wake-up")
    }

    fn accept(&self, message: &OutgoingMessage) -> Result<Sent<Answer>, TryPublishError> {
        let mut wire = self.lock();
        if let Some(error) = &wire.dead {
            return Err(TryPublishError::Failed(error.clone()));
        }
        if wire.is_down || wire.room == Some(0) {
            return Err(TryPublishError::HeldBack {
                hold: Hold::OutputFull,
                body: message.body.clone(),
            });
        }
        if let Some(room) = &mut wire.room {
            *room -= 1;
        }
        let (losses, at) = (wire.losses, wire.sent.len());
        wire.sent.push((losses, message.clone()));
        wire.answers.insert(at, Answering::default());
        drop(wire);
        Ok(Sent::Confirming(Answer(self.clone(), at)))
    }

    fn unanswered(&self) -> Vec<usize> {
        let wire = self.lock();
        let waits = wire.answers.iter().filter(|(_, it)| it.answer.is_none());
        waits.map(|(at, _)| *at).collect()
    }

    fn answer(&self, at: usize, answer: Result<(), Unconfirmed>) {
        let waker = {
            let mut wire = self.lock();
            let answering = wire.answers.get_mut(&at).expect("it waits");
            answering.answer = Some(answer);
            answering.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Loses the connection. The last `unsent` publishes had not left. Returns the others, which may
    /// have arrived.
    fn lose(&self, unsent: usize) -> Vec<usize> {
        {
            let mut wire = self.lock();
            wire.is_down = true;
            wire.losses += 1;
        }
        let unanswered = self.unanswered();
        let left = unanswered.len().saturating_sub(unsent);
        for (index, at) in unanswered.iter().copied().enumerate() {
            let failure = if index < left {
                Unconfirmed::Unknown(lost())
            } else {
                Unconfirmed::NotSent(lost())
            };
            self.answer(at, Err(failure));
        }
        unanswered[..left].to_vec()
    }

    /// Makes room for so many more messages, which the next attempt finds.
    fn set_room(&self, room: Option<usize>) {
        self.lock().room = room;
    }

    fn recover(&self) {
        self.lock().is_down = false;
        self.wake_waiting();
    }

    fn die(&self) -> Vec<usize> {
        let lost_here = self.lose(0);
        self.lock().dead = Some(Error::ConnectionClosed(lost()));
        self.wake_waiting();
        lost_here
    }

    fn wake_waiting(&self) {
        let waiting = mem::take(&mut self.lock().waiting);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// The bodies of the messages that were accepted, in order.
    fn bodies(&self) -> Vec<String> {
        let wire = self.lock();
        let body = |it: &(usize, OutgoingMessage)| text(&it.1.body);
        wire.sent.iter().map(body).collect()
    }
}

fn text(body: &Body) -> String {
    String::from_utf8(body.to_vec()).expect("text")
}

fn lost() -> CloseReason {
    let stage = Stage::Open;
    CloseCause::Eof { stage }.into()
}

impl Target for Line {
    type Answer = Answer;

    fn try_publish(
        &self,
        message: &OutgoingMessage,
        _confirm_timeout: Option<Duration>,
    ) -> Result<Sent<Answer>, TryPublishError> {
        self.accept(message)
    }

    fn publish(
        &self,
        message: OutgoingMessage,
        _confirm_timeout: Option<Duration>,
    ) -> Boxed<Result<Sent<Answer>, Error>> {
        let line = self.clone();
        Box::pin(std::future::poll_fn(move |cx| {
            match line.accept(&message) {
                Ok(sent) => Poll::Ready(Ok(sent)),
                Err(TryPublishError::Failed(error)) => Poll::Ready(Err(error)),
                Err(TryPublishError::HeldBack { .. }) => {
                    line.lock().waiting.push(cx.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }

    fn poll_proceed(&self, _: &Budget, _: &Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn patience(&self) -> Boxed<()> {
        Box::pin(std::future::pending())
    }

    fn number(&self) -> u16 {
        1
    }

    fn error(&self) -> Option<Error> {
        self.lock().dead.clone()
    }
}

impl Future for Answer {
    type Output = Result<(), Unconfirmed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut wire = self.0.lock();
        let answering = wire.answers.get_mut(&self.1).expect("it waits");
        match answering.answer.take() {
            Some(answer) => {
                wire.answers.remove(&self.1);
                Poll::Ready(answer)
            }
            None => {
                let replaced = answering.waker.replace(cx.waker().clone());
                drop(wire);
                drop(replaced);
                Poll::Pending
            }
        }
    }
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn message(number: usize) -> OutgoingMessage {
    OutgoingMessage::new(basic::Publish::default(), number.to_string())
}

fn engine(window: Window, republish: bool) -> (Line, Arc<Engine<Line>>) {
    let line = Line::default();
    let mut options = PublisherOptions::default().window(window);
    if republish {
        options = options.republish(Republish::new("p-").expect("it is short"));
    }
    (line.clone(), Engine::new(line, options))
}

fn publish(engine: &Arc<Engine<Line>>, number: usize) -> Receipt<Line> {
    match poll(&mut Publishing::new(engine, message(number))) {
        Poll::Ready(receipt) => receipt,
        Poll::Pending => panic!("there is room"),
    }
}

/// Given messages in flight, when the connection is lost and recovers, then they are published again
/// in order, before a message that waited meanwhile, each with the id that it had.
#[test]
fn lost_messages_go_before_later_ones() {
    let (line, engine) = engine(Window::default(), true);
    let mut receipts: Vec<_> = (1..=4).map(|number| publish(&engine, number)).collect();
    line.answer(1, Ok(()));
    let _doubtful = line.lose(1);
    let mut later = Publishing::new(&engine, message(5));
    assert!(poll(&mut later).is_pending());
    let refused = engine.try_publish(message(6)).err().map(|it| it.reason);
    assert_eq!(refused, Some(NotPublishedReason::Republishing));
    line.recover();
    let Poll::Ready(receipt) = poll(&mut later) else {
        panic!("its turn has come");
    };
    receipts.push(receipt);
    assert_eq!(line.bodies(), ["1", "2", "3", "4", "1", "3", "4", "5"]);
    let id = |at: usize| line.lock().sent[at].1.properties.message_id.clone();
    assert_eq!(id(0).as_deref(), Some("p-1"));
    assert_eq!([id(0), id(2), id(3)], [id(4), id(5), id(6)]);
    for at in line.unanswered() {
        line.answer(at, Ok(()));
    }
    for receipt in &mut receipts {
        assert_eq!(poll(receipt), Poll::Ready(Outcome::Acked));
    }
}

/// A message that may have arrived stays in doubt unless another attempt is confirmed.
#[test]
fn a_doubt_ends_only_with_a_confirm() {
    let (line, engine) = engine(Window::default(), true);
    let mut receipts: Vec<_> = (1..=3).map(|number| publish(&engine, number)).collect();
    let _doubtful = line.lose(1);
    line.recover();
    for at in 3..6 {
        line.answer(at, Err(Unconfirmed::Nacked { channel: 1 }));
    }
    let outcomes: Vec<_> = receipts.iter_mut().map(poll).collect();
    let unknown = || Poll::Ready(Outcome::Unknown(lost()));
    assert_eq!(
        outcomes,
        [unknown(), unknown(), Poll::Ready(Outcome::Nacked)]
    );
}

/// A confirm timeout, and a close because of a publish, are final: another attempt would end alike.
#[test]
fn only_losses_are_published_again() {
    let (line, engine) = engine(Window::default(), true);
    let mut receipt = publish(&engine, 1);
    let late = CloseReason::from(CloseCause::TimedOut(TimeoutReason::Confirm));
    line.answer(0, Err(Unconfirmed::Unknown(late.clone())));
    assert_eq!(poll(&mut receipt), Poll::Ready(Outcome::Unknown(late)));
    assert_eq!(line.bodies(), ["1"]);
}

/// Without re-publishing a message that has not left comes back.
#[test]
fn what_was_not_sent_comes_back() {
    let (line, engine) = engine(Window::default(), false);
    let mut receipts: Vec<_> = (1..=2).map(|number| publish(&engine, number)).collect();
    let _doubtful = line.lose(1);
    assert_eq!(
        poll(&mut receipts[0]),
        Poll::Ready(Outcome::Unknown(lost()))
    );
    let Poll::Ready(Outcome::NotSent { message: back, .. }) = poll(&mut receipts[1]) else {
        panic!("it was not sent");
    };
    assert_eq!(*back, message(2));
}

/// Given a window of two messages, when one settles, then the first in line has its room, polled or
/// not, and gives it up when it is dropped.
#[test]
fn room_in_the_window_is_given_in_order() {
    let window = Window {
        messages: 2,
        bytes: usize::MAX,
    };
    let (line, engine) = engine(window, false);
    let _receipts = [publish(&engine, 1), publish(&engine, 2)];
    let mut waiting: Vec<_> = (3..=5)
        .map(|number| Publishing::new(&engine, message(number)))
        .collect();
    for publishing in &mut waiting {
        assert!(poll(publishing).is_pending());
    }
    line.answer(0, Ok(()));
    assert!(poll(&mut waiting[1]).is_pending());
    assert_eq!(engine.in_flight().0, 2);
    drop(waiting.remove(0));
    assert!(poll(&mut waiting[0]).is_ready());
    assert!(poll(&mut waiting[1]).is_pending());
    let refused = engine.try_publish(message(6)).err().map(|it| it.reason);
    assert_eq!(refused, Some(NotPublishedReason::WindowFull));
    assert_eq!(line.bodies(), ["1", "2", "4"]);
}

/// The window counts bytes, and one message of any size passes alone.
#[test]
fn a_window_counts_bytes() {
    let window = Window {
        messages: 100,
        bytes: 3 * (message(1).memory()),
    };
    let (line, engine) = engine(window, false);
    let receipts: Vec<_> = (1..=3).map(|number| publish(&engine, number)).collect();
    let large = OutgoingMessage::new(basic::Publish::default(), vec![b'x'; 1 << 20]);
    let mut large = Publishing::new(&engine, large);
    assert!(poll(&mut large).is_pending());
    line.answer(0, Ok(()));
    line.answer(1, Ok(()));
    assert!(poll(&mut large).is_pending());
    line.answer(2, Ok(()));
    assert!(poll(&mut large).is_ready());
    assert!(engine.try_publish(message(5)).is_err());
    drop(receipts);
}

/// A generator of numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("small")
    }
}

/// Random publishes, answers, losses, recoveries and dropped futures: every message has exactly one
/// outcome, none is confirmed that was not, and repeats are in order.
#[test]
fn random_losses() {
    for seed in 1..=2000 {
        run(seed);
    }
}

fn run(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let republish = random.below(4) > 0;
    let window = Window {
        messages: 1 + random.below(6),
        bytes: (1 + random.below(6)) * message(1000).memory(),
    };
    let (line, engine) = engine(window, republish);
    let mut publishing = BTreeMap::new();
    let mut receipts: BTreeMap<usize, Receipt<Line>> = BTreeMap::new();
    let mut outcomes: BTreeMap<usize, Outcome> = BTreeMap::new();
    let mut unwatched = BTreeSet::new();
    // The answers that the server gave to each message.
    let mut acked = BTreeSet::new();
    let mut refused = BTreeSet::new();
    // The messages with an attempt that may have arrived.
    let mut doubtful = BTreeSet::new();
    let mut last = 1000;
    for _ in 0..60 {
        match random.below(14) {
            0..=3 => {
                last += 1;
                publishing.insert(last, Publishing::new(&engine, message(last)));
            }
            4..=6 => {
                let unanswered = line.unanswered();
                if !unanswered.is_empty() {
                    let at = unanswered[random.below(unanswered.len())];
                    let number = number_at(&line, at);
                    if random.below(4) > 0 {
                        acked.insert(number);
                        line.answer(at, Ok(()));
                    } else {
                        refused.insert(number);
                        line.answer(at, Err(Unconfirmed::Nacked { channel: 1 }));
                    }
                }
            }
            7 => {
                for at in line.lose(random.below(3)) {
                    doubtful.insert(number_at(&line, at));
                }
            }
            12 => line.set_room(Some(1 + random.below(3))),
            13 => line.wake_waiting(),
            8 | 9 => line.recover(),
            10 if random.below(3) == 0 => {
                if let Some((number, _dropped)) = publishing.pop_first() {
                    assert!(!line.bodies().contains(&number.to_string()), "seed {seed}");
                }
            }
            _ => {
                if random.below(6) == 0
                    && let Some((number, _dropped)) = receipts.pop_first()
                {
                    unwatched.insert(number);
                }
            }
        }
        if random.below(2) == 0 {
            for number in publishing.keys().copied().collect::<Vec<_>>() {
                if let Some(it) = publishing.get_mut(&number)
                    && let Poll::Ready(receipt) = poll(it)
                {
                    publishing.remove(&number);
                    receipts.insert(number, receipt);
                }
            }
        }
        take(&mut receipts, &mut outcomes);
        let (messages, _) = engine.in_flight();
        assert!(messages <= window.messages, "seed {seed}");
    }
    // The end: the server confirms the rest, or is gone.
    let is_dead = random.below(2) == 0;
    if is_dead {
        for at in line.die() {
            doubtful.insert(number_at(&line, at));
        }
    } else {
        line.set_room(None);
        line.recover();
    }
    for _ in 0..1000 {
        for number in publishing.keys().copied().collect::<Vec<_>>() {
            if let Some(it) = publishing.get_mut(&number)
                && let Poll::Ready(receipt) = poll(it)
            {
                publishing.remove(&number);
                receipts.insert(number, receipt);
            }
        }
        for at in line.unanswered() {
            acked.insert(number_at(&line, at));
            line.answer(at, Ok(()));
        }
        take(&mut receipts, &mut outcomes);
        if publishing.is_empty() && receipts.is_empty() {
            break;
        }
    }
    assert!(
        publishing.is_empty() && receipts.is_empty(),
        "seed {seed}: it hangs"
    );
    assert_eq!(engine.in_flight(), (0, 0), "seed {seed}");
    let sent: BTreeSet<usize> = line.bodies().iter().map(|it| it.parse().unwrap()).collect();
    for (number, outcome) in &outcomes {
        let is_true = match outcome {
            Outcome::Acked => acked.contains(number),
            Outcome::Nacked => refused.contains(number) && !doubtful.contains(number),
            Outcome::Unknown(_) => doubtful.contains(number) && !acked.contains(number),
            Outcome::NotSent { message, .. } => {
                let is_back = text(&message.body) == number.to_string();
                is_back && !doubtful.contains(number)
            }
            _ => false,
        };
        assert!(is_true, "seed {seed}: {number} {outcome:?}");
    }
    check_order(&line, republish, seed);
    if republish && !is_dead {
        let settled = |it: &usize| acked.contains(it) || refused.contains(it);
        assert!(
            sent.iter().all(settled),
            "seed {seed}: a message was given up"
        );
    }
}

fn number_at(line: &Line, at: usize) -> usize {
    line.bodies()[at].parse().expect("a number")
}

fn take(receipts: &mut BTreeMap<usize, Receipt<Line>>, outcomes: &mut BTreeMap<usize, Outcome>) {
    receipts.retain(|number, receipt| match poll(receipt) {
        Poll::Ready(outcome) => {
            assert!(outcomes.insert(*number, outcome).is_none());
            assert!(poll(receipt).is_pending());
            false
        }
        Poll::Pending => true,
    });
}

/// After each loss, the messages that were sent before come first, in their first order, and each
/// message keeps its id.
fn check_order(line: &Line, republish: bool, seed: u64) {
    let wire = line.lock();
    let mut first: Vec<String> = Vec::new();
    let mut ids = BTreeMap::new();
    let mut previous: Option<(usize, usize, bool)> = None;
    for (losses, message) in &wire.sent {
        let body = text(&message.body);
        let place = first.iter().position(|it| *it == body);
        let is_new = place.is_none();
        assert!(republish || is_new, "seed {seed}: {body} was sent twice");
        let place = place.unwrap_or_else(|| {
            first.push(body.clone());
            first.len() - 1
        });
        if let Some((epoch, before, was_new)) = previous
            && epoch == *losses
        {
            assert!(before < place, "seed {seed}: {body} is out of order");
            assert!(is_new || !was_new, "seed {seed}: {body} comes too late");
        }
        previous = Some((*losses, place, is_new));
        let id = message.properties.message_id.clone();
        assert_eq!(id.is_some(), republish);
        let known = ids.entry(body).or_insert_with(|| id.clone());
        assert_eq!(*known, id, "seed {seed}");
    }
    let distinct: BTreeSet<_> = ids.values().collect();
    assert!(!republish || distinct.len() == ids.len(), "seed {seed}");
}

//! The calls of a peer, beside a naive model.

use std::collections::BTreeMap;

use amqp_core::Instant;
use proptest::prelude::*;

use super::rig::{name, secs};
use crate::{
    message::MessageId,
    rpc::{
        Limits,
        calls::{CallRefused, Calls, NoReply, ReplyOutcome},
    },
};

const PEERS: [&str; 2] = ["bob", "carol"];

fn id(number: u8) -> MessageId {
    MessageId::from_bytes([number; 16])
}

fn at(seconds: u64) -> Instant {
    Instant::ORIGIN + secs(seconds)
}

#[test]
fn a_call_has_the_first_of_its_ends() {
    let mut calls = Calls::new(Limits::default());
    calls.insert(id(1), &name("bob"), 10, Some(at(5))).unwrap();
    assert_eq!(calls.poll_timeout(), Some(at(5)));
    assert_eq!(calls.take(id(1)), None);
    assert_eq!(
        calls.handle_reply(&name("bob"), id(1), 'a'),
        ReplyOutcome::Taken
    );
    assert_eq!(
        calls.handle_reply(&name("bob"), id(1), 'b'),
        ReplyOutcome::Late
    );
    calls.handle_timeout(at(9));
    calls.handle_removed(&name("bob"));
    calls.stop();
    assert_eq!(calls.poll_ended(), Some(id(1)));
    assert_eq!(calls.poll_ended(), None);
    assert_eq!(calls.take(id(1)), Some(Ok('a')));
    assert_eq!(calls.take(id(1)), None);
    calls.remove(id(1));
    assert!(calls.is_empty());
}

#[test]
fn an_id_is_taken_once_and_bytes_are_bounded() {
    let limits = Limits::default().call_bytes(10);
    let mut calls = Calls::<()>::new(limits);
    assert_eq!(calls.insert(id(1), &name("bob"), 6, None), Ok(()));
    let again = calls.insert(id(1), &name("bob"), 1, None);
    assert_eq!(again, Err(CallRefused::TooMany));
    let more = calls.insert(id(2), &name("bob"), 5, None);
    assert_eq!(more, Err(CallRefused::TooMany));
    let huge = calls.insert(id(2), &name("bob"), usize::MAX, None);
    assert_eq!(huge, Err(CallRefused::TooMany));
    assert_eq!(calls.insert(id(2), &name("bob"), 4, None), Ok(()));
    calls.remove(id(1));
    assert_eq!(calls.insert(id(3), &name("bob"), 6, None), Ok(()));
}

#[test]
fn a_deadline_that_jumps_ends_all_that_are_due_at_once() {
    let limits = Limits::default().calls(200);
    let mut calls = Calls::<()>::new(limits);
    for number in 0..200 {
        let deadline = at(u64::from(number % 7) * 1_000_000);
        calls
            .insert(id(number), &name("bob"), 1, Some(deadline))
            .unwrap();
    }
    calls.handle_timeout(Instant::ORIGIN + std::time::Duration::from_secs(u64::MAX / 4));
    assert_eq!(calls.poll_timeout(), None);
    let mut ended = 0;
    while let Some(id) = calls.poll_ended() {
        assert_eq!(calls.take(id), Some(Err(NoReply::NotConnected)));
        calls.remove(id);
        ended += 1;
    }
    assert_eq!(ended, 200);
    assert!(calls.is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Insert {
        call: u8,
        to: usize,
        timeout: Option<u64>,
    },
    Reply {
        call: u8,
        from: usize,
    },
    Dropped {
        call: u8,
    },
    Up(usize),
    Down(usize),
    Removed(usize),
    Advance(u64),
    Take(u8),
    Forget(u8),
    Stop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let call = 0..6_u8;
    let peer = 0..PEERS.len();
    let timeout = proptest::option::of(0..10_u64);
    let step = prop_oneof![
        6 => (call.clone(), peer.clone(), timeout)
            .prop_map(|(call, to, timeout)| Step::Insert { call, to, timeout }),
        4 => (call.clone(), peer.clone()).prop_map(|(call, from)| Step::Reply { call, from }),
        1 => call.clone().prop_map(|call| Step::Dropped { call }),
        2 => peer.clone().prop_map(Step::Up),
        2 => peer.clone().prop_map(Step::Down),
        1 => peer.prop_map(Step::Removed),
        3 => (0..6_u64).prop_map(Step::Advance),
        4 => call.clone().prop_map(Step::Take),
        2 => call.prop_map(Step::Forget),
        1 => Just(Step::Stop),
    ];
    proptest::collection::vec(step, 0..60)
}

/// The model: each call with its callee, its deadline, whether it may be sent, and its outcome.
#[derive(Default)]
struct Model {
    calls: BTreeMap<u8, ModelCall>,
    up: [bool; 2],
    now: u64,
    stopped: bool,
}

struct ModelCall {
    to: usize,
    deadline: Option<u64>,
    sent: bool,
    outcome: Option<Result<u64, NoReply>>,
    taken: bool,
}

impl Model {
    fn end(
        &mut self,
        which: impl Fn(&u8, &ModelCall) -> bool,
        outcome: impl Fn(&ModelCall) -> Result<u64, NoReply>,
    ) {
        for (number, call) in &mut self.calls {
            if call.outcome.is_none() && which(number, call) {
                call.outcome = Some(outcome(call));
            }
        }
    }
}

proptest! {
    #[test]
    fn every_call_has_one_outcome_as_the_model_says(steps in steps()) {
        let limits = Limits::default().calls(4);
        let mut calls = Calls::new(limits);
        let mut model = Model::default();
        let mut replies = 0;
        for step in steps {
            match step {
                Step::Insert { call, to, timeout } => {
                    let deadline = timeout.map(|timeout| model.now + timeout);
                    let result = calls.insert(id(call), &name(PEERS[to]), 1, deadline.map(at));
                    let expected = if model.stopped {
                        Err(CallRefused::Stopped)
                    } else if model.calls.len() >= 4 || model.calls.contains_key(&call) {
                        Err(CallRefused::TooMany)
                    } else {
                        let sent = model.up[to];
                        let inserted = ModelCall { to, deadline, sent, outcome: None, taken: false };
                        model.calls.insert(call, inserted);
                        Ok(())
                    };
                    prop_assert_eq!(result, expected);
                }
                Step::Reply { call, from } => {
                    replies += 1;
                    let outcome = calls.handle_reply(&name(PEERS[from]), id(call), replies);
                    let expected = match model.calls.get_mut(&call) {
                        Some(call) if call.to != from => ReplyOutcome::Forged,
                        Some(call) if call.outcome.is_none() => {
                            call.outcome = Some(Ok(replies));
                            ReplyOutcome::Taken
                        }
                        Some(_) | None => ReplyOutcome::Late,
                    };
                    prop_assert_eq!(outcome, expected);
                }
                Step::Dropped { call } => {
                    calls.handle_dropped(id(call), NoReply::TooLarge);
                    model.end(|number, _| *number == call, |_| Err(NoReply::TooLarge));
                }
                Step::Up(peer) => {
                    calls.handle_up(&name(PEERS[peer]));
                    model.up[peer] = true;
                    for call in model.calls.values_mut().filter(|call| call.to == peer) {
                        call.sent = true;
                    }
                }
                Step::Down(peer) => {
                    calls.handle_down(&name(PEERS[peer]));
                    model.up[peer] = false;
                }
                Step::Removed(peer) => {
                    calls.handle_removed(&name(PEERS[peer]));
                    model.end(|_, call| call.to == peer, |_| Err(NoReply::Removed));
                }
                Step::Advance(seconds) => {
                    model.now += seconds;
                    let now = model.now;
                    calls.handle_timeout(at(now));
                    let late = |call: &ModelCall| Err(if call.sent { NoReply::Partial } else { NoReply::NotConnected });
                    model.end(|_, call| call.deadline.is_some_and(|at| at <= now), late);
                }
                Step::Take(call) => {
                    let taken = calls.take(id(call));
                    let expected = model.calls.get_mut(&call).and_then(|call| {
                        if call.taken {
                            return None;
                        }
                        call.taken = call.outcome.is_some();
                        call.outcome
                    });
                    prop_assert_eq!(taken, expected);
                }
                Step::Forget(call) => {
                    calls.remove(id(call));
                    model.calls.remove(&call);
                }
                Step::Stop => {
                    calls.stop();
                    model.stopped = true;
                    model.up = [false; 2];
                    model.end(|_, _| true, |_| Err(NoReply::Stopped));
                }
            }
            let waiting = model.calls.values().filter(|call| call.outcome.is_none());
            let due = waiting.filter_map(|call| call.deadline).min();
            prop_assert_eq!(calls.poll_timeout(), due.map(at));
        }
        calls.stop();
        for call in 0..6 {
            calls.remove(id(call));
        }
        prop_assert!(calls.is_empty());
    }
}

//! The requests of other peers, beside a naive model.

use std::collections::{BTreeMap, BTreeSet};

use amqp_core::Instant;
use proptest::prelude::*;

use super::rig::{name, secs};
use crate::{
    message::MessageId,
    rpc::{
        Limits,
        cache::{Admission, Cache, History, Known, RequestId, RequestKey},
    },
};

const CALLERS: [&str; 2] = ["alice", "carol"];

fn key(caller: usize, number: u8) -> RequestKey {
    let id = MessageId::from_bytes([number; 16]);
    (name(CALLERS[caller]), RequestId::Call(id))
}

fn at(seconds: u64) -> Instant {
    Instant::ORIGIN + secs(seconds)
}

/// Runs a request to its end, with a reply of these bytes.
fn run(
    cache: &mut Cache<(), u32, &'static str>,
    now: u64,
    key: &RequestKey,
    reply: (&'static str, usize),
) {
    assert_eq!(cache.handle_repeat(at(now), key), None);
    let admission = cache.admit(key.clone(), History::New, ((), 1), 7);
    assert_eq!(admission, Admission::Queued);
    assert_eq!(cache.poll_start(), Some((key.clone(), ())));
    assert!(cache.finish(key, Some(reply)));
    assert_eq!(cache.release(at(now), key), Some(7));
}

#[test]
fn a_request_that_comes_again_gets_the_reply_of_its_run() {
    let mut cache = Cache::new(Limits::default());
    let key = key(0, 1);
    assert_eq!(
        cache.admit(key.clone(), History::New, ((), 1), 1_u32),
        Admission::Queued
    );
    assert_eq!(cache.handle_repeat(at(0), &key), Some(Known::InProgress));
    assert_eq!(cache.poll_start(), Some((key.clone(), ())));
    assert_eq!(cache.handle_repeat(at(0), &key), Some(Known::InProgress));
    assert_eq!(cache.poll_start(), None);
    assert!(cache.finish(&key, Some(("reply", 5))));
    assert_eq!(cache.handle_repeat(at(0), &key), Some(Known::InProgress));
    assert_eq!(cache.release(at(0), &key), Some(1));
    assert_eq!(cache.release(at(0), &key), None);
    assert_eq!(
        cache.handle_repeat(at(0), &key),
        Some(Known::Answer("reply"))
    );
    assert!(cache.holds_only(1, 5));
}

#[test]
fn replies_that_are_kept_no_longer_are_handed_out() {
    let limits = Limits::default()
        .replies(3)
        .reply_bytes(10)
        .reply_time(secs(60));
    let mut cache = Cache::new(limits);
    run(&mut cache, 0, &key(0, 0), ("beyond the bytes", 6));
    run(&mut cache, 0, &key(0, 1), ("beyond the number", 1));
    assert!(cache.take_evicted().is_empty());
    run(
        &mut cache,
        1,
        &key(0, 2),
        ("of a caller that is removed", 9),
    );
    assert_eq!(cache.take_evicted(), ["beyond the bytes"]);
    run(&mut cache, 1, &key(1, 3), ("too long to be kept", 11));
    assert_eq!(cache.take_evicted(), ["too long to be kept"]);
    run(&mut cache, 2, &key(1, 4), ("beyond the time", 1));
    assert_eq!(cache.take_evicted(), ["beyond the number"]);
    let removed = cache.handle_removed(&name(CALLERS[0]));
    assert!(removed.tokens.is_empty());
    assert_eq!(cache.take_evicted(), ["of a caller that is removed"]);
    cache.handle_timeout(at(62));
    assert_eq!(cache.take_evicted(), ["beyond the time"]);

    // One that waits for room, and one that runs, of a caller that is removed.
    for number in 5..7 {
        let key = key(1, number);
        let admission = cache.admit(key.clone(), History::New, ((), 1), 7);
        assert_eq!(admission, Admission::Queued);
        assert_eq!(cache.poll_start(), Some((key, ())));
    }
    assert!(cache.finish(&key(1, 5), Some(("waits", 1))));
    let removed = cache.handle_removed(&name(CALLERS[1]));
    assert_eq!(removed.tokens, [7, 7]);
    assert_eq!(cache.take_evicted(), ["waits"]);
    assert!(!cache.finish(&key(1, 6), Some(("runs", 1))));
    assert_eq!(cache.take_evicted(), ["runs"]);
    assert!(cache.holds_only(0, 0));
}

#[test]
fn replies_go_by_number_bytes_and_time_the_oldest_first() {
    let limits = Limits::default()
        .replies(4)
        .reply_bytes(10)
        .reply_time(secs(60));
    let mut cache = Cache::new(limits);
    for number in 0..3 {
        run(&mut cache, u64::from(number), &key(0, number), ("four", 4));
    }
    assert!(
        cache.holds_only(3, 8),
        "the first reply is gone, its id is not"
    );
    assert_eq!(cache.handle_repeat(at(3), &key(0, 0)), Some(Known::Gone));
    assert_eq!(
        cache.handle_repeat(at(3), &key(0, 1)),
        Some(Known::Answer("four"))
    );
    run(&mut cache, 3, &key(0, 3), ("too long to be kept", 11));
    assert_eq!(cache.handle_repeat(at(3), &key(0, 3)), Some(Known::Gone));
    assert!(cache.holds_only(4, 8));
    run(&mut cache, 4, &key(0, 4), ("one", 1));
    assert!(cache.holds_only(4, 9));
    assert_eq!(cache.handle_repeat(at(4), &key(0, 0)), None, "forgotten");
    assert_eq!(cache.poll_timeout(), Some(at(61)));
    assert_eq!(cache.handle_repeat(at(61), &key(0, 1)), None);
    assert!(cache.holds_only(3, 5));
    cache.handle_timeout(at(100_000_000));
    assert!(cache.holds_only(0, 0));
    assert_eq!(cache.poll_timeout(), None);
}

#[test]
fn a_request_that_may_have_run_is_refused_unless_it_may_run_again() {
    let mut cache = Cache::<(), u32, ()>::new(Limits::default());
    let admission = cache.admit(key(0, 1), History::MayHaveRun, ((), 1), 1);
    assert_eq!(admission, Admission::Forgotten);
    assert!(cache.holds_only(0, 0));
    let admission = cache.admit(key(0, 1), History::Repeatable, ((), 1), 1);
    assert_eq!(admission, Admission::Queued);
}

#[test]
fn a_caller_has_a_share_of_the_places() {
    let limits = Limits::default().concurrent(1).queued(3).per_caller(3);
    let mut cache = Cache::<(), u32, ()>::new(limits);
    let mut admit = |caller, number| cache.admit(key(caller, number), History::New, ((), 1), 1);
    for number in 0..3 {
        assert_eq!(admit(0, number), Admission::Queued);
    }
    assert_eq!(admit(0, 3), Admission::Busy, "its share");
    assert_eq!(admit(1, 0), Admission::Queued);
    assert_eq!(admit(1, 1), Admission::Busy, "no place at all");
}

#[test]
fn requests_with_many_bytes_are_settled_at_once() {
    let limits = Limits::default().unsettled_bytes(100).request_bytes(300);
    let mut cache = Cache::<(), u32, ()>::new(limits);
    let mut admit = |number, bytes| cache.admit(key(0, number), History::New, ((), bytes), 1);
    assert_eq!(admit(0, 100), Admission::Queued);
    assert_eq!(admit(1, 1), Admission::QueuedSettled);
    assert_eq!(admit(2, 200), Admission::Busy);
    assert_eq!(admit(3, 199), Admission::QueuedSettled);
    for token in [Some(1), None, None] {
        let (key, ()) = cache.poll_start().unwrap();
        assert!(cache.finish(&key, None));
        assert_eq!(cache.release(at(0), &key), token);
    }
    assert!(cache.holds_only(3, 0));
}

#[test]
fn replies_that_wait_for_room_are_bounded_in_bytes() {
    let limits = Limits::default().waiting_bytes(10);
    let mut cache = Cache::<(), u32, ()>::new(limits);
    for number in 0..2 {
        let admission = cache.admit(key(0, number), History::New, ((), 1), 1);
        assert_eq!(admission, Admission::Queued);
        cache.poll_start().unwrap();
    }
    assert!(cache.has_room(11), "one may exceed it");
    assert!(cache.finish(&key(0, 0), Some(((), 8))));
    assert!(cache.has_room(2) && !cache.has_room(3));
    assert_eq!(cache.release(at(0), &key(0, 0)), Some(1));
    assert!(cache.finish(&key(0, 1), Some(((), 11))));
    assert!(!cache.has_room(0));
    let _removed = cache.handle_removed(&name("alice"));
    assert!(cache.holds_only(0, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Arrive {
        caller: usize,
        number: u8,
        history: u8,
        bytes: usize,
    },
    Start,
    Finish(usize, usize),
    Release(usize),
    Removed(usize),
    Advance(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let caller = 0..CALLERS.len();
    let step = prop_oneof![
        8 => (caller.clone(), 0..8_u8, 0..8_u8, 1..40_usize)
            .prop_map(|(caller, number, history, bytes)| Step::Arrive { caller, number, history, bytes }),
        6 => Just(Step::Start),
        6 => (0..8_usize, 0..12_usize).prop_map(|(which, bytes)| Step::Finish(which, bytes)),
        6 => (0..8_usize).prop_map(Step::Release),
        1 => caller.prop_map(Step::Removed),
        2 => (0..30_u64).prop_map(Step::Advance),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    /// The model knows which requests were admitted, run and replied to, and forgets nothing.
    #[test]
    fn nothing_that_is_remembered_runs_twice_and_nothing_leaks(steps in steps()) {
        let limits = Limits::default()
            .concurrent(2)
            .queued(3)
            .per_caller(4)
            .request_bytes(100)
            .unsettled_bytes(30)
            .replies(5)
            .reply_bytes(20)
            .reply_time(secs(60));
        let mut cache = Cache::new(limits);
        let mut now = 0;
        let mut running = Vec::new();
        let mut replying = Vec::new();
        // The times that each has run, while the cache must remember it.
        let mut live = BTreeSet::new();
        let mut replies = BTreeMap::new();
        let mut tokens = BTreeMap::new();
        let mut token = 0_u32;
        for step in steps {
            match step {
                Step::Arrive { caller, number, history, bytes } => {
                    let key = key(caller, number);
                    token += 1;
                    match cache.handle_repeat(at(now), &key) {
                        Some(Known::InProgress) => prop_assert!(
                            live.contains(&key) || running.contains(&key) || replying.contains(&key)
                        ),
                        Some(Known::Answer(reply)) => prop_assert_eq!(replies.get(&key), Some(&reply)),
                        Some(Known::Gone) => prop_assert!(replies.contains_key(&key)),
                        None => {
                            prop_assert!(!live.contains(&key), "a request in progress is known");
                            let history = match history {
                                0 => History::MayHaveRun,
                                1 => History::Repeatable,
                                _ => History::New,
                            };
                            let admission = cache.admit(key.clone(), history, (token, bytes), token);
                            match admission {
                                Admission::Queued => {
                                    live.insert(key.clone());
                                    tokens.insert(key, token);
                                }
                                Admission::QueuedSettled => {
                                    live.insert(key.clone());
                                    tokens.remove(&key);
                                }
                                Admission::Forgotten => prop_assert_eq!(history, History::MayHaveRun),
                                Admission::Busy => {}
                                Admission::Stopped => prop_assert!(false),
                            }
                        }
                    }
                }
                Step::Start => {
                    let started = cache.poll_start();
                    if let Some((key, _)) = started {
                        prop_assert!(live.contains(&key));
                        prop_assert!(!running.contains(&key), "it runs once");
                        running.push(key);
                    }
                    prop_assert!(cache.running() <= 2);
                    prop_assert_eq!(cache.running(), running.len());
                }
                Step::Finish(which, bytes) if which < running.len() => {
                    let key = running.remove(which);
                    token += 1;
                    if cache.finish(&key, Some((token, bytes))) {
                        replies.insert(key.clone(), token);
                        replying.push(key);
                    } else {
                        prop_assert!(!live.contains(&key), "its caller was removed");
                    }
                }
                Step::Release(which) if which < replying.len() => {
                    let key = replying.remove(which);
                    let expected = tokens.remove(&key);
                    prop_assert_eq!(cache.release(at(now), &key), expected);
                    live.remove(&key);
                }
                Step::Removed(caller) => {
                    let caller = name(CALLERS[caller]);
                    let mut removed = cache.handle_removed(&caller).tokens;
                    removed.sort_unstable();
                    let of_caller = tokens.iter().filter(|((name, _), _)| *name == caller);
                    let mut expected: Vec<u32> = of_caller.map(|(_, token)| *token).collect();
                    expected.sort_unstable();
                    prop_assert_eq!(removed, expected);
                    tokens.retain(|(name, _), _| *name != caller);
                    live.retain(|(name, _)| *name != caller);
                    replying.retain(|(name, _)| *name != caller);
                    replies.retain(|(name, _), _| *name != caller);
                }
                Step::Advance(seconds) => now += seconds,
                Step::Finish(..) | Step::Release(_) => {}
            }
            prop_assert!(cache.kept() <= 5);
            prop_assert!(cache.queued() <= 5);
        }
        for key in replying.drain(..) {
            cache.release(at(now), &key);
        }
        loop {
            for key in running.drain(..) {
                if cache.finish(&key, None) {
                    cache.release(at(now), &key);
                }
            }
            match cache.poll_start() {
                Some((key, _)) => running.push(key),
                None => break,
            }
        }
        cache.handle_timeout(at(now + 61));
        prop_assert!(cache.holds_only(0, 0));
    }
}

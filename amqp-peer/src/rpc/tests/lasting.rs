//! Calls over links that are lost, processes that end, and time that passes.

use std::{
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use super::{
    handles::Gate,
    rig::{Outcome, World, name, secs},
};
use crate::rpc::{CallError, Failure, Json, Proxy, Rpc};

pub(super) type Called = Outcome<Result<i64, CallError>>;

pub(super) fn call(
    world: &mut World,
    proxy: &Proxy<Json>,
    method: &'static str,
    number: i64,
) -> Called {
    let proxy = proxy.clone();
    world.spawn("alice", async move { proxy.call(method, number).await })
}

pub(super) fn gate(rpc: &Rpc) -> Arc<Gate> {
    let gate = Arc::<Gate>::default();
    gate.serve(rpc);
    gate
}

/// Alice, bob, their link, and a gate of bob's that one call is in at a time.
pub(super) fn one_at_a_time() -> (World, [Rpc; 2], Arc<Gate>) {
    let mut world = World::new();
    world.limits = world.limits.concurrent(1);
    let rpcs = ["alice", "bob"].map(|name| world.start(name));
    world.connect("alice", "bob");
    let gate = gate(&rpcs[1]);
    (world, rpcs, gate)
}

fn partial() -> Option<Result<i64, CallError>> {
    let to = name("bob");
    Some(Err(CallError::PartialCall { to }))
}

#[test]
fn a_time_limit_without_a_link_ends_as_not_connected() {
    let mut world = World::new();
    let alice = world.start("alice");
    let proxy = alice.proxy::<Json>(name("bob"), "gate").timeout(secs(5));
    let called = call(&mut world, &proxy, "pass", 1);
    world.advance(secs(4));
    assert!(called.take().is_none());
    world.advance(secs(1));
    let to = name("bob");
    assert_eq!(called.take(), Some(Err(CallError::NotConnected { to })));
    assert_eq!(world.outbox("alice", "bob"), 0, "the request has expired");
    assert_eq!(alice.stats().calls, 0);
}

#[test]
fn a_time_limit_with_a_link_ends_as_partial_and_the_late_reply_is_ignored() {
    let (mut world, alice, bob) = World::pair();
    let gate = gate(&bob);
    let proxy = alice.proxy::<Json>(name("bob"), "gate").timeout(secs(5));
    let called = call(&mut world, &proxy, "pass", 1);
    world.advance(secs(5));
    assert_eq!(called.take(), partial());
    gate.open();
    world.run();
    assert_eq!(alice.stats().late, 1);
    assert_eq!(world.unsettled("alice"), 0);
    assert_eq!(world.outbox("bob", "alice"), 0);
}

#[test]
fn a_call_waits_for_a_callee_that_is_not_there_yet() {
    let mut world = World::new();
    let alice = world.start("alice");
    let proxy = alice.proxy::<Json>(name("bob"), "gate");
    let called = call(&mut world, &proxy, "pass", 1);
    world.advance(secs(30));
    let bob = world.start("bob");
    gate(&bob).open();
    world.connect("alice", "bob");
    assert_eq!(called.take(), Some(Ok(1)));
}

#[test]
fn a_lost_link_ends_no_call_and_the_method_runs_once() {
    let (mut world, alice, bob) = World::pair();
    let gate = gate(&bob);
    let proxy = alice.proxy::<Json>(name("bob"), "gate");
    let called = call(&mut world, &proxy, "pass", 1);
    for _ in 0..3 {
        world.cut("alice", "bob");
        world.advance(secs(1));
        world.connect("alice", "bob");
    }
    world.cut("alice", "bob");
    gate.open();
    world.run();
    assert!(called.take().is_none());
    world.connect("alice", "bob");
    assert_eq!(called.take(), Some(Ok(1)));
    assert_eq!(*gate.entered.lock().unwrap(), [1]);
}

#[test]
fn a_callee_that_is_killed_does_not_run_a_method_twice() {
    let (mut world, alice, bob) = World::pair();
    let first = gate(&bob);
    let proxy = alice.proxy::<Json>(name("bob"), "gate");
    let called = call(&mut world, &proxy, "pass", 1);
    assert_eq!(*first.entered.lock().unwrap(), [1]);
    world.kill("bob");
    let waiting = call(&mut world, &proxy, "pass", 2);
    let second = gate(&world.start("bob"));
    second.open();
    world.connect("alice", "bob");
    assert_eq!(called.take(), partial());
    assert_eq!(waiting.take(), Some(Ok(2)), "it was not sent before");
    assert_eq!(*second.entered.lock().unwrap(), [2]);
}

#[test]
fn an_idempotent_method_runs_again_in_the_next_process() {
    let (mut world, alice, bob) = World::pair();
    let first = gate(&bob);
    let proxy = alice.proxy::<Json>(name("bob"), "gate");
    let called = call(&mut world, &proxy, "again", 1);
    assert_eq!(*first.entered.lock().unwrap(), [1]);
    world.kill("bob");
    gate(&world.start("bob")).open();
    world.connect("alice", "bob");
    assert_eq!(called.take(), Some(Ok(1)));
}

#[test]
fn an_idempotent_call_whose_acknowledgement_is_lost_has_one_result() {
    let (mut world, alice, bob) = World::pair();
    let gate_1 = gate(&bob);
    let proxy = alice.proxy::<Json>(name("bob"), "gate");
    let called = call(&mut world, &proxy, "again", 1);
    world.cut("alice", "bob");
    gate_1.open();
    world.run();
    world.kill("bob");
    gate(&world.start("bob")).open();
    world.connect("alice", "bob");
    assert_eq!(called.take(), Some(Ok(1)));
    assert_eq!(alice.stats().late, 0);
}

#[test]
fn a_caller_that_is_killed_leaves_a_reply_that_its_next_process_ignores() {
    let (mut world, alice, bob) = World::pair();
    let gate = gate(&bob);
    let proxy = alice.proxy::<Json>(name("bob"), "gate");
    let _lost = call(&mut world, &proxy, "pass", 1);
    world.kill("alice");
    gate.open();
    let alice = world.start("alice");
    world.connect("alice", "bob");
    assert_eq!(alice.stats().late, 1);
    let proxy = alice.proxy::<Json>(name("bob"), "gate");
    let called = call(&mut world, &proxy, "pass", 1);
    assert_eq!(called.take(), Some(Ok(1)));
    assert_eq!(world.outbox("bob", "alice"), 0);
}

#[test]
fn removing_the_callee_ends_its_calls_alone() {
    let (mut world, alice, bob) = World::pair();
    let gate = gate(&bob);
    let proxy = alice.proxy::<Json>(name("bob"), "gate").timeout(None);
    let other = alice.proxy::<Json>(name("carol"), "gate").timeout(None);
    let called = call(&mut world, &proxy, "pass", 1);
    let away = call(&mut world, &other, "pass", 2);
    world.cut("alice", "bob");
    world.forget("alice", "bob");
    let to = name("bob");
    assert_eq!(called.take(), Some(Err(CallError::Removed { to })));
    assert!(away.take().is_none());
    gate.open();
    world.run();
    assert_eq!(alice.stats().calls, 1);
}

#[test]
fn removing_a_caller_drops_what_waits_and_frees_what_runs_at_its_end() {
    let (mut world, [alice, bob], gate) = one_at_a_time();
    let proxy = alice.proxy::<Json>(name("bob"), "gate");
    let _running = call(&mut world, &proxy, "pass", 1);
    let _waiting = call(&mut world, &proxy, "pass", 2);
    world.cut("alice", "bob");
    world.forget("bob", "alice");
    assert_eq!((bob.stats().running, bob.stats().queued), (1, 0));
    assert_eq!(world.unsettled("bob"), 0);
    gate.open();
    world.run();
    assert_eq!((bob.stats().running, bob.stats().kept), (0, 0));
    assert_eq!(*gate.entered.lock().unwrap(), [1]);
    assert_eq!(world.outbox("bob", "alice"), 0);
}

#[test]
fn a_stop_ends_calls_and_handlers() {
    let (mut world, alice, bob) = World::pair();
    let gate = gate(&bob);
    let proxy = alice.proxy::<Json>(name("bob"), "gate").timeout(None);
    let called = call(&mut world, &proxy, "pass", 1);
    world.stop("bob");
    assert_eq!(Arc::strong_count(&gate), 1, "the handlers are dropped");
    assert_eq!(bob.objects(), Vec::<String>::new());
    self::gate(&bob);
    assert_eq!(bob.objects(), Vec::<String>::new(), "none is added");
    assert!(called.take().is_none(), "it waits for the next process");
    assert_eq!(world.outbox("alice", "bob"), 1);
    world.stop("alice");
    assert_eq!(called.take(), Some(Err(CallError::Stopped)));
    let called = call(&mut world, &proxy, "pass", 1);
    assert_eq!(called.take(), Some(Err(CallError::Stopped)));
    assert_eq!(proxy.signal("pass", 1), Err(CallError::Stopped));
}

#[test]
fn a_request_whose_time_is_over_before_its_turn_does_not_run() {
    let (mut world, [alice, _bob], gate) = one_at_a_time();
    let proxy = alice.proxy::<Json>(name("bob"), "gate").timeout(secs(5));
    let first = call(&mut world, &proxy.clone().timeout(None), "pass", 1);
    let second = call(&mut world, &proxy, "pass", 2);
    world.advance(secs(5));
    assert_eq!(second.take(), partial());
    gate.open();
    world.run();
    assert_eq!(first.take(), Some(Ok(1)));
    assert_eq!(*gate.entered.lock().unwrap(), [1]);
}

#[test]
fn a_signal_of_now_or_never_that_has_arrived_runs() {
    let (mut world, [alice, bob], gate) = one_at_a_time();
    let rung = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&rung);
    bob.object("bell").signal("ring", move |(): ()| {
        counter.fetch_add(1, SeqCst);
        ready(Ok::<_, Failure>(()))
    });
    let pass = alice.proxy::<Json>(name("bob"), "gate");
    let _in_the_way = call(&mut world, &pass, "pass", 1);
    let bell = alice.proxy::<Json>(name("bob"), "bell");
    bell.signal("ring", ()).unwrap();
    bell.signal_ttl(secs(3)).signal("ring", ()).unwrap();
    world.run();
    world.advance(secs(4));
    gate.open();
    world.run();
    assert_eq!(rung.load(SeqCst), 1);
    assert_eq!(bob.stats().refused, 1, "the time of the other is over");
}

#[test]
fn a_reply_waits_for_room_in_the_outbox_without_a_place_among_the_handlers() {
    let mut world = World::new();
    world.room = 2;
    world.limits = world.limits.concurrent(1);
    let (alice, bob) = (world.start("alice"), world.start("bob"));
    world.connect("alice", "bob");
    let gate = gate(&bob);
    gate.open();
    let proxy = alice.proxy::<Json>(name("bob"), "gate");
    world.cut("alice", "bob");
    let calls = [1, 2].map(|number| call(&mut world, &proxy, "pass", number));
    for _ in 0..2 {
        world.inject("bob", "alice", crate::Message::new("in the way"));
    }
    world.connect("alice", "bob");
    for (number, called) in (1..).zip(calls) {
        assert_eq!(called.take(), Some(Ok(number)));
    }
    assert_eq!(world.unsettled("bob"), 0);
}

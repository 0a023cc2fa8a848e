//! Places of handlers, room in outboxes, and callees that are removed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use super::{
    lasting::{call, gate, one_at_a_time},
    rig::{World, name, secs},
};
use crate::{
    message::Message,
    rpc::{CallError, Failure, Json, Rpc},
};

#[test]
fn a_call_after_the_removal_of_a_callee_that_is_up_may_have_run() {
    let (mut world, alice, bob) = World::pair();
    let gate = gate(&bob);
    world.forget("alice", "bob");
    let proxy = alice.proxy::<Json>(name("bob"), "gate").timeout(secs(5));
    let called = call(&mut world, &proxy, "pass", 1);
    world.advance(secs(5));
    assert_eq!(*gate.entered.lock().unwrap(), [1]);
    let to = name("bob");
    assert_eq!(called.take(), Some(Err(CallError::PartialCall { to })));
}

#[test]
fn a_request_is_sent_when_it_is_in_the_outbox() {
    let (mut world, alice, bob) = World::pair();
    let gate = gate(&bob);
    world.make_way("alice");
    let proxy = alice.proxy::<Json>(name("bob"), "gate").timeout(secs(5));
    let called = call(&mut world, &proxy, "pass", 1);
    assert_eq!(*gate.entered.lock().unwrap(), [1]);
    world.advance(secs(5));
    let to = name("bob");
    assert_eq!(called.take(), Some(Err(CallError::PartialCall { to })));
}

#[test]
fn a_request_that_has_waited_for_room_has_the_rest_of_its_time() {
    let mut world = World::new();
    world.room = 1;
    let alice = world.start("alice");
    let in_the_way = Message::new("in the way").ttl(secs(3));
    world.inject("alice", "bob", in_the_way);
    let proxy = alice.proxy::<Json>(name("bob"), "gate").timeout(secs(5));
    let called = call(&mut world, &proxy, "pass", 1);
    world.advance(secs(3));
    assert_eq!(world.outbox("alice", "bob"), 1, "the request");
    world.advance(secs(2));
    assert_eq!(world.outbox("alice", "bob"), 0, "its time is over");
    let to = name("bob");
    assert_eq!(called.take(), Some(Err(CallError::NotConnected { to })));
}

#[test]
fn a_task_that_is_dropped_before_it_begins_frees_its_place() {
    let (mut world, [alice, bob], gate) = one_at_a_time();
    gate.open();
    let proxy = alice.proxy::<Json>(name("bob"), "gate").timeout(secs(5));
    world.drop_tasks("bob", true);
    let lost = [1, 2].map(|number| call(&mut world, &proxy, "pass", number));
    assert_eq!((bob.stats().running, bob.stats().queued), (0, 0));
    world.drop_tasks("bob", false);
    assert_eq!(call(&mut world, &proxy, "pass", 3).take(), Some(Ok(3)));
    world.advance(secs(5));
    assert!(lost.iter().all(|call| call.take().is_some()));
}

#[test]
fn a_handler_whose_task_is_dropped_gives_its_place_to_the_next_request() {
    let (mut world, [alice, _bob], gate) = one_at_a_time();
    let proxy = alice.proxy::<Json>(name("bob"), "gate");
    let _first = call(&mut world, &proxy, "pass", 1);
    let _second = call(&mut world, &proxy, "pass", 2);
    world.drop_last_task("bob");
    assert_eq!(*gate.entered.lock().unwrap(), [1, 2]);
}

#[test]
fn a_refusal_waits_for_room_in_the_outbox() {
    let mut world = World::new();
    world.room = 2;
    let (alice, bob) = (world.start("alice"), world.start("bob"));
    world.connect("alice", "bob");
    world.cut("alice", "bob");
    let proxy = alice.proxy::<Json>(name("bob"), "none");
    let called = call(&mut world, &proxy, "pass", 1);
    for _ in 0..2 {
        world.inject("bob", "alice", Message::new("in the way"));
    }
    world.connect("alice", "bob");
    let object = "none".to_owned();
    assert_eq!(called.take(), Some(Err(CallError::NoObject { object })));
    assert_eq!(
        (world.unsettled("bob"), world.outbox("bob", "alice")),
        (0, 0)
    );
    drop(bob);
}

#[test]
fn a_refusal_without_room_leaves_its_request_with_the_caller() {
    let mut world = World::new();
    world.room = 1;
    world.limits = world.limits.per_caller(1);
    let (alice, bob) = (world.start("alice"), world.start("bob"));
    world.connect("alice", "bob");
    world.fill("bob", "alice");
    let proxy = alice.proxy::<Json>(name("bob"), "none").timeout(secs(9));
    let called = call(&mut world, &proxy, "pass", 1);
    assert_eq!(world.unsettled("bob"), 1);
    let beyond = call(&mut world, &proxy, "pass", 2);
    assert_eq!(world.unsettled("bob"), 1, "one at a time");
    world.advance(secs(9));
    assert!(called.take().is_some() && beyond.take().is_some());
    world.stop("bob");
    assert_eq!(bob.stats().running, 0);
}

/// Arguments of a handler whose destructor uses the peer.
struct UsesPeer(Rpc, Arc<AtomicBool>);

impl Drop for UsesPeer {
    fn drop(&mut self) {
        let _stats = self.0.stats();
        self.1.store(true, SeqCst);
    }
}

#[test]
fn a_handler_that_is_dropped_with_its_last_request_may_use_the_peer() {
    for stops in [false, true] {
        let (mut world, [alice, bob], _gate) = one_at_a_time();
        let is_dropped = Arc::<AtomicBool>::default();
        let owned = UsesPeer(bob.clone(), Arc::clone(&is_dropped));
        bob.object("other").method("run", move |number: i64| {
            let _owned = &owned;
            std::future::ready(Ok::<_, Failure>(number))
        });
        let _running = call(&mut world, &alice.proxy(name("bob"), "gate"), "pass", 1);
        let _waiting = call(&mut world, &alice.proxy(name("bob"), "other"), "run", 2);
        assert!(bob.remove("other"));
        assert!(!is_dropped.load(SeqCst), "its request waits");
        if stops {
            world.stop("bob");
        } else {
            world.forget("bob", "alice");
        }
        assert!(is_dropped.load(SeqCst));
    }
}

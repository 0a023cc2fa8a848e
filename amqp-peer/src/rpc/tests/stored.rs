//! Persistent signals, and requests that come again in another process.

use std::{
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use super::{
    handles::Gate,
    rig::{World, name},
};
use crate::rpc::{CallError, Failure, Json, Kind, Rpc};

fn bell(rpc: &Rpc) -> Arc<AtomicUsize> {
    let rung = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&rung);
    rpc.object("bell").signal("ring", move |(): ()| {
        counter.fetch_add(1, SeqCst);
        ready(Ok::<_, Failure>(()))
    });
    rung
}

#[test]
fn a_persistent_signal_that_survives_the_process_of_its_sender_runs_once() {
    let mut world = World::new();
    let alice = world.start("alice");
    let proxy = alice.proxy::<Json>(name("bob"), "bell");
    let proxy = proxy.signal_ttl(None).persistent_signals(true);
    proxy.signal("ring", ()).unwrap();
    world.kill("alice");
    world.start("alice");
    let bob = world.start("bob");
    let rung = bell(&bob);
    world.connect("alice", "bob");
    assert_eq!((rung.load(SeqCst), bob.stats().refused), (1, 0));
    assert_eq!(world.outbox("alice", "bob"), 0);
}

#[test]
fn a_transient_signal_that_comes_again_does_not_run_in_the_next_process() {
    let (mut world, alice, bob) = World::pair();
    let gate = Arc::<Gate>::default();
    let serve = |rpc: &Rpc| {
        let gate = Arc::clone(&gate);
        rpc.object("bell").signal("ring", move |number: i64| {
            let gate = Arc::clone(&gate);
            async move {
                gate.entered.lock().unwrap().push(number);
                gate.passed().await;
                Ok::<_, Failure>(())
            }
        });
    };
    serve(&bob);
    let proxy = alice.proxy::<Json>(name("bob"), "bell").signal_ttl(None);
    proxy.signal("ring", 1).unwrap();
    world.run();
    world.kill("bob");
    let bob = world.start("bob");
    serve(&bob);
    world.connect("alice", "bob");
    assert_eq!(*gate.entered.lock().unwrap(), [1]);
    assert_eq!(bob.stats().refused, 1);
}

#[test]
fn a_request_that_may_have_run_is_not_said_not_to_have_run() {
    let (mut world, alice, bob) = World::pair();
    Arc::<Gate>::default().serve(&bob);
    let calls = ["pass", "again"].map(|method| {
        let proxy = alice.proxy::<Json>(name("bob"), "gate");
        world.spawn(
            "alice",
            async move { proxy.call::<_, i64>(method, 1).await },
        )
    });
    world.kill("bob");
    let bob = world.start("bob");
    // The object is there, and is another one.
    bob.object("gate")
        .handle(Kind::Signal, "pass", |_, _: i64| {
            ready(Ok::<_, Failure>(()))
        });
    world.connect("alice", "bob");
    for called in calls {
        let to = name("bob");
        assert_eq!(called.take(), Some(Err(CallError::PartialCall { to })));
    }
}

#[test]
fn an_idempotent_request_that_comes_again_without_a_place_may_have_run() {
    let (mut world, alice, bob) = World::pair();
    Arc::<Gate>::default().serve(&bob);
    let calls = [1, 2, 3].map(|number| {
        let proxy = alice.proxy::<Json>(name("bob"), "gate");
        world.spawn("alice", async move {
            proxy.call::<_, i64>("again", number).await
        })
    });
    world.kill("bob");
    world.limits = world.limits.concurrent(1).queued(1);
    let gate = Arc::<Gate>::default();
    gate.serve(&world.start("bob"));
    world.connect("alice", "bob");
    let to = name("bob");
    assert_eq!(calls[2].take(), Some(Err(CallError::PartialCall { to })));
    gate.open();
    world.run();
    assert_eq!(
        [&calls[0], &calls[1]].map(super::rig::Outcome::take),
        [Some(Ok(1)), Some(Ok(2))]
    );
}

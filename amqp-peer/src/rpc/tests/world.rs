//! Random worlds: calls among peers, with links that are cut and processes that are killed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use proptest::prelude::*;

use super::{
    handles::Gate,
    rig::{Outcome, World, name, secs},
};
use crate::rpc::{CallError, Cbor, Failure, Kind, Rpc};

const PEERS: [&str; 3] = ["alice", "bob", "carol"];

#[derive(Clone, Debug)]
enum Step {
    Call {
        from: usize,
        to: usize,
        kind: Kind,
        timeout: u64,
    },
    Cut(usize, usize),
    Connect(usize, usize),
    /// Kills a process, and starts the next one.
    Kill(usize),
    Advance(u64),
    /// The handlers that wait go on.
    Open,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let peer = 0..PEERS.len();
    let kind = prop_oneof![Just(Kind::Method), Just(Kind::Idempotent)];
    let step = prop_oneof![
        8 => (peer.clone(), 1..PEERS.len(), kind, 1..30_u64).prop_map(|(from, by, kind, timeout)| {
            let to = (from + by) % PEERS.len();
            Step::Call { from, to, kind, timeout }
        }),
        3 => (peer.clone(), peer.clone()).prop_map(|(one, other)| Step::Cut(one, other)),
        4 => (peer.clone(), peer.clone()).prop_map(|(one, other)| Step::Connect(one, other)),
        2 => peer.prop_map(Step::Kill),
        3 => (0..10_u64).prop_map(Step::Advance),
        3 => Just(Step::Open),
    ];
    proptest::collection::vec(step, 0..50)
}

/// The runs of each call: the number that it carries.
type Runs = Arc<Mutex<BTreeMap<u32, u32>>>;

fn serve(rpc: &Rpc, runs: &Runs, gate: &Arc<Gate>) {
    for (kind, name) in [(Kind::Method, "once"), (Kind::Idempotent, "again")] {
        let (runs, gate) = (Arc::clone(runs), Arc::clone(gate));
        rpc.object("count")
            .handle(kind, name, move |_, number: u32| {
                let (runs, gate) = (Arc::clone(&runs), Arc::clone(&gate));
                async move {
                    *runs.lock().unwrap().entry(number).or_default() += 1;
                    if number.is_multiple_of(2) {
                        gate.passed().await;
                    }
                    Ok::<_, Failure>(number)
                }
            });
    }
}

struct Made {
    from: usize,
    /// The process of the caller, by its number.
    process: usize,
    kind: Kind,
    outcome: Outcome<Result<u32, CallError>>,
}

proptest! {
    #[test]
    fn calls_run_at_most_once_end_once_and_leave_nothing(steps in steps()) {
        let runs = Runs::default();
        let gate = Arc::<Gate>::default();
        let mut world = World::new();
        world.limits = world.limits.concurrent(2).queued(4).replies(3);
        let mut rpcs = PEERS.map(|peer| world.start(peer));
        rpcs.iter().for_each(|rpc| serve(rpc, &runs, &gate));
        let mut processes = [0; 3];
        let mut calls = Vec::new();
        for step in steps {
            match step {
                Step::Call { from, to, kind, timeout } => {
                    let number = u32::try_from(calls.len()).unwrap();
                    let proxy = rpcs[from].proxy::<Cbor>(name(PEERS[to]), "count");
                    let proxy = proxy.timeout(secs(timeout));
                    let method = if kind == Kind::Method { "once" } else { "again" };
                    let calling = async move { proxy.call(method, number).await };
                    let outcome = world.spawn(PEERS[from], calling);
                    let process = processes[from];
                    calls.push(Made { from, process, kind, outcome });
                }
                Step::Cut(one, other) => world.cut(PEERS[one], PEERS[other]),
                Step::Connect(one, other) if one != other => world.connect(PEERS[one], PEERS[other]),
                Step::Connect(..) => {}
                Step::Kill(peer) => {
                    world.kill(PEERS[peer]);
                    rpcs[peer] = world.start(PEERS[peer]);
                    serve(&rpcs[peer], &runs, &gate);
                    processes[peer] += 1;
                }
                Step::Advance(seconds) => world.advance(secs(seconds)),
                Step::Open => {
                    gate.pass_those_that_wait();
                    world.run();
                }
            }
        }
        gate.open();
        for one in 0..3 {
            world.connect(PEERS[one], PEERS[(one + 1) % 3]);
        }
        world.advance(Duration::from_secs(100));
        let runs = runs.lock().unwrap();
        for (number, call) in (0..).zip(&calls) {
            let count = runs.get(&number).copied().unwrap_or_default();
            if call.kind == Kind::Method {
                prop_assert!(count <= 1, "{number} has run {count} times");
            }
            let outcome = call.outcome.take();
            if call.process != processes[call.from] {
                continue; // its process was killed
            }
            match outcome {
                Some(Ok(result)) => prop_assert!(result == number && count > 0),
                Some(Err(CallError::NotConnected { .. })) => prop_assert_eq!(count, 0),
                Some(Err(CallError::PartialCall { .. } | CallError::Busy { .. })) => {}
                other => prop_assert!(false, "{other:?}"),
            }
        }
        drop(runs);
        world.advance(Duration::from_secs(1000));
        for (rpc, peer) in rpcs.iter().zip(PEERS) {
            let stats = rpc.stats();
            prop_assert_eq!((stats.calls, stats.running, stats.queued, stats.kept), (0, 0, 0, 0));
            prop_assert_eq!((stats.forged, stats.refused), (0, 0));
            prop_assert_eq!(world.unsettled(peer), 0);
            for to in PEERS {
                prop_assert_eq!(world.outbox(peer, to), 0, "{} to {}", peer, to);
            }
        }
    }
}

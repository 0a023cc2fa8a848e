//! Peers that do not keep to the rules, and calls in great number.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;

use super::{
    handles::Gate,
    rig::{World, name, secs},
};
use crate::{
    message::{Message, MessageId},
    rpc::{
        CallError, Cbor, Failure, Json, Side,
        wire::{self, Fault, Reply, Request},
    },
};

fn reply(id: MessageId) -> Message {
    let reply = Reply {
        content_type: "application/json".try_into().unwrap(),
        result: Ok(Bytes::from_static(b"666")),
    };
    wire::reply(id, reply, None)
}

/// The id of the first call of the peer that was started first.
fn first_call() -> MessageId {
    let mut id = [0; 16];
    id[7] = 1;
    MessageId::from_bytes(id)
}

#[test]
fn a_reply_of_another_peer_does_not_end_a_call() {
    let (mut world, alice, bob) = World::pair();
    world.start("mallory");
    world.connect("mallory", "alice");
    let gate = Arc::<Gate>::default();
    gate.serve(&bob);
    let proxy = alice.proxy::<Json>(name("bob"), "gate");
    let called = world.spawn(
        "alice",
        async move { proxy.call::<_, i64>("pass", 1).await },
    );
    world.inject("mallory", "alice", reply(first_call()));
    assert_eq!((alice.stats().forged, alice.stats().calls), (1, 1));
    for number in 0..100 {
        world.inject(
            "mallory",
            "alice",
            reply(MessageId::from_bytes([number; 16])),
        );
    }
    assert_eq!(alice.stats().late, 100);
    gate.open();
    world.run();
    assert_eq!(called.take(), Some(Ok(1)));
    world.inject("bob", "alice", reply(first_call()));
    assert_eq!(alice.stats().late, 101);
    assert_eq!(world.unsettled("alice"), 0);
}

#[test]
fn garbage_is_settled_and_does_nothing() {
    let (mut world, alice, bob) = World::pair();
    bob.object("calc")
        .method("neg", async |a: i64| Ok::<_, Failure>(-a));
    let kinds = [
        "rpc.call",
        "rpc.signal",
        "rpc.reply",
        "rpc.error",
        "rpc.",
        "rpc.x",
    ];
    for kind in kinds {
        world.inject("alice", "bob", Message::new("?").kind(kind).unwrap());
    }
    assert_eq!(bob.stats().refused, 6);
    let request = |content_type: &str, body: &'static [u8]| Request {
        object: "calc".into(),
        method: "neg".into(),
        content_type: content_type.try_into().unwrap(),
        body: Bytes::from_static(body),
        ttl: None,
        is_stored: false,
    };
    for (content_type, body) in [
        ("application/json", &b"[[["[..]),
        ("application/json", b"1 2"),
        ("application/cbor", b"\xff"),
        ("text/plain", b"1"),
        ("", b""),
    ] {
        let call = wire::request(Some(first_call()), request(content_type, body));
        world.inject("alice", "bob", call);
        let signal = wire::request(None, request(content_type, body));
        world.inject("alice", "bob", signal);
    }
    // The first is answered, the same id again is not run again.
    assert_eq!((alice.stats().late, bob.stats().kept), (5, 1));
    assert_eq!(bob.stats().refused, 11);
    assert_eq!(
        (world.unsettled("bob"), world.outbox("alice", "bob")),
        (0, 0)
    );
}

#[test]
fn one_id_sent_twice_runs_once() {
    let (mut world, alice, bob) = World::pair();
    let gate = Arc::<Gate>::default();
    gate.serve(&bob);
    let request = Request {
        object: "gate".into(),
        method: "pass".into(),
        content_type: "application/json".try_into().unwrap(),
        body: Bytes::from_static(b"1"),
        ttl: None,
        is_stored: false,
    };
    for _ in 0..3 {
        let call = wire::request(Some(first_call()), request.clone());
        world.inject("alice", "bob", call);
    }
    assert_eq!(world.unsettled("bob"), 1, "the repeats are settled");
    gate.open();
    world.run();
    let call = wire::request(Some(first_call()), request);
    world.inject("alice", "bob", call);
    assert_eq!(*gate.entered.lock().unwrap(), [1]);
    assert_eq!(alice.stats().late, 2, "the reply, and the same again");
}

#[test]
fn a_codec_that_the_callee_lacks_is_an_error() {
    struct Other;

    impl crate::rpc::Codec for Other {
        const CONTENT_TYPE: &'static str = "application/x-other";

        fn encode<T: serde::Serialize + ?Sized>(_: &T) -> Result<Vec<u8>, crate::rpc::CodecError> {
            Ok(Vec::new())
        }

        fn decode<T: serde::de::DeserializeOwned>(_: &[u8]) -> Result<T, crate::rpc::CodecError> {
            Err(crate::rpc::CodecError::new("never"))
        }
    }

    let (mut world, alice, bob) = World::pair();
    bob.object("calc")
        .method("neg", async |a: i64| Ok::<_, Failure>(-a));
    let proxy = alice.proxy::<Other>(name("bob"), "calc");
    let called = world.spawn("alice", async move { proxy.call::<_, i64>("neg", 1).await });
    let error = called.take().unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            CallError::Codec {
                side: Side::Callee,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn huge_arguments_and_results_are_refused_by_a_typed_error() {
    let (mut world, alice, bob) = World::pair();
    bob.object("big").method("zeros", async |len: usize| {
        Ok::<_, Failure>("0".repeat(len))
    });
    let proxy = alice.proxy::<Json>(name("bob"), "big");
    let other = proxy.clone();
    let called = world.spawn("alice", async move {
        other.call::<_, String>("zeros", 2 << 20).await
    });
    let side = Side::Callee;
    assert_eq!(called.take(), Some(Err(CallError::TooLarge { side })));
    let text = "0".repeat(2 << 20);
    let called = world.spawn(
        "alice",
        async move { proxy.call::<_, ()>("zeros", text).await },
    );
    let side = Side::Caller;
    assert_eq!(called.take(), Some(Err(CallError::TooLarge { side })));
    assert_eq!((alice.stats().calls, bob.stats().running), (0, 0));
}

#[test]
fn handlers_that_never_return_keep_their_places_and_nothing_else() {
    let mut world = World::new();
    world.limits = world.limits.concurrent(2).queued(1).per_caller(10);
    let (alice, bob) = (world.start("alice"), world.start("bob"));
    world.connect("alice", "bob");
    let object = bob.object("calc");
    object.method("never", async |(): ()| {
        std::future::pending::<()>().await;
        Ok::<_, Failure>(())
    });
    let proxy = alice.proxy::<Json>(name("bob"), "calc").timeout(secs(5));
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let proxy = proxy.clone();
            world.spawn(
                "alice",
                async move { proxy.call::<_, ()>("never", ()).await },
            )
        })
        .collect();
    let busy = calls
        .iter()
        .filter(|call| matches!(call.take(), Some(Err(CallError::Busy { .. }))));
    assert_eq!(busy.count(), 17);
    // The link moves other messages: calls in the other direction run.
    alice
        .object("calc")
        .method("neg", async |a: i64| Ok::<_, Failure>(-a));
    let back = bob.proxy::<Json>(name("alice"), "calc");
    let called = world.spawn("bob", async move { back.call::<_, i64>("neg", 1).await });
    assert_eq!(called.take(), Some(Ok(-1)));
    world.advance(secs(5));
    let ended = calls.iter().filter(|call| call.take().is_some());
    assert_eq!(ended.count(), 3, "partial ones");
    world.stop("bob");
    assert_eq!(bob.stats().running, 0);
}

#[test]
fn a_hundred_thousand_calls_leave_nothing() {
    static RAN: AtomicUsize = AtomicUsize::new(0);

    let mut world = World::new();
    world.limits = world.limits.replies(100);
    let (alice, bob) = (world.start("alice"), world.start("bob"));
    world.connect("alice", "bob");
    bob.object("calc").method("neg", async |a: i64| {
        RAN.fetch_add(1, SeqCst);
        Ok::<_, Failure>(-a)
    });
    let proxy = alice.proxy::<Cbor>(name("bob"), "calc");
    let tasks: Vec<_> = (0..100)
        .map(|task| {
            let proxy = proxy.clone();
            world.spawn("alice", async move {
                for call in 0..1000 {
                    let number = task * 1000 + call;
                    assert_eq!(proxy.call("neg", number).await, Ok(-number));
                }
            })
        })
        .collect();
    world.run();
    assert!(tasks.iter().all(|task| task.take().is_some()));
    assert_eq!(RAN.load(SeqCst), 100_000);
    let stats = bob.stats();
    assert_eq!((stats.kept, stats.running, stats.queued), (100, 0, 0));
    assert_eq!(alice.stats().calls, 0);
    world.advance(secs(601));
    assert_eq!(bob.stats().kept, 0, "time evicts without a further request");
}

#[test]
fn time_that_jumps_ends_calls_and_no_more() {
    let (mut world, alice, bob) = World::pair();
    let gate = Arc::<Gate>::default();
    gate.serve(&bob);
    let short = alice.proxy::<Json>(name("bob"), "gate").timeout(secs(1));
    let long = alice
        .proxy::<Json>(name("bob"), "gate")
        .timeout(Duration::MAX);
    let calls = [short, long].map(|proxy| {
        world.spawn(
            "alice",
            async move { proxy.call::<_, i64>("pass", 1).await },
        )
    });
    world.advance(secs(10 * 365 * 24 * 60 * 60));
    let to = name("bob");
    assert_eq!(calls[0].take(), Some(Err(CallError::PartialCall { to })));
    assert!(calls[1].take().is_none());
    gate.open();
    world.run();
    assert_eq!(calls[1].take(), Some(Ok(1)));
}

#[test]
fn a_request_with_a_fault_of_its_reply_is_not_masked() {
    let (mut world, alice, _bob) = World::pair();
    let proxy = alice.proxy::<Json>(name("bob"), "gate");
    let called = world.spawn(
        "alice",
        async move { proxy.call::<_, i64>("pass", 1).await },
    );
    assert!(matches!(
        called.take(),
        Some(Err(CallError::NoObject { .. }))
    ));
    let reply = Reply {
        content_type: "application/json".try_into().unwrap(),
        result: Err(Fault::Busy),
    };
    world.inject("bob", "alice", wire::reply(first_call(), reply, None));
    assert_eq!(alice.stats().late, 1);
}

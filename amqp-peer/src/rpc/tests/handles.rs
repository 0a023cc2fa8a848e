//! Calls between peers that are up.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    num::ParseIntError,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Poll, Waker},
};

use serde::{Deserialize, Serialize};

use super::rig::{World, name, secs};
use crate::rpc::{CallError, Cbor, Errors, Failure, Json, Kind, Proxy, Rpc, Side};

fn calc(rpc: &Rpc) {
    let calc = rpc.object("calc");
    calc.method("add", async |(a, b): (i64, i64)| Ok::<_, Failure>(a + b));
    calc.method("parse", async |text: String| text.parse::<i64>());
}

fn call<A, R>(
    world: &mut World,
    proxy: &Proxy<Json>,
    method: &'static str,
    arguments: A,
) -> Result<R, CallError>
where
    A: Serialize + Send + 'static,
    R: serde::de::DeserializeOwned + Send + 'static,
{
    let proxy = proxy.clone();
    let outcome = world.spawn("alice", async move { proxy.call(method, arguments).await });
    outcome.take().unwrap()
}

/// Nothing of ended calls is left at either side, but replies that are kept.
fn assert_over(world: &World, alice: &Rpc, bob: &Rpc) {
    for rpc in [alice, bob] {
        let stats = rpc.stats();
        assert_eq!((stats.calls, stats.running, stats.queued), (0, 0, 0));
    }
    for (from, to) in [("alice", "bob"), ("bob", "alice")] {
        assert_eq!(world.outbox(from, to), 0, "{from}");
        assert_eq!(world.unsettled(from), 0, "{from}");
    }
}

#[test]
fn a_call_returns_its_result_or_the_error_of_its_handler() {
    let (mut world, alice, bob) = World::pair();
    calc(&bob);
    let proxy = alice.proxy::<Json>(name("bob"), "calc");
    assert_eq!(call(&mut world, &proxy, "add", (3, 8)), Ok(11));
    let error = call::<_, i64>(&mut world, &proxy, "parse", "x").unwrap_err();
    let CallError::Remote(error) = error else {
        panic!("{error}");
    };
    assert!(error.kind.ends_with("ParseIntError"), "{}", error.kind);
    let expected = "x".parse::<i64>().unwrap_err();
    assert_eq!(error.message, expected.to_string());
    assert!(error.trace.unwrap().contains("invalid digit"));
    assert_over(&world, &alice, &bob);
}

#[test]
fn missing_objects_and_methods_are_errors_of_their_own() {
    let (mut world, alice, bob) = World::pair();
    calc(&bob);
    let proxy = alice.proxy::<Json>(name("bob"), "calc");
    let error = call::<_, i64>(&mut world, &proxy, "subtract", (3, 8)).unwrap_err();
    let (object, method) = ("calc".to_owned(), "subtract".to_owned());
    assert_eq!(error, CallError::NoMethod { object, method });
    let other = alice.proxy::<Json>(name("bob"), "clock");
    let error = call::<_, i64>(&mut world, &other, "add", (3, 8)).unwrap_err();
    let object = "clock".to_owned();
    assert_eq!(error, CallError::NoObject { object });
    for long in [
        alice.proxy::<Json>(name("bob"), &"o".repeat(256)),
        proxy.clone(),
    ] {
        let method: &'static str = "m".repeat(256).leak();
        let error = call::<_, i64>(&mut world, &long, method, ()).unwrap_err();
        assert!(matches!(
            error,
            CallError::NoObject { .. } | CallError::NoMethod { .. }
        ));
    }
    assert_eq!(bob.objects(), ["calc"]);
    assert!(bob.remove("calc"));
    assert!(!bob.remove("calc"));
    let error = call::<_, i64>(&mut world, &proxy, "add", (3, 8)).unwrap_err();
    assert!(matches!(error, CallError::NoObject { .. }));
    assert_over(&world, &alice, &bob);
}

#[test]
fn a_signal_is_no_method_and_a_method_no_signal() {
    static RAN: AtomicUsize = AtomicUsize::new(0);

    let (mut world, alice, bob) = World::pair();
    let object = bob.object("log");
    object.signal("line", async |_: String| {
        RAN.fetch_add(1, SeqCst);
        Ok::<_, Failure>(())
    });
    object.method("read", async |(): ()| {
        RAN.fetch_add(100, SeqCst);
        Ok::<_, Failure>(())
    });
    let proxy = alice.proxy::<Json>(name("bob"), "log");
    proxy.signal("line", "hello").unwrap();
    world.run();
    assert_eq!(RAN.load(SeqCst), 1);
    let error = call::<_, ()>(&mut world, &proxy, "line", "hello").unwrap_err();
    let method = "line".to_owned();
    assert_eq!(error, CallError::WrongKind { method });
    assert_eq!(bob.stats().refused, 0);
    proxy.signal("read", ()).unwrap();
    proxy.signal("none", ()).unwrap();
    world.run();
    assert_eq!(RAN.load(SeqCst), 1, "neither has run");
    assert_eq!(bob.stats().refused, 2);
    assert_over(&world, &alice, &bob);
}

/// A value that never encodes.
struct Unencodable;

impl Serialize for Unencodable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("never encodes"))
    }
}

#[test]
fn results_and_errors_that_do_not_encode_are_reported() {
    let (mut world, alice, bob) = World::pair();
    let object = bob.object("calc");
    object.method("result", async |(): ()| Ok::<_, Failure>(Unencodable));
    object.method("error", async |(): ()| {
        Err::<(), _>(Failure::new("Full", "the disk is full").data(Unencodable))
    });
    let proxy = alice.proxy::<Json>(name("bob"), "calc");
    let error = call::<_, ()>(&mut world, &proxy, "result", ()).unwrap_err();
    let (side, reason) = (Side::Callee, "never encodes".to_owned());
    assert_eq!(error, CallError::Codec { side, reason });
    let error = call::<_, ()>(&mut world, &proxy, "error", ()).unwrap_err();
    let CallError::Remote(error) = error else {
        panic!("{error}");
    };
    assert_eq!(
        (&*error.kind, &*error.message),
        ("Full", "the disk is full")
    );
    assert!(error.trace.unwrap().contains("never encodes"));
    assert_eq!(error.data, None);
    let error = call::<_, ()>(&mut world, &proxy, "result", Unencodable).unwrap_err();
    let (side, reason) = (Side::Caller, "never encodes".to_owned());
    assert_eq!(error, CallError::Codec { side, reason });
    assert_over(&world, &alice, &bob);
}

#[test]
fn data_of_errors_arrive_in_the_codec_of_the_call() {
    let (mut world, alice, bob) = World::pair();
    bob.object("shop").method("buy", async |(): ()| {
        Err::<(), _>(Failure::new("Short", "not enough").data(BTreeMap::from([("apples", 3)])))
    });
    let json = alice.proxy::<Json>(name("bob"), "shop");
    let error = call::<_, ()>(&mut world, &json, "buy", ()).unwrap_err();
    let CallError::Remote(error) = error else {
        panic!("{error}");
    };
    let data = error.decode_data::<Json, BTreeMap<String, u32>>();
    assert_eq!(data.unwrap().unwrap()["apples"], 3);
    let cbor = alice.proxy::<Cbor>(name("bob"), "shop");
    let outcome = world.spawn("alice", async move { cbor.call::<_, ()>("buy", ()).await });
    let Err(CallError::Remote(error)) = outcome.take().unwrap() else {
        panic!("no error");
    };
    let data = error.decode_data::<Cbor, BTreeMap<String, u32>>();
    assert_eq!(data.unwrap().unwrap()["apples"], 3);
}

#[test]
fn the_callee_answers_in_the_codec_of_the_caller() {
    #[derive(Serialize, Deserialize)]
    struct Named {
        a: i64,
        b: i64,
    }

    let (mut world, alice, bob) = World::pair();
    bob.object("calc").method("add", async |named: Named| {
        Ok::<_, Failure>(named.a + named.b)
    });
    let cbor = alice.proxy::<Cbor>(name("bob"), "calc");
    let named = Named { a: 3, b: 8 };
    let outcome = world.spawn("alice", async move { cbor.call("add", named).await });
    assert_eq!(outcome.take().unwrap(), Ok(11));
    let json = alice.proxy::<Json>(name("bob"), "calc");
    assert_eq!(call(&mut world, &json, "add", Named { a: 3, b: 8 }), Ok(11));
    assert_eq!(call(&mut world, &json, "add", (3, 8)), Ok(11), "positional");
    let map = BTreeMap::from([("b", 8), ("a", 3)]);
    assert_eq!(call(&mut world, &json, "add", map), Ok(11));
}

#[test]
fn a_panic_is_an_error_of_its_call_alone() {
    let (mut world, alice, bob) = World::pair();
    calc(&bob);
    let object = bob.object("calc");
    object.method("panic", async |text: String| -> Result<(), Failure> {
        panic!("{text}")
    });
    let early = |_: String| -> std::future::Ready<Result<(), Failure>> { panic!("at once") };
    object.method("early", early);
    let proxy = alice.proxy::<Json>(name("bob"), "calc");
    for (method, text) in [("panic", "in the end"), ("early", "at once")] {
        let error = call::<_, ()>(&mut world, &proxy, method, text).unwrap_err();
        let CallError::Remote(error) = error else {
            panic!("{error}");
        };
        assert_eq!((&*error.kind, &*error.message), ("panic", text));
        assert!(error.trace.unwrap().contains(&format!("calc.{method}")));
    }
    assert_eq!(call(&mut world, &proxy, "add", (3, 8)), Ok(11));
    assert_over(&world, &alice, &bob);
}

#[test]
fn withheld_errors_are_opaque_at_once() {
    let (mut world, alice, bob) = World::pair();
    calc(&bob);
    bob.object("calc")
        .method("panic", async |(): ()| -> Result<(), Failure> {
            panic!("secret")
        });
    let proxy = alice.proxy::<Json>(name("bob"), "calc").timeout(None);
    bob.set_errors(Errors::Opaque);
    let parsed = call::<_, i64>(&mut world, &proxy, "parse", "secret");
    assert_eq!(parsed, Err(CallError::Opaque));
    assert_eq!(
        call::<_, ()>(&mut world, &proxy, "panic", ()),
        Err(CallError::Opaque)
    );
    assert_eq!(call(&mut world, &proxy, "add", (3, 8)), Ok(11));
    bob.set_errors(Errors::WithoutTrace);
    let error = call::<_, i64>(&mut world, &proxy, "parse", "x").unwrap_err();
    let CallError::Remote(error) = error else {
        panic!("{error}");
    };
    assert_eq!(error.trace, None);
    assert_over(&world, &alice, &bob);
}

#[test]
fn a_clone_of_a_proxy_has_its_settings() {
    let mut world = World::new();
    let alice = world.start("alice");
    let proxy = alice.proxy::<Json>(name("bob"), "calc").timeout(secs(3));
    let (original, copy) = (proxy.clone(), proxy.clone().signal_ttl(secs(5)));
    let outcomes = [original, copy.clone()].map(|proxy| {
        world.spawn(
            "alice",
            async move { proxy.call::<_, i64>("add", (3, 8)).await },
        )
    });
    world.advance(secs(2));
    assert!(outcomes.iter().all(|outcome| outcome.take().is_none()));
    world.advance(secs(1));
    let to = name("bob");
    for outcome in outcomes {
        let error = CallError::NotConnected { to: to.clone() };
        assert_eq!(outcome.take(), Some(Err(error)));
    }
    copy.signal("line", ()).unwrap();
    copy.clone().signal("line", ()).unwrap();
    assert_eq!(world.outbox("alice", "bob"), 2);
    world.advance(secs(5));
    assert_eq!(world.outbox("alice", "bob"), 0, "they have expired");
}

#[test]
fn both_sides_serve_and_call_at_once_and_handlers_call_back() {
    let (mut world, alice, bob) = World::pair();
    calc(&alice);
    let back = bob.clone();
    bob.object("calc")
        .handle(Kind::Method, "twice", move |caller, number: i64| {
            let proxy = back.proxy::<Json>(caller, "calc");
            async move { proxy.call::<_, i64>("add", (number, number)).await }
        });
    calc(&bob);
    let twice = alice.proxy::<Json>(name("bob"), "calc");
    let add = bob.proxy::<Json>(name("alice"), "calc");
    let both = world.spawn(
        "bob",
        async move { add.call::<_, i64>("add", (1, 2)).await },
    );
    assert_eq!(call(&mut world, &twice, "twice", 21), Ok(42));
    assert_eq!(both.take(), Some(Ok(3)));
    assert_over(&world, &alice, &bob);
}

#[test]
fn handlers_run_side_by_side_up_to_the_limit() {
    let mut world = World::new();
    world.limits = world.limits.concurrent(2).queued(3);
    let (alice, bob) = (world.start("alice"), world.start("bob"));
    world.connect("alice", "bob");
    let gate = Arc::new(Gate::default());
    gate.serve(&bob);
    let proxy = alice.proxy::<Json>(name("bob"), "gate");
    let outcomes: Vec<_> = (0..6)
        .map(|number| {
            let proxy = proxy.clone();
            world.spawn("alice", async move {
                proxy.call::<_, i64>("pass", number).await
            })
        })
        .collect();
    assert_eq!(*gate.entered.lock().unwrap(), [0, 1]);
    let stats = bob.stats();
    assert_eq!((stats.running, stats.queued), (2, 3));
    let to = name("bob");
    assert_eq!(outcomes[5].take(), Some(Err(CallError::Busy { to })));
    gate.open();
    world.run();
    assert_eq!(*gate.entered.lock().unwrap(), [0, 1, 2, 3, 4]);
    for (number, outcome) in (0..5).zip(&outcomes) {
        assert_eq!(outcome.take(), Some(Ok(number)));
    }
    assert_over(&world, &alice, &bob);
}

#[test]
fn more_calls_than_the_limit_are_refused_at_the_caller() {
    let mut world = World::new();
    world.limits = world.limits.calls(2);
    let alice = world.start("alice");
    let proxy = alice.proxy::<Json>(name("bob"), "calc");
    let outcomes: Vec<_> = (0..3)
        .map(|_| {
            let proxy = proxy.clone();
            world.spawn(
                "alice",
                async move { proxy.call::<_, i64>("add", (3, 8)).await },
            )
        })
        .collect();
    assert_eq!(outcomes[2].take(), Some(Err(CallError::TooMany)));
    assert_eq!(alice.stats().calls, 2);
}

#[test]
fn a_dropped_call_leaves_nothing() {
    let (mut world, alice, bob) = World::pair();
    let gate = Arc::new(Gate::default());
    gate.serve(&bob);
    let proxy = alice.proxy::<Json>(name("bob"), "gate");
    let outcome = world.spawn("alice", async move {
        let mut calling = Box::pin(proxy.call::<_, i64>("pass", 1));
        let polled = poll_fn(|cx| Poll::Ready(calling.as_mut().poll(cx)));
        polled.await.is_pending()
    });
    assert_eq!(outcome.take(), Some(true));
    assert_eq!(alice.stats().calls, 0);
    gate.open();
    world.run();
    assert_eq!(alice.stats().late, 1);
    assert_over(&world, &alice, &bob);
}

#[test]
fn a_handler_error_of_any_type_is_converted() {
    let error: ParseIntError = "x".parse::<i64>().unwrap_err();
    let failure = Failure::from(std::io::Error::other(error));
    assert!(failure.trace.contains("Error"), "{}", failure.trace);
    assert_eq!(failure.message, "invalid digit found in string");
}

/// Handlers that wait until the gate is open.
#[derive(Default)]
pub(super) struct Gate {
    pub(super) entered: Mutex<Vec<i64>>,
    state: Mutex<GateState>,
}

#[derive(Default)]
struct GateState {
    is_open: bool,
    /// The number of times that it was opened.
    turn: u64,
    wakers: Vec<Waker>,
}

impl Gate {
    pub(super) fn serve(self: &Arc<Self>, rpc: &Rpc) {
        for (kind, name) in [(Kind::Method, "pass"), (Kind::Idempotent, "again")] {
            let gate = Arc::clone(self);
            rpc.object("gate")
                .handle(kind, name, move |_, number: i64| {
                    let gate = Arc::clone(&gate);
                    async move {
                        gate.entered.lock().unwrap().push(number);
                        gate.passed().await;
                        Ok::<_, Failure>(number)
                    }
                });
        }
    }

    /// Lets all pass from now on.
    pub(super) fn open(&self) {
        self.state.lock().unwrap().is_open = true;
        self.pass_those_that_wait();
    }

    /// Lets those pass that wait, and no further ones.
    pub(super) fn pass_those_that_wait(&self) {
        let mut state = self.state.lock().unwrap();
        state.turn += 1;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(super) async fn passed(&self) {
        let turn = self.state.lock().unwrap().turn;
        poll_fn(|cx| {
            let mut state = self.state.lock().unwrap();
            if state.is_open || state.turn > turn {
                return Poll::Ready(());
            }
            state.wakers.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

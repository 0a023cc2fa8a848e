//! Calls between peers, in both directions of a link.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex},
    task::{Poll, Waker},
    time::Duration,
};

use amqp_peer::{
    Config, Connect, Limits, Listen, Peer, PeerName,
    amqp_driver::io::within,
    rpc::{CallError, Cbor, Errors, Failure, Json, Kind, Proxy, Side},
};
use serde::{Serialize, Serializer, ser};

use crate::rig::{self, Adapter, Outcome, World, name, on_every_runtime};

on_every_runtime!(
    a_call_returns_its_result_or_the_error_of_its_handler,
    missing_objects_and_methods_are_errors_of_their_own,
    results_and_errors_that_do_not_encode_are_reported,
    a_clone_of_a_proxy_has_its_settings,
    a_time_limit_without_a_link_ends_as_not_connected,
    a_time_limit_with_a_link_ends_as_partial_and_the_late_reply_is_ignored,
    withheld_errors_are_opaque_at_once,
    a_signal_is_no_method_and_a_method_no_signal,
    a_call_waits_for_a_callee_that_is_not_there_yet,
    a_lost_link_ends_no_call_and_the_method_runs_once,
    a_callee_that_ends_in_a_call_runs_an_idempotent_method_again,
    a_callee_that_ends_in_a_call_does_not_run_another_method_again,
    both_sides_serve_and_call_at_once_and_handlers_call_back,
    a_thousand_calls_at_once_have_their_own_results,
    a_large_value_passes_in_both_directions,
    removing_a_callee_and_stopping_end_calls,
);

/// Handlers that note their entry and wait until the gate is open.
#[derive(Default)]
struct Gate(Mutex<GateState>);

#[derive(Default)]
struct GateState {
    entered: usize,
    is_open: bool,
    wakers: Vec<Waker>,
}

impl Gate {
    fn serve(peer: &Peer) -> Arc<Self> {
        let gate = Arc::<Self>::default();
        for (kind, name) in [(Kind::Method, "pass"), (Kind::Idempotent, "again")] {
            let gate = Arc::clone(&gate);
            peer.rpc()
                .object("gate")
                .handle(kind, name, move |_, number: i64| {
                    let gate = Arc::clone(&gate);
                    async move {
                        gate.change(|state| state.entered += 1);
                        gate.until(|state| state.is_open).await;
                        Ok::<_, Failure>(number)
                    }
                });
        }
        gate
    }

    fn change(&self, act: impl FnOnce(&mut GateState)) {
        let wakers = {
            let mut state = self.0.lock().unwrap();
            act(&mut state);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    async fn until(&self, holds: impl Fn(&GateState) -> bool) {
        poll_fn(|cx| {
            let mut state = self.0.lock().unwrap();
            if holds(&state) {
                return Poll::Ready(());
            }
            state.wakers.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    async fn entered(&self, count: usize) {
        self.until(|state| state.entered >= count).await;
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().entered
    }

    fn open(&self) {
        self.change(|state| state.is_open = true);
    }
}

fn calc(peer: &Peer) {
    let calc = peer.rpc().object("calc");
    calc.method("add", async |(a, b): (i64, i64)| Ok::<_, Failure>(a + b));
    calc.method("parse", async |text: String| text.parse::<i64>());
}

fn proxy(peer: &Peer, callee: &str, object: &str) -> Proxy<Json> {
    peer.rpc().proxy(name(callee), object)
}

/// Nothing of ended calls is left.
fn assert_over(peers: [&Peer; 2]) {
    for peer in peers {
        let stats = peer.rpc().stats();
        assert_eq!((stats.calls, stats.running, stats.queued), (0, 0, 0));
    }
}

async fn a_call_returns_its_result_or_the_error_of_its_handler<R: Adapter>(
    world: World<R>,
) -> Outcome {
    let (alice, bob) = world.pair().await?;
    calc(&bob.peer);
    let calc = proxy(&alice.peer, "bob", "calc");
    assert_eq!(calc.call::<_, i64>("add", (3, 8)).await?, 11);
    let cbor = alice.peer.rpc().proxy::<Cbor>(name("bob"), "calc");
    assert_eq!(cbor.call::<_, i64>("add", (3, 8)).await?, 11);
    let error = calc.call::<_, i64>("parse", "x").await.unwrap_err();
    let CallError::Remote(error) = error else {
        return Err(error.into());
    };
    assert!(error.kind.ends_with("ParseIntError"));
    assert!(
        error
            .trace
            .is_some_and(|trace| trace.contains("invalid digit"))
    );
    assert_over([&alice.peer, &bob.peer]);
    Ok(())
}

async fn missing_objects_and_methods_are_errors_of_their_own<R: Adapter>(
    world: World<R>,
) -> Outcome {
    let (alice, bob) = world.pair().await?;
    calc(&bob.peer);
    let calc = proxy(&alice.peer, "bob", "calc");
    let error = calc.call::<_, i64>("subtract", (3, 8)).await.unwrap_err();
    let (object, method) = ("calc".to_owned(), "subtract".to_owned());
    assert_eq!(error, CallError::NoMethod { object, method });
    assert!(bob.peer.rpc().remove("calc"));
    let error = calc.call::<_, i64>("add", (3, 8)).await.unwrap_err();
    let object = "calc".to_owned();
    assert_eq!(error, CallError::NoObject { object });
    assert_over([&alice.peer, &bob.peer]);
    Ok(())
}

struct Unencodable;

impl Serialize for Unencodable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(ser::Error::custom("never encodes"))
    }
}

async fn results_and_errors_that_do_not_encode_are_reported<R: Adapter>(
    world: World<R>,
) -> Outcome {
    let (alice, bob) = world.pair().await?;
    let disk = bob.peer.rpc().object("disk");
    disk.method("free", async |(): ()| Ok::<_, Failure>(Unencodable));
    disk.method("fill", async |(): ()| {
        Err::<(), _>(Failure::new("Full", "the disk is full").data(Unencodable))
    });
    let disk = proxy(&alice.peer, "bob", "disk");
    let error = disk.call::<_, ()>("free", ()).await.unwrap_err();
    let (side, reason) = (Side::Callee, "never encodes".to_owned());
    assert_eq!(error, CallError::Codec { side, reason });
    let error = disk.call::<_, ()>("fill", ()).await.unwrap_err();
    let CallError::Remote(error) = error else {
        return Err(error.into());
    };
    assert_eq!(
        (&*error.kind, &*error.message),
        ("Full", "the disk is full")
    );
    Ok(())
}

async fn a_clone_of_a_proxy_has_its_settings<R: Adapter>(world: World<R>) -> Outcome {
    let alice = world.start("alice")?;
    let short = proxy(&alice.peer, "bob", "calc").timeout(Duration::from_millis(20));
    for proxy in [short.clone(), short] {
        let error = proxy.call::<_, i64>("add", (3, 8)).await.unwrap_err();
        let to = name("bob");
        assert_eq!(error, CallError::NotConnected { to });
    }
    Ok(())
}

async fn a_time_limit_without_a_link_ends_as_not_connected<R: Adapter>(world: World<R>) -> Outcome {
    let mut alice = world.start("alice")?;
    let mut bob = world.start("bob")?;
    let gate = Gate::serve(&bob.peer);
    let pass = proxy(&alice.peer, "bob", "gate").timeout(Duration::from_millis(20));
    let error = pass.call::<_, i64>("pass", 1).await.unwrap_err();
    let to = name("bob");
    assert_eq!(error, CallError::NotConnected { to });
    world.link(&mut alice, &mut bob).await?;
    gate.open();
    let unlimited = pass.timeout(None);
    assert_eq!(unlimited.call::<_, i64>("pass", 2).await?, 2);
    assert_eq!(gate.count(), 1, "the first was not sent");
    Ok(())
}

async fn a_time_limit_with_a_link_ends_as_partial_and_the_late_reply_is_ignored<R: Adapter>(
    world: World<R>,
) -> Outcome {
    // A busy machine may not have sent the call within a short limit.
    for limit in [50, 500, 5000, 50_000].map(Duration::from_millis) {
        let (alice, bob) = world.pair().await?;
        let gate = Gate::serve(&bob.peer);
        let pass = proxy(&alice.peer, "bob", "gate").timeout(limit);
        let error = pass.call::<_, i64>("pass", 1).await.unwrap_err();
        let to = name("bob");
        assert_eq!(error, CallError::PartialCall { to });
        if gate.count() == 0 {
            continue;
        }
        gate.open();
        assert_eq!(pass.timeout(None).call::<_, i64>("pass", 2).await?, 2);
        // The handlers run beside each other: the late reply may be behind that of the next call.
        let mut clock = world.clock();
        while alice.peer.rpc().stats().late == 0 {
            let pause = Duration::from_millis(10);
            let _passed = within(&mut clock, pause, std::future::pending::<()>()).await;
        }
        let stats = alice.peer.rpc().stats();
        assert_eq!((stats.calls, stats.late), (0, 1));
        return Ok(());
    }
    Err("no call was sent in time".into())
}

async fn withheld_errors_are_opaque_at_once<R: Adapter>(world: World<R>) -> Outcome {
    let (alice, bob) = world.pair().await?;
    calc(&bob.peer);
    bob.peer.rpc().set_errors(Errors::Opaque);
    let calc = proxy(&alice.peer, "bob", "calc").timeout(None);
    let error = calc.call::<_, i64>("parse", "x").await.unwrap_err();
    assert_eq!(error, CallError::Opaque);
    assert_eq!(calc.call::<_, i64>("parse", "7").await?, 7);
    Ok(())
}

async fn a_signal_is_no_method_and_a_method_no_signal<R: Adapter>(world: World<R>) -> Outcome {
    let (alice, bob) = world.pair().await?;
    let gate = Gate::serve(&bob.peer);
    let ringing = Arc::clone(&gate);
    bob.peer.rpc().object("gate").signal("ring", move |(): ()| {
        let gate = Arc::clone(&ringing);
        async move {
            gate.open();
            Ok::<_, Failure>(())
        }
    });
    let proxy = proxy(&alice.peer, "bob", "gate");
    let error = proxy.call::<_, ()>("ring", ()).await.unwrap_err();
    let method = "ring".to_owned();
    assert_eq!(error, CallError::WrongKind { method });
    proxy.signal("pass", 1)?;
    proxy.signal("ring", ())?;
    assert_eq!(proxy.call::<_, i64>("pass", 2).await?, 2);
    assert_eq!(gate.count(), 1, "the signal of a method has not run");
    assert_eq!(bob.peer.rpc().stats().refused, 1);
    let away = alice.peer.rpc().proxy::<Json>(name("carol"), "gate");
    let to = name("carol");
    assert_eq!(away.signal("ring", ()), Err(CallError::NotConnected { to }));
    Ok(())
}

async fn a_call_waits_for_a_callee_that_is_not_there_yet<R: Adapter>(world: World<R>) -> Outcome {
    let mut alice = world.start("alice")?;
    let pass = proxy(&alice.peer, "bob", "gate");
    let calling = async { Ok::<_, rig::Failure>(pass.call::<_, i64>("pass", 1).await?) };
    let linking = async {
        let mut bob = world.start("bob")?;
        Gate::serve(&bob.peer).open();
        world.link(&mut alice, &mut bob).await?;
        Ok::<_, rig::Failure>(bob)
    };
    let (result, _bob) = both(calling, linking).await;
    assert_eq!(result?, 1);
    Ok(())
}

async fn a_lost_link_ends_no_call_and_the_method_runs_once<R: Adapter>(world: World<R>) -> Outcome {
    let (mut alice, mut bob) = world.pair().await?;
    let gate = Gate::serve(&bob.peer);
    let pass = proxy(&alice.peer, "bob", "gate");
    let calling = async { pass.call::<_, i64>("pass", 1).await };
    let cutting = async {
        gate.entered(1).await;
        for _ in 0..3 {
            alice.peer.disconnect(&name("bob"));
            alice.down().await?;
            bob.down().await?;
            alice.up().await?;
            bob.up().await?;
        }
        alice.peer.disconnect(&name("bob"));
        gate.open();
        Ok::<_, rig::Failure>(())
    };
    let (result, cut) = both(calling, cutting).await;
    cut?;
    assert_eq!((result?, gate.count()), (1, 1));
    Ok(())
}

/// Ends the callee within a call, and starts it anew.
async fn end_within_a_call<R: Adapter>(
    world: &World<R>,
    method: &str,
) -> Result<(Result<i64, CallError>, usize), rig::Failure> {
    let (mut alice, bob) = world.pair().await?;
    let gate = Gate::serve(&bob.peer);
    let pass = proxy(&alice.peer, "bob", "gate");
    let calling = async { pass.call::<_, i64>(method, 1).await };
    let restarting = async {
        gate.entered(1).await;
        bob.peer.stop().await;
        alice.down().await?;
        let bob = world.start("bob")?;
        let gate = Gate::serve(&bob.peer);
        gate.open();
        world.join(&alice, &bob).await?;
        Ok::<_, rig::Failure>((bob, gate))
    };
    let (result, restarted) = both(calling, restarting).await;
    let (_bob, gate) = restarted?;
    Ok((result, gate.count()))
}

async fn a_callee_that_ends_in_a_call_runs_an_idempotent_method_again<R: Adapter>(
    world: World<R>,
) -> Outcome {
    let (result, count) = end_within_a_call(&world, "again").await?;
    assert_eq!((result?, count), (1, 1));
    Ok(())
}

async fn a_callee_that_ends_in_a_call_does_not_run_another_method_again<R: Adapter>(
    world: World<R>,
) -> Outcome {
    let (result, count) = end_within_a_call(&world, "pass").await?;
    let to = name("bob");
    assert_eq!((result, count), (Err(CallError::PartialCall { to }), 0));
    Ok(())
}

async fn both_sides_serve_and_call_at_once_and_handlers_call_back<R: Adapter>(
    world: World<R>,
) -> Outcome {
    let (alice, bob) = world.pair().await?;
    for peer in [&alice.peer, &bob.peer] {
        calc(peer);
        let rpc = peer.rpc().clone();
        let twice = move |caller: PeerName, number: i64| {
            let calc = rpc.proxy::<Json>(caller, "calc");
            async move { calc.call::<_, i64>("add", (number, number)).await }
        };
        peer.rpc()
            .object("calc")
            .handle(Kind::Method, "twice", twice);
    }
    let (of_bob, of_alice) = (
        proxy(&alice.peer, "bob", "calc"),
        proxy(&bob.peer, "alice", "calc"),
    );
    for number in 0..20 {
        let (one, other) = both(
            of_bob.call::<_, i64>("twice", number),
            of_alice.call::<_, i64>("twice", -number),
        )
        .await;
        assert_eq!((one?, other?), (2 * number, -2 * number));
    }
    assert_over([&alice.peer, &bob.peer]);
    Ok(())
}

async fn a_thousand_calls_at_once_have_their_own_results<R: Adapter>(world: World<R>) -> Outcome {
    let mut alice = world.start("alice")?;
    let mut bob = world.start_with(
        Config::new("bob")?.rpc_limits(
            amqp_peer::rpc::Limits::default()
                .per_caller(1000)
                .concurrent(16),
        ),
    )?;
    calc(&bob.peer);
    world.link(&mut alice, &mut bob).await?;
    let calc = proxy(&alice.peer, "bob", "calc");
    let mut calls: Vec<_> = (0..1000)
        .map(|number| (number, Box::pin(calc.call::<_, i64>("add", (number, 1)))))
        .collect();
    poll_fn(|cx| {
        calls.retain_mut(|(number, call)| match call.as_mut().poll(cx) {
            Poll::Ready(result) => {
                assert_eq!(result, Ok(*number + 1));
                false
            }
            Poll::Pending => true,
        });
        if calls.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    assert_over([&alice.peer, &bob.peer]);
    Ok(())
}

async fn a_large_value_passes_in_both_directions<R: Adapter>(world: World<R>) -> Outcome {
    // Beyond the bytes of a caller that are acknowledged after their run.
    let text = "x".repeat(5 << 20);
    let limits = Limits::default().body(6 << 20);
    let mut alice = world.start_with(Config::new("alice")?.limits(limits.clone()))?;
    let mut bob = world.start_with(Config::new("bob")?.limits(limits))?;
    world.link(&mut alice, &mut bob).await?;
    let object = bob.peer.rpc().object("echo");
    object.method("text", async |text: String| Ok::<_, Failure>(text));
    object.method("twice", async |text: String| {
        Ok::<_, Failure>(text.clone() + &text)
    });
    let echo = alice.peer.rpc().proxy::<Cbor>(name("bob"), "echo");
    assert!(echo.call::<_, String>("text", &text).await? == text);
    let error = echo.call::<_, String>("twice", &text).await.unwrap_err();
    assert_eq!(error, CallError::TooLarge { side: Side::Callee });
    let error = echo
        .call::<_, String>("text", text.clone() + &text)
        .await
        .unwrap_err();
    assert_eq!(error, CallError::TooLarge { side: Side::Caller });
    Ok(())
}

async fn removing_a_callee_and_stopping_end_calls<R: Adapter>(world: World<R>) -> Outcome {
    let (alice, bob) = world.pair().await?;
    let gate = Gate::serve(&bob.peer);
    let pass = proxy(&alice.peer, "bob", "gate").timeout(None);
    let forgetting = async {
        gate.entered(1).await;
        alice.peer.forget(&name("bob"));
    };
    let (result, ()) = both(pass.call::<_, i64>("pass", 1), forgetting).await;
    let to = name("bob");
    assert_eq!(result, Err(CallError::Removed { to }));
    let stopping = async {
        gate.entered(2).await;
        alice.peer.stop().await;
    };
    let (result, ()) = both(pass.call::<_, i64>("pass", 2), stopping).await;
    assert_eq!(result, Err(CallError::Stopped));
    let again = pass.call::<_, i64>("pass", 3).await;
    assert_eq!(again, Err(CallError::Stopped));
    Ok(())
}

/// Runs two futures side by side in this task.
async fn both<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, B) {
    let (mut one, mut other) = (Box::pin(one), Box::pin(other));
    let (mut first, mut second) = (None, None);
    poll_fn(|cx| {
        if first.is_none()
            && let Poll::Ready(output) = one.as_mut().poll(cx)
        {
            first = Some(output);
        }
        if second.is_none()
            && let Poll::Ready(output) = other.as_mut().poll(cx)
        {
            second = Some(output);
        }
        match (first.take(), second.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            (waiting_first, waiting_second) => {
                (first, second) = (waiting_first, waiting_second);
                Poll::Pending
            }
        }
    })
    .await
}

/// Ends the runtime of the callee within a call, which drops all of its tasks as they are, and starts
/// it anew on another one. Returns the result of the call, and the runs in the second process.
fn kill_within_a_call(alice_listens: bool, method: &str) -> (Result<i64, CallError>, usize) {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let link = |bob: &Peer, alice: &Peer| {
        let (listens, dials) = if alice_listens {
            (alice, bob)
        } else {
            (bob, alice)
        };
        let (listens, dials) = (listens.clone(), dials.clone());
        async move {
            let listening = listens
                .add_listener(Listen::tcp("127.0.0.1:0"))
                .await
                .unwrap();
            dials.add_connector(Connect::tcp("127.0.0.1", listening.port().unwrap()));
        }
    };
    let (first, second, of_alice) = (runtime(), runtime(), runtime());
    let start = |name: &str| amqp_peer::tokio::start(Config::new(name).unwrap()).unwrap();
    let (alice, _events) = of_alice.block_on(async { start("alice") });
    let (bob, bob_events) = first.block_on(async { start("bob") });
    let gate = Gate::serve(&bob);
    first.block_on(link(&bob, &alice));
    let pass = proxy(&alice, "bob", "gate");
    let method = method.to_owned();
    let calling = of_alice.spawn(async move { pass.call::<_, i64>(&method, 1).await });
    of_alice.block_on(gate.entered(1));
    first.shutdown_background();
    let (again, _again_events) = second.block_on(async { start("bob") });
    let gate = Gate::serve(&again);
    gate.open();
    second.block_on(link(&again, &alice));
    let result = of_alice.block_on(calling).unwrap();
    drop((bob, bob_events));
    (result, gate.count())
}

#[test]
fn a_call_of_a_callee_that_is_killed_ends_as_its_method_is_declared() {
    for alice_listens in [true, false] {
        let (result, count) = kill_within_a_call(alice_listens, "again");
        assert_eq!((result, count), (Ok(1), 1));
        let (result, count) = kill_within_a_call(alice_listens, "pass");
        let to = name("bob");
        assert_eq!((result, count), (Err(CallError::PartialCall { to }), 0));
    }
}

#[test]
fn blocking_handles_serve_and_call() {
    use amqp_peer::blocking;

    let (alice, _alice_events) = blocking::start(Config::new("alice").unwrap()).unwrap();
    let (bob, _bob_events) = blocking::start(Config::new("bob").unwrap()).unwrap();
    let listening = bob.add_listener(Listen::tcp("127.0.0.1:0")).unwrap();
    alice.add_connector(Connect::tcp("127.0.0.1", listening.port().unwrap()));
    let object = bob.rpc().object("calc");
    object.method("add", |(a, b): (i64, i64)| Ok::<_, Failure>(a + b));
    object.idempotent("parse", |text: String| text.parse::<i64>());
    let (sender, receiver) = std::sync::mpsc::channel();
    object.signal("log", move |line: String| {
        let _sent = sender.send(line);
        Ok::<_, Failure>(())
    });
    let calc = alice.rpc().proxy::<Cbor>(name("bob"), "calc");
    assert_eq!(calc.call("add", (3, 8)), Ok(11));
    assert!(matches!(
        calc.call::<_, i64>("parse", "x"),
        Err(CallError::Remote(_))
    ));
    calc.signal("log", "hello").unwrap();
    assert_eq!(receiver.recv().unwrap(), "hello");
    let within = amqp_blocking::within(Duration::from_millis(20), || {
        let away = alice.rpc().proxy::<Cbor>(name("carol"), "calc");
        away.call::<_, i64>("add", (3, 8))
    });
    let to = name("carol");
    assert_eq!(within, Err(CallError::PartialCall { to }));
    alice.stop();
    bob.stop();
}

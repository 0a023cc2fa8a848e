//! Seeds that fail: the reason, the reduction, the command.

use std::{
    cell::Cell,
    collections::BTreeSet,
    future::{pending, poll_fn},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use amqp_sim::{Check, Failure, Fault, FaultKind, Faults, Link, Sim, Step};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn failure(world: impl Fn(&Sim)) -> Box<Failure> {
    let found = Check::new().seeds(50).isolated().try_run(world);
    found.expect_err("the world fails")
}

/// A program that looks at the time once a second, and fails if a second took long.
async fn ticker(sim: Sim, limit: Duration) -> Result<(), String> {
    let connector = sim.connector("amqp://rabbit");
    for _ in 0..100 {
        let before = sim.now();
        connector.sleep(secs(1)).await;
        let took = sim.now() - before;
        if took > limit {
            return Err(format!("a second took {took:?}"));
        }
    }
    Ok(())
}

#[test]
fn a_failure_is_reduced_to_its_fault() {
    let failure = failure(|sim| {
        sim.node("rabbit");
        sim.spawn("ticker", ticker(sim.clone(), secs(30)));
        let faults = Faults::all().every(secs(2)).weight(FaultKind::Suspend, 30);
        sim.faults(faults.weight(FaultKind::Jump, 0));
        sim.run();
    });
    assert!(
        failure.message.contains("ticker has failed: a second took"),
        "{failure}"
    );
    assert!(failure.count > 10, "{failure}");
    let [Step { fault, .. }] = failure.steps.as_slice() else {
        panic!("{failure}");
    };
    assert!(matches!(fault, Fault::Suspend { process, .. } if **process == *"ticker"));
    assert!(
        failure
            .command
            .contains(&format!("AMQP_SIM_SEED={}", failure.seed))
    );
    assert!(failure.command.contains("AMQP_SIM_STEPS="));
    let effect = "*** ticker: suspended";
    assert!(failure.trace.iter().any(|line| line.contains(effect)));
    assert!(
        failure
            .command
            .contains("a_failure_is_reduced_to_its_fault"),
        "{failure}"
    );
}

#[test]
fn two_faults_that_belong_together_are_both_kept() {
    let failure = failure(|sim| {
        sim.node("rabbit");
        let limit = Rc::new(Cell::new(0_u32));
        let link = || Link::new("test", "rabbit");
        for second in 1..20 {
            sim.at(secs(second), Fault::Reset { link: link() });
        }
        let steps: BTreeSet<Duration> = sim.steps().iter().map(|step| step.at).collect();
        limit.set(steps.len() as u32);
        sim.advance(secs(30));
        let is_there = |second| steps.contains(&secs(second));
        assert!(!(is_there(5) && is_there(17)), "both");
    });
    let at: Vec<Duration> = failure.steps.iter().map(|step| step.at).collect();
    assert_eq!(at, [secs(5), secs(17)]);
    assert!(failure.command.contains("AMQP_SIM_STEPS=4,16"), "{failure}");
}

#[test]
fn a_failure_without_faults_needs_none() {
    let failure = failure(|sim| {
        sim.node("rabbit");
        sim.spawn("program", async { Err::<(), _>("no") });
        sim.faults(Faults::all());
        sim.run();
    });
    assert_eq!((failure.seed, failure.steps.len()), (0, 0));
    assert!(
        failure.message.contains("program has failed: no"),
        "{failure}"
    );
    assert!(failure.command.contains("AMQP_SIM_STEPS=none"), "{failure}");
}

#[test]
fn a_panic_has_its_place() {
    let failure = failure(|sim| {
        let looking = sim.clone();
        sim.spawn("program", async move {
            assert!(looking.now() > Duration::ZERO, "the text");
        });
        sim.run();
    });
    assert!(
        failure.message.contains("program has panicked: the text"),
        "{failure}"
    );
    assert!(failure.message.contains("tests/check.rs:"), "{failure}");
}

#[test]
fn a_world_that_cannot_go_on_names_its_tasks() {
    let failure = failure(|sim| {
        sim.spawn("sleeper", pending::<()>());
        sim.run();
    });
    assert!(
        failure.message.contains("nothing can happen any more"),
        "{failure}"
    );
    assert!(failure.message.contains("sleeper (1)"), "{failure}");
}

#[test]
fn a_world_that_does_not_end_fails() {
    let check = Check::new()
        .seeds(1)
        .isolated()
        .max_time(secs(100))
        .max_steps(1000);
    let endless = check.try_run(|sim| {
        let connector = sim.connector("amqp://rabbit");
        sim.spawn("endless", async move {
            for _ in 0..u32::MAX {
                connector.sleep(secs(1)).await;
            }
        });
        sim.run();
    });
    let message = endless.expect_err("it never ends").message;
    assert!(message.contains("it has not ended after 100s"), "{message}");
    let busy = check.try_run(|sim| {
        sim.spawn(
            "busy",
            poll_fn(|cx| {
                cx.waker().wake_by_ref();
                Poll::<()>::Pending
            }),
        );
        sim.run();
    });
    let message = busy.expect_err("it never ends").message;
    assert!(
        message.contains("it is still running after 1000 steps"),
        "{message}"
    );
}

#[test]
fn a_condition_is_checked_always() {
    let failure = failure(|sim| {
        let looking = sim.clone();
        sim.always("early", move || match looking.now() < secs(10) {
            true => Ok(()),
            false => Err("it is late".into()),
        });
        sim.spawn("ticker", ticker(sim.clone(), secs(2)));
        sim.run();
    });
    assert!(failure.message.contains("early: it is late"), "{failure}");
}

#[test]
fn a_world_that_depends_on_something_else_is_reported() {
    let runs = Rc::new(Cell::new(0));
    let failure = failure(move |_| {
        runs.set(runs.get() + 1);
        assert!(runs.get() != 3, "the third run");
    });
    assert!(
        failure.message.contains("something else than its seed"),
        "{failure}"
    );
}

#[test]
fn the_summary_says_how_much_it_was() {
    let summary = Check::new()
        .seeds(10)
        .isolated()
        .run(|sim| sim.advance(secs(360)));
    assert_eq!((summary.worlds, summary.simulated), (10, secs(3600)));
    let text = summary.to_string();
    assert!(
        text.starts_with("10 worlds, 1.0 simulated hours, "),
        "{text}"
    );
}

#[test]
fn a_service_is_started_again() {
    let sim = Sim::new(0);
    let starts = Rc::new(Cell::new(0));
    let counting = Rc::clone(&starts);
    let connector = sim.connector("amqp://rabbit");
    sim.service("service", move || {
        counting.set(counting.get() + 1);
        let connector = connector.clone();
        async move {
            connector.sleep(secs(9)).await;
            Err::<(), _>("it fails")
        }
    });
    sim.advance(secs(25));
    assert_eq!(starts.get(), 3); // at 0, 10 and 20 s
    sim.inject(Fault::Crash {
        process: "service".into(),
        down: secs(2),
    });
    sim.advance(secs(3));
    assert_eq!(starts.get(), 4);
    sim.advance(secs(8));
    assert_eq!(starts.get(), 4);
}

#[test]
fn a_lost_wake_up_fails() {
    let lost = |wakeups| {
        let check = Check::new().seeds(20).isolated().wakeups(wakeups);
        check.max_time(secs(1000)).try_run(|sim| {
            let connector = sim.connector("amqp://rabbit");
            let told = Rc::new(Cell::new(false));
            let tells = Rc::clone(&told);
            sim.spawn("teller", async move {
                connector.sleep(secs(1)).await;
                tells.set(true);
            });
            // It does not register its waker.
            let deaf = poll_fn(move |_| match told.get() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            });
            sim.spawn("deaf", deaf);
            sim.run();
        })
    };
    let failure = lost(1).expect_err("it was lost");
    let text = "deaf was not woken, and had work";
    assert!(failure.message.contains(text), "{failure}");
    let failure = lost(0).expect_err("it does not end");
    let text = "nothing can happen any more";
    assert!(failure.message.contains(text), "{failure}");
}

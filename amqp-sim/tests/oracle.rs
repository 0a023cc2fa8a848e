//! The oracles: each violation is noticed, and nothing else is.

use std::time::Duration;

use amqp_sim::{
    Sim,
    oracle::{Ledger, MessageId, Requests, Settlement, Turns},
};

const SETTLEMENTS: [Settlement; 5] = [
    Settlement::Acked,
    Settlement::Nacked,
    Settlement::Returned,
    Settlement::NotSent,
    Settlement::Unknown,
];

fn error(ledger: &Ledger) -> String {
    ledger.check().expect_err("a violation")
}

#[test]
fn each_message_has_one_outcome() {
    let ledger = Ledger::new();
    let message = ledger.publish("a", "q");
    let open = ledger.finish(&[]).expect_err("no outcome");
    assert!(open.contains("message-0 has no outcome"), "{open}");
    ledger.settle(message, Settlement::Unknown);
    assert_eq!(ledger.finish(&[]), Ok(()));
    ledger.settle(message, Settlement::Unknown);
    assert!(error(&ledger).contains("two outcomes"));
}

#[test]
fn an_outcome_is_true() {
    for settlement in SETTLEMENTS {
        for delivered_first in [false, true] {
            let ledger = Ledger::new();
            let message = ledger.publish("a", "q");
            if delivered_first {
                ledger.deliver("c", "q", message, false);
            }
            ledger.settle(message, settlement);
            if !delivered_first {
                ledger.deliver("c", "q", message, false);
            }
            let may_be = matches!(settlement, Settlement::Acked | Settlement::Unknown);
            assert_eq!(ledger.check().is_ok(), may_be, "{settlement:?}");
        }
    }
}

#[test]
fn a_repeat_is_marked() {
    let ledger = Ledger::new();
    let message = ledger.publish("a", "q");
    ledger.deliver("c", "q", message, false);
    ledger.deliver("c", "q", message, true);
    assert_eq!(ledger.check(), Ok(()));
    ledger.deliver("d", "q", message, false);
    assert!(error(&ledger).contains("comes again"));

    let ledger = Ledger::new();
    let message = ledger.publish_at_least_once("a", "q");
    ledger.deliver("c", "q", message, false);
    ledger.deliver("d", "q", message, false);
    assert_eq!(ledger.check(), Ok(()));
}

#[test]
fn messages_of_a_publisher_come_in_order() {
    let ledger = Ledger::new();
    let [one, two] = [(); 2].map(|()| ledger.publish("a", "q"));
    let other = ledger.publish("b", "q");
    ledger.deliver("c", "q", other, false);
    ledger.deliver("c", "q", two, false);
    ledger.deliver("d", "q", one, false);
    ledger.deliver("c", "q", one, true);
    assert_eq!(ledger.check(), Ok(()));
    let three = ledger.publish("a", "q");
    let four = ledger.publish("a", "q");
    ledger.deliver("c", "q", four, false);
    ledger.deliver("c", "q", three, false);
    assert!(error(&ledger).contains("message-3 comes to c after message-4"));
}

#[test]
fn a_message_of_a_lost_connection_may_come_late() {
    let ledger = Ledger::new();
    let [one, two] = [(); 2].map(|()| ledger.publish("a", "q"));
    ledger.settle(one, Settlement::Unknown);
    ledger.deliver("c", "q", two, false);
    ledger.deliver("c", "q", one, false);
    assert_eq!(ledger.check(), Ok(()));
}

#[test]
fn messages_of_a_lost_connection_come_in_their_order() {
    let ledger = Ledger::new();
    let messages = [(); 4].map(|()| ledger.publish("a", "q"));
    for (message, life) in messages.into_iter().zip([0, 0, 1, 1]) {
        ledger.accepted(message, life);
        ledger.settle(message, Settlement::Unknown);
    }
    let [one, two, three, four] = messages;
    for message in [three, one, four] {
        ledger.deliver("c", "q", message, false);
    }
    // To another consumer, the order is its own.
    ledger.deliver("d", "q", two, false);
    assert_eq!(ledger.check(), Ok(()));

    let ledger = Ledger::new();
    let [one, two] = [(); 2].map(|()| ledger.publish("a", "q"));
    for message in [one, two] {
        ledger.accepted(message, 7);
        ledger.settle(message, Settlement::Unknown);
    }
    ledger.deliver("c", "q", two, false);
    ledger.deliver("c", "q", one, false);
    assert!(error(&ledger).contains("message-0 comes to c after message-1"));
}

#[test]
fn a_message_comes_from_its_queue_and_was_published() {
    let ledger = Ledger::new();
    let message = ledger.publish("a", "q");
    ledger.deliver("c", "other", message, false);
    assert!(error(&ledger).contains("comes from other"));

    let ledger = Ledger::new();
    ledger.deliver("c", "q", message, false);
    assert!(error(&ledger).contains("was never published"));
}

#[test]
fn a_confirmed_message_is_finished_or_in_its_queue() {
    let ledger = Ledger::new();
    let message = ledger.publish("a", "q");
    ledger.settle(message, Settlement::Acked);
    assert_eq!(ledger.unfinished(), 1);
    let sim = Sim::new(0);
    let lost = ledger.finish(&[&sim.node("rabbit")]);
    let lost = lost.expect_err("the queue is not there");
    assert!(lost.contains("1 confirmed messages of q"), "{lost}");
    ledger.done(message);
    assert_eq!((ledger.finish(&[]), ledger.unfinished()), (Ok(()), 0));
}

#[test]
fn a_number_is_read_from_a_body() {
    let ledger = Ledger::new();
    let _first = ledger.publish("a", "q");
    let message = ledger.publish("a", "q");
    assert_eq!(ledger.len(), 2);
    assert_eq!(MessageId::of(&message.to_string().into()), Ok(message));
    assert_eq!(
        MessageId::of(&format!("{message}......").into()),
        Ok(message)
    );
    assert!(MessageId::of(&"seven".into()).is_err());
}

#[test]
fn each_has_its_turn() {
    let turns = Turns::new(1);
    for _ in 0..3 {
        for name in ["a", "b"] {
            turns.wait(name);
        }
        for name in ["a", "b"] {
            turns.served(name);
        }
    }
    assert_eq!(turns.check(), Ok(()));
    turns.wait("a");
    turns.gone("a");
    for _ in 0..3 {
        turns.served("b");
    }
    assert_eq!(turns.check(), Ok(()));
    turns.wait("a");
    turns.reset();
    turns.served("b");
    turns.served("b");
    assert_eq!(turns.check(), Ok(()));
    turns.wait("a");
    turns.served("b");
    turns.served("b");
    let overtaken = turns.check().expect_err("b had two turns");
    assert!(
        overtaken.contains("a waits while b had 2 turns"),
        "{overtaken}"
    );
}

#[test]
fn turns_of_others_do_not_count_once_one_is_woken() {
    let turns = Turns::new(1);
    turns.wait("a");
    turns.served("b");
    turns.woken("a");
    turns.served("b");
    turns.served("b");
    assert_eq!(turns.check(), Ok(()));
    // It has come too late, and waits again.
    turns.wait("a");
    turns.served("b");
    assert_eq!(turns.check(), Ok(()));
    turns.served("b");
    assert!(turns.check().is_err());
}

#[test]
fn wake_ups_without_a_turn_are_noticed() {
    let turns = Turns::new(1);
    for _ in 0..20 {
        turns.wait("a");
        turns.woken("a");
        turns.woken("a");
    }
    assert_eq!(turns.check(), Ok(()));
    turns.wait("a");
    turns.woken("a");
    let error = turns.check().expect_err("it starves");
    assert!(error.contains("a was woken 20 times"), "{error}");
}

#[test]
fn a_tracked_wait_ends_with_its_turn_or_its_drop() {
    let sim = Sim::new(0);
    let turns = Turns::new(1);
    let tracked = turns.clone();
    sim.block_on(async move { tracked.track("a", async {}).await });
    let tracked = turns.clone();
    let cancellation = sim.cancellation(100);
    let waiting = async move { tracked.track("a", std::future::pending::<()>()).await };
    assert_eq!(
        sim.block_on(async move { cancellation.run(waiting).await }),
        None
    );
    for _ in 0..3 {
        turns.served("b");
    }
    assert_eq!(turns.check(), Ok(()));
}

#[test]
fn each_request_has_an_outcome_in_time() {
    let sim = Sim::new(0);
    let requests = Requests::new(&sim, Duration::from_secs(10));
    let tracked = requests.clone();
    assert_eq!(
        sim.block_on(async move { tracked.track("quick", async { 7 }).await }),
        7
    );
    assert_eq!((requests.answered(), requests.dropped()), (1, 0));
    let (tracked, connector) = (requests.clone(), sim.connector("amqp://rabbit"));
    sim.spawn("program", async move {
        let slow = connector.sleep(Duration::from_secs(20));
        tracked.track("slow", slow).await;
    });
    sim.advance(Duration::from_secs(9));
    assert_eq!(requests.check(), Ok(()));
    let open = requests.finish().expect_err("it waits");
    assert!(open.contains("slow waits since"), "{open}");
    sim.advance(Duration::from_secs(5));
    let late = requests.check().expect_err("it is late");
    assert!(late.contains("slow has waited for"), "{late}");
    sim.run();
    assert_eq!((requests.check(), requests.finish()), (Ok(()), Ok(())));
    let tracked = requests.clone();
    let cancellation = sim.cancellation(100);
    let waiting = async move { tracked.track("never", std::future::pending::<()>()).await };
    assert_eq!(
        sim.block_on(async move { cancellation.run(waiting).await }),
        None
    );
    assert_eq!(requests.finish(), Ok(()));
    assert_eq!(requests.answered(), 2);
}

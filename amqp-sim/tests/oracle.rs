//! The oracles: each violation is noticed, and nothing else is.

use amqp_sim::{
    Sim,
    oracle::{Ledger, MessageId, Settlement, Turns},
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

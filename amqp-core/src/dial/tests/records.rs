//! SRV records.

use super::*;

const SERVICE: &str = "_amqp._tcp.example.com";

fn record(priority: u16, weight: u16, target: &str) -> SrvRecord {
    SrvRecord {
        priority,
        weight,
        port: 5672,
        target: target.to_owned(),
    }
}

fn hosts(records: &[SrvRecord], seed: u64) -> Vec<String> {
    let addresses = srv::addresses(records.to_vec(), seed).unwrap();
    addresses.iter().map(Address::to_string).collect()
}

/// A dialer that has asked for the records of a service.
fn looking(rest: &[Address]) -> (Rig, AttemptId) {
    let mut rig = Rig::listed(&[&[Address::srv(SERVICE)], rest].concat());
    let Step::LookUp { attempt, name } = rig.step() else {
        panic!("it looks nothing up");
    };
    assert_eq!(name, SERVICE);
    (rig, attempt)
}

#[test]
fn the_targets_are_tried_by_priority_before_the_other_addresses() {
    let other = Address::tcp("10.0.0.9", 1);
    let (mut rig, attempt) = looking(&[other]);
    assert_eq!(rig.step(), Step::Wait(Instant::ORIGIN + TIMEOUT));
    rig.now = Instant::ORIGIN + MILLI;
    let records = vec![record(20, 0, "10.0.0.2"), record(10, 0, "name.")];
    rig.dialer.handle_records(attempt, Ok(records), 1);
    let resolving = rig.resolves("name");
    // Each target has the whole timeout.
    assert_eq!(rig.step(), Step::Wait(Instant::ORIGIN + TIMEOUT + MILLI));
    rig.dialer.handle_failed(resolving, "gone");
    for (address, text) in [("10.0.0.2:5672", "refused"), ("10.0.0.9:1", "refused")] {
        let connecting = rig.connects(address);
        rig.dialer.handle_failed(connecting, text);
    }
    assert_eq!(rig.step(), Step::GiveUp);
    assert_eq!(
        rig.failures(),
        "name:5672: gone; 10.0.0.2:5672: refused; 10.0.0.9:1: refused"
    );
}

#[test]
fn the_error_of_a_lookup_names_the_record_and_the_next_address_follows() {
    let unanswered = SrvError::Unanswered {
        why: "SERVFAIL".into(),
    };
    let cases = [
        (Ok(vec![]), SrvError::NotFound),
        (Ok(vec![record(0, 0, ".")]), SrvError::NoService),
        (Err(unanswered.clone()), unanswered),
    ];
    for (records, error) in cases {
        let (mut rig, attempt) = looking(&[Address::tcp("10.0.0.9", 1)]);
        rig.dialer.handle_records(attempt, records, 1);
        rig.connects("10.0.0.9:1");
        assert_eq!(rig.failures(), format!("srv:{SERVICE}: {error}"));
        assert_eq!(rig.dialer.failures().as_slice()[0].srv, Some(error));
    }
}

#[test]
fn a_lookup_without_an_answer_is_abandoned() {
    let (mut rig, attempt) = looking(&[]);
    rig.waits_until(TIMEOUT);
    assert_eq!(rig.step(), Step::Abandon);
    assert_eq!(rig.step(), Step::GiveUp);
    rig.dialer
        .handle_records(attempt, Ok(vec![record(0, 0, "late")]), 1);
    assert_eq!(rig.step(), Step::GiveUp);
    let text = format!("srv:{SERVICE}: no connection within 10s");
    assert_eq!(rig.failures(), text);
}

#[test]
fn an_answer_of_the_wrong_kind_changes_nothing() {
    let (mut rig, attempt) = looking(&[]);
    rig.dialer.handle_resolved(attempt, [socket("10.0.0.1:1")]);
    rig.waits_until(TIMEOUT);
    let mut rig = Rig::listed(&[Address::tcp("name", 5672)]);
    let attempt = rig.resolves("name");
    rig.dialer.handle_records(attempt, Ok(vec![]), 1);
    rig.waits_until(TIMEOUT);
    assert_eq!(rig.failures(), "any address: none was tried");
}

#[test]
fn a_target_is_chosen_in_proportion_to_its_weight() {
    const RUNS: u64 = 10_000;
    let records = [
        record(1, 0, "backup"),
        record(0, 75, "large"),
        record(0, 25, "small"),
        record(0, 0, "zero"),
    ];
    let mut first = BTreeMap::<_, u64>::new();
    for seed in 0..RUNS {
        let hosts = hosts(&records, seed);
        assert_eq!(hosts.len(), 4);
        assert_eq!(hosts[3], "backup:5672");
        assert_eq!(hosts.iter().collect::<BTreeSet<_>>().len(), 4);
        *first.entry(hosts[0].clone()).or_default() += 1;
    }
    // By RFC 2782 the numbers are 0 to 100: 0 for `zero`, 1 to 25 or 1 to 75 for the others.
    for (host, share) in [("zero:5672", 1), ("small:5672", 25), ("large:5672", 75)] {
        let expected = RUNS * share / 101;
        let tolerance = expected / 10 + 30;
        assert!(first[host].abs_diff(expected) < tolerance, "{first:?}");
    }
    assert_eq!(hosts(&records, 7), hosts(&records, 7));
}

#[test]
fn equal_weights_of_zero_keep_an_order_and_the_largest_do_not_overflow() {
    let zeros = [record(0, 0, "a"), record(0, 0, "b")];
    assert_eq!(hosts(&zeros, 1), ["a:5672", "b:5672"]);
    let largest = vec![record(u16::MAX, u16::MAX, "host"); MAX_RESOLVED + 1];
    assert_eq!(hosts(&largest, 1).len(), MAX_RESOLVED);
}

#[test]
fn a_root_target_among_others_is_left_out() {
    let records = [record(0, 0, "."), record(1, 0, "a")];
    assert_eq!(hosts(&records, 1), ["a:5672"]);
}

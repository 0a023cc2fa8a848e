use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec,
};

use super::*;

mod any_order;
mod records;

const TIMEOUT: Duration = Duration::from_secs(10);
const MILLI: Duration = Duration::from_millis(1);

/// A dialer and its clock, which the test advances.
struct Rig {
    dialer: Dialer,
    now: Instant,
}

impl Rig {
    fn new(addresses: &[Address], order: Order) -> Self {
        Self {
            dialer: Dialer::new(addresses.to_vec(), order, TIMEOUT),
            now: Instant::ORIGIN,
        }
    }

    fn listed(addresses: &[Address]) -> Self {
        Self::new(addresses, Order::Listed)
    }

    /// In the middle of the attempts at one name, which has resolved to that.
    fn resolved(addresses: &[Address], sockets: &[&str]) -> Self {
        let mut rig = Self::listed(addresses);
        let attempt = rig.resolves("name");
        rig.dialer
            .handle_resolved(attempt, sockets.iter().map(|text| socket(text)));
        rig
    }

    fn step(&mut self) -> Step {
        self.dialer.poll_step(self.now)
    }

    #[track_caller]
    fn resolves(&mut self, name: &str) -> AttemptId {
        match self.step() {
            Step::Resolve { attempt, host, .. } if host == name => attempt,
            step => panic!("{step:?} in place of resolving {name}"),
        }
    }

    #[track_caller]
    fn connects(&mut self, text: &str) -> AttemptId {
        match self.step() {
            Step::Connect { attempt, to } if to == Target::Tcp(socket(text)) => attempt,
            step => panic!("{step:?} in place of connecting to {text}"),
        }
    }

    /// It waits until then, after the origin, and for that long.
    #[track_caller]
    fn waits_until(&mut self, after: Duration) {
        let until = Instant::from_origin(after);
        assert_eq!(self.step(), Step::Wait(until));
        self.now = Instant::from_nanos(until.as_nanos() - 1);
        assert_eq!(self.step(), Step::Wait(until));
        self.now = until;
    }

    fn failures(&self) -> String {
        self.dialer.failures().to_string()
    }
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Addresses with the port 5672.
fn addresses(hosts: &[&str]) -> Vec<Address> {
    hosts.iter().map(|host| Address::tcp(*host, 5672)).collect()
}

#[test]
fn no_address_is_none_to_try() {
    let mut rig = Rig::listed(&[]);
    assert_eq!(rig.step(), Step::GiveUp);
    assert_eq!(rig.step(), Step::GiveUp);
    // The text follows "could not reach", as that of each failure does.
    assert_eq!(rig.failures(), "any address: none was tried");
}

#[test]
fn listed_addresses_are_tried_in_their_order() {
    let mut rig = Rig::listed(&addresses(&["10.0.0.3", "10.0.0.1", "10.0.0.2"]));
    for ip in ["10.0.0.3", "10.0.0.1", "10.0.0.2"] {
        let attempt = rig.connects(&format!("{ip}:5672"));
        assert_eq!(rig.dialer.address(), Some(&Address::tcp(ip, 5672)));
        rig.waits_until(rig.now - Instant::ORIGIN + TIMEOUT);
        rig.dialer.handle_failed(attempt, "refused");
    }
    assert_eq!(rig.step(), Step::GiveUp);
    assert_eq!(rig.dialer.address(), None);
    assert_eq!(
        rig.failures(),
        "10.0.0.3:5672: refused; 10.0.0.1:5672: refused; 10.0.0.2:5672: refused"
    );
}

/// The addresses in the order in which a dialer takes them up.
fn order_of(count: u8, order: Order) -> Vec<u8> {
    let hosts: Vec<Address> = (0..count)
        .map(|index| Address::tcp(format!("10.0.0.{index}"), 1))
        .collect();
    let mut rig = Rig::new(&hosts, order);
    let mut tried = Vec::new();
    while let Step::Connect { attempt, to } = rig.step() {
        let Some(SocketAddr::V4(socket)) = to.socket() else {
            panic!("{to:?}");
        };
        tried.push(socket.ip().octets()[3]);
        rig.dialer.handle_failed(attempt, "no");
    }
    assert_eq!(rig.step(), Step::GiveUp);
    tried
}

#[test]
fn a_seed_decides_the_order_and_every_order_comes_about() {
    for count in 0..5 {
        let orders = (0..1_000).map(|seed| order_of(count, Order::Shuffled { seed }));
        let mut seen = BTreeMap::<Vec<u8>, u32>::new();
        for order in orders {
            *seen.entry(order).or_default() += 1;
        }
        let expected = (1..=usize::from(count)).product::<usize>();
        assert_eq!(seen.len(), expected, "{count}");
        // About equally often, and nothing is lost or doubled.
        let often = 1_000 / expected as u32;
        for (mut order, times) in seen {
            assert!((often / 2..=often * 2).contains(&times), "{order:?}");
            order.sort_unstable();
            assert_eq!(order, (0..count).collect::<Vec<_>>());
        }
    }
    for seed in [0, 1, 42, u64::MAX] {
        let order = Order::Shuffled { seed };
        assert_eq!(order_of(20, order), order_of(20, order), "{seed}");
    }
    let one = order_of(20, Order::Shuffled { seed: 1 });
    assert_ne!(one, order_of(20, Order::Shuffled { seed: 2 }));
    assert_eq!(order_of(20, Order::Listed), (0..20).collect::<Vec<_>>());
}

#[test]
fn a_dead_ipv6_costs_a_quarter_of_a_second() {
    let mut rig = Rig::resolved(&addresses(&["name"]), &["[2001:db8::1]:0", "10.0.0.1:0"]);
    let dead = rig.connects("[2001:db8::1]:5672");
    rig.waits_until(ATTEMPT_DELAY);
    let alive = rig.connects("10.0.0.1:5672");
    // Both are under way, and nothing is left to be started.
    assert_eq!(rig.step(), Step::Wait(Instant::ORIGIN + TIMEOUT));
    rig.now = rig.now + MILLI;
    assert!(rig.dialer.handle_connected(alive));
    assert_eq!(rig.step(), Step::Abandon);
    assert_eq!(rig.step(), Step::Connected(alive));
    // The result of the other one comes too late.
    assert!(!rig.dialer.handle_connected(dead));
    rig.dialer.handle_failed(dead, "no route");
    rig.now = rig.now + TIMEOUT * 100;
    assert_eq!(rig.step(), Step::Connected(alive));
    assert_eq!(rig.dialer.address(), Some(&Address::tcp("name", 5672)));
    assert_eq!(rig.dialer.failures().as_slice(), []);
}

#[test]
fn the_first_attempt_may_still_win_after_the_second_has_begun() {
    let mut rig = Rig::resolved(&addresses(&["name"]), &["[2001:db8::1]:0", "10.0.0.1:0"]);
    let slow = rig.connects("[2001:db8::1]:5672");
    rig.waits_until(ATTEMPT_DELAY);
    let second = rig.connects("10.0.0.1:5672");
    assert!(rig.dialer.handle_connected(slow));
    assert!(!rig.dialer.handle_connected(second));
    assert_eq!(rig.step(), Step::Abandon);
    assert_eq!(rig.step(), Step::Connected(slow));
}

#[test]
fn the_families_take_turns_and_the_first_one_begins() {
    let (v4, v6) = (
        |n| format!("10.0.0.{n}:0"),
        |n| format!("[2001:db8::{n}]:0"),
    );
    for (given, expected) in [
        (
            [v6(1), v6(2), v6(3), v4(1), v4(2)],
            [v6(1), v4(1), v6(2), v4(2), v6(3)],
        ),
        (
            [v4(1), v4(2), v4(3), v4(4), v6(1)],
            [v4(1), v6(1), v4(2), v4(3), v4(4)],
        ),
        (
            [v4(1), v6(1), v6(2), v6(3), v4(2)],
            [v4(1), v6(1), v4(2), v6(2), v6(3)],
        ),
    ] {
        let given: Vec<&str> = given.iter().map(String::as_str).collect();
        let mut rig = Rig::resolved(&addresses(&["name"]), &given);
        for text in expected {
            let attempt = rig.connects(&text.replace(":0", ":5672"));
            rig.dialer.handle_failed(attempt, "no");
        }
        assert_eq!(rig.step(), Step::GiveUp);
    }
}

#[test]
fn an_attempt_refused_at_once_makes_room_for_the_next_at_once() {
    let sockets = ["[::1]:0", "127.0.0.1:0", "[::2]:0"];
    let mut rig = Rig::resolved(&addresses(&["name", "10.0.0.9"]), &sockets);
    for text in [
        "[::1]:5672",
        "127.0.0.1:5672",
        "[::2]:5672",
        "10.0.0.9:5672",
    ] {
        let attempt = rig.connects(text);
        rig.dialer.handle_failed(attempt, "refused");
    }
    assert_eq!(rig.step(), Step::GiveUp);
    assert_eq!(
        rig.failures(),
        "name:5672 at [::1]:5672: refused; name:5672 at 127.0.0.1:5672: refused; \
         name:5672 at [::2]:5672: refused; 10.0.0.9:5672: refused"
    );
    assert_eq!(rig.now, Instant::ORIGIN);
}

#[test]
fn the_failure_of_an_earlier_attempt_hurries_nothing() {
    let sockets = ["10.0.0.1:0", "10.0.0.2:0", "10.0.0.3:0"];
    let mut rig = Rig::resolved(&addresses(&["name"]), &sockets);
    let first = rig.connects("10.0.0.1:5672");
    rig.waits_until(ATTEMPT_DELAY);
    let second = rig.connects("10.0.0.2:5672");
    rig.now = rig.now + MILLI;
    rig.dialer.handle_failed(first, "refused");
    assert_eq!(rig.step(), Step::Wait(Instant::ORIGIN + ATTEMPT_DELAY * 2));
    rig.dialer.handle_failed(second, "refused");
    let third = rig.connects("10.0.0.3:5672");
    assert_eq!(rig.step(), Step::Wait(Instant::ORIGIN + TIMEOUT));
    rig.dialer.handle_failed(third, "refused");
    assert_eq!(rig.step(), Step::GiveUp);
}

#[test]
fn when_the_time_of_an_address_is_over_the_next_one_gets_as_much() {
    let mut rig = Rig::resolved(
        &addresses(&["name", "10.0.0.9", "other"]),
        &["[::1]:0", "127.0.0.1:0"],
    );
    let first = rig.connects("[::1]:5672");
    rig.waits_until(ATTEMPT_DELAY);
    let second = rig.connects("127.0.0.1:5672");
    rig.waits_until(TIMEOUT);
    assert_eq!(rig.step(), Step::Abandon);
    rig.connects("10.0.0.9:5672");
    assert!(!rig.dialer.handle_connected(first));
    rig.dialer.handle_failed(second, "cancelled");
    rig.waits_until(TIMEOUT * 2);
    assert_eq!(rig.step(), Step::Abandon);
    // A resolver that does not answer has no more time.
    let attempt = rig.resolves("other");
    rig.waits_until(TIMEOUT * 3);
    assert_eq!(rig.step(), Step::Abandon);
    assert_eq!(rig.step(), Step::GiveUp);
    rig.dialer.handle_resolved(attempt, [socket("10.0.0.1:1")]);
    assert_eq!(rig.step(), Step::GiveUp);
    assert_eq!(
        rig.failures(),
        "name:5672 at [::1]:5672: no connection within 10s; \
         name:5672 at 127.0.0.1:5672: no connection within 10s; \
         10.0.0.9:5672: no connection within 10s; other:5672: no connection within 10s"
    );
}

#[test]
fn the_time_of_an_address_begins_with_its_resolution() {
    let mut rig = Rig::listed(&addresses(&["name"]));
    let attempt = rig.resolves("name");
    rig.now = Instant::ORIGIN + (TIMEOUT - MILLI);
    rig.dialer
        .handle_resolved(attempt, [socket("10.0.0.1:0"), socket("10.0.0.2:0")]);
    rig.connects("10.0.0.1:5672");
    rig.waits_until(TIMEOUT);
    assert_eq!(rig.step(), Step::Abandon);
    assert_eq!(rig.step(), Step::GiveUp);

    // It may also be over before the first attempt.
    let mut rig = Rig::resolved(&addresses(&["name"]), &["10.0.0.1:0"]);
    rig.now = rig.now + TIMEOUT;
    assert_eq!(rig.step(), Step::GiveUp);
    assert_eq!(rig.failures(), "name:5672: no connection within 10s");
}

#[test]
fn no_time_at_all_ends_at_once_and_endless_time_is_waited_for() {
    let mut dialer = Dialer::new(addresses(&["name", "::1"]), Order::Listed, Duration::ZERO);
    let now = Instant::ORIGIN;
    assert!(matches!(dialer.poll_step(now), Step::Resolve { .. }));
    assert_eq!(dialer.poll_step(now), Step::Abandon);
    assert!(matches!(dialer.poll_step(now), Step::Connect { .. }));
    assert_eq!(dialer.poll_step(now), Step::Abandon);
    assert_eq!(dialer.poll_step(now), Step::GiveUp);

    let mut dialer = Dialer::new(addresses(&["::1"]), Order::Listed, Duration::MAX);
    assert!(matches!(dialer.poll_step(now), Step::Connect { .. }));
    assert_eq!(
        dialer.poll_step(now),
        Step::Wait(Instant::from_nanos(u64::MAX))
    );
}

#[test]
fn a_connection_that_comes_just_in_time_counts() {
    let mut rig = Rig::listed(&addresses(&["10.0.0.1"]));
    let attempt = rig.connects("10.0.0.1:5672");
    rig.waits_until(TIMEOUT);
    assert!(rig.dialer.handle_connected(attempt));
    assert_eq!(rig.step(), Step::Connected(attempt));
}

#[test]
fn a_clock_that_goes_back_is_taken_to_stand_still() {
    let mut rig = Rig::listed(&addresses(&["10.0.0.1", "10.0.0.2"]));
    rig.now = Instant::ORIGIN + TIMEOUT;
    rig.connects("10.0.0.1:5672");
    rig.now = Instant::ORIGIN;
    assert_eq!(rig.step(), Step::Wait(Instant::ORIGIN + TIMEOUT * 2));
    rig.now = Instant::ORIGIN + TIMEOUT * 3;
    assert_eq!(rig.step(), Step::Abandon);
    rig.now = Instant::ORIGIN;
    rig.connects("10.0.0.2:5672");
    assert_eq!(rig.step(), Step::Wait(Instant::ORIGIN + TIMEOUT * 4));
}

#[test]
fn a_host_that_refuses_after_the_connect_is_left_for_the_next() {
    let hosts = addresses(&["name", "10.0.0.9"]);
    let mut rig = Rig::resolved(&hosts, &["10.0.0.1:0"]);
    let first = rig.connects("10.0.0.1:5672");
    assert!(rig.dialer.handle_connected(first));
    // A handshake may take longer than a connect.
    rig.now = rig.now + TIMEOUT * 2;
    assert_eq!(rig.step(), Step::Connected(first));
    rig.dialer.handle_refused(first, "ACCESS_REFUSED");
    let second = rig.connects("10.0.0.9:5672");
    assert_eq!(rig.step(), Step::Wait(rig.now + TIMEOUT));
    // A second report of the same is none.
    rig.dialer.handle_refused(first, "again");
    assert!(rig.dialer.handle_connected(second));
    rig.dialer.handle_refused(first, "again");
    assert_eq!(rig.step(), Step::Connected(second));
    rig.dialer.handle_refused(second, "bad certificate");
    assert_eq!(rig.step(), Step::GiveUp);
    assert_eq!(
        rig.dialer.into_failures().as_slice(),
        [
            Failure {
                address: hosts[0].clone(),
                socket: Some(socket("10.0.0.1:5672")),
                text: "ACCESS_REFUSED".into(),
                srv: None,
            },
            Failure {
                address: hosts[1].clone(),
                socket: Some(socket("10.0.0.9:5672")),
                text: "bad certificate".into(),
                srv: None,
            }
        ]
    );
}

/// The nodes of a cluster may stand behind one name.
#[test]
fn an_address_that_refuses_after_the_connect_is_left_for_the_rest_of_its_name() {
    let sockets = ["10.0.0.1:0", "10.0.0.2:0", "10.0.0.3:0"];
    let mut rig = Rig::resolved(&addresses(&["name", "b"]), &sockets);
    let first = rig.connects("10.0.0.1:5672");
    rig.waits_until(ATTEMPT_DELAY);
    let abandoned = rig.connects("10.0.0.2:5672");
    assert!(rig.dialer.handle_connected(first));
    assert_eq!(rig.step(), Step::Abandon);
    rig.now = rig.now + TIMEOUT * 2;
    assert_eq!(rig.step(), Step::Connected(first));
    rig.dialer.handle_refused(first, "not AMQP");
    assert!(!rig.dialer.handle_connected(abandoned));
    let second = rig.connects("10.0.0.2:5672");
    assert_eq!(rig.step(), Step::Wait(rig.now + ATTEMPT_DELAY));
    rig.dialer.handle_failed(second, "refused");
    let third = rig.connects("10.0.0.3:5672");
    assert_eq!(rig.step(), Step::Wait(rig.now + TIMEOUT));
    assert!(rig.dialer.handle_connected(third));
    rig.dialer.handle_refused(third, "not AMQP");
    rig.resolves("b");
}

#[test]
fn a_refusal_drops_the_other_attempts_before_the_next_one() {
    let mut rig = Rig::resolved(&addresses(&["name", "b"]), &["10.0.0.1:0", "10.0.0.2:0"]);
    let first = rig.connects("10.0.0.1:5672");
    rig.now = rig.now + ATTEMPT_DELAY;
    rig.connects("10.0.0.2:5672");
    assert!(rig.dialer.handle_connected(first));
    rig.dialer.handle_refused(first, "not AMQP");
    assert_eq!(rig.step(), Step::Abandon);
    let second = rig.connects("10.0.0.2:5672");
    rig.dialer.handle_failed(second, "refused");
    rig.resolves("b");
}

#[test]
fn a_name_without_addresses_is_a_failure_and_so_is_a_resolver_that_fails() {
    let mut rig = Rig::resolved(&addresses(&["name", "other"]), &[]);
    let attempt = rig.resolves("other");
    rig.dialer.handle_failed(attempt, "no such host");
    assert_eq!(rig.step(), Step::GiveUp);
    assert_eq!(
        rig.failures(),
        "name:5672: the name has no address; other:5672: no such host"
    );
}

#[test]
fn ip_addresses_and_unix_paths_need_no_resolution() {
    let mut rig = Rig::listed(&[
        Address::tcp("::1", 1),
        Address::tcp("::ffff:10.0.0.1", 2),
        Address::tcp("127.0.0.1", 3),
        Address::unix("/run/broker.sock"),
    ]);
    for text in ["[::1]:1", "[::ffff:10.0.0.1]:2", "127.0.0.1:3"] {
        let attempt = rig.connects(text);
        rig.dialer.handle_failed(attempt, "no");
    }
    let Step::Connect { attempt, to } = rig.step() else {
        panic!("no attempt");
    };
    assert_eq!(to, Target::Unix("/run/broker.sock".into()));
    assert!(rig.dialer.handle_connected(attempt));
    assert_eq!(rig.step(), Step::Connected(attempt));
    rig.dialer.handle_refused(attempt, "not AMQP");
    assert_eq!(rig.step(), Step::GiveUp);
    assert_eq!(
        rig.failures(),
        "[::1]:1: no; [::ffff:10.0.0.1]:2: no; 127.0.0.1:3: no; unix:/run/broker.sock: not AMQP"
    );
}

#[test]
fn an_address_of_another_transport_is_connected_to_as_it_is() {
    let mut rig = Rig::listed(&[Address::other("ws://example.com/amqp")]);
    let Step::Connect { attempt, to } = rig.step() else {
        panic!("no attempt");
    };
    assert_eq!(to, Target::Other("ws://example.com/amqp".into()));
    rig.dialer.handle_failed(attempt, "no");
    assert_eq!(rig.step(), Step::GiveUp);
    assert_eq!(rig.failures(), "ws://example.com/amqp: no");
}

/// Only the system can resolve a zone.
#[test]
fn an_address_with_a_zone_is_resolved_at_the_connect() {
    let mut rig = Rig::listed(&addresses(&["fe80::1%eth0"]));
    let attempt = rig.resolves("fe80::1%eth0");
    let scoped = core::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 0, 0, 3);
    rig.dialer.handle_resolved(attempt, [scoped.into()]);
    let Step::Connect { attempt, to } = rig.step() else {
        panic!("no attempt");
    };
    assert_eq!(to, Target::Tcp(socket("[fe80::1%3]:5672")));
    rig.dialer.handle_failed(attempt, "no");
    assert_eq!(rig.step(), Step::GiveUp);
    assert_eq!(
        rig.failures(),
        "[fe80::1%eth0]:5672 at [fe80::1%3]:5672: no"
    );
}

#[test]
fn addresses_show_as_they_are_written() {
    for (address, shown) in [
        (Address::tcp("h", 1), "h:1"),
        (Address::tcp("10.0.0.1", 5672), "10.0.0.1:5672"),
        (Address::tcp("::1", 5672), "[::1]:5672"),
        (Address::tcp("fe80::1%e", 2), "[fe80::1%e]:2"),
        (Address::tcp("fe80::1%", 2), "fe80::1%:2"),
        (Address::unix("/run/x"), "unix:/run/x"),
    ] {
        assert_eq!(address.to_string(), shown);
        assert_eq!(address.host().is_some(), !shown.starts_with("unix"));
    }
}

#[test]
fn an_endless_list_of_addresses_is_cut() {
    let mut rig = Rig::listed(&addresses(&["name", "same"]));
    let attempt = rig.resolves("name");
    let endless = (0_u32..).map(|bits| SocketAddr::new(core::net::Ipv4Addr::from(bits).into(), 0));
    rig.dialer.handle_resolved(attempt, endless);
    let mut tried = BTreeSet::new();
    let attempt = loop {
        match rig.step() {
            Step::Connect { attempt, to } => {
                assert!(tried.insert(to.socket()));
                rig.dialer.handle_failed(attempt, "no");
            }
            Step::Resolve { attempt, .. } => break attempt,
            step => panic!("{step:?}"),
        }
    };
    assert_eq!(tried.len(), MAX_RESOLVED);
    assert_eq!(rig.dialer.failures().as_slice().len(), MAX_RESOLVED);

    // Repetitions of one address are one.
    let same = core::iter::repeat(socket("10.0.0.1:9"));
    rig.dialer.handle_resolved(attempt, same);
    let attempt = rig.connects("10.0.0.1:5672");
    rig.dialer.handle_failed(attempt, "no");
    assert_eq!(rig.step(), Step::GiveUp);
}

#[test]
fn reports_of_nothing_change_nothing() {
    let unknown = AttemptId(77);
    let spurious = |dialer: &mut Dialer| {
        dialer.handle_resolved(unknown, [socket("10.0.0.66:1")]);
        dialer.handle_failed(unknown, "no");
        assert!(!dialer.handle_connected(unknown));
        dialer.handle_refused(unknown, "no");
    };
    let mut rig = Rig::listed(&addresses(&["name"]));
    spurious(&mut rig.dialer);
    let attempt = rig.resolves("name");
    spurious(&mut rig.dialer);
    // Of a name there is nothing to be connected or refused.
    assert!(!rig.dialer.handle_connected(attempt));
    rig.dialer.handle_refused(attempt, "no");
    assert_eq!(rig.step(), Step::Wait(Instant::ORIGIN + TIMEOUT));
    rig.dialer.handle_resolved(attempt, [socket("10.0.0.1:0")]);
    let connecting = rig.connects("10.0.0.1:5672");
    spurious(&mut rig.dialer);
    rig.dialer.handle_resolved(attempt, [socket("10.0.0.2:0")]);
    rig.dialer
        .handle_resolved(connecting, [socket("10.0.0.2:0")]);
    rig.dialer.handle_failed(attempt, "no");
    rig.dialer.handle_refused(connecting, "no");
    assert_eq!(rig.step(), Step::Wait(Instant::ORIGIN + TIMEOUT));
    assert!(rig.dialer.handle_connected(connecting));
    spurious(&mut rig.dialer);
    assert!(!rig.dialer.handle_connected(connecting));
    rig.dialer.handle_failed(connecting, "no");
    assert_eq!(rig.step(), Step::Connected(connecting));
    rig.dialer.handle_refused(connecting, "the only failure");
    assert_eq!(rig.step(), Step::GiveUp);
    spurious(&mut rig.dialer);
    assert_eq!(rig.step(), Step::GiveUp);
    assert_eq!(rig.dialer.failures().as_slice().len(), 1);
}

#[test]
fn a_lone_failure_has_its_own_words() {
    let failure = Failure {
        address: Address::unix("/x"),
        socket: None,
        text: "gone".into(),
        srv: None,
    };
    let failures = Failures(vec![failure.clone()]);
    assert_eq!(failure.to_string(), "unix:/x: gone");
    assert_eq!(failures.to_string(), failure.to_string());
}

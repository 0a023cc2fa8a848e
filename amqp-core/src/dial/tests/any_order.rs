//! Reports in any order and at any time: the dialer ends, and tries nothing twice that it has not
//! abandoned.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    /// Poll, up to that many steps.
    Poll(u8),
    Later(u64),
    Earlier(u64),
    /// The resolution or attempt that is so many before the latest brought so many addresses of
    /// IPv4 and of IPv6.
    Resolved(usize, u8, u8),
    /// The lookup that is so many before the latest brought so many SRV records.
    Records(usize, u8),
    Failed(usize),
    Connected(usize),
    Refused(usize),
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (1_u8..5).prop_map(Op::Poll),
        1 => (0_u64..400).prop_map(Op::Later),
        1 => (0_u64..400).prop_map(Op::Earlier),
        3 => (0_usize..6, 0_u8..40, 0_u8..40).prop_map(|(back, v4, v6)| Op::Resolved(back, v4, v6)),
        2 => (0_usize..6, 0_u8..4).prop_map(|(back, count)| Op::Records(back, count)),
        2 => (0_usize..6).prop_map(Op::Failed),
        1 => (0_usize..6).prop_map(Op::Connected),
        2 => (0_usize..6).prop_map(Op::Refused),
    ]
}

/// Host `index` is a name, an IP address with or without a zone, a service, or a path.
fn host(index: u8, kind: u8) -> Address {
    match kind {
        0 | 1 => Address::tcp(format!("name{index}"), 5672),
        2 => Address::tcp(format!("10.{index}.255.1"), 5672),
        3 => Address::tcp(format!("2001:db8:{index}:ff::1"), 5672),
        4 => Address::tcp(format!("fe80::{index}%eth0"), 5672),
        5 => Address::srv(format!("_amqp._tcp.name{index}")),
        _ => Address::unix(format!("/{index}")),
    }
}

/// Follows the steps of a dialer, and checks them.
struct Model {
    rig: Rig,
    hosts: Vec<Address>,
    /// The services with known targets, and those targets.
    services: Vec<Address>,
    targets: Vec<Address>,
    /// All that were handed out, the latest at the back.
    attempts: Vec<AttemptId>,
    taken_up: Vec<Address>,
    tried: BTreeMap<String, AttemptId>,
    /// Attempts with a reported result.
    reported: BTreeSet<AttemptId>,
}

impl Model {
    fn step(&mut self) -> Step {
        let before = self.rig.dialer.now;
        let step = self.rig.step();
        let now = before.max(self.rig.now);
        if let Some(address) = self.rig.dialer.address()
            && self.taken_up.last() != Some(address)
        {
            assert!(!self.taken_up.contains(address), "{address} again");
            self.taken_up.push(address.clone());
        }
        match &step {
            Step::Resolve { attempt, .. } | Step::LookUp { attempt, .. } => {
                self.note(*attempt, format!("{:?}", self.rig.dialer.address()))
            }
            Step::Connect { attempt, to } => self.note(*attempt, format!("{to:?}")),
            Step::Wait(until) => {
                assert!(*until > now);
                assert!(*until <= now + TIMEOUT);
                // Asked again, it says the same.
                assert_eq!(self.rig.step(), step);
            }
            Step::Connected(_) | Step::GiveUp => assert_eq!(self.rig.step(), step),
            Step::Abandon => {}
        }
        let failures = self.rig.dialer.failures().as_slice();
        assert!(failures.len() <= self.taken_up.len() * (MAX_RESOLVED + 1));
        step
    }

    fn note(&mut self, attempt: AttemptId, what: String) {
        assert!(self.attempts.last().is_none_or(|last| *last < attempt));
        self.attempts.push(attempt);
        let again = self.tried.insert(what.clone(), attempt).is_some();
        assert!(!again, "{what} again");
    }

    /// The attempt that is so many before the latest.
    fn attempt(&self, back: usize) -> Option<AttemptId> {
        self.attempts.iter().rev().nth(back).copied()
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Poll(steps) => {
                for _ in 0..steps {
                    self.step();
                }
            }
            Op::Later(millis) => self.rig.now = self.rig.now + MILLI * millis as u32,
            Op::Earlier(millis) => {
                let nanos = Duration::from_millis(millis).as_nanos() as u64;
                let now = self.rig.now.as_nanos().saturating_sub(nanos);
                self.rig.now = Instant::from_nanos(now);
            }
            Op::Resolved(back, v4, v6) => {
                // Each name has addresses of its own.
                let address = self.rig.dialer.address();
                let index = self.hosts.iter().position(|host| Some(host) == address);
                if let (Some(attempt), Some(index)) = (self.attempt(back), index) {
                    let v4 = (0..v4).map(|n| socket(&format!("10.{index}.0.{n}:0")));
                    let v6 = (0..v6).map(|n| socket(&format!("[2001:db8:{index}::{n}]:0")));
                    let again = v4.clone();
                    self.rig
                        .dialer
                        .handle_resolved(attempt, v4.chain(v6).chain(again));
                }
            }
            Op::Records(back, count) => {
                let address = self.rig.dialer.address().cloned();
                let index = self
                    .hosts
                    .iter()
                    .position(|host| Some(host) == address.as_ref());
                if let (Some(attempt), Some(index), Some(address)) =
                    (self.attempt(back), index, address)
                {
                    let targets = (0..count).map(|n| format!("10.{index}.1.{n}"));
                    let records = targets.clone().map(|target| SrvRecord {
                        priority: 0,
                        weight: 1,
                        port: 5672,
                        target,
                    });
                    let records = Ok(records.collect());
                    self.rig
                        .dialer
                        .handle_records(attempt, records, u64::from(count));
                    let left = self.rig.dialer.address() != Some(&address);
                    if left && count > 0 {
                        self.services.push(address);
                        self.targets
                            .extend(targets.map(|target| Address::tcp(target, 5672)));
                    }
                }
            }
            Op::Failed(back) => {
                if let Some(attempt) = self.attempt(back) {
                    self.reported.insert(attempt);
                    self.rig.dialer.handle_failed(attempt, "failed");
                }
            }
            Op::Connected(back) => {
                if let Some(attempt) = self.attempt(back) {
                    self.reported.insert(attempt);
                    let won = self.rig.dialer.handle_connected(attempt);
                    assert!(!won || !self.rig.dialer.handle_connected(attempt));
                    if won {
                        // The others are abandoned.
                        self.tried.retain(|_, of| self.reported.contains(of));
                    }
                }
            }
            Op::Refused(back) => {
                if let Some(attempt) = self.attempt(back) {
                    self.rig.dialer.handle_refused(attempt, "refused");
                }
            }
        }
    }

    /// No attempt is answered any more, and the connected peer refuses.
    fn end(&mut self) {
        // Of each address: to resolve it and wait, to start and wait for each attempt, to abandon.
        let addresses = self.hosts.len() + self.targets.len();
        for _ in 0..=addresses * (2 * MAX_RESOLVED + 4) {
            match self.step() {
                Step::Wait(until) => self.rig.now = until,
                Step::Connected(attempt) => self.rig.dialer.handle_refused(attempt, "refused"),
                Step::GiveUp => return,
                Step::Resolve { .. }
                | Step::LookUp { .. }
                | Step::Connect { .. }
                | Step::Abandon => {}
            }
        }
        panic!("it does not end: {:?}", self.rig.dialer);
    }
}

proptest! {
    #[test]
    fn any_order_of_events_ends_and_nothing_is_tried_twice(
        kinds in proptest::collection::vec(0_u8..7, 0..6),
        seed in any::<Option<u64>>(),
        ops in proptest::collection::vec(any_op(), 0..80),
    ) {
        let hosts: Vec<Address> = kinds
            .iter()
            .zip(0..)
            .map(|(kind, index)| host(index, *kind))
            .collect();
        let order = seed.map_or(Order::Listed, |seed| Order::Shuffled { seed });
        let mut model = Model {
            rig: Rig::new(&hosts, order),
            hosts: hosts.clone(),
            services: Vec::new(),
            targets: Vec::new(),
            attempts: Vec::new(),
            taken_up: Vec::new(),
            tried: BTreeMap::new(),
            reported: BTreeSet::new(),
        };
        for op in &ops {
            model.run(op);
        }
        model.end();
        // All had their turn, none without a failure.
        prop_assert_eq!(model.rig.dialer.address(), None);
        let failures = model.rig.dialer.failures().as_slice();
        for host in hosts.iter().chain(&model.targets) {
            if model.services.contains(host) {
                continue;
            }
            let failed = failures.iter().any(|failure| failure.address == *host);
            prop_assert!(failed, "{} did not fail", host);
        }
        let targets = &model.targets;
        model.taken_up.retain(|address| !targets.contains(address));
        prop_assert!(seed.is_some() || model.taken_up == hosts);
    }
}

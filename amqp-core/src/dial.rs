//! The choice of the address to connect to, without I/O.
//!
//! [`Dialer`] is the state machine, [`Address`] its input, and [`Step`] its output.

mod address;
mod failures;
mod order;
mod srv;
#[cfg(test)]
mod tests;

use alloc::{
    borrow::ToOwned as _,
    collections::VecDeque,
    format,
    string::{String, ToString as _},
    vec::Vec,
};
use core::{mem, net::SocketAddr, time::Duration};

pub(crate) use self::address::split_ipv6;
pub use self::{
    address::{Address, Target},
    failures::{Failure, Failures},
    order::Order,
    srv::{SrvError, SrvRecord},
};
use crate::time::Instant;

/// The delay before the next address of the same name is tried in parallel.
///
/// RFC 8305, section 5, recommends 250 ms: longer than most handshakes, so that a second one is
/// rarely in vain, and short enough that a broken address family is hardly noticeable.
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The maximum number of addresses of one name, and of SRV records. Further results of a resolver are
/// ignored.
///
/// With [`ATTEMPT_DELAY`] between them, this many addresses take 16 s, longer than a reasonable
/// timeout for one name.
pub const MAX_RESOLVED: usize = 64;

/// Chooses the address to connect to, for one connection.
///
/// It tries the addresses of a broker's nodes one after the other, until one is connected and
/// opened or none remains. The addresses of one name race as in RFC 8305 ("happy eyeballs"): the
/// address families alternate, beginning with that of the first, each attempt [`ATTEMPT_DELAY`]
/// after the previous one, or at once when that has failed. The timeout of each address covers the
/// resolution of its name and the connect. If a connected address refuses TLS or AMQP, the
/// remaining addresses of its name follow, which may be other nodes and get the full timeout again.
/// No address is tried twice, unless its attempt was abandoned.
///
/// An [SRV record](Address::Srv) stands for the hosts of its targets, which are tried in its place,
/// each with a timeout of its own.
///
/// ```text
///            ┌──── handle_records: its targets come next ──────────────┐
///            ▼                                                         │
/// new ──▶ Between ─── SRV record, name ─▶ Resolving ── nothing, ───────┤
///          │   │                      │        failed, timeout         │
///          │   │               handle_resolved                         │
///          │   │                      ▼                                │
///          │   └── IP, Unix path ──▶ Racing ── all have failed, ───────┤
///          │                          │        timeout                 │
///      none left              handle_connected   ▲                     │
///          ▼                          ▼          └ others of the name ┐│
///      Exhausted                  Connected ── handle_refused ────────┴┘
/// ```
///
/// The caller executes [`poll_step`](Self::poll_step), reports the result with `handle_*`, and
/// polls again. The order of calls is otherwise free: a late, repeated or unexpected report has no
/// effect. The dialer does no I/O and has no clock.
///
/// ```
/// use amqp_core::{Instant, dial::{Address, Dialer, Order, Step, Target}};
/// use core::time::Duration;
///
/// # fn now() -> Instant { Instant::ORIGIN }
/// # let alive: core::net::SocketAddr = "10.0.0.2:5672".parse()?;
/// # let (mut dials, mut resolved) = (Vec::new(), Vec::new());
/// let addresses = vec![Address::tcp("10.0.0.1", 5672), Address::tcp("b.example.com", 5672)];
/// let mut dialer = Dialer::new(addresses, Order::Listed, Duration::from_secs(10));
/// let connected = loop {
///     match dialer.poll_step(now()) {
///         Step::Resolve { attempt, .. } => resolved.push(attempt), // ask a resolver
///         Step::LookUp { .. } => {} // ask a resolver for SRV records: here is no such address
///         Step::Connect { attempt, to } => dials.push((attempt, to)), // begin to connect
///         Step::Abandon => dials.clear(),
///         Step::Wait(_) => {
///             // Wait for a report, until that time at the latest.
///             if let Some(attempt) = resolved.pop() {
///                 dialer.handle_resolved(attempt, [alive]);
///             } else if let Some((attempt, to)) = dials.pop() {
///                 if to != Target::Tcp(alive) {
///                     dialer.handle_failed(attempt, "connection refused");
///                 } else if dialer.handle_connected(attempt) {
///                     // keep the stream
///                 }
///             }
///         }
///         Step::Connected(_) => break true, // if TLS or AMQP fails: `handle_refused`, and go on
///         Step::GiveUp => break false,
///     }
/// };
/// assert!(connected);
/// assert_eq!(dialer.address(), Some(&Address::tcp("b.example.com", 5672)));
/// assert_eq!(dialer.failures().to_string(), "10.0.0.1:5672: connection refused");
/// # Ok::<_, core::net::AddrParseError>(())
/// ```
#[derive(Debug)]
pub struct Dialer {
    /// The addresses that have not been tried.
    waiting: VecDeque<Address>,
    /// The timeout of each address.
    timeout: Duration,
    /// The current address. `Some` unless the state is `Between` or `Exhausted`.
    current: Option<Address>,
    /// The deadline of the current address, during resolution and race.
    until: Instant,
    state: State,
    /// Resolutions or attempts in flight have become obsolete.
    abandon: bool,
    next_attempt: u64,
    /// The latest time reported.
    now: Instant,
    /// At most one failure per attempt, and one more per address.
    failures: Failures,
}

#[derive(Debug)]
enum State {
    /// The next address follows, if there is one.
    Between,
    /// The name is being resolved, or the SRV records are being looked up.
    Resolving {
        attempt: AttemptId,
        /// Whether [`Step::Resolve`] or [`Step::LookUp`] was returned.
        asked: bool,
    },
    /// Connection attempts are in flight.
    Racing(Race),
    /// An attempt succeeded, and the caller negotiates TLS and AMQP over it.
    Connected {
        attempt: AttemptId,
        socket: Option<SocketAddr>,
        /// The remaining targets of the same address.
        rest: VecDeque<Target>,
    },
    /// TLS or AMQP failed. The remaining targets of the same address, not empty.
    Refused(VecDeque<Target>),
    /// No address remains.
    Exhausted,
}

/// The attempts at one address. At least one of the lists is not empty.
#[derive(Debug)]
struct Race {
    /// The targets that have not been started, in order.
    ahead: VecDeque<Target>,
    /// The attempts in flight, in the order of their start.
    running: Vec<(AttemptId, Target)>,
    /// The earliest time of the next start. `None` means at once.
    next: Option<Instant>,
}

/// The number of one resolution or one connection attempt of a [`Dialer`]; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(u64);

/// The next action for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Resolve a name, or an IPv6 address with a zone (`fe80::1%eth0`), and report with
    /// [`handle_resolved`](Dialer::handle_resolved) or [`handle_failed`](Dialer::handle_failed).
    /// Returned once. Poll again at once: there is another step.
    Resolve {
        /// The number to report the result with.
        attempt: AttemptId,
        /// The name.
        host: String,
        /// The port, for resolvers that need one.
        port: u16,
    },
    /// Look up the SRV records of a service, and report with
    /// [`handle_records`](Dialer::handle_records). Returned once. Poll again at once: there is
    /// another step.
    LookUp {
        /// The number to report the result with.
        attempt: AttemptId,
        /// The name of the records, such as `_amqp._tcp.example.com`.
        name: String,
    },
    /// Start to connect, and report with [`handle_connected`](Dialer::handle_connected) or
    /// [`handle_failed`](Dialer::handle_failed). Returned once. Poll again at once: there may be
    /// another step.
    Connect {
        /// The number to report the result with.
        attempt: AttemptId,
        /// The target to connect to.
        to: Target,
    },
    /// Drop every resolution and attempt in flight: one attempt has succeeded, which must be kept,
    /// or the timeout of the address has passed. Returned once. Poll again at once: there is
    /// another step.
    Abandon,
    /// Wait for a result to report, until that time at the latest.
    Wait(Instant),
    /// The attempt won. Continue with TLS and AMQP over it. There is no further step, unless that
    /// fails: report it with [`handle_refused`](Dialer::handle_refused).
    Connected(AttemptId),
    /// No address remains: see [`failures`](Dialer::failures).
    GiveUp,
}

impl Dialer {
    /// Creates a dialer for these addresses, in the given order. `timeout` applies to each address,
    /// from its start to the connect; the timeout of TLS and AMQP is up to the caller.
    #[must_use]
    pub fn new(mut addresses: Vec<Address>, order: Order, timeout: Duration) -> Self {
        order.arrange(&mut addresses);
        Self {
            waiting: addresses.into(),
            timeout,
            current: None,
            until: Instant::ORIGIN,
            state: State::Between,
            abandon: false,
            next_attempt: 0,
            now: Instant::ORIGIN,
            failures: Failures::default(),
        }
    }

    // Inputs.

    /// Handles the addresses of a resolved name, best first. Their port is replaced by that of
    /// [`Step::Resolve`]. Those beyond [`MAX_RESOLVED`] are ignored, and so are duplicates. An
    /// empty result is a failure.
    pub fn handle_resolved(
        &mut self,
        attempt: AttemptId,
        addresses: impl IntoIterator<Item = SocketAddr>,
    ) {
        if !self.is_resolving(attempt) || matches!(self.current, Some(Address::Srv(_))) {
            return;
        }
        let mut sockets: Vec<SocketAddr> = Vec::new();
        for mut socket in addresses.into_iter().take(MAX_RESOLVED) {
            if let Some(Address::Tcp { port, .. }) = self.current {
                socket.set_port(port);
            }
            if !sockets.contains(&socket) {
                sockets.push(socket);
            }
        }
        if sockets.is_empty() {
            self.fail(None, "the name has no address".to_owned());
            self.leave();
        } else {
            self.state = State::Racing(Race::new(interleave(sockets)));
        }
    }

    /// Handles the SRV records of a service, or the reason why there are none. Their targets are the
    /// next addresses, ordered by priority, and at random by weight (RFC 2782): `seed` is any number,
    /// from a source of randomness or from a test. Records beyond [`MAX_RESOLVED`] are ignored.
    pub fn handle_records(
        &mut self,
        attempt: AttemptId,
        records: Result<Vec<SrvRecord>, SrvError>,
        seed: u64,
    ) {
        if !self.is_resolving(attempt) || !matches!(self.current, Some(Address::Srv(_))) {
            return;
        }
        match records.and_then(|records| srv::addresses(records, seed)) {
            Ok(addresses) => {
                for address in addresses.into_iter().rev() {
                    self.waiting.push_front(address);
                }
            }
            Err(error) => self.fail_with(None, error.to_string(), Some(error)),
        }
        self.leave();
    }

    /// Handles a failed resolution or connection attempt, with the reason.
    pub fn handle_failed(&mut self, attempt: AttemptId, text: &str) {
        match &mut self.state {
            State::Resolving { attempt: of, .. } if *of == attempt => {
                self.fail(None, text.to_owned());
                self.leave();
            }
            State::Racing(race) => {
                if let Some(target) = race.fail(attempt) {
                    let lost = race.is_lost();
                    self.fail(target.socket(), text.to_owned());
                    if lost {
                        self.leave();
                    }
                }
            }
            State::Resolving { .. }
            | State::Between
            | State::Connected { .. }
            | State::Refused(_)
            | State::Exhausted => {}
        }
    }

    /// Handles a successful connection attempt. Returns `true` if the connection is used. Otherwise
    /// it is too late, and must be dropped.
    #[must_use = "what came too late is to be dropped"]
    pub fn handle_connected(&mut self, attempt: AttemptId) -> bool {
        let State::Racing(race) = &mut self.state else {
            return false;
        };
        let Some(target) = race.remove(attempt) else {
            return false;
        };
        self.abandon = !race.running.is_empty();
        let socket = target.socket();
        let abandoned = race.running.drain(..).map(|(_, target)| target);
        let rest = abandoned.chain(race.ahead.drain(..)).collect();
        self.state = State::Connected {
            attempt,
            socket,
            rest,
        };
        true
    }

    /// Handles a failure of TLS or AMQP over the winning attempt, with the reason: the next address
    /// follows.
    pub fn handle_refused(&mut self, attempt: AttemptId, text: &str) {
        if let State::Connected {
            attempt: of,
            socket,
            rest,
        } = &mut self.state
            && *of == attempt
        {
            let (socket, rest) = (*socket, mem::take(rest));
            self.fail(socket, text.to_owned());
            if rest.is_empty() {
                self.leave();
            } else {
                self.state = State::Refused(rest);
            }
        }
    }

    // Outputs.

    /// Returns the next action for the caller. Poll again when it is done or started, after each
    /// report, and at the time of [`Step::Wait`]. Polling more often does no harm.
    pub fn poll_step(&mut self, now: Instant) -> Step {
        self.now = self.now.max(now);
        self.end_of_time();
        // Each iteration except the last starts an address or a remaining target.
        loop {
            if mem::take(&mut self.abandon) {
                return Step::Abandon;
            }
            match &mut self.state {
                State::Between => self.take_up_next(),
                State::Resolving { attempt, asked } => {
                    let attempt = *attempt;
                    let asked = mem::replace(asked, true);
                    return match &self.current {
                        Some(Address::Tcp { host, port }) if !asked => Step::Resolve {
                            attempt,
                            host: host.clone(),
                            port: *port,
                        },
                        Some(Address::Srv(name)) if !asked => {
                            let name = name.clone();
                            Step::LookUp { attempt, name }
                        }
                        _ => Step::Wait(self.until),
                    };
                }
                State::Racing(race) => {
                    let attempt = AttemptId(self.next_attempt);
                    if let Some(to) = race.start(attempt, self.now) {
                        self.next_attempt += 1;
                        return Step::Connect { attempt, to };
                    }
                    let next = race.next.filter(|_| !race.ahead.is_empty());
                    return Step::Wait(next.map_or(self.until, |next| next.min(self.until)));
                }
                State::Refused(rest) => {
                    self.until = self.now + self.timeout;
                    self.state = State::Racing(Race::new(mem::take(rest)));
                }
                State::Connected { attempt, .. } => return Step::Connected(*attempt),
                State::Exhausted => return Step::GiveUp,
            }
        }
    }

    // Getters.

    /// The address being tried or connected. `Some` except between two addresses and at the end.
    #[must_use]
    pub const fn address(&self) -> Option<&Address> {
        self.current.as_ref()
    }

    /// The failures so far.
    #[must_use]
    pub const fn failures(&self) -> &Failures {
        &self.failures
    }

    /// Returns the failures.
    #[must_use]
    pub fn into_failures(self) -> Failures {
        self.failures
    }

    fn is_resolving(&self, attempt: AttemptId) -> bool {
        matches!(self.state, State::Resolving { attempt: of, .. } if of == attempt)
    }

    fn take_up_next(&mut self) {
        let Some(address) = self.waiting.pop_front() else {
            self.state = State::Exhausted;
            return;
        };
        self.until = self.now + self.timeout;
        self.state = if let Some(target) = Target::of(&address) {
            State::Racing(Race::new([target].into()))
        } else {
            let attempt = AttemptId(self.next_attempt);
            self.next_attempt += 1;
            State::Resolving {
                attempt,
                asked: false,
            }
        };
        self.current = Some(address);
    }

    /// Ends the current address if its timeout has passed.
    fn end_of_time(&mut self) {
        if self.now < self.until {
            return;
        }
        let text = format!("no connection within {:?}", self.timeout);
        match &mut self.state {
            State::Resolving { asked, .. } => {
                self.abandon = *asked;
                self.fail(None, text);
                self.leave();
            }
            State::Racing(race) => {
                let running = mem::take(&mut race.running);
                self.abandon = !running.is_empty();
                if running.is_empty() {
                    self.fail(None, text.clone());
                }
                for (_, target) in running {
                    self.fail(target.socket(), text.clone());
                }
                self.leave();
            }
            State::Between | State::Connected { .. } | State::Refused(_) | State::Exhausted => {}
        }
    }

    fn fail(&mut self, socket: Option<SocketAddr>, text: String) {
        self.fail_with(socket, text, None);
    }

    fn fail_with(&mut self, socket: Option<SocketAddr>, text: String, srv: Option<SrvError>) {
        if let Some(address) = self.current.clone() {
            self.failures.0.push(Failure {
                address,
                socket,
                text,
                srv,
            });
        }
    }

    fn leave(&mut self) {
        self.current = None;
        self.state = State::Between;
    }
}

impl Race {
    const fn new(ahead: VecDeque<Target>) -> Self {
        Self {
            ahead,
            running: Vec::new(),
            next: None,
        }
    }

    /// Starts the next attempt, if it is due.
    fn start(&mut self, attempt: AttemptId, now: Instant) -> Option<Target> {
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        let target = self.ahead.pop_front()?;
        self.running.push((attempt, target.clone()));
        self.next = Some(now + ATTEMPT_DELAY);
        Some(target)
    }

    /// Removes a failed attempt. If it was the latest one, the next may start at once.
    fn fail(&mut self, attempt: AttemptId) -> Option<Target> {
        if self
            .running
            .last()
            .is_some_and(|(last, _)| *last == attempt)
        {
            self.next = None;
        }
        self.remove(attempt)
    }

    fn remove(&mut self, attempt: AttemptId) -> Option<Target> {
        let index = self.running.iter().position(|(of, _)| *of == attempt)?;
        Some(self.running.remove(index).1)
    }

    fn is_lost(&self) -> bool {
        self.ahead.is_empty() && self.running.is_empty()
    }
}

/// Alternates between the address families, beginning with that of the first address.
fn interleave(sockets: Vec<SocketAddr>) -> VecDeque<Target> {
    let begin_with_ipv6 = sockets.first().is_some_and(SocketAddr::is_ipv6);
    let count = sockets.len();
    let (first, second): (Vec<_>, Vec<_>) = sockets
        .into_iter()
        .partition(|socket| socket.is_ipv6() == begin_with_ipv6);
    let mut families = [first.into_iter(), second.into_iter()];
    let mut order = VecDeque::with_capacity(count);
    while order.len() < count {
        order.extend(
            families
                .iter_mut()
                .filter_map(Iterator::next)
                .map(Target::Tcp),
        );
    }
    order
}

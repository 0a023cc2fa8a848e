//! Where to connect: which address next, when, and when to give up. Without a socket.
//!
//! [`Dialer`] is the machine, [`Address`] what it is given, [`Step`] what it says to do.

mod address;
mod order;
#[cfg(test)]
mod tests;

use alloc::{
    borrow::ToOwned as _,
    collections::VecDeque,
    format,
    string::{String, ToString as _},
    vec::{self, Vec},
};
use core::{fmt, mem, net::SocketAddr, time::Duration};

pub(crate) use self::address::split_ipv6;
pub use self::{
    address::{Address, Target},
    order::Order,
};
use crate::time::Instant;

/// How long an attempt stays alone before the next address of the same name is tried beside it.
///
/// RFC 8305 recommends 250 ms: longer than most handshakes take, so that a second one is rarely
/// made in vain, and short enough that a dead address family is hardly noticed.
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How many addresses of one name are looked at. What a resolver says beyond them is left out.
///
/// With [`ATTEMPT_DELAY`] between them this many take 16 s, which is more than anybody waits for
/// one name.
pub const MAX_RESOLVED: usize = 64;

/// Decides where to connect, for one connection.
///
/// It takes the addresses of a broker's nodes and tries one after the other, until one is connected
/// and opened or none is left. The addresses that a name resolves to race by the rules of RFC 8305
/// ("happy eyeballs"): the families in turn, beginning with that of the first, each
/// [`ATTEMPT_DELAY`] after the one before, or at once when that one has failed. Each address is
/// given a limited time, from the resolution of its name to the end of the connect. One that was
/// connected and then refuses TLS or AMQP is followed by the rest of its name, which may be other
/// nodes and is given as much time again. None is tried a second time, unless it was abandoned.
///
/// ```text
///            ┌─────────────────────────────────────────────────────────┐
///            ▼                                                         │
/// new ──▶ Between ─── name ─────▶ Resolving ── no address, failed, ────┤
///          │   │                      │        time is over            │
///          │   │               handle_resolved                         │
///          │   │                      ▼                                │
///          │   └── IP, Unix path ──▶ Racing ── all have failed, ───────┤
///          │                          │        time is over            │
///      none left              handle_connected   ▲                     │
///          ▼                          ▼          └ others of the name ┐│
///      Exhausted                  Connected ── handle_refused ────────┴┘
/// ```
///
/// Whoever drives it does what [`poll_step`](Self::poll_step) says, tells with `handle_*` what came
/// of it, and polls again. There is no other rule: a report that comes too late, twice or for no
/// reason does nothing. It does no I/O and has no clock.
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
///         Step::Connect { attempt, to } => dials.push((attempt, to)), // begin to connect
///         Step::Abandon => dials.clear(),
///         Step::Wait(_) => {
///             // For the first report, and no longer than until then.
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
    /// Those that have not been taken up.
    waiting: vec::IntoIter<Address>,
    /// How long each may take.
    timeout: Duration,
    /// The one that is taken up: some unless the state is `Between` or `Exhausted`.
    current: Option<Address>,
    /// When its time is over. Only while it is resolved or raced for.
    until: Instant,
    state: State,
    /// Resolutions and attempts are under way that are of no use any more.
    abandon: bool,
    next_attempt: u64,
    /// The latest time that was told.
    now: Instant,
    /// At most one of each attempt, and one more of each address.
    failures: Failures,
}

#[derive(Debug)]
enum State {
    /// The next address is to be taken up, if there is one.
    Between,
    /// The name is looked up.
    Resolving {
        attempt: AttemptId,
        /// Whether the caller has been told to.
        asked: bool,
    },
    /// Attempts are made.
    Racing(Race),
    /// An attempt succeeded, and the caller speaks TLS and AMQP over it.
    Connected {
        attempt: AttemptId,
        socket: Option<SocketAddr>,
        /// What is left to try of the same address.
        rest: VecDeque<Target>,
    },
    /// That failed, and this is left to try of the same address. It is not empty.
    Refused(VecDeque<Target>),
    /// No address is left.
    Exhausted,
}

/// The attempts at one address. Not both lists are empty.
#[derive(Debug)]
struct Race {
    /// Those that have not been started, in order.
    ahead: VecDeque<Target>,
    /// Those under way, in the order of their start.
    running: Vec<(AttemptId, Target)>,
    /// When the next may be started; none means at once.
    next: Option<Instant>,
}

/// One resolution or one attempt to connect of a [`Dialer`]. None is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(u64);

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Resolve a name, or an IPv6 address with a zone (`fe80::1%eth0`), and report with
    /// [`handle_resolved`](Dialer::handle_resolved) or [`handle_failed`](Dialer::handle_failed).
    /// Said once. More is to be done at once: poll again.
    Resolve {
        /// What to report under.
        attempt: AttemptId,
        /// The name.
        host: String,
        /// The port, for resolvers that want one.
        port: u16,
    },
    /// Begin to connect, and report with [`handle_connected`](Dialer::handle_connected) or
    /// [`handle_failed`](Dialer::handle_failed). Said once. More may be to be done at once: poll
    /// again.
    Connect {
        /// What to report under.
        attempt: AttemptId,
        /// What to connect to.
        to: Target,
    },
    /// Drop every resolution and attempt that is under way, because one has succeeded (which is to
    /// be kept) or the time of their address is over. Said once. More is to be done at once: poll
    /// again.
    Abandon,
    /// Wait until something is to be reported, but no longer than until that time.
    Wait(Instant),
    /// This attempt won. Go on with TLS and AMQP over it; there is nothing else to do, unless that
    /// fails: then report with [`handle_refused`](Dialer::handle_refused).
    Connected(AttemptId),
    /// No address is left: see [`failures`](Dialer::failures).
    GiveUp,
}

impl Dialer {
    /// One that tries these addresses, in that order, each for as long as `timeout` says. The
    /// time of an address begins when it is taken up and ends when it is connected: what
    /// TLS and AMQP may take then is up to the caller.
    #[must_use]
    pub fn new(mut addresses: Vec<Address>, order: Order, timeout: Duration) -> Self {
        order.arrange(&mut addresses);
        Self {
            waiting: addresses.into_iter(),
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

    // What happened in the world.

    /// A name was resolved, to these addresses, best first. Their port is the one that was asked
    /// for, whatever they say. Those beyond [`MAX_RESOLVED`] are left out, and so are repetitions.
    /// None at all is a failure.
    pub fn handle_resolved(
        &mut self,
        attempt: AttemptId,
        addresses: impl IntoIterator<Item = SocketAddr>,
    ) {
        if !matches!(self.state, State::Resolving { attempt: of, .. } if of == attempt) {
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

    /// A name could not be resolved, or an attempt to connect failed: for that reason.
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

    /// An attempt to connect succeeded. True if it is the one to go on with; otherwise it came too
    /// late, and what was connected is to be dropped.
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

    /// TLS or AMQP failed over the attempt that had won, for that reason: the next address is to be
    /// tried.
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

    // What the world is to do.

    /// What is to be done next. Poll again when that is done or begun, after each report, and at
    /// the time that [`Step::Wait`] names. Polling more often does no harm.
    pub fn poll_step(&mut self, now: Instant) -> Step {
        self.now = self.now.max(now);
        self.end_of_time();
        // Each turn but the last takes up an address.
        loop {
            if mem::take(&mut self.abandon) {
                return Step::Abandon;
            }
            match &mut self.state {
                State::Between => self.take_up_next(),
                State::Resolving { attempt, asked } => {
                    let attempt = *attempt;
                    if !mem::replace(asked, true)
                        && let Some(Address::Tcp { host, port }) = &self.current
                    {
                        let (host, port) = (host.clone(), *port);
                        return Step::Resolve {
                            attempt,
                            host,
                            port,
                        };
                    }
                    return Step::Wait(self.until);
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

    /// The address that is tried, or that the connection was made to; none in between, and at the
    /// end.
    #[must_use]
    pub const fn address(&self) -> Option<&Address> {
        self.current.as_ref()
    }

    /// What has failed so far, and how.
    #[must_use]
    pub const fn failures(&self) -> &Failures {
        &self.failures
    }

    /// What has failed, and how.
    #[must_use]
    pub fn into_failures(self) -> Failures {
        self.failures
    }

    fn take_up_next(&mut self) {
        let Some(address) = self.waiting.next() else {
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

    /// Leaves the current address when its time is over.
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
        if let Some(address) = self.current.clone() {
            self.failures.0.push(Failure {
                address,
                socket,
                text,
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

    /// Starts the next attempt if it is time for it.
    fn start(&mut self, attempt: AttemptId, now: Instant) -> Option<Target> {
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        let target = self.ahead.pop_front()?;
        self.running.push((attempt, target.clone()));
        self.next = Some(now + ATTEMPT_DELAY);
        Some(target)
    }

    /// Takes out an attempt that failed. If it was the latest, the next need not wait.
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

/// One of each family in turn, beginning with the family of the first.
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

/// How one attempt failed, or why there was none.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The address that was tried.
    pub address: Address,
    /// What it was resolved to; none if it was not, and for a Unix socket.
    pub socket: Option<SocketAddr>,
    /// What was reported, or that time was over.
    pub text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        if let Some(socket) = self.socket
            && self.address.to_string() != socket.to_string()
        {
            write!(f, " at {socket}")?;
        }
        write!(f, ": {}", self.text)
    }
}

/// What failed, and how, in the order in which it happened. Its text is what could not be reached,
/// each with the reason, and says so too if nothing was tried.
///
/// Bounded by the number of addresses: of each there is at most one per attempt, which makes no
/// more than [`MAX_RESOLVED`], and one of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures(Vec<Failure>);

impl Failures {
    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[Failure] {
        &self.0
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, rest)) = self.0.split_first() else {
            return f.write_str("any address: none was tried");
        };
        first.fmt(f)?;
        for failure in rest {
            write!(f, "; {failure}")?;
        }
        Ok(())
    }
}

impl core::error::Error for Failures {}

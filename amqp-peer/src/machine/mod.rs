//! The peer as a pure state machine.
//!
//! ```text
//!  send ──> outbox ──> link ══════ transport ══════ link ──> inbox ──> Received
//!             ▲          │                            ▲                   │
//!             └── acked ─┘                            └────── settle ─────┘
//! ```
//!
//! A `Link` is one AMQP connection in either role; `handshake.rs` and `joining.rs` bring it up.
//! `sending.rs` and `outbox.rs` keep messages until they are acknowledged, `transfer.rs` hands them
//! to the link as the throttle and the window allow. `receiving.rs` and `inbox.rs` give each
//! message to the application once. What is to be stored leaves by `journal.rs`.

mod causes;
mod clock;
mod commands;
mod driving;
mod handshake;
mod inbox;
mod info;
mod joining;
mod journal;
mod keepalive;
mod link;
mod numbered;
mod outbox;
mod peer;
mod receiving;
mod room;
mod sending;
mod tags;
mod throttle;
mod transfer;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use amqp_core::{Instant, protocol::basic::Properties};

pub use self::info::{Client, LinkInfo, OutboxInfo, StoreInfo};
pub(crate) use self::room::Demand;
use self::{
    clock::QueueClock,
    inbox::{Inbox, Storing},
    journal::Journal,
    link::{Link, Side},
    outbox::Entry,
    peer::{Peer, Peers},
    room::WereFull,
};
pub use crate::event::{Down, Dropped, Event, LinkKey, Received, Refused, Sender, Token, Up};
use crate::{
    config::{Config, ConfigError},
    message::{Message, MessageId},
    name::PeerName,
    storage::{BatchId, Stored, StoredClock, StoredMessage, WallTime},
};

/// A peer as a pure state machine with many links.
///
/// There are four kinds of methods, as of [`amqp_core::Connection`]: `handle_*` report input,
/// `poll_*` return work, the others are commands and getters. After any call, take all of
/// [`poll_wake`](Self::poll_wake), and drive the links that it names: write the output of
/// [`poll_transmit`](Self::poll_transmit), and arrange for
/// [`handle_link_timeout`](Self::handle_link_timeout). Take the [events](Self::poll_event), arrange
/// for [`handle_timeout`](Self::handle_timeout), and store the [changes](Self::poll_changes).
///
/// The times come from a monotonic clock. Nothing that a peer sends makes the machine panic, loop,
/// or exceed the memory bounded by its [`Limits`](crate::Limits).
///
/// ```
/// use amqp_core::{Instant, protocol::basic::Properties};
/// use amqp_peer::{
///     Config, Message,
///     machine::Machine,
///     storage::{Stored, WallTime},
/// };
///
/// let now = Instant::ORIGIN; // from a monotonic clock
/// let wall = WallTime::default(); // from the clock of the system
/// let mut peer = Machine::new(Config::new("bob")?, Stored::default(), now, wall)?;
/// let alice = "alice".parse()?;
/// let id = peer.send(now, &alice, Message::new("hello"))?; // waits for a link
/// assert_eq!(peer.outbox(&alice).messages, 1);
/// let link = peer.dial(now)?; // a transport to alice was connected
/// # let _ = (id, link);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Machine {
    config: Config,
    now: Instant,
    /// The start of the machine, in both clocks.
    started: (Instant, WallTime),
    is_stopped: bool,
    links: BTreeMap<LinkKey, Box<Link>>,
    last_link: u64,
    /// The number of links that are up.
    up_links: usize,
    /// The number of accepted links that were never up.
    pending_links: usize,
    peers: Peers,
    /// The peers with a contest of two links.
    contested: BTreeSet<u64>,
    /// The peers with remembered messages and without a link, by the order in which they lost it.
    disconnected: BTreeMap<u64, u64>,
    last_down: u64,
    /// The next expiry of each receiver's messages.
    deadlines: BTreeSet<(Instant, u64)>,
    /// The times at which the clocks of receivers with a link are stored again.
    marks: BTreeSet<(Instant, u64)>,
    /// The number of messages that were sent, for their ids.
    sent_messages: u64,
    /// The number of receivers with messages.
    receivers: usize,
    /// The size of the messages of all receivers, in bytes.
    outbox_total: usize,
    /// The size of the messages of all senders that the application has not accepted, in bytes.
    unaccepted: usize,
    /// The receivers that the application waits for room of.
    wanting: BTreeSet<u64>,
    /// The bounds of all receivers together because of which room was refused.
    were_full: WereFull,
    /// The receivers that have room again.
    rooms: VecDeque<PeerName>,
    journal: Journal,
    /// The acceptances that are being stored.
    storing: Storing,
    /// The receivers of messages that are being stored, by batch.
    unstored: VecDeque<(BatchId, u64)>,
    /// The receivers of messages that have left where that is being stored, with their numbers.
    leaving: VecDeque<(BatchId, u64, usize)>,
    /// The delivered and refused messages, for a host that drops them itself. `Some` if it does.
    gone: Option<Vec<Message>>,
    /// The messages that were delivered, for a host that reports each. `Some` if it does.
    delivered: Option<Vec<(PeerName, MessageId)>>,
    events: VecDeque<Event>,
    /// The number of events of links among them.
    link_events: usize,
    /// The links with drivers that are to be woken.
    wakes: VecDeque<LinkKey>,
    /// The properties of most messages on the wire.
    plain: Properties,
}

impl Machine {
    /// Creates a peer with what a storage has kept of an earlier run. `wall` is the wall time at
    /// `now`.
    ///
    /// # Errors
    /// [`ConfigError`] for a setting outside its bounds.
    pub fn new(
        config: Config,
        stored: Stored,
        now: Instant,
        wall: WallTime,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        let mut machine = Self {
            config,
            now,
            started: (now, wall),
            is_stopped: false,
            links: BTreeMap::new(),
            last_link: 0,
            up_links: 0,
            pending_links: 0,
            peers: Peers::default(),
            contested: BTreeSet::new(),
            disconnected: BTreeMap::new(),
            last_down: 0,
            deadlines: BTreeSet::new(),
            marks: BTreeSet::new(),
            sent_messages: 0,
            receivers: 0,
            outbox_total: 0,
            unaccepted: 0,
            wanting: BTreeSet::new(),
            were_full: WereFull::default(),
            rooms: VecDeque::new(),
            journal: Journal::default(),
            storing: VecDeque::new(),
            unstored: VecDeque::new(),
            leaving: VecDeque::new(),
            gone: None,
            delivered: None,
            events: VecDeque::new(),
            link_events: 0,
            wakes: VecDeque::new(),
            plain: Properties::default(),
        };
        machine.load(stored);
        Ok(machine)
    }

    fn load(&mut self, stored: Stored) {
        let Stored {
            outbox,
            accepted,
            clocks,
        } = stored;
        for (name, accepted) in accepted {
            let inbox = Inbox::new(self.config.limits.window, accepted);
            let key = self.peers.add(Peer::new(name, inbox));
            self.remember_disconnected(key);
        }
        for (name, messages) in outbox {
            let clock = clocks.get(&name).copied().unwrap_or_default();
            self.load_outbox(&name, clock, messages);
        }
    }

    fn load_outbox(
        &mut self,
        name: &PeerName,
        clock: StoredClock,
        messages: Vec<(u64, StoredMessage)>,
    ) {
        let key = self.know(name);
        let (now, wall) = (self.now, self.started.1);
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        peer.clock = QueueClock::resume(clock, now, wall);
        for (sequence, stored) in messages {
            peer.outbox.next_sequence = peer.outbox.next_sequence.max(sequence + 1);
            // A message with damaged properties is still delivered, without them.
            let properties = stored.properties.decode().unwrap_or_default();
            let message = Message::from_properties(stored.body, properties).persistent();
            let mut entry = Entry::new(stored.id, message, self.config.receipts);
            entry.expires_at = stored.expires_at;
            entry.sequence = Some(sequence);
            // The earlier run may have sent it, to any process.
            (entry.was_sent, entry.may_be_elsewhere) = (true, true);
            self.outbox_total += entry.memory;
            peer.outbox.push(entry);
        }
        let is_empty = peer.outbox.is_empty();
        self.receivers += usize::from(!is_empty);
        self.note_clock(key);
        self.expire(key);
        self.forget_if_idle(key);
    }

    /// Returns the configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    fn advance_clock(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// Returns the key of a peer. One that is not known becomes so.
    fn know(&mut self, name: &PeerName) -> u64 {
        self.peers.key(name).unwrap_or_else(|| {
            let inbox = Inbox::new(self.config.limits.window, Vec::new());
            self.peers.add(Peer::new(name.clone(), inbox))
        })
    }

    /// Forgets a peer of which nothing needs to be known.
    fn forget_if_idle(&mut self, key: u64) {
        if let Some(peer) = self.peers.get(key)
            && peer.is_idle()
        {
            self.disconnected.remove(&peer.down_order);
            self.peers.remove(key);
        }
    }

    /// Runs `work` on a link, unless it is gone.
    fn with_link(&mut self, key: LinkKey, work: impl FnOnce(&mut Self, &mut Link)) {
        if let Some(mut link) = self.links.remove(&key) {
            work(self, &mut link);
            self.links.insert(key, link);
        }
    }

    /// Handles the events of a link's machine.
    fn process(&mut self, link: &mut Link) {
        loop {
            match &mut link.side {
                Side::Connector(machine) => match machine.poll_event() {
                    Some(event) => self.on_connector_event(link, event),
                    None => return,
                },
                Side::Listener(machine) => match machine.poll_event() {
                    Some(event) => self.on_listener_event(link, event),
                    None => return,
                },
            }
        }
    }

    fn wake(&mut self, link: &mut Link) {
        if !std::mem::replace(&mut link.is_woken, true) {
            self.wakes.push_back(link.key);
        }
    }

    fn wake_key(&mut self, key: LinkKey) {
        if let Some(link) = self.links.get_mut(&key)
            && !std::mem::replace(&mut link.is_woken, true)
        {
            self.wakes.push_back(key);
        }
    }

    fn push_link_event(&mut self, event: Event) {
        self.link_events += 1;
        self.events.push_back(event);
    }
}

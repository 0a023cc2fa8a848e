//! A switch for what goes wrong only rarely.

use amqp_core::{Instant, protocol::ReplyCode};

use crate::{
    broker::Broker,
    byte_faults::{ByteFaults, BytePlan, ByteSwitch},
    keys::{ChannelKey, ConnectionKey},
    model::channel::Fate,
    random::Random,
    refusal::Refusal,
};

/// What goes wrong with confirms. It begins with the next publish on a channel in confirm mode, of
/// whatever connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfirmFault {
    /// Nothing.
    #[default]
    None,
    /// So many are never sent; the messages are taken all the same.
    DropNext(u64),
    /// One in so many is never sent, which ones follows from the broker's seed; the messages are
    /// taken all the same.
    DropOneIn(u32),
    /// So many messages are not taken, and negatively acknowledged.
    NackNext(u64),
}

/// What is to go wrong.
#[derive(Debug, Default)]
pub(crate) struct FaultState {
    pub(crate) memory_alarm: bool,
    refused_connects: u64,
    confirms: ConfirmFault,
    pub(crate) bytes: ByteSwitch,
}

impl FaultState {
    pub(crate) const fn refuses_connect(&mut self) -> bool {
        let refuses = self.refused_connects > 0;
        self.refused_connects = self.refused_connects.saturating_sub(1);
        refuses
    }

    /// What goes wrong with the next confirm.
    pub(crate) fn next_confirm(&mut self, random: &mut Random) -> Option<Fate> {
        match &mut self.confirms {
            ConfirmFault::None | ConfirmFault::DropNext(0) | ConfirmFault::NackNext(0) => None,
            ConfirmFault::DropNext(left) => {
                *left -= 1;
                Some(Fate::Dropped)
            }
            ConfirmFault::NackNext(left) => {
                *left -= 1;
                Some(Fate::Nacked)
            }
            ConfirmFault::DropOneIn(many) => {
                let hit = random.next().is_multiple_of(u64::from((*many).max(1)));
                hit.then_some(Fate::Dropped)
            }
        }
    }
}

/// The fault switch of a broker, for tests: what a broker, and the line to it, does on bad days, on
/// demand.
///
/// ```
/// use amqp_broker::{Broker, ByteFaults, Config, ConfirmFault, Disturbance};
///
/// let mut broker = Broker::new(Config::default())?;
/// broker.faults().refuse_connects(1);
/// broker.faults().confirms(ConfirmFault::DropNext(3));
/// let crumbs = ByteFaults::both(Disturbance::new().split(5));
/// broker.faults().bytes_of_next(u64::MAX, crumbs);
/// # Ok::<_, amqp_broker::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct Faults<'a> {
    broker: &'a mut Broker,
}

impl Broker {
    /// The fault switch.
    pub const fn faults(&mut self) -> Faults<'_> {
        Faults { broker: self }
    }

    /// A connection for whose bytes something else is to go wrong than before, or nothing any more,
    /// and what that is: for whoever moves them. It holds from the next byte on, and what it counts
    /// is counted from there. Ask after any call, and after [`accept`](Self::accept) before the
    /// first byte.
    pub fn poll_byte_plan(&mut self) -> Option<(ConnectionKey, BytePlan)> {
        let (key, faults) = self.faults.bytes.poll()?;
        Some((key, BytePlan::new(faults, self.config.seed, key)))
    }
}

impl Faults<'_> {
    /// Raises the memory alarm, or lets it go: publishers are blocked as if memory were short.
    pub fn memory_alarm(&mut self, raised: bool) {
        self.broker.faults.memory_alarm = raised;
        self.broker.finish();
    }

    /// Refuses the next so many connections.
    pub const fn refuse_connects(&mut self, count: u64) {
        self.broker.faults.refused_connects = count;
    }

    /// Lets confirms go wrong, in place of how they went wrong before.
    pub const fn confirms(&mut self, fault: ConfirmFault) {
        self.broker.faults.confirms = fault;
    }

    /// Lets something go wrong with the bytes of a connection from now on, in place of what went
    /// wrong before; what it counts is counted from now. [`ByteFaults::new`] ends it all: what was
    /// stalled goes on, and what is on the way arrives when it would have.
    ///
    /// The end of a connection cannot be heard over a line that is stalled. It is heard when that is
    /// lifted here, which can be done after the broker has given up the connection, too.
    ///
    /// What moves the bytes has to [follow](Broker::poll_byte_plan); the drivers of `amqp-driver`
    /// do.
    pub fn bytes(&mut self, key: ConnectionKey, faults: ByteFaults) {
        self.broker.faults.bytes.set(key, faults);
        if faults.cut_at_once() {
            // The driver may have nothing to send, and not be reading.
            let now = self.broker.now;
            self.broker
                .handle_transport_error(key, now, "cut for a test");
        }
    }

    /// Lets something go wrong with the bytes of the next so many connections, from their first
    /// byte on, in place of what was said of the next ones before. `u64::MAX` is all of them, and 0
    /// is none. Connections that are refused do not count.
    pub const fn bytes_of_next(&mut self, count: u64, faults: ByteFaults) {
        self.broker.faults.bytes.set_next(count, faults);
    }

    /// Closes a connection, as an operator does: with 320 (connection-forced) or another code. The
    /// text is sent as it is.
    pub fn close_connection(&mut self, key: ConnectionKey, code: ReplyCode, text: &str) {
        if let Some(link) = self.broker.links.get_mut(&key) {
            link.machine.close(code, text);
            self.broker.wake(key);
        }
        self.broker.finish();
    }

    /// Closes a channel by its number, for no fault of the client.
    pub fn close_channel(&mut self, key: ConnectionKey, number: u16, code: ReplyCode, text: &str) {
        let link = self.broker.links.get(&key);
        let channel = link.and_then(|link| link.channels.get(&number));
        if let Some(id) = channel.map(|channel| channel.id) {
            let at = ChannelKey {
                connection: key,
                id,
            };
            let refusal = Refusal {
                code,
                text: text.into(),
            };
            self.broker.close_channel(at, &refusal, None);
        }
        self.broker.finish();
    }

    /// Ends a connection without a word.
    pub fn drop_connection(&mut self, key: ConnectionKey, now: Instant) {
        self.broker
            .handle_transport_error(key, now, "dropped for a test");
    }
}

//! Fault injection.

use amqp_core::{Instant, protocol::ReplyCode};

use crate::{
    broker::Broker,
    byte_faults::{ByteFaults, BytePlan},
    fault_state::ConfirmFault,
    keys::{ChannelKey, ConnectionKey},
    refusal::Refusal,
};

/// Injects faults into a broker and its connections, for tests.
///
/// ```
/// use amqp_broker::{Broker, ByteFaults, Config, ConfirmFault, Impairment};
///
/// let mut broker = Broker::new(Config::default())?;
/// broker.faults().refuse_connects(1);
/// broker.faults().confirms(ConfirmFault::DropNext(3));
/// let pieces = ByteFaults::both(Impairment::new().split(5));
/// broker.faults().bytes_of_next(u64::MAX, pieces);
/// # Ok::<_, amqp_broker::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct Faults<'a> {
    broker: &'a mut Broker,
}

impl Broker {
    /// Returns the fault injection of the broker.
    pub const fn faults(&mut self) -> Faults<'_> {
        Faults { broker: self }
    }

    /// Returns a connection with changed byte faults, and its new plan, for the transport to apply.
    /// The plan holds from the next byte on, and counts from there. Poll it after any call, and
    /// after [`accept`](Self::accept) before the first byte.
    pub fn poll_byte_plan(&mut self) -> Option<(ConnectionKey, BytePlan)> {
        let (key, faults) = self.faults.bytes.poll()?;
        Some((key, BytePlan::new(faults, self.config.seed, key)))
    }
}

impl Faults<'_> {
    /// Raises or clears the memory alarm: publishers are blocked as if memory were low
    /// (<https://www.rabbitmq.com/docs/alarms>).
    pub fn memory_alarm(&mut self, raised: bool) {
        self.broker.faults.memory_alarm = raised;
        self.broker.finish();
    }

    /// Refuses the next `count` connections.
    pub const fn refuse_connects(&mut self, count: u64) {
        self.broker.faults.refused_connects = count;
    }

    /// Sets the fault of confirms, in place of the previous one.
    pub const fn confirms(&mut self, fault: ConfirmFault) {
        self.broker.faults.confirms = fault;
    }

    /// Sets the faults of a connection's bytes from now on, in place of the previous ones; bytes
    /// are counted from now. [`ByteFaults::new`] ends all faults: stalled bytes continue, and bytes
    /// in flight keep their arrival times.
    ///
    /// The end of a connection does not arrive in a stalled direction. It arrives when this method
    /// lifts the stall, even if the broker has closed the connection before.
    ///
    /// The transport has to [apply](Broker::poll_byte_plan) the faults; that of `amqp-embedded`
    /// does. There, dropping the last clone of the broker ends them.
    pub fn bytes(&mut self, key: ConnectionKey, faults: ByteFaults) {
        self.broker.faults.bytes.set(key, faults);
        if faults.cut_at_once() {
            // The driver may have no output and not be reading, and would not detect the cut.
            let now = self.broker.now;
            self.broker
                .handle_transport_error(key, now, "cut for a test");
        }
    }

    /// Sets the faults of the bytes of the next `count` connections, from their first byte on, in
    /// place of the previous ones. `u64::MAX` means all of them, and 0 none. Connections that are
    /// refused do not count.
    pub const fn bytes_of_next(&mut self, count: u64, faults: ByteFaults) {
        self.broker.faults.bytes.set_next(count, faults);
    }

    /// Closes a connection as an operator does: with 320 (connection-forced) or another code. The
    /// text is sent unchanged.
    pub fn close_connection(&mut self, key: ConnectionKey, code: ReplyCode, text: &str) {
        if let Some(conn) = self.broker.connections.get_mut(&key) {
            conn.machine.close(code, text);
            self.broker.wake(key);
        }
        self.broker.finish();
    }

    /// Closes a channel by its number, without a fault of the client.
    pub fn close_channel(&mut self, key: ConnectionKey, number: u16, code: ReplyCode, text: &str) {
        let conn = self.broker.connections.get(&key);
        let channel = conn.and_then(|conn| conn.channels.get(&number));
        if let Some(id) = channel.map(|channel| channel.id) {
            let at = ChannelKey {
                connection: key,
                id,
            };
            let refusal = Refusal {
                code,
                text: text.into(),
                is_crash: false,
            };
            self.broker.close_channel(at, &refusal, None);
        }
        self.broker.finish();
    }

    /// Ends a connection without a close handshake.
    pub fn drop_connection(&mut self, key: ConnectionKey, now: Instant) {
        self.broker
            .handle_transport_error(key, now, "dropped for a test");
    }
}

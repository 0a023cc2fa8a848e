//! A fault, as data.

use std::{fmt, sync::Arc, time::Duration};

use amqp_driver::protocol::ReplyCode;
pub use amqp_embedded::broker::Direction;

/// The road between a process and a broker node, by their names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// The process that connects.
    pub client: Arc<str>,
    /// The node.
    pub node: Arc<str>,
}

impl Link {
    /// Names a link.
    #[must_use]
    pub fn new(client: &str, node: &str) -> Self {
        Self {
            client: client.into(),
            node: node.into(),
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} - {}", self.client, self.node)
    }
}

/// A fault. Each has all that it needs in itself, so that a list of faults can be printed, repeated
/// and shortened. Those with a `time` end by themselves.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// Bytes take a time between the two. Bytes of a connection stay in order; connections overtake
    /// each other.
    Latency {
        /// The link.
        link: Link,
        /// The shortest latency.
        min: Duration,
        /// The longest latency.
        max: Duration,
        /// The duration of the fault.
        time: Duration,
    },
    /// Writes arrive in pieces of 1 to `max` bytes, in both directions.
    Split {
        /// The link.
        link: Link,
        /// The maximum size of a piece.
        max: usize,
        /// The duration of the fault.
        time: Duration,
    },
    /// A direction carries so many bytes a second.
    Bandwidth {
        /// The link.
        link: Link,
        /// The direction.
        direction: Direction,
        /// Bytes per second.
        rate: u64,
        /// The duration of the fault.
        time: Duration,
    },
    /// The receiver of a direction reads slowly: at most `window` bytes are on the way, so that
    /// the sender soon has to wait.
    SlowReader {
        /// The link.
        link: Link,
        /// The direction in which the sender waits.
        direction: Direction,
        /// The bytes on the way of each connection.
        window: usize,
        /// The duration of the fault.
        time: Duration,
    },
    /// The connection that sends the `after`-th byte from now on in a direction is reset behind
    /// it.
    Cut {
        /// The link.
        link: Link,
        /// The direction.
        direction: Direction,
        /// The number of bytes that still arrive.
        after: u64,
    },
    /// All connections of a link are reset; bytes on the way are lost.
    Reset {
        /// The link.
        link: Link,
    },
    /// The streams of all connections of a link end in both directions, as by a proxy that is
    /// stopped. Bytes on the way arrive.
    Eof {
        /// The link.
        link: Link,
    },
    /// Nothing arrives, resets and connects included; afterwards all arrives.
    Stall {
        /// The link.
        link: Link,
        /// The direction; `None` for both.
        direction: Option<Direction>,
        /// The duration of the fault.
        time: Duration,
    },
    /// The connections of a link are gone for one end, which learns of it at once; the other one
    /// learns nothing, and all that it sends is lost.
    HalfOpen {
        /// The link.
        link: Link,
        /// The direction in which the end that is left sends.
        deaf: Direction,
    },
    /// Connects are refused.
    Refuse {
        /// The link.
        link: Link,
        /// The duration of the fault.
        time: Duration,
    },
    /// A node stops as RabbitMQ does in good order, and starts again with its durable state.
    Restart {
        /// The node.
        node: Arc<str>,
        /// The time in between.
        down: Duration,
    },
    /// A node is killed: its connections are reset. It starts again with its durable state; one
    /// [with a journal](crate::Sim::node_with) with what its disk has stored: of the changes that
    /// are being stored then, some are and some are not.
    Kill {
        /// The node.
        node: Arc<str>,
        /// The time in between.
        down: Duration,
    },
    /// A process or a node stands still, as by SIGSTOP. Its peers see an open connection and no
    /// answer.
    Suspend {
        /// The process or node.
        process: Arc<str>,
        /// The duration of the fault.
        time: Duration,
    },
    /// A [service](crate::Sim::service) is killed: its tasks end where they are, its connections
    /// are reset. It starts again.
    Crash {
        /// The service.
        process: Arc<str>,
        /// The time in between.
        down: Duration,
    },
    /// A node closes all its connections with a reply code, as for an operator.
    Close {
        /// The node.
        node: Arc<str>,
        /// The reply code.
        code: ReplyCode,
    },
    /// A node closes all channels with a reply code, as for a mistake of the client. Not among random
    /// [`Faults`](crate::Faults).
    CloseChannels {
        /// The node.
        node: Arc<str>,
        /// The reply code.
        code: ReplyCode,
    },
    /// A node raises the memory alarm: connections that publish are blocked
    /// (<https://www.rabbitmq.com/docs/alarms>).
    Alarm {
        /// The node.
        node: Arc<str>,
        /// The duration of the fault.
        time: Duration,
    },
    /// A node deletes a queue of the virtual host `/`, with its messages.
    DeleteQueue {
        /// The node.
        node: Arc<str>,
        /// The queue.
        queue: Arc<str>,
    },
    /// A node does not send the next confirms of publishes; it has the messages.
    LoseConfirms {
        /// The node.
        node: Arc<str>,
        /// Their number.
        count: u64,
    },
    /// A node refuses the next publishes on channels with confirms, with `basic.nack`.
    Nack {
        /// The node.
        node: Arc<str>,
        /// Their number.
        count: u64,
    },
    /// The disk of a node is slow: confirms of persistent messages come late. Without effect on a
    /// node [without a journal](crate::Sim::node_with).
    SlowDisk {
        /// The node.
        node: Arc<str>,
        /// The time to store changes.
        delay: Duration,
        /// The duration of the fault.
        time: Duration,
    },
    /// The time jumps, as in a machine that was suspended: all deadlines in between have passed
    /// before any task runs.
    Jump {
        /// The time that is skipped.
        time: Duration,
    },
}

fn arrow(direction: Direction) -> &'static str {
    match direction {
        Direction::FromClient => "to the node",
        Direction::ToClient => "to the client",
    }
}

/// The fault in words.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latency {
                link,
                min,
                max,
                time,
            } => write!(f, "{link}: latency of {min:?} to {max:?} for {time:?}"),
            Self::Split { link, max, time } => {
                write!(f, "{link}: pieces of at most {max} bytes for {time:?}")
            }
            Self::Bandwidth {
                link,
                direction,
                rate,
                time,
            } => {
                let to = arrow(*direction);
                write!(f, "{link}: {rate} bytes a second {to} for {time:?}")
            }
            Self::SlowReader {
                link,
                direction,
                window,
                time,
            } => {
                let to = arrow(*direction);
                write!(
                    f,
                    "{link}: slow reader {to}, {window} bytes on the way for {time:?}"
                )
            }
            Self::Cut {
                link,
                direction,
                after,
            } => write!(f, "{link}: cut after {after} bytes {}", arrow(*direction)),
            Self::Reset { link } => write!(f, "{link}: reset"),
            Self::Eof { link } => write!(f, "{link}: end of the streams"),
            Self::Stall {
                link,
                direction: None,
                time,
            } => write!(f, "{link}: stalled for {time:?}"),
            Self::Stall {
                link,
                direction: Some(direction),
                time,
            } => write!(f, "{link}: stalled {} for {time:?}", arrow(*direction)),
            Self::HalfOpen { link, deaf } => {
                let left = match deaf {
                    Direction::FromClient => "client",
                    Direction::ToClient => "node",
                };
                write!(f, "{link}: half open, the {left} does not learn of it")
            }
            Self::Refuse { link, time } => write!(f, "{link}: connects refused for {time:?}"),
            Self::Restart { node, down } => write!(f, "{node}: restarted, down for {down:?}"),
            Self::Kill { node, down } => write!(f, "{node}: killed, down for {down:?}"),
            Self::Suspend { process, time } => write!(f, "{process}: suspended for {time:?}"),
            Self::Crash { process, down } => write!(f, "{process}: killed, down for {down:?}"),
            Self::Close { node, code } => write!(f, "{node}: connections closed with {code}"),
            Self::CloseChannels { node, code } => write!(f, "{node}: channels closed with {code}"),
            Self::Alarm { node, time } => write!(f, "{node}: memory alarm for {time:?}"),
            Self::DeleteQueue { node, queue } => write!(f, "{node}: queue {queue} deleted"),
            Self::LoseConfirms { node, count } => write!(f, "{node}: {count} confirms lost"),
            Self::Nack { node, count } => write!(f, "{node}: {count} publishes refused"),
            Self::SlowDisk { node, delay, time } => {
                write!(f, "{node}: disk takes {delay:?} for {time:?}")
            }
            Self::Jump { time } => write!(f, "the time jumps by {time:?}"),
        }
    }
}

/// A fault at a time of the simulation.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The time since the start.
    pub at: Duration,
    /// The fault.
    pub fault: Fault,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:12.6} s  {}", self.at.as_secs_f64(), self.fault)
    }
}

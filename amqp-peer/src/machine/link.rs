//! One link: a connection to another peer, in the role of client or server. Beside these roles, the
//! two ends are the same.

use amqp_core::{
    ApiMisuse, Body, ChannelId, CloseReason, DeliveryTag, Endpoint, Instant, PublishSeq, Requeue,
    Tags, Transmit, client,
    protocol::{
        ReplyCode,
        basic::{self, Properties},
        channel,
    },
    server,
};
use bytes::Bytes;

use super::{
    tags::{Acks, Incoming, Outgoing},
    throttle::Bucket,
    wire::QUEUE,
};
use crate::{cause::DownCause, event::LinkKey, message::MessageId, name::PeerName};

/// The progress of a link.
///
/// ```text
///  Opening ──> Joining ──────────────> Up ──> Ended
///                 └──> Contested ──────┘
/// ```
///
/// Each may also end at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// AMQP's handshake.
    Opening,
    /// The names are known. The connector opens its channel and consumes.
    Joining,
    /// Another link of that name is up, and is being probed.
    Contested,
    /// Messages flow.
    Up,
    /// It is closed or closing, and of no account any more.
    Ended,
}

/// The role of this side.
#[derive(Debug)]
pub(super) enum Side {
    /// This side has connected.
    Connector(Box<client::Connection>),
    /// The peer has connected.
    Listener(Box<server::Connection>),
}

/// What a peer has said of itself.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) name: PeerName,
    pub(super) instance: u64,
    /// The window of the peer, in messages and bytes.
    pub(super) window: usize,
    pub(super) window_bytes: u64,
    /// The largest body that the peer takes.
    pub(super) body: u64,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) key: LinkKey,
    pub(super) side: Side,
    pub(super) stage: Stage,
    pub(super) identity: Option<Identity>,
    /// The key of the peer. `Some` from `Joining` on.
    pub(super) peer: Option<u64>,
    pub(super) certificates: Vec<Bytes>,
    /// The channel of the messages that this side sends.
    pub(super) sending: Option<ChannelId>,
    /// The channel of the messages that this side receives. It has only acknowledgements from this
    /// side, which therefore do not wait behind a large message.
    pub(super) receiving: Option<ChannelId>,
    /// Whether the listener has been asked to acknowledge.
    pub(super) is_selected: bool,
    /// Whether the listener owes the answer to the request to consume.
    pub(super) owes_consume_ok: bool,
    /// The cause of the end, if this side knows better than AMQP.
    pub(super) cause: Option<DownCause>,
    /// The credentials of a plain client that may be taken out.
    pub(super) client: Option<server::AuthRequest>,
    pub(super) outgoing: Outgoing,
    pub(super) incoming: Incoming,
    /// The messages that are to be reported as written.
    pub(super) unwritten: std::collections::VecDeque<(amqp_core::FlushMark, MessageId)>,
    pub(super) send_bucket: Option<Bucket>,
    pub(super) receive_bucket: Option<Bucket>,
    /// Output of the AMQP machine that the throttle has not let pass.
    pub(super) staged: Transmit,
    /// The time at which the link must be up.
    pub(super) join_by: Instant,
    /// The time of the last input.
    pub(super) heard: Instant,
    /// The time of the probe, if there was no input since.
    pub(super) probed: Option<Instant>,
    /// Whether the answer to a probe is outstanding.
    pub(super) awaits_flow_ok: bool,
    /// The number of answers to the connector's probes since the last time that all had left, and
    /// the first of them.
    pub(super) answers: Option<(usize, amqp_core::FlushMark)>,
    /// The part of the last input that was not consumed, in bytes.
    pub(super) leftover: usize,
    /// Whether the driver is to be woken, and was not yet.
    pub(super) is_woken: bool,
}

impl Link {
    pub(super) const fn is_listener(&self) -> bool {
        matches!(self.side, Side::Listener(_))
    }

    pub(super) const fn is_up(&self) -> bool {
        matches!(self.stage, Stage::Up)
    }

    /// Whether a message may be handed to the AMQP machine. The window of the receiver is apart.
    pub(super) fn has_room(&mut self, body_len: usize) -> bool {
        let Some(id) = self.sending else {
            return false;
        };
        let held = match &mut self.side {
            Side::Connector(machine) => machine.channel(id).map(|it| it.hold(body_len)),
            Side::Listener(machine) => machine.channel(id).map(|mut it| it.hold()),
        };
        held == Some(None)
    }

    /// Hands a message to the AMQP machine.
    pub(super) fn put(
        &mut self,
        tag: u64,
        is_repeated: bool,
        properties: &Properties,
        body: Body,
    ) -> Result<(), ApiMisuse> {
        let id = self.sending.ok_or(ApiMisuse::ChannelNotOpen)?;
        match &mut self.side {
            Side::Connector(machine) => {
                let mut channel = machine.channel(id).ok_or(ApiMisuse::ChannelNotOpen)?;
                let publish = basic::Publish {
                    routing_key: QUEUE,
                    ..basic::Publish::default()
                };
                let published = channel.publish(&publish, properties, body);
                published.map(drop).map_err(|error| {
                    let misuse = error.into_body().err();
                    misuse.unwrap_or(ApiMisuse::ChannelNotOpen)
                })
            }
            Side::Listener(machine) => {
                let mut channel = machine.channel(id).ok_or(ApiMisuse::ChannelNotOpen)?;
                let deliver = basic::Deliver {
                    consumer_tag: QUEUE,
                    delivery_tag: tag,
                    redelivered: is_repeated,
                    routing_key: QUEUE,
                    ..basic::Deliver::default()
                };
                channel.send_content(&deliver, properties, body)
            }
        }
    }

    /// Acknowledges what was accepted since the last call. A channel that has ended takes nothing.
    pub(super) fn acknowledge(&mut self) {
        if !self.incoming.is_due {
            return;
        }
        let acks = self.incoming.take();
        let Some(id) = self.receiving else {
            return;
        };
        let Acks { up_to, single } = acks;
        let tags = up_to.map(|tag| (tag, true)).into_iter();
        let tags = tags.chain(single.into_iter().map(|tag| (tag, false)));
        match &mut self.side {
            Side::Connector(machine) => {
                let Some(mut channel) = machine.channel(id) else {
                    return;
                };
                for (tag, multiple) in tags {
                    let Some(tag) = DeliveryTag::new(tag) else {
                        continue;
                    };
                    let tags = if multiple {
                        Tags::UpTo(tag)
                    } else {
                        Tags::One(tag)
                    };
                    let _ended = channel.ack(tags);
                }
            }
            Side::Listener(machine) => {
                let Some(mut channel) = machine.channel(id) else {
                    return;
                };
                for (delivery_tag, multiple) in tags {
                    let ack = basic::Ack {
                        delivery_tag,
                        multiple,
                    };
                    let _ended = channel.send(&ack);
                }
            }
        }
    }

    /// Gives a message back to its sender.
    pub(super) fn give_back(&mut self, tag: u64) {
        let Some(id) = self.receiving else {
            return;
        };
        match &mut self.side {
            Side::Connector(machine) => {
                if let (Some(mut channel), Some(tag)) = (machine.channel(id), DeliveryTag::new(tag))
                {
                    let _ended = channel.nack(Tags::One(tag), Requeue::Yes);
                }
            }
            Side::Listener(machine) => {
                if let Some(mut channel) = machine.channel(id) {
                    let nack = basic::Nack {
                        delivery_tag: tag,
                        multiple: false,
                        requeue: true,
                    };
                    let _ended = channel.send(&nack);
                }
            }
        }
    }

    /// Answers a probe of the connector. Returns `false` if too many answers have not left.
    pub(super) fn answer_probe(&mut self, channel: ChannelId, active: bool) -> bool {
        let left = |(_, mark): &(usize, _)| !self.side.is_flushed(mark);
        self.answers = self.answers.take().filter(left);
        if self.answers.as_ref().is_some_and(|it| it.0 >= ANSWERS) {
            return false;
        }
        if let Side::Listener(machine) = &mut self.side
            && let Some(mut channel) = machine.channel(channel)
        {
            // A request is owed its answer.
            let _sent = channel.send(&channel::FlowOk { active });
        }
        match &mut self.answers {
            Some((count, _)) => *count += 1,
            None => self.answers = Some((1, self.side.flush_mark())),
        }
        true
    }

    /// Asks the peer for an answer, unless one is outstanding. Any input counts.
    pub(super) fn probe(&mut self, now: Instant) {
        self.probed.get_or_insert(now);
        if self.awaits_flow_ok {
            return;
        }
        let Some(id) = self.receiving else {
            return;
        };
        let active = true;
        let sent = match &mut self.side {
            Side::Connector(machine) => machine
                .channel(id)
                .is_some_and(|mut it| it.call(&channel::Flow { active }).is_ok()),
            Side::Listener(machine) => machine
                .channel(id)
                .is_some_and(|mut it| it.flow(active).is_ok()),
        };
        self.awaits_flow_ok = sent;
    }
}

impl Side {
    pub(super) fn endpoint(&self) -> &dyn Endpoint {
        match self {
            Self::Connector(machine) => &**machine,
            Self::Listener(machine) => &**machine,
        }
    }

    pub(super) fn endpoint_mut(&mut self) -> &mut dyn Endpoint {
        match self {
            Self::Connector(machine) => &mut **machine,
            Self::Listener(machine) => &mut **machine,
        }
    }

    pub(super) fn poll_transmit_turns(
        &mut self,
        now: Instant,
        out: &mut Transmit,
        turns: usize,
    ) -> bool {
        match self {
            Self::Connector(machine) => machine.poll_transmit_turns(now, out, turns),
            Self::Listener(machine) => machine.poll_transmit_turns(now, out, turns),
        }
    }

    pub(super) fn set_reading(&mut self, now: Instant, reading: bool) {
        match self {
            Self::Connector(machine) => machine.set_reading(now, reading),
            Self::Listener(machine) => machine.set_reading(now, reading),
        }
    }

    pub(super) fn has_transmit(&self) -> bool {
        match self {
            Self::Connector(machine) => machine.has_transmit(),
            Self::Listener(machine) => machine.has_transmit(),
        }
    }

    /// Whether there is output that does not wait for turns: methods, heartbeats, small messages.
    pub(super) fn has_control(&self) -> bool {
        match self {
            Self::Connector(machine) => machine.has_ready_transmit(),
            Self::Listener(machine) => machine.has_ready_transmit(),
        }
    }

    pub(super) const fn close_reason(&self) -> Option<&CloseReason> {
        match self {
            Self::Connector(machine) => machine.close_reason(),
            Self::Listener(machine) => machine.close_reason(),
        }
    }

    pub(super) fn flush_mark(&self) -> amqp_core::FlushMark {
        match self {
            Self::Connector(machine) => machine.flush_mark(),
            Self::Listener(machine) => machine.flush_mark(),
        }
    }

    pub(super) fn is_flushed(&self, mark: &amqp_core::FlushMark) -> bool {
        match self {
            Self::Connector(machine) => machine.is_flushed(mark),
            Self::Listener(machine) => machine.is_flushed(mark),
        }
    }

    pub(super) fn close(&mut self, code: ReplyCode, text: &str) {
        match self {
            Self::Connector(machine) => machine.close(code, text),
            Self::Listener(machine) => machine.close(code, text),
        }
    }
}

/// The maximum number of answers to probes that have not left. A peer asks again when it has the
/// last one.
const ANSWERS: usize = 1000;

/// The sequence numbers of a range of publishes.
pub(super) const fn range(first: PublishSeq, last: PublishSeq) -> std::ops::RangeInclusive<u64> {
    first.get()..=last.get()
}

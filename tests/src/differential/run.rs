//! One run of a program: its open connections and consumers, and the wait until nothing moves any
//! more.

use std::{
    collections::BTreeMap,
    fmt::Display,
    ops::Deref,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use amqp_tokio::{
    Acker, BaseChannel, Channel, ConfirmChannel, Consumer, DeliveryTag, Error, ManualAck, Message,
    NoAck, Returns, TxChannel, Unconfirmed,
    protocol::{basic, channel, exchange, queue},
    wire::ShortStr,
};

use super::{
    lane::{Kept, Lane, Link, all},
    names::Names,
    program::{
        Argument, CHANNELS, EXCHANGES, Exchange, Program, QUEUES, Step, TRANSACTIONAL,
        connection_of,
    },
    trace::Trace,
};
use crate::harness::Failure;

/// The number of looks for effects that RabbitMQ has in its own time, and the pause between two.
const LOOKS: usize = 1000;
const PAUSE: Duration = Duration::from_millis(5);

/// The time within which RabbitMQ writes to the log of a quorum queue or a stream, and delivers.
const LOG_PAUSE: Duration = Duration::from_millis(60);

/// The most messages that are left in a queue.
const LEFT: usize = 500;

/// A run of a program.
pub(super) struct Run<'a> {
    pub(super) lane: &'a mut Lane,
    pub(super) names: Names,
    pub(super) channels: [Option<Live>; CHANNELS as usize],
    pub(super) queues: [Queue; QUEUES as usize],
    /// The lines of the step so far.
    pub(super) lines: Vec<String>,
    /// Which step it is.
    pub(super) at: usize,
    /// Some queue has a dead-letter exchange: dead letters and the messages that a client publishes
    /// at the same time come in any order.
    pub(super) has_letters: bool,
    /// Some queue is a quorum queue or a stream, which have their effects later than a reply.
    pub(super) has_logs: bool,
}

/// The known state of a queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Queue {
    pub(super) present: bool,
    /// The connection that declared it last.
    pub(super) owner: usize,
    pub(super) exclusive: bool,
    /// RabbitMQ counts the messages of a stream every few seconds, so that traces have no count.
    pub(super) is_stream: bool,
}

/// A channel that is open.
pub(super) struct Live {
    pub(super) channel: Mode,
    pub(super) returns: Option<Returns>,
    /// By their numbers.
    pub(super) consumers: BTreeMap<u8, Reader>,
    /// Deliveries that are to be acknowledged, as they came; those of one step in the order of
    /// their consumers.
    pub(super) outstanding: Vec<Outstanding>,
    /// Those that the transaction has settled so far.
    pub(super) tentative: Vec<Outstanding>,
}

/// A channel, and its mode.
pub(super) enum Mode {
    Confirm(ConfirmChannel),
    Tx(TxChannel),
}

impl Deref for Mode {
    type Target = BaseChannel;

    fn deref(&self) -> &BaseChannel {
        match self {
            Self::Confirm(channel) => channel,
            Self::Tx(channel) => channel,
        }
    }
}

/// A consumer.
pub(super) struct Reader {
    /// The number of its queue.
    pub(super) queue: u8,
    pub(super) consumer: Kind,
}

pub(super) enum Kind {
    Manual(Consumer<ManualAck>),
    NoAck(Consumer<NoAck>),
}

/// A message of a consumer.
type Read = (Message, Option<Acker>);

/// A delivery that is to be acknowledged.
#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) tag: DeliveryTag,
    /// None once it was used, in a transaction that was rolled back.
    pub(super) acker: Option<Acker>,
    /// The step in which it came. Messages of one step from several queues may have come in any
    /// order.
    pub(super) step: usize,
    /// Its body.
    pub(super) name: String,
}

/// The counts of a passive declare.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Probed {
    There { messages: u32, consumers: u32 },
    Gone,
    Locked,
    Otherwise(String),
}

impl<'a> Run<'a> {
    pub(super) fn new(lane: &'a mut Lane, prefix: String) -> Self {
        Self {
            lane,
            names: Names::new(prefix),
            channels: [const { None }; CHANNELS as usize],
            queues: [Queue::default(); QUEUES as usize],
            lines: Vec::new(),
            at: 0,
            has_letters: false,
            has_logs: false,
        }
    }

    pub(super) async fn perform(mut self, program: &Program) -> Result<Trace, Failure> {
        let mut trace = Trace::default();
        let letters = |it: &Argument| matches!(it, Argument::DeadLetter(_));
        self.has_letters = self.lane.has_letters || has_argument(program, letters);
        self.has_logs = has_argument(program, |it| matches!(it, Argument::Type(_)));
        for (at, step) in program.steps.iter().enumerate() {
            self.at = at;
            self.step(step).await?;
            self.settle().await?;
            trace.0.push(std::mem::take(&mut self.lines));
        }
        self.finish().await?;
        trace.0.push(self.lines);
        Ok(trace)
    }

    pub(super) fn line(&mut self, line: impl Display) {
        self.lines.push(line.to_string());
    }

    pub(super) fn failed(&mut self, error: &Error) {
        let line = self.names.error(error);
        self.lines.push(line);
    }

    /// A channel, which is opened if there is none. None when it cannot be opened.
    pub(super) async fn open(&mut self, on: u8) -> Result<Option<&mut Live>, Failure> {
        if self.channels[usize::from(on)].is_none() {
            match self.try_open(on).await? {
                Ok(live) => self.channels[usize::from(on)] = Some(live),
                Err(error) => {
                    self.failed(&error);
                    return Ok(None);
                }
            }
        }
        Ok(self.channels[usize::from(on)].as_mut())
    }

    async fn try_open(&mut self, on: u8) -> Result<Result<Live, Error>, Failure> {
        let link = self.lane.link(connection_of(on)).await?;
        let channel = match link.connection.open_channel().await {
            Ok(channel) => channel,
            Err(error) => return Ok(Err(error)),
        };
        let (returns, mode) = if on == TRANSACTIONAL {
            let returns = channel.returns();
            (Some(returns), channel.tx_select().await.map(Mode::Tx))
        } else {
            let mode = channel.confirm_select().await;
            (None, mode.map(Mode::Confirm))
        };
        Ok(mode.map(|channel| Live {
            channel,
            returns,
            consumers: BTreeMap::new(),
            outstanding: Vec::new(),
            tentative: Vec::new(),
        }))
    }

    /// Waits until nothing moves any more, and notes the deliveries and the state of the queues.
    pub(super) async fn settle(&mut self) -> Result<(), Failure> {
        let dead_before = self.bury();
        self.calm().await?;
        let mut dead = self.bury();
        dead.iter_mut()
            .zip(dead_before)
            .for_each(|(it, before)| *it |= before);
        self.drain();
        let was: Vec<bool> = self.queues.iter().map(|it| it.present).collect();
        let mut probed = self.probe_all().await?;
        for _ in 0..LOOKS {
            let late = probed.iter().any(|(queue, probed)| {
                let state = self.queues[usize::from(*queue)];
                *probed == Probed::Locked && state.exclusive && dead[state.owner]
            });
            if !late {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            probed = self.probe_all().await?;
        }
        for (queue, probed) in &probed {
            if *probed == Probed::Gone {
                self.queues[usize::from(*queue)].present = false;
            }
        }
        if self
            .queues
            .iter()
            .zip(was)
            .any(|(now, was)| was && !now.present)
        {
            self.await_cancels().await;
        }
        for (queue, probed) in probed {
            let is_stream = self.queues[usize::from(queue)].is_stream;
            let line = match probed {
                Probed::There { consumers, .. } if is_stream => {
                    format!("q{queue} is a stream, {consumers} consumers")
                }
                Probed::There {
                    messages,
                    consumers,
                } => format!("q{queue} has {messages} messages, {consumers} consumers"),
                Probed::Gone => format!("q{queue} is gone"),
                Probed::Locked => format!("q{queue} is locked"),
                Probed::Otherwise(text) => format!("q{queue}: {text}"),
            };
            self.line(line);
        }
        Ok(())
    }

    /// Waits until nothing moves any more.
    ///
    /// A queue that has answered has handled all earlier requests, and its messages for other
    /// queues are with them; a second round reaches those. A channel that has answered twice has
    /// passed on the queues' deliveries.
    pub(super) async fn calm(&mut self) -> Result<(), Failure> {
        self.probe_all().await?;
        if self.has_logs {
            tokio::time::sleep(LOG_PAUSE).await;
        }
        self.probe_all().await?;
        self.flow_all().await;
        self.flow_all().await;
        Ok(())
    }

    /// Gives up the state of connections that have ended, and returns which have.
    fn bury(&mut self) -> [bool; 2] {
        let mut dead = [false; 2];
        for (at, dead) in dead.iter_mut().enumerate() {
            let Some(reason) = self.lane.ended(at) else {
                continue;
            };
            *dead = true;
            let mut had = false;
            for on in (0..CHANNELS).filter(|on| connection_of(*on) == at) {
                let live = &mut self.channels[usize::from(on)];
                had |= live
                    .take_if(|it| !it.channel.connection().is_open())
                    .is_some();
            }
            if had {
                let line = format!("connection {at}: {}", self.names.reason(&reason));
                self.line(line);
            }
        }
        dead
    }

    /// Asks for all queues that may be there.
    async fn probe_all(&mut self) -> Result<Vec<(u8, Probed)>, Failure> {
        let mut asked = Vec::new();
        for queue in 0..QUEUES {
            let Queue { present, owner, .. } = self.queues[usize::from(queue)];
            if !present {
                continue;
            }
            let name = self.names.queue(queue);
            let link = self.lane.link(owner).await?;
            let channel = match link.probes.remove(&queue) {
                Some(channel) if channel.is_open() => channel,
                _ => link.connection.open_channel().await?,
            };
            asked.push((queue, owner, name, channel));
        }
        let names = &self.names;
        let futures: Vec<Kept<'_, (u8, usize, Channel, Probed)>> = asked
            .into_iter()
            .map(|(queue, owner, name, channel)| {
                let asking = async move {
                    let probed = match passive(&channel, name).await {
                        Ok(declared) => Probed::There {
                            messages: declared.message_count,
                            consumers: declared.consumer_count,
                        },
                        Err(error) => match error.code().map(|code| code.0) {
                            Some(404) => Probed::Gone,
                            Some(405) => Probed::Locked,
                            _ => Probed::Otherwise(names.error(&error)),
                        },
                    };
                    (queue, owner, channel, probed)
                };
                Box::pin(asking) as Kept<'_, _>
            })
            .collect();
        let mut probed = Vec::new();
        for (queue, owner, channel, answer) in all(futures).await {
            if let Some(link) = self.lane.existing(owner)
                && channel.is_open()
            {
                link.probes.insert(queue, channel);
            }
            probed.push((queue, answer));
        }
        Ok(probed)
    }

    /// Waits until each channel has handled its requests.
    async fn flow_all(&mut self) {
        let futures = self
            .channels
            .iter()
            .enumerate()
            .filter_map(|(on, live)| {
                let channel = &live.as_ref()?.channel;
                let asking =
                    async move { (on, channel.call(channel::Flow { active: true }).await) };
                Some(Box::pin(asking) as Kept<'_, _>)
            })
            .collect();
        for (on, answer) in all(futures).await {
            if let Err(error) = answer {
                self.drain_channel(on);
                let live = &mut self.channels[on];
                // The end of the connection is noted once for all its channels.
                if live
                    .take_if(|it| it.channel.connection().is_open())
                    .is_some()
                {
                    let line = format!("c{on}: {}", self.names.error(&error));
                    self.line(line);
                }
            }
        }
    }

    /// Waits until consumers of queues that are gone know it.
    async fn await_cancels(&mut self) {
        for _ in 0..LOOKS {
            self.flow_all().await;
            self.drain();
            let queues = &self.queues;
            let waiting = self
                .channels
                .iter()
                .flatten()
                .flat_map(|live| live.consumers.values())
                .any(|it| !queues[usize::from(it.queue)].present);
            if !waiting {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.line("NOT TOLD that a queue is gone");
    }

    fn drain(&mut self) {
        for on in 0..self.channels.len() {
            self.drain_channel(on);
        }
    }

    /// Takes the deliveries of a channel.
    fn drain_channel(&mut self, on: usize) {
        let Some(live) = &mut self.channels[on] else {
            return;
        };
        let names = &self.names;
        let mut ended = Vec::new();
        for (tag, reader) in &mut live.consumers {
            let at = format!("c{on}/t{tag}");
            loop {
                match reader.poll() {
                    Poll::Pending => break,
                    Poll::Ready(None) => {
                        ended.push(*tag);
                        break;
                    }
                    Poll::Ready(Some(Ok((message, acker)))) => {
                        let content = names.message(&message.encoded_properties, &message.body);
                        let from = names.normal(&format!(
                            "{:?} {:?}",
                            message.method.exchange.as_str(),
                            message.method.routing_key.as_str()
                        ));
                        let again = again(message.method.redelivered);
                        self.lines
                            .push(format!("{at} gets {content} from {from}{again}"));
                        if let Some(acker) = acker {
                            live.outstanding.push(Outstanding {
                                tag: acker.tag(),
                                acker: Some(acker),
                                step: self.at,
                                name: content,
                            });
                        }
                    }
                    Poll::Ready(Some(Err(error))) => {
                        if matches!(error, Error::ConsumerCancelled { .. }) {
                            self.lines.push(format!("{at} is cancelled by the server"));
                        }
                        ended.push(*tag);
                        break;
                    }
                }
            }
        }
        for tag in ended {
            live.consumers.remove(&tag);
        }
        if let Some(returns) = &mut live.returns {
            let mut returned = Box::pin(returns.next());
            let mut cx = Context::from_waker(Waker::noop());
            while let Poll::Ready(Some(message)) = returned.as_mut().poll(&mut cx) {
                let fate = Unconfirmed::Returned(Box::new(message));
                self.lines
                    .push(format!("c{on} {}", names.unconfirmed(&fate)));
                drop(returned);
                returned = Box::pin(returns.next());
            }
        }
    }

    /// Closes everything, notes the rest, and removes it.
    async fn finish(&mut self) -> Result<(), Failure> {
        for on in 0..self.channels.len() {
            if let Some(live) = self.channels[on].take()
                && let Err(error) = live.channel.close().await
            {
                self.failed(&error);
            }
            if self.has_logs {
                self.calm().await?;
            }
        }
        self.settle().await?;
        for queue in 0..QUEUES {
            let Queue {
                present,
                owner,
                is_stream,
                ..
            } = self.queues[usize::from(queue)];
            if present {
                let name = self.names.queue(queue);
                let link = self.lane.link(owner).await?;
                let at_most = if is_stream { 0 } else { LEFT };
                let left = empty(&self.names, link, &name, at_most).await;
                for line in left {
                    self.line(format!("q{queue} {line}"));
                }
            }
        }
        self.clean_up().await
    }

    /// Deletes the queues and exchanges.
    async fn clean_up(&mut self) -> Result<(), Failure> {
        let link = self.lane.link(0).await?;
        let channel = link.connection.open_channel().await?;
        for number in 0..EXCHANGES {
            let name = ShortStr::try_from(self.names.exchange(Exchange::Own(number)))?;
            channel.send(&exchange::Delete {
                exchange: name,
                ..exchange::Delete::default()
            })?;
        }
        for name in &self.names.server_named {
            let delete = queue::Delete::default().queue(name);
            // One that is another connection's costs the channel, and goes with the connection.
            let _ = channel.call(delete).await;
        }
        channel.close().await.or_else(|error| match error {
            Error::ChannelClosed(_) => Ok(()),
            error => Err(error.into()),
        })
    }
}

impl Reader {
    /// The next message; ready if it is there.
    fn poll(&mut self) -> Poll<Option<Result<Read, Error>>> {
        let mut cx = Context::from_waker(Waker::noop());
        match &mut self.consumer {
            Kind::Manual(consumer) => poll_one(consumer.next(), &mut cx)
                .map(|it| it.map(|it| it.map(|delivery| (delivery.message, Some(delivery.acker))))),
            Kind::NoAck(consumer) => {
                poll_one(consumer.next(), &mut cx).map(|it| it.map(|it| it.map(|it| (it, None))))
            }
        }
    }
}

fn poll_one<T>(future: impl Future<Output = T>, cx: &mut Context<'_>) -> Poll<T> {
    std::pin::pin!(future).as_mut().poll(cx)
}

/// Whether a program declares a queue with such an argument.
fn has_argument(program: &Program, is_it: impl Fn(&Argument) -> bool) -> bool {
    program.steps.iter().any(|step| match step {
        Step::Queue { arguments, .. } => arguments.iter().any(&is_it),
        _ => false,
    })
}

/// Asks for a queue.
async fn passive(channel: &BaseChannel, name: String) -> Result<queue::DeclareOk, Error> {
    let mut declare = queue::Declare::default().queue(name);
    declare.passive = true;
    channel.call(declare).await
}

/// Takes so many messages out of a queue, and deletes it.
async fn empty(names: &Names, link: &Link, name: &str, at_most: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let emptied = async {
        let channel = link.connection.open_channel().await?;
        for _ in 0..at_most {
            let mut get = basic::Get::default().queue(name);
            get.no_ack = true;
            let Some(message) = channel.get(get).await? else {
                break;
            };
            let content = names.message(&message.properties, &message.body);
            let again = again(message.method.redelivered);
            lines.push(format!("still has {content}{again}"));
        }
        channel.call(queue::Delete::default().queue(name)).await?;
        channel.close().await
    };
    if let Err(error) = emptied.await {
        lines.push(names.error(&error));
    }
    lines
}

/// How a message is marked that was delivered before.
pub(super) const fn again(redelivered: bool) -> &'static str {
    if redelivered { ", again" } else { "" }
}

/// State that is kept over an await can be sent to another thread.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<Pin<Box<Live>>>();
};

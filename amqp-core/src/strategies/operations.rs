//! The strategy of a client's operations, and the application that applies them.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use bytes::Bytes;
use proptest::{
    arbitrary::{Arbitrary, any, any_with},
    prop_oneof,
    sample::{Index, select},
    strategy::{BoxedStrategy, Just, Strategy, Union},
};

use super::{
    methods::{command, requests},
    values::Values,
};
use crate::{
    client::{ChannelMut, Connection, Event},
    error::{ApiMisuse, Hold, PublishError},
    ids::{ChannelId, ConsumerId, DeliveryTag, PublishSeq, RequestId, Requeue, Tags},
    protocol::{ClientMethod, basic},
    wire::ShortStr,
};

/// The consumer tags of operations.
const TAGS: [&str; 2] = ["a", "b"];

/// The number of the newest channels, deliveries and consumers that operations choose from.
const NEWEST: usize = 6;

/// A command of a client's application. An [`Application`] applies it.
///
/// An index chooses from the last few channels, requests, deliveries or consumers there are. The
/// consumer tags are `a` and `b`, so that consumes and cancels meet. Fields that RabbitMQ does not
/// implement, such as the prefetch in bytes, are not set.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Operation {
    /// Opens a channel.
    Open,
    /// Makes a request on a channel, `basic.consume`, `basic.get` and `channel.close` included.
    Request {
        /// The channel.
        channel: Index,
        /// The request.
        request: ClientMethod,
    },
    /// Publishes a message.
    Publish {
        /// The channel.
        channel: Index,
        /// The method.
        method: basic::Publish,
        /// The properties.
        properties: Box<basic::Properties>,
        /// The body.
        body: Bytes,
    },
    /// Acknowledges or rejects deliveries.
    Settle {
        /// The delivery.
        delivery: Index,
        /// The command.
        settlement: Settlement,
    },
    /// Abandons a request.
    Abandon {
        /// The request, of those without outcome.
        request: Index,
    },
    /// Abandons a consumer.
    AbandonConsumer {
        /// The consumer.
        consumer: Index,
    },
}

/// A command for deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settlement {
    /// Acknowledges the delivery.
    Ack,
    /// Acknowledges the delivery and all before it on its channel.
    AckUpTo,
    /// Acknowledges all deliveries of the channel.
    AckAll,
    /// Rejects the delivery with `basic.nack`.
    Nack(Requeue),
    /// Rejects the delivery and all before it on its channel.
    NackUpTo(Requeue),
    /// Rejects the delivery with `basic.reject`.
    Reject(Requeue),
}

impl Arbitrary for Settlement {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        let all = [
            Self::Ack,
            Self::AckUpTo,
            Self::AckAll,
            Self::Nack(Requeue::Yes),
            Self::Nack(Requeue::No),
            Self::NackUpTo(Requeue::Yes),
            Self::Reject(Requeue::No),
        ];
        select(all.to_vec()).boxed()
    }
}

impl Arbitrary for Operation {
    type Parameters = Values;
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with(values: Values) -> Self::Strategy {
        let index = any::<Index>;
        let request = (index(), Union::new(requests(&values)), 0..TAGS.len());
        let publish = (
            index(),
            any_with::<basic::Publish>(values.clone()),
            any_with::<basic::Properties>(values),
            prop_oneof![4 => 0_usize..100, 1 => 0_usize..20_000],
        );
        prop_oneof![
            3 => Just(Self::Open),
            8 => request.prop_map(|(channel, request, tag)| Self::Request {
                channel,
                request: accepted(request, TAGS.get(tag).copied().unwrap_or_default()),
            }),
            4 => publish.prop_map(|(channel, method, properties, len)| Self::Publish {
                channel,
                method: method.immediate(false),
                properties: Box::new(properties),
                body: Bytes::from(alloc::vec![7; len]),
            }),
            3 => (index(), any::<Settlement>()).prop_map(|(delivery, settlement)| {
                Self::Settle { delivery, settlement }
            }),
            2 => index().prop_map(|request| Self::Abandon { request }),
            1 => index().prop_map(|consumer| Self::AbandonConsumer { consumer }),
        ]
        .boxed()
    }
}

/// Returns the request with that consumer tag, and without features that RabbitMQ refuses.
fn accepted(mut request: ClientMethod, tag: &'static str) -> ClientMethod {
    let tag = || ShortStr::from_static(tag).unwrap_or_default();
    match &mut request {
        ClientMethod::BasicConsume(consume) => consume.consumer_tag = tag(),
        ClientMethod::BasicCancel(cancel) => cancel.consumer_tag = tag(),
        ClientMethod::BasicQos(qos) => qos.prefetch_size = 0,
        ClientMethod::BasicRecover(recover) => recover.requeue = true,
        ClientMethod::ChannelFlow(flow) => flow.active = true,
        _ => {}
    }
    request
}

/// The effect of an [`Operation`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Applied {
    /// A request was made. An event reports its outcome.
    Request(RequestId),
    /// A message was published; `Some` if an event reports its outcome.
    Published(Option<PublishSeq>),
    /// The command has no outcome that an event reports.
    Done,
    /// The publish was held back.
    HeldBack(Hold),
    /// The command was refused.
    Refused(ApiMisuse),
    /// There is nothing yet that the index can choose, or its channel has ended.
    Skipped,
}

/// A client's application: applies operations to a connection, and checks its events.
///
/// It knows the requests and publishes without outcome, so that a second outcome, or one of an
/// abandoned request, is found.
#[derive(Debug, Default)]
pub struct Application {
    channels: Vec<ChannelId>,
    requests: BTreeMap<RequestId, ChannelId>,
    publishes: BTreeSet<(ChannelId, PublishSeq)>,
    deliveries: Vec<(ChannelId, DeliveryTag)>,
    consumers: Vec<Started>,
    abandoned: BTreeSet<(ChannelId, ConsumerId)>,
    ended: bool,
}

#[derive(Clone, Debug)]
struct Started {
    channel: ChannelId,
    tag: ShortStr,
    consumer: ConsumerId,
    request: RequestId,
}

impl Application {
    /// Applies an operation. Every event must have been [handled](Self::handle_events) before: the
    /// outcome of a request that is abandoned may be among them.
    pub fn apply(&mut self, connection: &mut Connection, operation: &Operation) -> Applied {
        match operation {
            Operation::Open => match connection.open_channel() {
                Ok((channel, request)) => {
                    self.channels.push(channel);
                    self.requested(channel, request)
                }
                Err(misuse) => Applied::Refused(misuse),
            },
            Operation::Request { channel, request } => {
                match newest(&self.channels, channel).and_then(|id| connection.channel(*id)) {
                    Some(channel) => self.request(channel, request),
                    None => Applied::Skipped,
                }
            }
            Operation::Publish {
                channel,
                method,
                properties,
                body,
            } => match newest(&self.channels, channel).and_then(|id| connection.channel(*id)) {
                Some(mut channel) => {
                    let id = channel.id();
                    let published = channel.publish(method, &**properties, body.clone());
                    self.published(id, published)
                }
                None => Applied::Skipped,
            },
            Operation::Settle {
                delivery,
                settlement,
            } => {
                let Some((id, tag)) = newest(&self.deliveries, delivery).copied() else {
                    return Applied::Skipped;
                };
                match connection.channel(id) {
                    Some(channel) => done(settle(channel, tag, *settlement)),
                    None => Applied::Skipped,
                }
            }
            Operation::Abandon { request } => {
                let all: Vec<_> = self.requests.iter().map(|(id, of)| (*id, *of)).collect();
                let Some((request, channel)) = newest(&all, request).copied() else {
                    return Applied::Skipped;
                };
                self.requests.remove(&request);
                connection.abandon(channel, request);
                let mut consumers = self.consumers.iter();
                if let Some(started) = consumers.find(|it| it.request == request) {
                    self.abandoned.insert((channel, started.consumer));
                }
                Applied::Done
            }
            Operation::AbandonConsumer { consumer } => {
                let Some(started) = newest(&self.consumers, consumer).cloned() else {
                    return Applied::Skipped;
                };
                let Some(mut channel) = connection.channel(started.channel) else {
                    return Applied::Skipped;
                };
                channel.abandon_consumer(&started.tag, started.consumer);
                self.requests.remove(&started.request);
                self.abandoned.insert((started.channel, started.consumer));
                Applied::Done
            }
        }
    }

    /// Handles all events of the connection. Returns those that are not due.
    #[must_use]
    pub fn handle_events(&mut self, connection: &mut Connection) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = connection.poll_event() {
            if !self.handle_event(&event) {
                events.push(event);
            }
        }
        events
    }

    /// Handles an event. Returns whether it was due: `false` for a second outcome of a request or a
    /// publish, an outcome or a delivery after it was abandoned, the end of a channel or of the
    /// connection before the outcomes that belong to it, and anything after the end of the
    /// connection.
    #[must_use]
    pub fn handle_event(&mut self, event: &Event) -> bool {
        if self.ended {
            return false;
        }
        match event {
            Event::Reply { request, .. } | Event::Failed { request, .. } => {
                self.requests.remove(request).is_some()
            }
            Event::Got {
                channel,
                request,
                message,
            } => {
                let tag = message.as_ref().and_then(|message| message.tag);
                self.deliveries.extend(tag.map(|tag| (*channel, tag)));
                self.requests.remove(request).is_some()
            }
            Event::Delivered(delivery) => {
                let (channel, consumer) = (delivery.channel, delivery.consumer);
                let tag = delivery.tag.map(|tag| (channel, tag));
                self.deliveries.extend(tag);
                !self.abandoned.contains(&(channel, consumer))
            }
            Event::Settled {
                channel,
                first,
                last,
                ..
            } => {
                let mut numbers = first.get()..=last.get();
                numbers.all(|number| self.publishes.remove(&(*channel, PublishSeq(number))))
            }
            Event::ChannelClosed { channel, .. } => {
                let mut requests = self.requests.values();
                let mut publishes = self.publishes.iter();
                !requests.any(|id| id == channel) && !publishes.any(|(id, _)| id == channel)
            }
            Event::Closed(_) => {
                self.ended = true;
                self.is_settled()
            }
            _ => true,
        }
    }

    /// Whether each request that was not abandoned, and each publish in confirm mode, has had its
    /// outcome.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.requests.is_empty() && self.publishes.is_empty()
    }

    /// Whether the last event of the connection was handled.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        self.ended
    }

    fn requested(&mut self, channel: ChannelId, request: RequestId) -> Applied {
        self.requests.insert(request, channel);
        Applied::Request(request)
    }

    fn request(&mut self, mut channel: ChannelMut<'_>, request: &ClientMethod) -> Applied {
        let id = channel.id();
        let made = match request {
            ClientMethod::BasicConsume(consume) => {
                channel
                    .consume(consume.clone())
                    .map(|(consumer, tag, request)| {
                        self.consumers.push(Started {
                            channel: id,
                            tag,
                            consumer,
                            request,
                        });
                        Some(request)
                    })
            }
            ClientMethod::BasicGet(get) => channel.get(get).map(Some),
            ClientMethod::ChannelClose(close) => {
                channel.close(close.reply_code, &close.reply_text).map(Some)
            }
            other => command(&mut channel, other),
        };
        match made {
            Ok(Some(request)) => self.requested(id, request),
            Ok(None) => Applied::Done,
            Err(misuse) => Applied::Refused(misuse),
        }
    }

    fn published(
        &mut self,
        channel: ChannelId,
        published: Result<Option<PublishSeq>, PublishError>,
    ) -> Applied {
        match published {
            Ok(seq) => {
                self.publishes.extend(seq.map(|seq| (channel, seq)));
                Applied::Published(seq)
            }
            Err(PublishError::HeldBack { hold, .. }) => Applied::HeldBack(hold),
            Err(PublishError::Misuse(misuse)) => Applied::Refused(misuse),
        }
    }
}

/// Chooses one of the last few items. `Some` if there are any.
fn newest<'a, T>(items: &'a [T], index: &Index) -> Option<&'a T> {
    let skipped = items.len().saturating_sub(NEWEST);
    let newest = items.get(skipped..).filter(|newest| !newest.is_empty())?;
    newest.get(index.index(newest.len()))
}

fn done(result: Result<(), ApiMisuse>) -> Applied {
    match result {
        Ok(()) => Applied::Done,
        Err(misuse) => Applied::Refused(misuse),
    }
}

fn settle(
    mut channel: ChannelMut<'_>,
    tag: DeliveryTag,
    settlement: Settlement,
) -> Result<(), ApiMisuse> {
    match settlement {
        Settlement::Ack => channel.ack(Tags::One(tag)),
        Settlement::AckUpTo => channel.ack(Tags::UpTo(tag)),
        Settlement::AckAll => channel.ack(Tags::All),
        Settlement::Nack(requeue) => channel.nack(Tags::One(tag), requeue),
        Settlement::NackUpTo(requeue) => channel.nack(Tags::UpTo(tag), requeue),
        Settlement::Reject(requeue) => channel.reject(tag, requeue),
    }
}

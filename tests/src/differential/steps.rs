//! The effect of each step.

use amqp_tokio::{
    Error, Requeue, Tags, Unconfirmed,
    core::{ClientSent, Request},
    protocol::{basic, channel, exchange, queue},
    wire::ShortStr,
};

use super::{
    lane::{Kept, all, patiently},
    names::{binding, kind},
    program::{
        Argument, CHANNELS, Exchange, Key, Kind as Exchanges, SERVER_NAMED, Step, TRANSACTIONAL,
        Traits, connection_of,
    },
    run::{Live, Mode, Outstanding, Queue, Run, again},
};
use crate::harness::Failure;

/// A delivery tag that no program comes to.
const UNKNOWN: u64 = 4711;

impl Run<'_> {
    /// Runs a step and notes the broker's answer.
    pub(super) async fn step(&mut self, step: &Step) -> Result<(), Failure> {
        self.leave_alone(step).await?;
        match *step {
            Step::Queue { .. } => self.declare(step).await,
            Step::Exchange { .. } => self.declare_exchange(step).await,
            Step::Bind { .. }
            | Step::Unbind { .. }
            | Step::BindExchange { .. }
            | Step::UnbindExchange { .. } => self.bind(step).await,
            Step::Publish {
                on,
                exchange,
                key,
                mandatory,
                count,
                traits,
            } => {
                let publish = basic::Publish::default()
                    .exchange(self.names.exchange(exchange))
                    .routing_key(self.names.key(key))
                    .mandatory(mandatory);
                self.publish(on, &publish, count, &traits).await
            }
            Step::Qos {
                on,
                prefetch,
                global,
            } => {
                let mut qos = basic::Qos::default().prefetch_count(prefetch);
                qos.global = global;
                self.call(on, qos).await.map(drop)
            }
            Step::Consume { .. } => self.consume(step).await,
            Step::Read { .. } => self.read(step).await,
            Step::Cancel { on, tag } => self.cancel(on, tag).await,
            Step::Get { on, queue, no_ack } => self.get(on, queue, no_ack).await,
            Step::Ack { .. } | Step::Nack { .. } | Step::Reject { .. } => self.acknowledge(step),
            Step::AckUnknown { on, multiple } => {
                let ack = basic::Ack {
                    delivery_tag: UNKNOWN,
                    multiple,
                };
                self.inject(on, &ack).await
            }
            Step::ConsumeTwice { on, tag } => self.consume_twice(on, tag).await,
            Step::Recover { on, requeue } => {
                if self.call(on, basic::Recover { requeue }).await?.is_some()
                    && let Some(live) = &mut self.channels[usize::from(on)]
                {
                    live.outstanding.clear();
                }
                Ok(())
            }
            Step::Purge { on, queue } => {
                let purge = queue::Purge::default().queue(self.names.queue(queue));
                if let Some(purged) = self.call(on, purge).await? {
                    self.line(format!("purged {}", purged.message_count));
                }
                Ok(())
            }
            Step::DeleteQueue {
                on,
                queue,
                if_unused,
                if_empty,
            } => {
                let mut delete = queue::Delete::default().queue(self.names.queue(queue));
                delete.if_unused = if_unused;
                delete.if_empty = if_empty;
                if let Some(deleted) = self.call(on, delete).await? {
                    self.line(format!("deleted with {}", deleted.message_count));
                }
                Ok(())
            }
            Step::DeleteExchange {
                on,
                exchange,
                if_unused,
            } => {
                let mut delete =
                    exchange::Delete::default().exchange(self.names.exchange(exchange));
                delete.if_unused = if_unused;
                if self.call(on, delete).await?.is_some() {
                    self.line("deleted");
                }
                Ok(())
            }
            Step::Commit | Step::Rollback => self.end_transaction(*step == Step::Commit).await,
            Step::Close { on } => self.close(on).await,
            Step::Disconnect { connection } => self.disconnect(connection).await,
        }
    }

    /// Before a step that ends a connection, closes its channels but for one: RabbitMQ ends them in
    /// no certain order, and meanwhile messages that one gives back may still go to another.
    async fn leave_alone(&mut self, step: &Step) -> Result<(), Failure> {
        let (connection, but) = match *step {
            Step::Disconnect { connection } => (connection, None),
            Step::ConsumeTwice { on, .. }
            | Step::Recover { on, requeue: false }
            | Step::Exchange {
                on,
                kind: Exchanges::Unknown,
                ..
            } => (connection_of(on), Some(on)),
            // A quorum queue refuses the conditions.
            Step::DeleteQueue {
                on,
                if_unused,
                if_empty,
                ..
            } if self.has_logs && (if_unused || if_empty) => (connection_of(on), Some(on)),
            _ => return Ok(()),
        };
        let open = (0..CHANNELS).filter(|on| connection_of(*on) == connection);
        let open: Vec<u8> = open
            .filter(|on| self.channels[usize::from(*on)].is_some())
            .collect();
        let but = but.or_else(|| open.first().copied());
        for on in open {
            if but != Some(on) {
                self.close(on).await?;
                self.settle().await?;
            }
        }
        Ok(())
    }

    /// Sends a request; `Some` if there is a reply. The reason for the lack of one is noted.
    pub(super) async fn call<R: Request + ClientSent>(
        &mut self,
        on: u8,
        request: R,
    ) -> Result<Option<R::Reply>, Failure> {
        let Some(live) = self.open(on).await? else {
            return Ok(None);
        };
        match live.channel.call(request).await {
            Ok(reply) => Ok(Some(reply)),
            Err(error) => {
                self.failed(&error);
                Ok(None)
            }
        }
    }

    /// Sends a method that the client would refuse, and waits until the broker has seen it. The
    /// broker's answer is noted with the ends of the channels.
    pub(super) async fn inject<M: ClientSent>(
        &mut self,
        on: u8,
        method: &M,
    ) -> Result<(), Failure> {
        if self.open(on).await?.is_none() {
            return Ok(());
        }
        let link = self.lane.link(connection_of(on)).await?;
        let injector = link.injector.clone();
        if let Some(live) = &self.channels[usize::from(on)] {
            injector.inject(live.channel.number(), method);
            let _closed = live.channel.call(channel::Flow { active: true }).await;
        }
        Ok(())
    }

    async fn declare(&mut self, step: &Step) -> Result<(), Failure> {
        let Step::Queue {
            on,
            queue,
            passive,
            durable,
            exclusive,
            auto_delete,
            ref arguments,
        } = *step
        else {
            return Ok(());
        };
        let mut declare = queue::Declare::default().queue(self.names.queue(queue));
        let unnamed = declare.queue.is_empty();
        declare.passive = passive;
        declare.durable = durable;
        declare.exclusive = exclusive;
        declare.auto_delete = auto_delete;
        declare.arguments = self.names.arguments(arguments)?;
        let Some(declared) = self.call(on, declare).await? else {
            return Ok(());
        };
        if queue == SERVER_NAMED && unnamed && !passive {
            self.names.server_named.push(declared.queue.to_string());
        }
        let state = &mut self.queues[usize::from(queue)];
        if !unnamed || !passive {
            let is_stream = arguments.contains(&Argument::Type("stream"));
            *state = Queue {
                is_stream: is_stream || passive && state.is_stream,
                present: true,
                owner: connection_of(on),
                exclusive: if passive { state.exclusive } else { exclusive },
            };
        }
        let messages = if state.is_stream {
            "some".to_owned()
        } else {
            declared.message_count.to_string()
        };
        self.line(format!(
            "declared {} with {messages} messages, {} consumers",
            self.names.normal(&declared.queue),
            declared.consumer_count
        ));
        Ok(())
    }

    async fn declare_exchange(&mut self, step: &Step) -> Result<(), Failure> {
        let Step::Exchange {
            on,
            exchange,
            kind: wanted,
            passive,
            durable,
            auto_delete,
            internal,
            alternate,
        } = *step
        else {
            return Ok(());
        };
        let mut declare = exchange::Declare::default()
            .exchange(self.names.exchange(exchange))
            .kind(kind(wanted));
        declare.passive = passive;
        declare.durable = durable;
        declare.auto_delete = auto_delete;
        declare.internal = internal;
        if let Some(alternate) = alternate {
            let name = self.names.exchange(alternate);
            declare
                .arguments
                .insert(ShortStr::try_from("alternate-exchange")?, name);
        }
        if self.call(on, declare).await?.is_some() {
            self.line("declared");
        }
        Ok(())
    }

    async fn bind(&mut self, step: &Step) -> Result<(), Failure> {
        let done = match *step {
            Step::Bind {
                on,
                queue,
                exchange,
                key,
                table,
            } => {
                let bind = queue::Bind {
                    queue: self.queue_name(queue)?,
                    exchange: self.exchange_name(exchange)?,
                    routing_key: self.key(key)?,
                    arguments: binding(table)?,
                    ..queue::Bind::default()
                };
                self.call(on, bind).await?.is_some()
            }
            Step::Unbind {
                on,
                queue,
                exchange,
                key,
                table,
            } => {
                let unbind = queue::Unbind {
                    queue: self.queue_name(queue)?,
                    exchange: self.exchange_name(exchange)?,
                    routing_key: self.key(key)?,
                    arguments: binding(table)?,
                };
                self.call(on, unbind).await?.is_some()
            }
            Step::BindExchange {
                on,
                destination,
                source,
                key,
                table,
            } => {
                let bind = exchange::Bind {
                    destination: self.exchange_name(destination)?,
                    source: self.exchange_name(source)?,
                    routing_key: self.key(key)?,
                    arguments: binding(table)?,
                    ..exchange::Bind::default()
                };
                self.call(on, bind).await?.is_some()
            }
            Step::UnbindExchange {
                on,
                destination,
                source,
                key,
                table,
            } => {
                let unbind = exchange::Unbind {
                    destination: self.exchange_name(destination)?,
                    source: self.exchange_name(source)?,
                    routing_key: self.key(key)?,
                    arguments: binding(table)?,
                    ..exchange::Unbind::default()
                };
                self.call(on, unbind).await?.is_some()
            }
            _ => return Ok(()),
        };
        if done {
            self.line("done");
        }
        Ok(())
    }

    fn queue_name(&self, queue: u8) -> Result<ShortStr, Failure> {
        Ok(ShortStr::try_from(self.names.queue(queue))?)
    }

    fn exchange_name(&self, exchange: Exchange) -> Result<ShortStr, Failure> {
        Ok(ShortStr::try_from(self.names.exchange(exchange))?)
    }

    fn key(&self, key: Key) -> Result<ShortStr, Failure> {
        Ok(ShortStr::try_from(self.names.key(key))?)
    }

    async fn publish(
        &mut self,
        on: u8,
        publish: &basic::Publish,
        count: u8,
        traits: &Traits,
    ) -> Result<(), Failure> {
        let properties = self.names.properties(traits)?;
        // Together, or one after the other: those that a stream gets together are delivered together,
        // regardless of the prefetch limit.
        let together = if self.has_letters || self.has_logs {
            1
        } else {
            count
        };
        let mut published = 0;
        while published < count {
            let bodies = (published..(published + together).min(count))
                .map(|number| body(self.at, number, traits.padding))
                .collect();
            published += together;
            if !self.publish_all(on, publish, &properties, bodies).await? {
                break;
            }
            if published < count {
                self.calm().await?;
            }
        }
        Ok(())
    }

    /// Publishes messages without waiting in between; false if the channel has ended.
    async fn publish_all(
        &mut self,
        on: u8,
        publish: &basic::Publish,
        properties: &basic::Properties,
        bodies: Vec<String>,
    ) -> Result<bool, Failure> {
        let Some(live) = self.open(on).await? else {
            return Ok(false);
        };
        let mut confirms = Vec::new();
        let mut fault = None;
        for body in bodies {
            let published = match &live.channel {
                Mode::Confirm(channel) => {
                    let confirm = channel.publish(publish, properties, body).await;
                    confirm.map(|it| confirms.push(Box::pin(patiently(it)) as Kept<'_, _>))
                }
                Mode::Tx(channel) => channel.publish(publish, properties, body).await,
            };
            if let Err(error) = published {
                fault = Some(error);
                break;
            }
        }
        let mut whole = fault.is_none();
        for fate in all(confirms).await {
            let line = match fate {
                Some(Ok(())) => "acked".to_owned(),
                Some(Err(Unconfirmed::NotSent(_) | Unconfirmed::Unknown(_))) => {
                    // How many were sent before the answer came is a matter of luck.
                    whole = false;
                    continue;
                }
                Some(Err(fate)) => self.names.unconfirmed(&fate),
                None => "NOT CONFIRMED".to_owned(),
            };
            self.line(line);
        }
        if let Some(error) = fault
            && !matches!(error, Error::ChannelClosed(_) | Error::ConnectionClosed(_))
        {
            self.failed(&error);
        }
        Ok(whole)
    }

    async fn get(&mut self, on: u8, queue: u8, no_ack: bool) -> Result<(), Failure> {
        let mut get = basic::Get::default().queue(self.names.queue(queue));
        get.no_ack = no_ack;
        let step = self.at;
        let names = self.names.clone();
        let Some(live) = self.open(on).await? else {
            return Ok(());
        };
        let line = match live.channel.get(get).await {
            Ok(None) => "empty".to_owned(),
            Ok(Some(message)) => {
                let name = names.message(&message.properties, &message.body);
                let method = &message.method;
                let line = format!(
                    "got {name} from {:?} {:?}{}, {} left",
                    method.exchange.as_str(),
                    method.routing_key.as_str(),
                    again(method.redelivered),
                    method.message_count
                );
                if let Some(acker) = message.acker {
                    live.outstanding.push(Outstanding {
                        tag: acker.tag(),
                        acker: Some(acker),
                        step,
                        name,
                    });
                }
                names.normal(&line)
            }
            Err(error) => names.error(&error),
        };
        self.line(line);
        Ok(())
    }

    /// Acknowledges or refuses one of the outstanding deliveries. With `multiple`, all that came in
    /// the same step and before: those of one step may have come in any order.
    fn acknowledge(&mut self, step: &Step) -> Result<(), Failure> {
        let (on, pick, multiple) = match *step {
            Step::Ack { on, pick, multiple } => (on, pick, multiple),
            Step::Nack {
                on, pick, multiple, ..
            } => (on, pick, multiple),
            Step::Reject { on, pick, .. } => (on, pick, false),
            _ => return Ok(()),
        };
        let live = self.channels[usize::from(on)].as_mut();
        let Some(live) = live.filter(|live| !live.outstanding.is_empty()) else {
            self.line("nothing outstanding");
            return Ok(());
        };
        let at = usize::from(pick) % live.outstanding.len();
        let step_of = live.outstanding[at].step;
        let name = live.outstanding[at].name.clone();
        let mut settled: Vec<Outstanding> = if multiple {
            let among = live.outstanding.extract_if(.., |it| it.step <= step_of);
            among.collect()
        } else {
            vec![live.outstanding.remove(at)]
        };
        let reported = match (settled.iter().map(|it| it.tag).max(), multiple) {
            (Some(last), true) => match *step {
                Step::Nack { requeue, .. } => live.channel.nack(Tags::UpTo(last), whether(requeue)),
                _ => live.channel.ack(Tags::UpTo(last)),
            },
            (Some(tag), false) => match (step, settled[0].acker.take()) {
                (Step::Ack { .. }, Some(acker)) => acker.ack(),
                (Step::Ack { .. }, None) => live.channel.ack(Tags::One(tag)),
                (Step::Reject { requeue, .. }, Some(acker)) => acker.reject(whether(*requeue)),
                (Step::Nack { requeue, .. }, Some(acker)) => acker.nack(whether(*requeue)),
                (Step::Nack { requeue, .. } | Step::Reject { requeue, .. }, None) => {
                    live.channel.nack(Tags::One(tag), whether(*requeue))
                }
                _ => Ok(()),
            },
            (None, _) => Ok(()),
        };
        let line = format!("settled {} up to {name}", settled.len());
        if on == TRANSACTIONAL {
            live.tentative.extend(settled);
        }
        self.line(line);
        if let Err(error) = reported {
            self.failed(&error);
        }
        Ok(())
    }

    async fn end_transaction(&mut self, commit: bool) -> Result<(), Failure> {
        let Some(live) = self.open(TRANSACTIONAL).await? else {
            return Ok(());
        };
        let Mode::Tx(channel) = &live.channel else {
            return Ok(());
        };
        let ended = if commit {
            channel.commit().await
        } else {
            channel.rollback().await
        };
        let tentative = std::mem::take(&mut live.tentative);
        if !commit {
            live.outstanding.extend(tentative);
            // In the order in which they came, as far as that is known.
            live.outstanding.sort_by_key(|it| it.step);
        }
        match ended {
            Ok(()) => self.line("done"),
            Err(error) => self.failed(&error),
        }
        Ok(())
    }

    async fn close(&mut self, on: u8) -> Result<(), Failure> {
        match self.channels[usize::from(on)].take() {
            Some(live) => self.close_live(live).await,
            None => self.line("not open"),
        }
        Ok(())
    }

    async fn close_live(&mut self, live: Live) {
        match live.channel.close().await {
            Ok(()) => self.line("closed"),
            Err(error) => self.failed(&error),
        }
    }

    async fn disconnect(&mut self, connection: usize) -> Result<(), Failure> {
        let link = self.lane.link(connection).await?;
        link.probes.clear();
        match link.connection.close().await {
            Ok(()) => self.line("disconnected"),
            Err(error) => self.failed(&error),
        }
        Ok(())
    }
}

fn whether(requeue: bool) -> Requeue {
    if requeue { Requeue::Yes } else { Requeue::No }
}

/// The body of a message, which is its name.
fn body(step: usize, number: u8, padding: u16) -> String {
    format!("m{step}.{number}{}", " ".repeat(padding.into()))
}

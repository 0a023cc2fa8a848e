//! Deliveries and returned messages, until their handles take them.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use amqp_core::{ChannelId, ConsumerId, Instant, Requeue, Tags, client, wire::ShortStr};

use super::{
    later::Later,
    state::{ChannelState, State},
    untaken::{ConsumerEnd, ConsumerState},
    withheld::Withheld,
};
use crate::{error::Error, returned_message::ReturnedMessage};

impl State {
    pub(crate) fn add_consumer(
        &mut self,
        channel: ChannelId,
        id: ConsumerId,
        tag: ShortStr,
        no_ack: bool,
        notices: bool,
        progress: Arc<AtomicU32>,
    ) {
        let commands = self.machine.channel(channel);
        let transactional = commands.is_some_and(|channel| channel.is_transactional());
        if let Some(channel) = self.channels.get_mut(channel) {
            self.buffer.consumers += 1;
            let consumer = ConsumerState {
                tag,
                queue: VecDeque::new(),
                waker: None,
                end: None,
                kept: 0,
                unreturnable: no_ack || transactional,
                progress,
                watched: 0,
                unreadable: 0,
                cancelling: false,
                counted: true,
                withheld: Withheld::default(),
                notices,
                due_notices: VecDeque::new(),
            };
            channel.consumers.insert(id, consumer);
        }
    }

    /// Releases the consumer of a dropped handle: cancels it, and requeues the messages that it has
    /// not yielded.
    pub(crate) fn release_consumer(
        &mut self,
        channel: ChannelId,
        id: ConsumerId,
        batch: impl Iterator<Item = client::Delivery>,
        later: &mut Later,
    ) {
        let consumer = self
            .channels
            .get_mut(channel)
            .and_then(|channel| channel.consumers.remove(id));
        let Some(mut consumer) = consumer else {
            return;
        };
        if consumer.end.is_none() {
            self.record_cancel(channel, &consumer.tag);
        }
        later.drop_waker(consumer.waker.take());
        self.buffer.release(consumer.kept, consumer.unreturnable);
        self.buffer.consumers -= usize::from(consumer.counted);
        later.commanded = true;
        let held = self.is_held(Some(channel));
        if held && consumer.end.is_none() {
            self.end_held_consumer(channel, id, &consumer.tag);
        }
        let Some(mut commands) = self.machine.channel(channel) else {
            return;
        };
        if !held && matches!(consumer.end, None | Some(ConsumerEnd::CancelTimedOut)) {
            commands.abandon_consumer(&consumer.tag, id);
        }
        for message in batch.chain(consumer.queue) {
            if let Some(tag) = message.tag {
                // Fails only on a channel that is closing, and the server requeues its deliveries.
                let _closed = commands.nack(Tags::One(tag), Requeue::Yes);
            }
        }
        consumer.withheld.requeue_all(&mut commands);
    }

    /// Releases the `bytes` of the batch that the handle has yielded, and requeues withheld
    /// deliveries for which there is room now.
    pub(crate) fn release_taken(
        &mut self,
        channel: ChannelId,
        id: ConsumerId,
        bytes: usize,
        later: &mut Later,
    ) {
        let Some(consumer) = self.channels.consumer_mut(channel, id) else {
            return;
        };
        consumer.kept = consumer.kept.saturating_sub(bytes);
        self.buffer.release(bytes, consumer.unreturnable);
        (self.taken, self.untaken) = (true, false);
        if !consumer.withheld.is_empty()
            && consumer.end.is_none()
            && let Some(mut commands) = self.machine.channel(channel)
        {
            let room = self.buffer.room(consumer.kept);
            let nothing = consumer.kept == 0;
            later.commanded |= consumer.withheld.recall(&mut commands, room, nothing);
            if nothing && consumer.withheld.depends_on_recalled() {
                // The driver, which knows the time, sets the deadline.
                self.recalled_at.get_or_insert(Instant::ORIGIN);
            }
        }
    }

    /// Checks whether requeued messages were redelivered: another consumer of the queue may have
    /// got them, and nothing else would make room for those that are still withheld. Returns
    /// whether to check again.
    pub(crate) fn look_for_recalled(&mut self, later: &mut Later) -> bool {
        let mut looks_again = false;
        for (id, channel) in self.channels.iter_mut() {
            for consumer in channel.consumers.values_mut() {
                let withheld = &mut consumer.withheld;
                let waits = consumer.kept == 0 && consumer.end.is_none();
                if !(waits && withheld.depends_on_recalled()) {
                    withheld.missed = None;
                    continue;
                }
                withheld.look_for_recalled();
                if let Some(mut commands) = self.machine.channel(id) {
                    let room = self.buffer.room(0);
                    later.commanded |= withheld.recall(&mut commands, room, true);
                    looks_again |= withheld.depends_on_recalled();
                }
            }
        }
        looks_again
    }

    #[inline]
    pub(crate) fn on_delivered(&mut self, delivery: client::Delivery, later: &mut Later) {
        let bytes = delivery.memory();
        let consumer = self
            .channels
            .consumer_mut(delivery.channel, delivery.consumer);
        let Some(consumer) = consumer else {
            self.return_delivery(&delivery, later);
            return;
        };
        let keeps = match delivery.tag {
            Some(_) if !consumer.unreturnable => {
                let withheld = &mut consumer.withheld;
                let mut in_order = true;
                if !withheld.is_empty() {
                    // The server may have sent a first delivery before it requeued the earlier
                    // ones.
                    in_order = delivery.method.redelivered;
                    if in_order {
                        withheld.redelivered(bytes);
                    }
                }
                in_order && self.buffer.has_room(consumer.kept, bytes)
            }
            _ => !self.buffer.overflows(bytes),
        };
        if keeps {
            consumer.kept += bytes;
            self.buffer.keep(bytes, consumer.unreturnable);
            consumer.queue.push_back(delivery);
            later.wake(consumer.waker.take());
        } else {
            self.on_excess(&delivery, bytes, later);
        }
    }

    /// Withholds a delivery for which the consumer has no room, or ends the consumer if the server
    /// does not take the delivery back.
    #[cold]
    fn on_excess(&mut self, delivery: &client::Delivery, bytes: usize, later: &mut Later) {
        let (channel, id) = (delivery.channel, delivery.consumer);
        let Some(tag) = delivery.tag else {
            self.overflow_consumer(channel, id, later);
            return;
        };
        let Some(mut commands) = self.machine.channel(channel) else {
            return;
        };
        let consumer = self.channels.consumer_mut(channel, id);
        let overflows = |it: &&mut ConsumerState| it.end.is_none() && it.unreturnable;
        let overflows = consumer.as_ref().is_some_and(overflows);
        if let Some(consumer) = consumer
            && !consumer.cancelling
            && consumer.end.is_none()
            && !overflows
        {
            let withheld = commands.withhold(tag).is_ok();
            let fits = !withheld || consumer.withheld.push(tag.get(), bytes);
            if consumer.kept == 0 && consumer.withheld.depends_on_recalled() {
                // The driver, which knows the time, sets the deadline.
                self.recalled_at.get_or_insert(Instant::ORIGIN);
            }
            if !fits {
                self.overflow_consumer(channel, id, later);
            }
        } else {
            let _closed = commands.nack(Tags::One(tag), Requeue::Yes);
            later.commanded = true;
            if overflows {
                self.overflow_consumer(channel, id, later);
            }
        }
    }

    /// Ends a consumer that falls behind on messages that the server does not take back.
    fn overflow_consumer(&mut self, channel: ChannelId, id: ConsumerId, later: &mut Later) {
        let limit = self.buffer.limit();
        let Some(consumer) = self.channels.consumer_mut(channel, id) else {
            return;
        };
        let tag = consumer.tag.clone();
        // Deliveries of the same read get here after the first that was too many.
        if mem::take(&mut consumer.unreturnable) {
            let exempt = consumer.kept;
            self.buffer.exempt(exempt);
        }
        let end = ConsumerEnd::Error(Error::Overflow {
            limit,
            channel: channel.number(),
        });
        self.end_consumer(channel, id, end, later);
        if let Some(mut commands) = self.machine.channel(channel) {
            commands.abandon_consumer(&tag, id);
            later.commanded = true;
        }
    }

    /// Ends the consumers and the returns for which reading is paused, if their handles have taken
    /// nothing since the last call.
    pub(crate) fn overflow_stalled(&mut self, later: &mut Later) {
        let mut stalled = Vec::new();
        let limit = self.buffer.limit();
        for (channel, state) in self.channels.iter_mut() {
            for (id, consumer) in state.consumers.iter_mut() {
                let count = consumer.progress.load(Ordering::Relaxed);
                let still = mem::replace(&mut consumer.watched, count) == count;
                let keeps = consumer.unreturnable && consumer.kept > 0;
                if still && keeps && consumer.end.is_none() {
                    stalled.push((channel, id));
                }
            }
            if let Some(returns) = state.returns_mut()
                && !mem::take(&mut returns.progress)
                && returns.kept > 0
                && returns.overflow.is_none()
            {
                returns.exempt(&mut self.buffer);
                returns.overflow = Some(Error::Overflow {
                    limit,
                    channel: channel.number(),
                });
                returns.waiting.wake_all(later);
            }
        }
        for (channel, consumer) in stalled {
            self.overflow_consumer(channel, consumer, later);
        }
    }

    /// Marks a consumer as being cancelled, and requeues its withheld deliveries.
    pub(crate) fn consumer_cancelling(&mut self, channel: ChannelId, consumer: ConsumerId) {
        let Some(mut commands) = self.machine.channel(channel) else {
            return;
        };
        if let Some(consumer) = self.channels.consumer_mut(channel, consumer) {
            consumer.cancelling = true;
            consumer.withheld.requeue_all(&mut commands);
        }
    }

    pub(crate) fn end_consumer(
        &mut self,
        channel: ChannelId,
        consumer: ConsumerId,
        end: ConsumerEnd,
        later: &mut Later,
    ) {
        self.consumer_cancelling(channel, consumer);
        let Some(state) = self.channels.consumer_mut(channel, consumer) else {
            return;
        };
        state.finish(end, later);
        self.buffer.consumers -= usize::from(mem::take(&mut state.counted));
    }

    /// Abandons a consumer after a cancel timed out: its handle takes no more messages, and further
    /// deliveries are requeued.
    pub(crate) fn cancel_silently(&mut self, channel: ChannelId, id: ConsumerId) {
        let tag = self
            .channels
            .consumer_mut(channel, id)
            .map(|it| it.tag.clone());
        if let (Some(tag), Some(mut commands)) = (tag, self.machine.channel(channel)) {
            commands.abandon_consumer(&tag, id);
        }
    }

    /// Prepares a channel for `tx.select`, after which a requeue takes effect only at a commit:
    /// requeues the withheld deliveries, and lets reading pause for the kept ones.
    pub(crate) fn begin_transactions(&mut self, id: ChannelId) {
        let Some(mut commands) = self.machine.channel(id) else {
            return;
        };
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        channel.transactional = true;
        for consumer in channel.consumers.values_mut() {
            consumer.withheld.requeue_all(&mut commands);
            if !mem::replace(&mut consumer.unreturnable, true) {
                self.buffer.include(consumer.kept);
            }
        }
    }

    /// Drops the queued deliveries of a channel that are stale: `basic.recover` is sent, and the
    /// server redelivers all that are unacknowledged (section 1.8.3.16 of the protocol reference),
    /// or the channel is being reopened. The handles drop those of their batches.
    pub(crate) fn drop_stale(&mut self, channel: ChannelId) {
        let Some(channel) = self.channels.get_mut(channel) else {
            return;
        };
        channel.stale.fetch_add(1, Ordering::Relaxed);
        for consumer in channel.consumers.values_mut() {
            let stale = |message: &client::Delivery| message.tag.is_some();
            let queue = &mut consumer.queue;
            let bytes: usize = queue
                .iter()
                .filter(|it| stale(it))
                .map(client::Delivery::memory)
                .sum();
            queue.retain(|message| !stale(message));
            consumer.kept = consumer.kept.saturating_sub(bytes);
            self.buffer.release(bytes, consumer.unreturnable);
            consumer.withheld = Withheld::default();
        }
    }

    pub(crate) fn on_returned(&mut self, mut returned: client::Returned, later: &mut Later) {
        let (channel, seq) = (returned.channel, returned.seq);
        let number = channel.number();
        let candidates = mem::take(&mut returned.candidates);
        let mut message = ReturnedMessage::from(returned);
        let limit = self.buffer.limit();
        let Some(channel) = self.channels.get_mut(channel) else {
            return;
        };
        if self.totals.returned + message.memory() > limit
            && (seq.is_some() || !candidates.is_empty())
        {
            message.omit_body();
        }
        if let Some(confirms) = &mut channel.confirms {
            for seq in candidates {
                confirms.keep_possibly_returned(seq.get(), &message, &mut self.totals);
            }
            if let Some(seq) = seq {
                match confirms.keep_returned(seq.get(), message, &mut self.totals) {
                    Ok(()) => return,
                    Err(unclaimed) => message = unclaimed,
                }
            }
        }
        let Some(returns) = channel.returns_mut() else {
            return;
        };
        if returns.overflow.is_some() {
            return;
        }
        let bytes = message.memory();
        if self.buffer.overflows(bytes) {
            returns.exempt(&mut self.buffer);
            returns.overflow = Some(Error::Overflow {
                limit,
                channel: number,
            });
        } else {
            self.buffer.keep(bytes, !returns.exempt);
            returns.kept += bytes;
            returns.queue.push_back(message);
        }
        returns.waiting.wake_all(later);
    }

    /// Takes the next returned message of a channel.
    pub(crate) fn take_returned(&mut self, id: ChannelId) -> Option<ReturnedMessage> {
        let returns = self.channels.get_mut(id)?.returns_mut()?;
        let message = returns.queue.pop_front()?;
        let bytes = message.memory();
        returns.kept -= bytes;
        returns.progress = true;
        self.buffer.release(bytes, !returns.exempt);
        Some(message)
    }

    /// Ends the consumers and the returns of a channel: no more messages arrive.
    pub(crate) fn finish_channel(&mut self, id: ChannelId, error: &Error, later: &mut Later) {
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        for consumer in channel.consumers.values_mut() {
            consumer.finish(ConsumerEnd::Error(error.clone()), later);
            // Its queue cannot grow, so that reading need not pause for it.
            if mem::take(&mut consumer.unreturnable) {
                self.buffer.exempt(consumer.kept);
            }
            consumer.withheld = Withheld::default();
            self.buffer.consumers -= usize::from(mem::take(&mut consumer.counted));
        }
        channel.wake_watchers(later);
        channel.wake_confirmed(later);
        if let Some(returns) = channel.returns_mut() {
            returns.waiting.wake_all(later);
            returns.exempt(&mut self.buffer);
        }
    }

    /// Releases the part of the buffer that a channel without a handle occupies.
    pub(crate) fn forget_channel(&mut self, channel: &ChannelState) {
        for consumer in channel.consumers.values() {
            self.buffer.release(consumer.kept, consumer.unreturnable);
            self.buffer.consumers -= usize::from(consumer.counted);
        }
        if let Some(returns) = channel.extras().and_then(|it| it.returns.as_ref()) {
            self.buffer.release(returns.kept, !returns.exempt);
        }
    }

    /// Drops the returned messages of a channel: its last listener is gone.
    pub(crate) fn release_returns(&mut self, id: ChannelId) {
        let extras = self.channels.get_mut(id).and_then(|it| it.extras_mut());
        if let Some(returns) = extras.and_then(|extras| extras.returns.take()) {
            self.buffer.release(returns.kept, !returns.exempt);
        }
    }
}

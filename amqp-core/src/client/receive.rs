//! Handling of the server's methods.

use bytes::BytesMut;

use super::{
    Client, Event,
    channel_state::{ClientChannel, Mode},
    confirms::ALL,
    consumers::Cancelling,
    event::Outcome,
    pending::Pending,
};
use crate::{
    body::Content,
    close::{CloseCause, CloseReason, RequestError, Stage, TimeoutReason},
    fault::Fault,
    ids::{ChannelId, ConsumerId, RequestId},
    machine::{ChannelLife, Dropped, Machine, Role},
    method::{MethodDef as _, Rule},
    method_id::MethodId,
    protocol::{self, Method, ReplyCode, basic, channel},
    time::Instant,
    wire::ShortStr,
};

/// The fault of a method with content that has no handler: without one, its content would be lost.
const UNKNOWN_CONTENT: Fault = Fault::NotDue;

impl Role for Client {
    type Event = Event;
    type Channel = ClientChannel;

    const PEER_AUTHENTICATES: bool = true;

    const PUBLISHES: bool = true;

    fn refuses_by_hanging_up(&self) -> bool {
        !self.is_told_of_refusals()
    }

    const TAKES_LARGE_HEADERS: bool = true;

    /// A server forwards a publisher's properties without checking all of them. Treating malformed
    /// ones as a fault of the server would end the connection of each consumer in turn.
    const CHECKS_PROPERTIES: bool = false;

    fn is_peers(rule: &Rule) -> bool {
        rule.server_sends
    }

    fn parse_header(
        _machine: &mut Machine<Self>,
        input: &mut BytesMut,
    ) -> Result<bool, CloseCause> {
        Machine::greet_server(input)
    }

    fn on_connection_method(machine: &mut Machine<Self>, method: Method) -> Result<(), Fault> {
        match (machine.stage(), method) {
            (Stage::Open | Stage::Closing, Method::ConnectionBlocked(blocked)) => {
                machine.role.blocked = true;
                machine.set_may_not_read(true);
                let reason = blocked.reason;
                machine.push(Event::Blocked { reason });
            }
            (Stage::Open | Stage::Closing, Method::ConnectionUnblocked(_)) => {
                machine.role.blocked = false;
                machine.set_may_not_read(false);
                machine.push(Event::Unblocked);
            }
            (Stage::Open | Stage::Closing, reply @ Method::ConnectionUpdateSecretOk(_)) => {
                let answered = machine.role.pending.pop_front();
                let answered = answered.ok_or(Fault::UnexpectedReply)?;
                if !answered.abandoned {
                    machine.request_settled();
                    machine.push(Event::Reply {
                        channel: None,
                        request: answered.id,
                        reply,
                    });
                }
            }
            (stage, method) => machine.on_handshake(stage, method)?,
        }
        Ok(())
    }

    fn on_channel_open(_machine: &mut Machine<Self>, _number: u16) -> Result<(), Fault> {
        Err(Fault::WrongSender)
    }

    fn on_channel_method(
        machine: &mut Machine<Self>,
        id: ChannelId,
        method: Method,
        content: Option<Content>,
    ) -> Result<(), Fault> {
        match (method, content) {
            (Method::BasicDeliver(deliver), Some(content)) => {
                machine.on_deliver(id, deliver, content)
            }
            (Method::BasicReturn(method), Some(content)) => {
                machine.on_return(id, method, content);
                Ok(())
            }
            (Method::BasicGetOk(method), Some(content)) => machine.on_get_ok(id, method, content),
            (Method::BasicAck(ack), _) => {
                machine.on_confirm(id, ack.delivery_tag, ack.multiple, &Outcome::Acked)
            }
            (Method::BasicNack(nack), _) => {
                machine.on_confirm(id, nack.delivery_tag, nack.multiple, &Outcome::Nacked)
            }
            (Method::BasicCancel(cancel), _) => machine.on_cancel(id, cancel),
            (Method::ChannelFlow(flow), _) => machine.on_flow(id, flow.active),
            (reply, None) => machine.on_reply(id, reply),
            (_, Some(_)) => Err(UNKNOWN_CONTENT),
        }
    }

    fn receive_whole(machine: &mut Machine<Self>, input: &mut BytesMut) {
        machine.receive_deliveries(input);
    }

    fn on_content_begun(
        machine: &mut Machine<Self>,
        id: ChannelId,
        method: &Method,
    ) -> Result<bool, Fault> {
        match method {
            Method::BasicDeliver(deliver) => machine.on_deliver_begun(id, deliver),
            Method::BasicGetOk(get_ok) => machine.on_get_ok_begun(id, get_ok),
            Method::BasicReturn(_) => Ok(true),
            _ => Err(UNKNOWN_CONTENT),
        }
    }

    fn on_content_dropped(
        machine: &mut Machine<Self>,
        id: ChannelId,
        method: Method,
        why: Dropped,
    ) -> Result<(), Fault> {
        match method {
            Method::BasicDeliver(deliver) => machine.on_deliver_dropped(id, &deliver, why),
            Method::BasicGetOk(get_ok) => machine.on_get_ok_dropped(id, get_ok, why),
            Method::BasicReturn(method) => {
                machine.on_return_dropped(id, &method, why);
                Ok(())
            }
            _ => Err(UNKNOWN_CONTENT),
        }
    }

    fn on_channel_closed(machine: &mut Machine<Self>, id: ChannelId, request: Option<RequestId>) {
        let Some(request) = request else {
            return;
        };
        let waiting = machine
            .channel(id)
            .is_some_and(|channel| channel.role.is_waiting(request));
        if waiting {
            machine.request_settled();
            machine.push(Event::Reply {
                channel: Some(id),
                request,
                reply: channel::CloseOk.into(),
            });
        }
    }

    fn on_close_crossed(
        machine: &mut Machine<Self>,
        id: ChannelId,
        request: RequestId,
        reason: CloseReason,
    ) {
        if machine.channel(id).is_none() {
            return;
        }
        let answered = machine.remove_pending(id, |pending| pending.id == request);
        if answered.is_some_and(|pending| !pending.abandoned) {
            machine.request_settled();
            let cause = RequestError::ChannelClosed(reason.for_request(channel::Close::ID));
            machine.push(Event::Failed { request, cause });
        }
        machine.push(Event::ChannelClosed {
            channel: id,
            reason,
        });
    }

    fn on_channel_end(machine: &mut Machine<Self>, id: ChannelId, reason: &CloseReason) {
        machine.keep_numbering(id);
        let cause = match reason.cause() {
            CloseCause::Connection(reason) => RequestError::ConnectionClosed(reason.clone()),
            _ => RequestError::ChannelClosed(reason.clone()),
        };
        machine.fail_waiting(id, reason, &cause);
    }

    fn on_publish_begun(channel: &mut ClientChannel, number: u64) {
        if let Mode::Confirm(confirms) = &mut channel.mode {
            confirms.begun(number);
        }
    }

    fn is_waiting(machine: &Machine<Self>, channel: Option<ChannelId>, request: RequestId) -> bool {
        let Some(id) = channel else {
            let mut pending = machine.role.pending.iter();
            return pending.any(|pending| pending.id == request && !pending.abandoned);
        };
        machine
            .channel(id)
            .is_some_and(|channel| match channel.life {
                ChannelLife::Opening(opening) if opening == request => !channel.role.abandoned_open,
                ChannelLife::Opening(_)
                | ChannelLife::Open
                | ChannelLife::Closing(_)
                | ChannelLife::ClosingRemote => channel.role.is_waiting(request),
            })
    }

    fn on_request_timeout(
        machine: &mut Machine<Self>,
        channel: Option<ChannelId>,
        request: RequestId,
    ) {
        let cause = RequestError::TimedOut {
            request: machine.request_method(channel, request).unwrap_or_default(),
            channel: channel.map(ChannelId::number),
        };
        machine.forget(channel, request);
        machine.push(Event::Failed { request, cause });
    }

    fn on_end(machine: &mut Machine<Self>, reason: &CloseReason) {
        machine.role.confirm_deadlines.clear();
        while let Some(pending) = machine.role.pending.pop_front() {
            if !pending.abandoned {
                let cause = RequestError::ConnectionClosed(reason.for_request(pending.method));
                let request = pending.id;
                machine.push(Event::Failed { request, cause });
            }
        }
    }

    fn channel_closed(channel: ChannelId, reason: CloseReason) -> Event {
        Event::ChannelClosed { channel, reason }
    }

    fn closed(reason: CloseReason) -> Event {
        Event::Closed(reason)
    }

    fn writable() -> Event {
        Event::Writable
    }

    fn backlog_writable() -> Event {
        Event::BacklogWritable
    }

    fn channel_writable(channel: ChannelId) -> Event {
        Event::ChannelWritable { channel }
    }

    fn on_time(machine: &mut Machine<Self>) {
        machine.set_confirm_deadlines();
    }

    fn next_deadline(machine: &Machine<Self>) -> Option<(Instant, TimeoutReason)> {
        machine.role.confirm_deadlines.next(machine.now())
    }

    fn on_timeout(machine: &mut Machine<Self>) {
        machine.expire_confirms();
    }

    fn on_secret_due(machine: &mut Machine<Self>) {
        machine.push(Event::SecretDue);
    }

    fn outstanding(channel: &ClientChannel) -> (u64, u64) {
        let stats = channel.stats();
        (stats.unconfirmed, stats.unacked)
    }
}

impl Machine<Client> {
    fn on_confirm(
        &mut self,
        id: ChannelId,
        number: u64,
        multiple: bool,
        outcome: &Outcome,
    ) -> Result<(), Fault> {
        let Some((channel, events)) = self.channel_and_events(id) else {
            return Ok(());
        };
        let seq = channel.role.publish_seq(number);
        let Mode::Confirm(confirms) = &mut channel.role.mode else {
            return Err(Fault::UnknownPublish(number));
        };
        let mut count = 0;
        confirms.settle(seq, multiple, |first, last, in_doubt| {
            count += last.get() - first.get() + 1;
            let outcome = match outcome {
                Outcome::Acked if in_doubt => Outcome::PossiblyReturned,
                outcome => outcome.clone(),
            };
            events.push(Event::Settled {
                channel: id,
                first,
                last,
                outcome,
            });
        });
        match outcome {
            Outcome::Nacked => self.stats.nacked += count,
            _ => self.stats.confirmed += count,
        }
        Ok(())
    }

    /// Handles a `basic.cancel` of the server (<https://www.rabbitmq.com/docs/consumer-cancel>).
    /// RabbitMQ sends it with `no_wait`, which permits no cancel-ok.
    fn on_cancel(&mut self, id: ChannelId, cancel: basic::Cancel) -> Result<(), Fault> {
        let tag = cancel.consumer_tag;
        let Some(channel) = self.channel_mut(id) else {
            return Ok(());
        };
        let ended = channel.role.consumers.cancelled_by_server(&tag);
        // If the server cancels a consumer before its consume-ok, no consume-ok follows.
        let failed = self.remove_pending(id, |pending| {
            pending.method == basic::Consume::ID
                && pending.consumer.is_some()
                && pending.consumer == ended.map(|ended| ended.id)
        });
        if !cancel.no_wait {
            let consumer_tag = tag.clone();
            self.put_answer(id, &basic::CancelOk { consumer_tag })?;
        }
        if let Some(consume) = failed {
            if !consume.abandoned {
                self.request_settled();
                self.push(Event::Failed {
                    request: consume.id,
                    cause: RequestError::Cancelled {
                        tag,
                        channel: id.number(),
                    },
                });
            }
        } else if let Some(consumer) = ended.filter(|consumer| !consumer.abandoned) {
            self.push(Event::ConsumerCancelled {
                channel: id,
                consumer: consumer.id,
                tag,
            });
        }
        Ok(())
    }

    /// Pauses or resumes publishing on the channel, and replies with flow-ok (sections 1.5.2.3 and
    /// 1.5.2.4 of the protocol reference).
    fn on_flow(&mut self, id: ChannelId, active: bool) -> Result<(), Fault> {
        if let Some(channel) = self.channel_mut(id) {
            channel.paused = !active;
        }
        self.put_answer(id, &channel::FlowOk { active })?;
        self.push(Event::Flow {
            channel: id,
            active,
        });
        Ok(())
    }

    /// Handles a reply to a request, other than `basic.get-ok`.
    fn on_reply(&mut self, id: ChannelId, reply: Method) -> Result<(), Fault> {
        if let Method::ChannelOpenOk(_) = reply {
            return self.on_open_ok(id, reply);
        }
        let tag = match &reply {
            Method::BasicConsumeOk(ok) => Some(&ok.consumer_tag),
            Method::BasicCancelOk(ok) => Some(&ok.consumer_tag),
            _ => None,
        };
        let pending = self
            .take_pending(id, reply.id(), tag)
            .ok_or(Fault::UnexpectedReply)?;
        let Some(channel) = self.channel_mut(id) else {
            return Ok(());
        };
        let consumers = &mut channel.role.consumers;
        match (&reply, pending.consumer) {
            (Method::BasicConsumeOk(ok), Some(consumer)) => {
                consumers.confirmed(&ok.consumer_tag, consumer);
            }
            (Method::BasicCancelOk(ok), Some(consumer)) => {
                consumers.cancelled(&ok.consumer_tag, consumer);
            }
            (Method::BasicRecoverOk(_), _) => channel.role.recover_answered(),
            (Method::TxCommitOk(_), _) => self.release_channel(id),
            _ => {}
        }
        if pending.abandoned {
            if let (Method::BasicConsumeOk(ok), Some(consumer)) = (&reply, pending.consumer) {
                self.abandon_consumer(id, &ok.consumer_tag, consumer);
            }
            return Ok(());
        }
        self.push(if let Method::BasicGetEmpty(_) = reply {
            Event::Got {
                channel: id,
                request: pending.id,
                message: None,
            }
        } else {
            Event::Reply {
                channel: Some(id),
                request: pending.id,
                reply,
            }
        });
        Ok(())
    }

    fn on_open_ok(&mut self, id: ChannelId, reply: Method) -> Result<(), Fault> {
        let Some(channel) = self.channel_mut(id) else {
            return Ok(());
        };
        let ChannelLife::Opening(request) = channel.life else {
            return Err(Fault::UnexpectedReply);
        };
        channel.life = ChannelLife::Open;
        let abandoned = channel.role.abandoned_open;
        if abandoned {
            let close = crate::close::Close {
                code: ReplyCode::SUCCESS,
                text: "nobody waits for this channel any more".into(),
                method: None,
            };
            // Cannot fail: the channel is open.
            let _closed = self.close_channel(id, &close, None);
        } else {
            self.request_settled();
            self.push(Event::Reply {
                channel: Some(id),
                request,
                reply,
            });
        }
        Ok(())
    }

    /// Removes the request that a method answers: the oldest one with a matching reply type and
    /// tag.
    pub(super) fn take_pending(
        &mut self,
        id: ChannelId,
        reply: MethodId,
        tag: Option<&ShortStr>,
    ) -> Option<Pending> {
        let rule = protocol::rule(reply)?;
        let taken = self.remove_pending(id, |pending| {
            rule.answers.contains(&pending.method) && (tag.is_none() || pending.tag.as_ref() == tag)
        })?;
        if !taken.abandoned {
            self.request_settled();
        }
        Some(taken)
    }

    /// Requeues the further deliveries of a consumer, and cancels it unless a cancel is queued.
    /// While the consume-ok is pending, the cancel is left to [`on_reply`](Self::on_reply):
    /// RabbitMQ 3.10 closes the connection with 541 for a cancel before the consume-ok, because
    /// queue and channel disagree then.
    pub(super) fn abandon_consumer(&mut self, id: ChannelId, tag: &ShortStr, consumer: ConsumerId) {
        let open = self.open_channel_and_output(id).is_ok();
        let Some(channel) = self.channel_mut(id) else {
            return;
        };
        let unconfirmed = channel.role.pending.consume_of(consumer).is_some();
        let consumers = &mut channel.role.consumers;
        if !consumers.abandon(tag, consumer) || !open || unconfirmed {
            return;
        }
        consumers.cancel(tag, Cancelling::Answered);
        self.put_method_anyway(
            id,
            &basic::Cancel {
                consumer_tag: tag.clone(),
                no_wait: false,
            },
        );
        let request = self.next_request();
        let pending = Pending {
            tag: Some(tag.clone()),
            consumer: Some(consumer),
            abandoned: true,
            ..Pending::new(request, basic::Cancel::ID)
        };
        self.push_pending(id, pending);
    }

    /// Settles all requests and publishes of a channel that will answer no more: requests fail with
    /// `cause`, and unconfirmed publishes become [`Outcome::Unknown`] or [`Outcome::NotSent`].
    pub(super) fn fail_waiting(
        &mut self,
        id: ChannelId,
        reason: &CloseReason,
        cause: &RequestError,
    ) {
        let leaves = if matches!(reason.cause(), CloseCause::Requested(_)) {
            // Everything accepted leaves before the close.
            ALL
        } else if matches!(
            reason.cause(),
            CloseCause::ProtocolError(_) | CloseCause::LimitExceeded(_)
        ) {
            // Ready frames leave before the close.
            self.output_position()
        } else {
            // The peer ignores all further output.
            self.handed_out()
        };
        let Some(channel) = self.channel_mut(id) else {
            return;
        };
        let opening = match channel.life {
            ChannelLife::Opening(request) if !channel.role.abandoned_open => Some(request),
            ChannelLife::Opening(_)
            | ChannelLife::Open
            | ChannelLife::Closing(_)
            | ChannelLife::ClosingRemote => None,
        };
        let pending = channel.role.pending.take();
        let mut settled = alloc::vec::Vec::new();
        if let Mode::Confirm(confirms) = &mut channel.role.mode {
            let mut unsent = alloc::vec::Vec::new();
            let reason = reason.for_request(basic::Publish::ID);
            let (unknown, not_sent) = (Outcome::Unknown(reason.clone()), Outcome::NotSent(reason));
            confirms.end(
                leaves,
                |first, last| settled.push((first, last, unknown.clone())),
                |first, last| unsent.push((first, last, not_sent.clone())),
            );
            settled.append(&mut unsent);
        }
        let waiting = pending.into_iter().filter(|pending| !pending.abandoned);
        let opening = opening.map(|request| (request, channel::Open::ID));
        let waiting = waiting.map(|pending| (pending.id, pending.method));
        for (request, method) in opening.into_iter().chain(waiting) {
            self.request_settled();
            let cause = cause.for_request(method);
            self.push(Event::Failed { request, cause });
        }
        for (first, last, outcome) in settled {
            self.push(Event::Settled {
                channel: id,
                first,
                last,
                outcome,
            });
        }
    }
}

//! The server's handling of client methods.

use core::time::Duration;

use bytes::BytesMut;

use super::{Event, Published, Server, channel::ServerChannel};
use crate::{
    body::Content,
    close::{Close, CloseCause, CloseReason, Stage},
    fault::{Fault, ProtocolError},
    ids::{ChannelId, PublishSeq, RequestId},
    machine::{ChannelLife, Machine, OffendingFrame, Role},
    method::{MethodDef as _, Rule},
    method_id::MethodId,
    protocol::{self, ClientMethod, Method, basic, channel, confirm, connection},
};

impl Role for Server {
    type Event = Event;
    type Channel = ServerChannel;

    const PEER_AUTHENTICATES: bool = false;

    const ANSWERS_FIRST: bool = true;

    const FORGIVES_ENDED: bool = false;

    // A broker keeps some messages and drops others: a message of a few bytes may keep a block.
    const ARENA_BLOCK: usize = 1024;

    // Most messages stay in a queue for longer.
    const ARENA_USED: usize = 0;

    fn frame_slack(&self) -> u32 {
        self.tolerance.frame_slack
    }

    fn reads_unknown_frames(&self) -> bool {
        self.tolerance.whole_unknown_frames
    }

    fn counts_channels(&self) -> bool {
        self.tolerance.any_channel_number
    }

    fn sends_large_headers(&self) -> bool {
        self.tolerance.large_headers
    }

    fn is_peers(rule: &Rule) -> bool {
        rule.client_sends
    }

    fn parse_header(machine: &mut Machine<Self>, input: &mut BytesMut) -> Result<bool, CloseCause> {
        machine.greet_client(input)
    }

    #[inline]
    fn precheck(
        machine: &mut Machine<Self>,
        number: u16,
        rule: &Rule,
        arguments: &[u8],
    ) -> Result<bool, Fault> {
        machine.precheck(number, rule, arguments)
    }

    fn on_unknown(
        machine: &mut Machine<Self>,
        number: u16,
        id: MethodId,
        arguments: &[u8],
    ) -> Result<(), Fault> {
        machine.receive_unlisted(number, id, arguments)
    }

    fn reply(
        machine: &mut Machine<Self>,
        error: &ProtocolError,
        frame: &OffendingFrame<'_>,
    ) -> Option<Close> {
        machine.close_by_policy(error, frame)
    }

    fn hang_up_delay(machine: &Machine<Self>) -> Duration {
        match machine.stage() {
            Stage::Open | Stage::Closing => Duration::ZERO,
            _ => machine.role.config.policy.hang_up_delay(),
        }
    }

    fn on_connection_method(machine: &mut Machine<Self>, method: Method) -> Result<(), Fault> {
        match (machine.stage(), method) {
            (Stage::Open | Stage::Closing, Method::ConnectionUpdateSecret(update)) => {
                // Far smaller than any frame limit.
                let _fits = machine.put_urgent(&connection::UpdateSecretOk);
                machine.push(Event::SecretUpdated {
                    secret: update.new_secret,
                    reason: update.reason,
                });
                Ok(())
            }
            (stage, method) => machine.on_handshake(stage, method),
        }
    }

    fn on_channel_open(machine: &mut Machine<Self>, number: u16) -> Result<(), Fault> {
        let id = machine
            .add_channel(Some(number), ChannelLife::Open)
            .map_err(|_| Fault::ChannelNumber(machine.tuning().channel_max))?;
        machine.put_method_anyway(id, &channel::OpenOk);
        machine.push(Event::ChannelOpened { channel: id });
        Ok(())
    }

    fn on_channel_method(
        machine: &mut Machine<Self>,
        id: ChannelId,
        method: Method,
        content: Option<Content>,
    ) -> Result<(), Fault> {
        match (method, content) {
            (Method::BasicPublish(method), Some(content)) => {
                machine.on_publish(id, method, content);
                Ok(())
            }
            (Method::ChannelFlow(flow), _) => {
                machine.on_flow(id, flow.active);
                Ok(())
            }
            (method, None) => machine.on_request(id, method),
            // Without a handler, its content would be lost.
            (_, Some(_)) => Err(Fault::NotDue),
        }
    }

    fn on_channel_closed(
        _machine: &mut Machine<Self>,
        _id: ChannelId,
        _request: Option<RequestId>,
    ) {
    }

    fn on_channel_end(machine: &mut Machine<Self>, id: ChannelId, _reason: &CloseReason) {
        if let Some(channel) = machine.channel_mut(id) {
            channel.role.owed.clear();
            channel.role.asked.clear();
        }
    }

    fn on_publish_begun(_channel: &mut ServerChannel, _number: u64) {}

    fn is_waiting(
        _machine: &Machine<Self>,
        _channel: Option<ChannelId>,
        _request: RequestId,
    ) -> bool {
        false
    }

    fn on_request_timeout(
        _machine: &mut Machine<Self>,
        _channel: Option<ChannelId>,
        _request: RequestId,
    ) {
    }

    fn on_end(_machine: &mut Machine<Self>, _reason: &CloseReason) {}

    fn channel_closed(channel: ChannelId, reason: CloseReason) -> Event {
        Event::ChannelClosed { channel, reason }
    }

    fn closed(reason: CloseReason) -> Event {
        Event::Closed(reason)
    }

    fn backlog_writable() -> Event {
        Event::Writable
    }

    fn channel_writable(_channel: ChannelId) -> Event {
        Event::Writable
    }

    fn writable() -> Event {
        Event::Writable
    }
}

impl Machine<Server> {
    #[inline]
    fn on_publish(&mut self, id: ChannelId, method: basic::Publish, content: Content) {
        let Some(channel) = self.channel_mut(id) else {
            return;
        };
        let seq = channel.role.published.as_mut().map(|last| {
            *last += 1;
            PublishSeq(*last)
        });
        self.stats.published += 1;
        self.push(Event::Published(Published {
            channel: id,
            seq,
            method,
            content,
        }));
    }

    fn on_flow(&mut self, id: ChannelId, active: bool) {
        if let Some(channel) = self.channel_mut(id) {
            channel.paused = !active;
            channel.role.owed.push_back(channel::Flow::ID);
        }
        self.push(Event::Flow {
            channel: id,
            active,
        });
    }

    fn on_request(&mut self, id: ChannelId, method: Method) -> Result<(), Fault> {
        let rule = protocol::rule(method.id()).ok_or(Fault::WrongSender)?;
        if let Some(channel) = self.channel_mut(id) {
            if !rule.answers.is_empty() {
                let asked = &mut channel.role.asked;
                let at = asked.iter().position(|asked| rule.answers.contains(asked));
                asked.remove(at.ok_or(Fault::UnexpectedReply)?);
            }
            if !rule.responses.is_empty() && !method.no_wait() {
                channel.role.owed.push_back(rule.id);
            }
            if rule.id == confirm::Select::ID {
                channel.role.published.get_or_insert(0);
            }
        }
        let method = ClientMethod::try_from(method).map_err(|_| Fault::WrongSender)?;
        self.push(Event::Request {
            channel: id,
            method,
        });
        Ok(())
    }
}

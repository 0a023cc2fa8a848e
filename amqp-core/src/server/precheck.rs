//! The place of the [policy](super::Policy) in the reception of methods.

use super::{ChannelState, IncompleteContent, ReceivedMethod, Server, Verdict, Violation};
use crate::{
    close::Close,
    fault::{Fault, ProtocolError},
    machine::{ChannelLife, Lookup, Machine, OffendingFrame, unlisted},
    method::{MethodDef as _, Rule},
    method_id::MethodId,
    protocol::channel,
};

/// The class that the machine handles itself, without decoding the arguments of all its methods: a
/// policy may decode them.
const CHANNEL_CLASS: u16 = channel::Open::ID.class;

impl Machine<Server> {
    /// Checks a method before all other rules. Returns whether it is to be processed.
    #[inline]
    pub(super) fn precheck(
        &mut self,
        number: u16,
        rule: &Rule,
        arguments: &[u8],
    ) -> Result<bool, Fault> {
        let usual = rule.client_sends && !rule.connection && rule.id.class != CHANNEL_CLASS;
        if usual
            && let Lookup::Live(_, channel) = self.lookup(number)
            && channel.life == ChannelLife::Open
        {
            return Ok(true);
        }
        self.ask_policy(number, rule.id, arguments)
    }

    /// Handles a method that is not in the table of rules.
    pub(super) fn receive_unlisted(
        &mut self,
        number: u16,
        id: MethodId,
        arguments: &[u8],
    ) -> Result<(), Fault> {
        if self.ask_policy(number, id, arguments)? {
            return Err(unlisted(id));
        }
        Ok(())
    }

    #[cold]
    fn ask_policy(&mut self, channel: u16, id: MethodId, arguments: &[u8]) -> Result<bool, Fault> {
        let stage = self.stage();
        let state = match self.lookup(channel) {
            Lookup::Unused | Lookup::Free => ChannelState::Absent,
            Lookup::Live(_, channel) if channel.assembly.in_progress() => ChannelState::InContent,
            Lookup::Live(_, channel) => match channel.life {
                ChannelLife::Opening(_) | ChannelLife::Open => ChannelState::Open,
                ChannelLife::Closing(_) => ChannelState::Closing,
                ChannelLife::ClosingRemote => ChannelState::Closed,
            },
        };
        let received = ReceivedMethod {
            id,
            arguments,
            channel,
            state,
            stage,
        };
        match self.role.config.policy.check(&received)? {
            Verdict::Process => Ok(true),
            Verdict::Ignore => Ok(false),
            Verdict::Answer(payload) => {
                self.put_unlisted(channel, payload);
                Ok(false)
            }
        }
    }

    /// The close method for a violation. `Some` if the client is notified before the transport is
    /// closed.
    pub(super) fn close_by_policy(
        &mut self,
        error: &ProtocolError,
        frame: &OffendingFrame<'_>,
    ) -> Option<Close> {
        let (stage, channels) = (self.stage(), self.channel_count());
        let content = match self.lookup(error.channel.unwrap_or_default()) {
            Lookup::Live(_, channel) => channel.assembly.method().map(|method| IncompleteContent {
                method,
                awaits_header: channel.assembly.wants_header(),
            }),
            Lookup::Unused | Lookup::Free => None,
        };
        let violation = Violation {
            error,
            stage,
            frame_type: frame.kind,
            payload: frame.payload,
            content,
            channels,
        };
        self.role.config.policy.close(&violation)
    }
}

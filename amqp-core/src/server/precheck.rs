//! What a server looks at first in a method, in the order in which RabbitMQ does: that decides
//! which of several faults a client is told of.

use super::{
    Server,
    access::{AccessMethod, REQUEST_OK},
};
use crate::{
    fault::Fault,
    machine::{ChannelLife, Lookup, Machine, unlisted},
    method::{MethodDef as _, MethodId, Rule},
    protocol::{Method, channel, connection},
    wire::{DecodeError, parse},
};

/// The methods that the machine deals with by itself: it does not look at the arguments of all.
const CHANNEL_CLASS: u16 = channel::Open::ID.class;

impl Machine<Server> {
    /// Whether a method is to be dealt with.
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
        self.screen_unusual(number, rule, arguments)
    }

    #[cold]
    fn screen_unusual(
        &mut self,
        number: u16,
        rule: &Rule,
        arguments: &[u8],
    ) -> Result<bool, Fault> {
        if number == 0 {
            decode(rule.id, arguments)?;
            // Nobody who is not in yet takes leave.
            let leaves = rule.id == connection::Close::ID;
            return if leaves && self.is_in_handshake() {
                Err(Fault::NotDue)
            } else {
                Ok(true)
            };
        }
        let opens = rule.id == channel::Open::ID;
        let Some(life) = self.screen_channel(number, opens, || decode(rule.id, arguments))? else {
            return Ok(true);
        };
        let closes = [channel::Close::ID, channel::CloseOk::ID].contains(&rule.id);
        match life {
            ChannelLife::Opening(_) | ChannelLife::Open => Ok(true),
            ChannelLife::Closing(_) | ChannelLife::ClosingRemote if opens => {
                Err(Fault::ChannelAlreadyOpen)
            }
            ChannelLife::Closing(_) => Ok(closes),
            ChannelLife::ClosingRemote => {
                if rule.id == channel::Close::ID {
                    self.answer_close_again(number);
                }
                Ok(false)
            }
        }
    }

    /// A client that closes a channel twice is answered twice.
    fn answer_close_again(&mut self, number: u16) {
        if let Lookup::Live(id, _) = self.lookup(number) {
            self.put_method_anyway(id, &channel::CloseOk);
        }
    }

    /// Checks what is checked of every method of a channel, and tells where the channel is in its
    /// life; none when it is to be opened.
    fn screen_channel(
        &mut self,
        number: u16,
        opens: bool,
        decode: impl FnOnce() -> Result<(), DecodeError>,
    ) -> Result<Option<ChannelLife>, Fault> {
        if self.is_in_handshake() {
            return Err(Fault::NotDue);
        }
        let life = match self.lookup(number) {
            Lookup::Live(_, channel) if channel.assembly.in_progress() => {
                return Err(Fault::MethodInContent);
            }
            Lookup::Live(_, channel) => Some(channel.life),
            Lookup::Unused | Lookup::Free => None,
        };
        decode()?;
        if life.is_none() && !opens {
            return Err(Fault::ChannelNotOpen);
        }
        Ok(life)
    }

    /// Answers `access.request`, and leaves nothing else unlisted alone.
    pub(super) fn receive_unlisted(
        &mut self,
        number: u16,
        id: MethodId,
        arguments: &[u8],
    ) -> Result<(), Fault> {
        let Some(method) = AccessMethod::of(id) else {
            return Err(unlisted(id));
        };
        if number == 0 {
            method.decode(arguments)?;
            return Err(Fault::NotDue);
        }
        let life = self.screen_channel(number, false, || method.decode(arguments))?;
        match (life, method) {
            (Some(ChannelLife::Open), AccessMethod::Request) => {
                self.put_unlisted(number, &REQUEST_OK);
                Ok(())
            }
            (Some(ChannelLife::Open), AccessMethod::RequestOk) => Err(Fault::WrongSender),
            _ => Ok(()),
        }
    }
}

/// Whether the arguments can be read.
fn decode(id: MethodId, arguments: &[u8]) -> Result<(), DecodeError> {
    Method::decode(id, arguments)?;
    // Unlike a client, a server takes no reply text that is not text.
    if [channel::Close::ID, connection::Close::ID].contains(&id)
        && let Some(text) = arguments.get(2..)
    {
        parse::short_str_ref(text).map_err(|_| DecodeError::InvalidUtf8)?;
    }
    Ok(())
}

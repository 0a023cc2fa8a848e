//! The checks that a server makes before all other rules of a method, in the order of RabbitMQ. The
//! order decides which of several faults is reported.

use super::{
    Server,
    access::{AccessMethod, REQUEST_OK},
};
use crate::{
    fault::Fault,
    machine::{ChannelLife, Lookup, Machine, unlisted},
    method::{MethodDef as _, Rule},
    method_id::MethodId,
    protocol::{Method, channel, connection},
    wire::{DecodeError, parse},
};

/// The class that the machine handles itself, without decoding the arguments of all its methods:
/// the precheck decodes them.
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
            // `connection.close` is not legal before the connection is open.
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

    /// Answers each further `channel.close` of a closed channel with `close-ok`, as RabbitMQ does
    /// (`amqp-core/src/tests/server_faults.rs`).
    fn answer_close_again(&mut self, number: u16) {
        if let Lookup::Live(id, _) = self.lookup(number) {
            self.put_method_anyway(id, &channel::CloseOk);
        }
    }

    /// Makes the checks common to all methods of a channel. Returns the state of the channel:
    /// `Some` if it exists. It may be missing for `channel.open` only.
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

    /// Handles a method that is not in the table of rules: answers `access.request` on an open
    /// channel, ignores the class `access` on a closing one, and returns a fault otherwise.
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

/// Checks that the arguments can be decoded.
fn decode(id: MethodId, arguments: &[u8]) -> Result<(), DecodeError> {
    Method::decode(id, arguments)?;
    // A server refuses a reply text that is not UTF-8; a client accepts it.
    if [channel::Close::ID, connection::Close::ID].contains(&id)
        && let Some(text) = arguments.get(2..)
    {
        parse::short_str_ref(text).map_err(|_| DecodeError::InvalidUtf8)?;
    }
    Ok(())
}

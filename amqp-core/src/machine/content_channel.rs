//! The channel of a content frame.

use super::{
    channels::{Channel, ChannelLife, Channels, Lookup},
    role::Role,
};
use crate::{
    fault::{Fault, ProtocolError},
    ids::ChannelId,
};

/// A channel; `None` if the frame is to be ignored.
pub(super) type Found<'a, R> = Option<(ChannelId, &'a mut Channel<<R as Role>::Channel>)>;

/// Returns the channel of a content frame; `None` if the frame is to be ignored.
///
/// # Errors
/// If the channel number is 0, which section 4.2.6.1 of the specification forbids, or the channel is
/// not open.
#[inline]
pub(super) fn content_channel<R: Role>(
    channels: &mut Channels<R::Channel>,
    number: u16,
) -> Result<Found<'_, R>, ProtocolError> {
    if number == 0 {
        return Err(Fault::ContentOnChannelZero.at(Some(0), None));
    }
    match channels.lookup(number) {
        Lookup::Free if R::FORGIVES_ENDED => Ok(None),
        Lookup::Unused | Lookup::Free => Err(Fault::ChannelNotOpen.at(Some(number), None)),
        Lookup::Live(id, channel) => Ok(match channel.life {
            ChannelLife::Opening(_) | ChannelLife::Open => Some((id, channel)),
            ChannelLife::Closing(_) | ChannelLife::ClosingRemote => None,
        }),
    }
}

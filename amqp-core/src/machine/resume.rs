//! A connection that takes the place of an ended one.

use super::{ChannelLife, Channels, Machine, Role};
use crate::{error::ApiMisuse, ids::ChannelId};

impl<R: Role> Machine<R> {
    /// Goes on with the request numbers, the incarnations of channels, the clock and the statistics
    /// of an ended connection. Called before the machine is used.
    pub(crate) fn continue_from(&mut self, ended: &mut Self) {
        self.next_request = ended.next_request;
        self.channels = Channels::after(core::mem::replace(
            &mut ended.channels,
            Channels::new(R::FORGIVES_ENDED),
        ));
        self.stats = ended.stats;
        self.advance_clock(ended.now);
    }

    /// Adds a channel under the identifier of one that has ended.
    pub(crate) fn readd_channel(
        &mut self,
        id: ChannelId,
        life: ChannelLife,
    ) -> Result<(), ApiMisuse> {
        let (number, channel_max) = (id.number(), self.tuning.channel_max);
        if number <= channel_max && self.channels.reinsert(id, life) {
            Ok(())
        } else {
            Err(ApiMisuse::ChannelNumber {
                number,
                channel_max,
            })
        }
    }
}

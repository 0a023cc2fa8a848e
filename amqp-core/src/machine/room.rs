//! Room in the output, and the events that announce it.

use alloc::collections::BTreeSet;

use super::{Machine, Role, channels::Channel};
use crate::{error::Hold, ids::ChannelId, limits::Limits};

/// The requested events. Each is sent once, when there is room.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    /// Room in the ready lane.
    ready: bool,
    /// Room in all backlogs together.
    backlogs: bool,
    /// Room in the whole output.
    output: bool,
    /// The channels that requested the event and had room in their backlog when it was last
    /// checked.
    channels: BTreeSet<ChannelId>,
}

impl Wants {
    /// Marks a channel for its event if the event was requested and the backlog has room.
    pub(super) fn look_at<C>(&mut self, channel: &Channel<C>, id: ChannelId, limits: &Limits) {
        if channel.wants_room && channel.backlog.len() <= limits.output_low {
            self.channels.insert(id);
        }
    }
}

impl<R: Role> Machine<R> {
    /// The room in the ready lane, in bytes.
    pub(crate) fn output_room(&self) -> usize {
        let high = self.limits.output_high;
        high.saturating_sub(self.output.ready_len())
    }

    /// The room in all backlogs together, in bytes.
    pub(crate) const fn backlog_room(&self) -> usize {
        let high = self.limits.output_backlog;
        high.saturating_sub(self.output.backlog_len())
    }

    /// Requests an event when there is room in the ready lane.
    pub(crate) const fn want_ready_room(&mut self) {
        self.wants.ready = true;
    }

    /// Requests an event when there is room in the backlogs.
    pub(crate) const fn want_backlog_room(&mut self) {
        self.wants.backlogs = true;
    }

    /// Requests an event when there is room in the whole output.
    pub(crate) const fn want_output_room(&mut self) {
        self.wants.output = true;
    }

    /// Requests an event when there is room in the channel's backlog.
    pub(crate) fn want_channel_room(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(id) {
            channel.wants_room = true;
            self.wants.look_at(channel, id, &self.limits);
        }
    }

    /// Requests an event at the end of `hold`, if the hold is one of the output.
    pub(crate) fn want_end_of(&mut self, hold: Hold, id: ChannelId) {
        match hold {
            Hold::OutputFull => self.want_ready_room(),
            Hold::BacklogFull => self.want_backlog_room(),
            Hold::ChannelBacklogFull => self.want_channel_room(id),
            Hold::TooManyUnconfirmed
            | Hold::ConnectionBlocked
            | Hold::ChannelFlow
            | Hold::Recovering => {}
        }
    }

    /// Queues the requested events for which there is room.
    pub(super) fn tell_room(&mut self) {
        if self.final_event_emitted {
            return;
        }
        let low = self.limits.output_low;
        if self.wants.ready && self.output.ready_len() <= low {
            self.wants.ready = false;
            self.push(R::writable());
        }
        if self.wants.output && self.output.len() <= low {
            self.wants.output = false;
            self.push(R::writable());
        }
        if self.wants.backlogs && self.output.backlog_len() <= self.limits.output_backlog / 2 {
            self.wants.backlogs = false;
            self.push(R::backlog_writable());
        }
        while let Some(id) = self.wants.channels.pop_first() {
            if let Some(channel) = self.channels.get_mut(id)
                && channel.backlog.len() <= low
            {
                channel.wants_room = false;
                self.push(R::channel_writable(id));
            }
        }
    }
}

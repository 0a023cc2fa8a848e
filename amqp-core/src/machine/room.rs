//! Room in the output: how much there is, and the events that tell of it.

use alloc::collections::BTreeSet;

use super::{Machine, Role, backlog::Backlog};
use crate::{error::Hold, ids::ChannelId, limits::Limits};

/// The room that is to be told of. Each is told once, when there is some.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    /// In the ready lane.
    ready: bool,
    /// In all backlogs together.
    backlogs: bool,
    /// In the whole output.
    output: bool,
    /// The channels whose backlog wants to be told of and has room, as of the last look at it.
    channels: BTreeSet<ChannelId>,
}

impl Wants {
    /// Looks at a backlog that may have room now.
    pub(super) fn look_at(&mut self, backlog: &Backlog, id: ChannelId, limits: &Limits) {
        if backlog.wants_room && backlog.len() <= limits.output_low {
            self.channels.insert(id);
        }
    }
}

impl<R: Role> Machine<R> {
    /// What keeps the output from taking a publish with a body of that many bytes, on the channel
    /// that has that backlog.
    #[inline]
    pub(crate) fn output_hold(&self, backlog: &Backlog, body_len: usize) -> Option<Hold> {
        self.output.hold(backlog, body_len, &self.limits)
    }

    /// How many bytes the ready lane has room for.
    pub(crate) fn output_room(&self) -> usize {
        let high = self.limits.output_high;
        high.saturating_sub(self.output.ready_len())
    }

    /// How many bytes all backlogs together have room for.
    pub(crate) const fn backlog_room(&self) -> usize {
        let high = self.limits.output_backlog;
        high.saturating_sub(self.output.backlog_len())
    }

    /// An event is to tell when there is room in the ready lane.
    pub(crate) const fn want_ready_room(&mut self) {
        self.wants.ready = true;
    }

    /// An event is to tell when there is room in the backlogs.
    pub(crate) const fn want_backlog_room(&mut self) {
        self.wants.backlogs = true;
    }

    /// An event is to tell when there is room in the whole output.
    pub(crate) const fn want_output_room(&mut self) {
        self.wants.output = true;
    }

    /// An event is to tell when there is room in the channel's backlog.
    pub(crate) fn want_channel_room(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(id) {
            channel.backlog.wants_room = true;
            self.wants.look_at(&channel.backlog, id, &self.limits);
        }
    }

    /// An event is to tell when that hold is over, if it is the output's.
    pub(crate) fn want_end_of(&mut self, hold: Hold, id: ChannelId) {
        match hold {
            Hold::OutputFull => self.want_ready_room(),
            Hold::BacklogFull => self.want_backlog_room(),
            Hold::ChannelBacklogFull => self.want_channel_room(id),
            Hold::TooManyUnconfirmed | Hold::ConnectionBlocked | Hold::ChannelFlow => {}
        }
    }

    /// Tells of the room that is wanted and there.
    pub(super) fn tell_room(&mut self) {
        if self.announced {
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
                channel.backlog.wants_room = false;
                self.push(R::channel_writable(id));
            }
        }
    }
}

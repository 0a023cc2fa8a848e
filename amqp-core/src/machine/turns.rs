//! Transmitting: the output of one call, and flush marks.

use alloc::vec::Vec;

use super::{ChannelLife, Life, Lookup, Machine, Output, Role};
use crate::{ids::ChannelId, time::Instant, transmit::Transmit};

/// A mark behind the output accepted so far: the result of
/// [`flush_mark`](crate::client::Connection::flush_mark).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlushMark {
    /// The end of the ready lane.
    ready: u64,
    /// The end of each non-empty backlog.
    backlogs: Vec<(ChannelId, u64)>,
}

impl<R: Role> Machine<R> {
    pub(crate) fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool {
        self.poll_transmit_with(now, out, |machine, handed_out| {
            machine.take_turns(Output::share(handed_out))
        })
    }

    /// As `poll_transmit`, with at most that many turns.
    pub(crate) fn poll_transmit_turns(
        &mut self,
        now: Instant,
        out: &mut Transmit,
        turns: usize,
    ) -> bool {
        self.poll_transmit_with(now, out, |machine, _| {
            (0..turns)
                .map_while(|_| machine.output.pop_turn().map(|it| machine.take_turn(it)))
                .sum()
        })
    }

    /// Hands out the ready lane, and what `take` moves to it. `take` is given the number of bytes
    /// of the ready lane, and returns the number that it has moved.
    fn poll_transmit_with(
        &mut self,
        now: Instant,
        out: &mut Transmit,
        take: impl FnOnce(&mut Self, usize) -> usize,
    ) -> bool {
        self.advance_clock(now);
        // Drops the pieces that were not taken since the last call.
        self.output.drop_discarded();
        let before = out.len();
        let mut progress = self.output.handed_out() < self.close_from;
        self.output.take_ready(out);
        progress |= take(self, out.len() - before) > 0;
        self.output.take_ready(out);
        for id in core::mem::take(&mut self.closing_after_flush) {
            self.drop_channel(id);
        }
        if let Life::Draining(reason) = &self.life {
            let reason = reason.clone();
            let departed = self.output.take_last(out);
            if departed {
                self.life = Life::Closing(reason);
            }
            if departed || progress {
                self.timers.restart_close(self.now, self.timeouts.close);
            }
        }
        self.tell_room();
        if self.is_finished() {
            self.timers.stop();
        }
        self.stats.sent.bytes += (out.len() - before) as u64;
        self.stats.sent.frames += self.output.take_frames();
        let handed_out = out.len() > before;
        self.timers.note_polled(self.now, handed_out);
        if !handed_out {
            self.output.shrink();
        } else if self.frame_log.is_some() {
            self.log_sent(out, before);
        }
        handed_out
    }

    /// Takes turns until `share` bytes of backlogs, and at least one byte, are ready or the ring is
    /// empty. Returns the number of bytes.
    pub(super) fn take_turns(&mut self, share: usize) -> usize {
        let mut taken = 0;
        while (taken == 0 || taken < share)
            && let Some(number) = self.output.pop_turn()
        {
            taken += self.take_turn(number);
        }
        taken
    }

    /// Takes one turn of a channel. Returns the number of bytes moved to the ready lane.
    fn take_turn(&mut self, number: u16) -> usize {
        let Lookup::Live(id, channel) = self.channels.lookup(number) else {
            return 0;
        };
        let turn = self.output.take_turn(&mut channel.backlog, number);
        self.wants.look_at(channel, id, &self.limits);
        if turn.last_publish > 0 {
            R::on_publish_begun(&mut channel.role, turn.last_publish);
        }
        if channel.life == ChannelLife::ClosingRemote && channel.backlog.is_empty() {
            self.drop_channel(id);
        }
        turn.len
    }

    /// Returns a mark behind the output accepted so far.
    pub(crate) fn flush_mark(&self) -> FlushMark {
        let waiting = |number: u16| {
            let (id, channel) = self.channels.get_live(number)?;
            (!channel.backlog.is_empty()).then(|| (id, channel.backlog.position()))
        };
        FlushMark {
            ready: self.output.position(),
            backlogs: self.output.backlogged().filter_map(waiting).collect(),
        }
    }

    /// Whether all output before the mark was handed out, or dropped with its channel.
    pub(crate) fn is_flushed(&self, mark: &FlushMark) -> bool {
        let left = |&(id, position): &(ChannelId, u64)| {
            let channel = self.channels.get(id);
            channel.is_none_or(|channel| channel.backlog.has_left(position))
        };
        self.output.is_past(mark.ready) && mark.backlogs.iter().all(left)
    }
}

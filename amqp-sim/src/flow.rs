//! One direction of a connection.

use std::{collections::VecDeque, mem, task::Waker};

use amqp_driver::core::Instant;

use crate::{
    alarms::{AlarmId, Alarms, Later},
    trace::Words,
};

/// The end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Eof,
    Reset,
}

/// The bytes on the way in one direction, and the tasks that wait for them.
#[derive(Debug)]
pub(crate) struct Flow {
    /// Times of arrival, which do not go back, and bytes.
    pieces: VecDeque<(Instant, Vec<u8>)>,
    /// The bytes of the first piece that were read.
    read: usize,
    len: usize,
    last_due: Instant,
    end: Option<(Instant, End)>,
    /// All that is written is lost.
    pub(crate) is_lost: bool,
    /// Its state does not change any more: no end arrives, and the writer learns nothing.
    is_frozen: bool,
    /// The writer learns from then on that nothing is taken.
    refused_from: Option<Instant>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    alarm: AlarmId,
    /// The time that the alarm is set for.
    set: Option<Instant>,
    pub(crate) words: Words,
    pub(crate) end_noted: bool,
}

impl Flow {
    pub(crate) fn new(alarm: AlarmId) -> Self {
        Self {
            pieces: VecDeque::new(),
            read: 0,
            len: 0,
            last_due: Instant::ORIGIN,
            end: None,
            is_lost: false,
            is_frozen: false,
            refused_from: None,
            reader: None,
            writer: None,
            alarm,
            set: None,
            words: Words::default(),
            end_noted: false,
        }
    }

    /// The bytes on the way and unread.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn last_due(&self) -> Instant {
        self.last_due
    }

    pub(crate) fn push(&mut self, due: Instant, piece: &[u8]) {
        self.last_due = self.last_due.max(due);
        self.len += piece.len();
        self.pieces.push_back((self.last_due, piece.to_vec()));
    }

    /// Takes at most `room` bytes of the first piece, if it has arrived.
    pub(crate) fn take(&mut self, now: Instant, room: usize) -> Option<Vec<u8>> {
        let (due, piece) = self.pieces.front()?;
        if *due > now {
            return None;
        }
        let rest = &piece[self.read..];
        let taken = rest[..rest.len().min(room)].to_vec();
        self.read += taken.len();
        self.len -= taken.len();
        if self.read == piece.len() {
            self.pieces.pop_front();
            self.read = 0;
        }
        Some(taken)
    }

    /// Whether bytes have arrived and were not read.
    pub(crate) fn has_arrived(&self, now: Instant) -> bool {
        self.pieces.front().is_some_and(|(due, _)| *due <= now)
    }

    /// Ends the stream behind the bytes on the way, at that time at the earliest. The first end
    /// counts, unless it is overtaken by a reset.
    pub(crate) fn end(&mut self, at: Instant, end: End) {
        if self.is_frozen {
            return;
        }
        let at = at.max(self.last_due);
        match self.end {
            Some((_, End::Reset)) => {}
            Some((_, End::Eof)) if end == End::Eof => {}
            _ => self.end = Some((at, end)),
        }
    }

    /// Resets the stream at that time: bytes that would arrive later are lost.
    pub(crate) fn cut(&mut self, at: Instant) {
        while self.pieces.back().is_some_and(|(due, _)| *due > at) {
            if let Some((_, piece)) = self.pieces.pop_back() {
                let read = if self.pieces.is_empty() {
                    mem::take(&mut self.read)
                } else {
                    0
                };
                self.len -= piece.len() - read;
            }
        }
        self.last_due = self.last_due.min(at);
        self.is_lost = true;
        self.end = Some((at, End::Reset));
    }

    /// Loses all bytes that were not read, and all later ones, and returns the former.
    pub(crate) fn lose(&mut self) -> Vec<u8> {
        let read = mem::take(&mut self.read);
        let mut lost = Vec::with_capacity(self.len);
        for (_, piece) in self.pieces.drain(..) {
            lost.extend_from_slice(&piece);
        }
        lost.drain(..read);
        self.len = 0;
        self.last_due = Instant::ORIGIN;
        self.is_lost = true;
        lost
    }

    /// Ends all changes but those of the reader.
    pub(crate) const fn freeze(&mut self) {
        self.is_lost = true;
        self.is_frozen = true;
    }

    pub(crate) fn refuse_from(&mut self, at: Instant) {
        if !self.is_frozen {
            self.refused_from.get_or_insert(at);
        }
    }

    pub(crate) fn refuses(&self, now: Instant) -> bool {
        self.refused_from.is_some_and(|at| at <= now)
    }

    /// The end, if it has arrived.
    pub(crate) fn ended(&self, now: Instant) -> Option<End> {
        let (at, end) = self.end?;
        (self.pieces.is_empty() && at <= now).then_some(end)
    }

    /// Whether a reset has arrived.
    pub(crate) fn is_reset(&self, now: Instant) -> bool {
        matches!(self.end, Some((at, End::Reset)) if at <= now)
    }

    /// Registers the reader. Returns the waker before.
    pub(crate) fn wait(&mut self, waker: Waker) -> Option<Waker> {
        self.reader.replace(waker)
    }

    /// Registers the writer, until there is room. Returns the waker before.
    pub(crate) fn wait_for_room(&mut self, waker: Waker) -> Option<Waker> {
        self.writer.replace(waker)
    }

    pub(crate) const fn has_writer(&self) -> bool {
        self.writer.is_some()
    }

    pub(crate) fn take_writer(&mut self) -> Option<Waker> {
        self.writer.take()
    }

    /// Wakes the reader when something arrives: now, or by an alarm.
    pub(crate) fn arm(
        &mut self,
        now: Instant,
        stalled_until: Instant,
        alarms: &mut Alarms,
        later: &mut Later,
    ) {
        let first = self.pieces.front().map(|(due, _)| *due);
        let next = first.or_else(|| self.end.map(|(at, _)| at));
        let Some((at, reader)) = next.zip(self.reader.as_ref()) else {
            return;
        };
        let at = at.max(stalled_until);
        if at <= now {
            later.wake(self.reader.take());
            return;
        }
        let before = self.set.replace(at);
        alarms.set(self.alarm, before, at, reader.clone(), later);
    }

    pub(crate) fn clear(&mut self, alarms: &mut Alarms, later: &mut Later) {
        if let Some(at) = self.set.take() {
            alarms.clear(self.alarm, at, later);
        }
        later.drop(self.reader.take());
        later.drop(self.writer.take());
    }
}

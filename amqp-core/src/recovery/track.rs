//! The steps of one channel during a replay.

use alloc::{collections::VecDeque, vec::Vec};

use super::{ChannelMode, PlanStep, bindings::BindMethod};
use crate::{
    client::Connection,
    error::ApiMisuse,
    ids::{ChannelId, RequestId},
    protocol::{ReplyCode, confirm, queue, tx},
    time::Instant,
    wire::ShortStr,
};

/// The steps of one channel.
///
/// ```text
///           open sent           open-ok         all steps done
///  Closed ────────────> Opening ───────> Open ──────────────────> (removed)
///    ^                     │              │ │ entities: close sent     ^
///    │                     │ failed       │ └──────> Closing ──────────┤ close-ok
///    └──── closed by <─────┴──────────────┘                            │
///          the server, not given up ──────────────> given up ──────────┘
///    ^                                                                 │
///    └────── entities: steps were added while it closed ───────────────┘
/// ```
#[derive(Debug)]
pub(super) struct Track {
    /// `None` for the channel of the entities while that is not open.
    pub(super) channel: Option<ChannelId>,
    pub(super) state: TrackState,
    pub(super) entries: Vec<Entry>,
    /// The entry to look at next: all before it are done, in flight, or deferred.
    pub(super) next: usize,
    /// The requests in flight, in order, with their entries.
    pub(super) in_flight: VecDeque<(RequestId, usize)>,
    /// The entry that the server has closed the channel for, until the close is reported.
    pub(super) culprit: Option<usize>,
    /// The number of failures of the channel itself.
    pub(super) tries: u32,
    /// The time for the deferred entries.
    pub(super) retry_at: Option<Instant>,
    /// It is listed to be advanced.
    pub(super) ready: bool,
    /// It waits for a time.
    pub(super) asleep: bool,
    /// The channel was opened once: the step is counted.
    pub(super) opened: bool,
    /// The host needs the channel no more: it is closed.
    pub(super) forgotten: bool,
    /// The time of the loss of the channel.
    pub(super) since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrackState {
    Closed,
    Opening(RequestId),
    Open,
    Closing(RequestId),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) step: PlanStep,
    pub(super) state: EntryState,
    /// The number of failures.
    pub(super) tries: u32,
    /// It is part of the progress.
    pub(super) counted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryState {
    Todo,
    Sent,
    Done,
    /// It is tried again once the others are done.
    Deferred,
    Failed,
}

impl Track {
    pub(super) const fn new(channel: Option<ChannelId>, since: Instant) -> Self {
        Self {
            channel,
            state: TrackState::Closed,
            entries: Vec::new(),
            next: 0,
            in_flight: VecDeque::new(),
            culprit: None,
            tries: 0,
            retry_at: None,
            ready: false,
            asleep: false,
            opened: false,
            forgotten: false,
            since,
        }
    }

    pub(super) fn push(&mut self, step: PlanStep) {
        self.entries.push(Entry {
            step,
            state: EntryState::Todo,
            tries: 0,
            counted: false,
        });
    }

    /// The next entry to be sent.
    pub(super) fn next_todo(&mut self) -> Option<usize> {
        while let Some(entry) = self.entries.get(self.next) {
            if entry.state == EntryState::Todo {
                return Some(self.next);
            }
            self.next += 1;
        }
        None
    }

    /// Whether there is an entry to be sent.
    pub(super) fn has_todo(&self) -> bool {
        let mut rest = self.entries.iter().skip(self.next);
        rest.any(|it| it.state == EntryState::Todo)
    }

    pub(super) fn set(&mut self, index: usize, state: EntryState) {
        if let Some(entry) = self.entries.get_mut(index) {
            entry.state = state;
        }
    }

    /// Marks an entry in flight as carried out. Returns `false` if it has failed meanwhile: the host
    /// has forgotten it.
    pub(super) fn carried_out(&mut self, index: usize) -> bool {
        let entry = self.entries.get_mut(index);
        let entry = entry.filter(|it| it.state == EntryState::Sent);
        entry.is_some_and(|entry| {
            entry.state = EntryState::Done;
            true
        })
    }

    /// Makes the deferred entries due.
    pub(super) fn undefer(&mut self) {
        self.retry_at = None;
        self.next = 0;
        for entry in &mut self.entries {
            if entry.state == EntryState::Deferred {
                entry.state = EntryState::Todo;
            }
        }
    }

    /// Marks an entry in flight as not carried out, unless it has failed meanwhile.
    pub(super) fn unsend(&mut self, index: usize) {
        if let Some(entry) = self.entries.get_mut(index)
            && entry.state == EntryState::Sent
        {
            entry.state = EntryState::Todo;
            self.next = self.next.min(index);
        }
    }

    /// The number of steps, the opening included, that are not part of the progress yet.
    pub(super) fn uncounted(&mut self) -> usize {
        let opening = usize::from(!core::mem::replace(&mut self.opened, true));
        opening + self.entries.iter().filter(|it| !it.counted).count()
    }

    /// Marks all entries as not carried out, except those that have failed: they went with the
    /// channel.
    pub(super) fn undo(&mut self) {
        self.next = 0;
        for entry in &mut self.entries {
            if entry.state == EntryState::Done {
                entry.state = EntryState::Todo;
            }
        }
    }
}

/// Sends the request of a step on its channel.
pub(super) fn send(
    connection: &mut Connection,
    channel: ChannelId,
    step: &PlanStep,
) -> Result<RequestId, ApiMisuse> {
    let mut channel = connection
        .channel(channel)
        .ok_or(ApiMisuse::ChannelNotOpen)?;
    match step {
        PlanStep::DeclareExchange(declare) => channel.call(declare),
        PlanStep::DeclareQueue {
            declare,
            server_named: false,
        } => channel.call(declare),
        PlanStep::DeclareQueue {
            declare,
            server_named: true,
        } => channel.call(&queue::Declare {
            queue: ShortStr::default(),
            ..declare.clone()
        }),
        PlanStep::Bind(binding) => match binding.to_method() {
            BindMethod::Queue(bind) => channel.call(&bind),
            BindMethod::Exchange(bind) => channel.call(&bind),
        },
        PlanStep::SetQos { qos, .. } => channel.call(qos),
        PlanStep::SetMode { mode, .. } => match mode {
            ChannelMode::Transaction => channel.call(&tx::Select),
            ChannelMode::Confirm | ChannelMode::Plain => channel.call(&confirm::Select::default()),
        },
        PlanStep::Consume {
            consumer, consume, ..
        } => channel.resume_consumer(*consumer, consume.clone()),
        PlanStep::CloseChannel => channel.close(ReplyCode::SUCCESS, "the topology is restored"),
        PlanStep::OpenChannel | PlanStep::ReopenChannel { .. } => Err(ApiMisuse::NotSentThisWay {
            method: "channel.open",
        }),
    }
}

//! The contents of a storage after changes: lists that are searched from end to end.

use amqp_peer::{
    MessageId, PeerName,
    storage::{Change, Stored, StoredClock, StoredMessage},
};

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    messages: Vec<(PeerName, u64, StoredMessage)>,
    accepted: Vec<(PeerName, u64, MessageId)>,
    clocks: Vec<(PeerName, StoredClock)>,
}

impl Model {
    pub(crate) fn apply(&mut self, changes: &[Change]) {
        for change in changes.iter().cloned() {
            match change {
                Change::Pushed {
                    to,
                    sequence,
                    message,
                } => {
                    self.messages.retain(|it| it.0 != to || it.1 != sequence);
                    self.messages.push((to, sequence, message));
                }
                Change::Removed { to, sequence } => {
                    self.messages.retain(|it| it.0 != to || it.1 != sequence);
                }
                Change::RemovedTo { to, up_to } => {
                    self.messages.retain(|it| it.0 != to || it.1 > up_to);
                }
                Change::Cleared { to } => {
                    self.messages.retain(|it| it.0 != to);
                    self.clocks.retain(|it| it.0 != to);
                }
                Change::Accepted { from, id, position } => {
                    self.accepted.retain(|it| it.0 != from || it.1 != position);
                    self.accepted.push((from, position, id));
                }
                Change::Forgotten { from, below } => {
                    self.accepted.retain(|it| it.0 != from || it.1 >= below);
                }
                Change::Clock {
                    name,
                    disconnected,
                    since,
                } => {
                    self.clocks.retain(|it| it.0 != name);
                    let clock = StoredClock {
                        disconnected,
                        since,
                    };
                    self.clocks.push((name, clock));
                }
                other => panic!("a change without a model: {other:?}"),
            }
        }
    }

    pub(crate) fn stored(&self) -> Stored {
        let mut stored = Stored::default();
        let mut messages = self.messages.clone();
        messages.sort_by_key(|it| it.1);
        for (to, sequence, message) in messages {
            stored
                .outbox
                .entry(to)
                .or_default()
                .push((sequence, message));
        }
        let mut accepted = self.accepted.clone();
        accepted.sort_by_key(|it| it.1);
        for (from, position, id) in accepted {
            stored
                .accepted
                .entry(from)
                .or_default()
                .push((position, id));
        }
        stored.clocks = self.clocks.iter().cloned().collect();
        stored
    }
}

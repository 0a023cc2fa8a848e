//! The faults that are set.

use crate::{byte_faults::ByteFaultState, model::channel::ConfirmOutcome, random::Random};

/// A fault of publisher confirms. It begins with the next publish on a channel in confirm mode, of
/// any connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfirmFault {
    /// No fault.
    #[default]
    None,
    /// Drops this many confirms; the messages are accepted all the same.
    DropNext(u64),
    /// Drops one confirm in this many, chosen by the broker's seed; the messages are accepted all
    /// the same.
    DropOneIn(u32),
    /// Discards this many messages, and sends `basic.nack` for them.
    NackNext(u64),
}

/// The faults that are set.
#[derive(Debug, Default)]
pub(crate) struct FaultState {
    pub(crate) memory_alarm: bool,
    pub(crate) refused_connects: u64,
    pub(crate) confirms: ConfirmFault,
    pub(crate) bytes: ByteFaultState,
}

impl FaultState {
    pub(crate) const fn refuses_connect(&mut self) -> bool {
        let refuses = self.refused_connects > 0;
        self.refused_connects = self.refused_connects.saturating_sub(1);
        refuses
    }

    /// Returns the fault of the next confirm.
    pub(crate) fn next_confirm(&mut self, random: &mut Random) -> Option<ConfirmOutcome> {
        match &mut self.confirms {
            ConfirmFault::None | ConfirmFault::DropNext(0) | ConfirmFault::NackNext(0) => None,
            ConfirmFault::DropNext(remaining) => {
                *remaining -= 1;
                Some(ConfirmOutcome::Dropped)
            }
            ConfirmFault::NackNext(remaining) => {
                *remaining -= 1;
                Some(ConfirmOutcome::Nacked)
            }
            ConfirmFault::DropOneIn(many) => {
                let hit = random.next().is_multiple_of(u64::from((*many).max(1)));
                hit.then_some(ConfirmOutcome::Dropped)
            }
        }
    }
}

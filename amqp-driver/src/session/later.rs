//! Effects that are deferred until the lock is released.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    task::Waker,
};

use bytes::Bytes;

#[cfg(feature = "tracing")]
use crate::trace::Traced;

/// Collects, under the lock, the effects that run foreign code: wake-ups, and drops of wakers and
/// bodies, as their destructors may use a handle of the same connection.
///
/// [`run`](Self::run) carries them out after the lock is released.
#[derive(Debug, Default)]
#[must_use = "the effects are lost unless they are run"]
pub(crate) struct Later {
    /// The first effect of a waker, which is mostly the only one, and so needs no block of memory.
    first: Option<Effect>,
    /// The others, in order.
    rest: Vec<Effect>,
    /// Bodies that were copied or are not sent.
    bodies: Vec<Bytes>,
    /// Events for the subscriber.
    #[cfg(feature = "tracing")]
    traced: Vec<Traced>,
    /// The machine has received a command: the driver must be woken.
    pub(crate) commanded: bool,
    /// The future of a command begins to wait for the outcome.
    pub(crate) waits: bool,
    /// A future of a command is woken.
    answers: bool,
}

#[derive(Debug)]
enum Effect {
    Wake(Waker),
    /// Drops a replaced or removed waker, which may be the last owner of its task.
    Drop(Waker),
}

impl Later {
    pub(crate) fn wake(&mut self, waker: Option<Waker>) {
        self.push(waker.map(Effect::Wake));
    }

    /// Wakes a future that waits for the outcome of a command.
    pub(crate) fn wake_answered(&mut self, waker: Option<Waker>) {
        self.answers = true;
        self.wake(waker);
    }

    /// Takes the waker of the future of a command, if waking it is the only effect.
    pub(crate) fn take_answered(&mut self) -> Option<Waker> {
        let others = !self.answers || !self.rest.is_empty() || !self.bodies.is_empty();
        #[cfg(feature = "tracing")]
        let others = others || !self.traced.is_empty();
        match self.first.take() {
            Some(Effect::Wake(waker)) if !others => Some(waker),
            effect => {
                self.first = effect;
                None
            }
        }
    }

    pub(crate) fn drop_waker(&mut self, waker: Option<Waker>) {
        self.push(waker.map(Effect::Drop));
    }

    fn push(&mut self, effect: Option<Effect>) {
        if self.first.is_none() {
            self.first = effect;
        } else {
            self.rest.extend(effect);
        }
    }

    pub(crate) fn drop_bodies(&mut self, bodies: Vec<Bytes>) {
        if self.bodies.is_empty() {
            self.bodies = bodies;
        } else {
            self.bodies.extend(bodies);
        }
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn trace(&mut self, traced: Traced) {
        self.traced.push(traced);
    }

    /// Wakes and drops. A panic in one effect does not affect the others: the panic hook has
    /// reported it, and every other future still gets its wake-up.
    #[inline]
    pub(crate) fn run(&mut self) {
        #[cfg(feature = "tracing")]
        for traced in mem::take(&mut self.traced) {
            let _reported = catch_unwind(AssertUnwindSafe(|| traced.emit()));
        }
        if self.first.is_some() || !self.bodies.is_empty() {
            self.run_all();
        }
    }

    #[inline(never)]
    fn run_all(&mut self) {
        let first = self.first.take();
        for effect in first.into_iter().chain(mem::take(&mut self.rest)) {
            let _reported = catch_unwind(AssertUnwindSafe(|| match effect {
                Effect::Wake(waker) => waker.wake(),
                Effect::Drop(waker) => drop(waker),
            }));
        }
        for body in mem::take(&mut self.bodies) {
            let _reported = catch_unwind(AssertUnwindSafe(|| drop(body)));
        }
    }
}

/// Stores the waker of a waiting task. Defers the drop of the one it replaces.
pub(crate) fn register(slot: &mut Option<Waker>, waker: Waker, later: &mut Later) {
    later.drop_waker(slot.replace(waker));
}

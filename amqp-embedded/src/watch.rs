//! Waiting until a broker meets a condition.

use std::{collections::BTreeMap, future::poll_fn, mem, sync::Arc, task::Poll, task::Waker};

use amqp_broker::Broker;

use crate::shared::{Owner, SharedBroker, SharedState};

/// The tasks that wait for a change of a broker.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    last: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Watchers {
    /// Takes the wakers of all tasks.
    pub(crate) fn wake(&mut self, wakes: &mut Vec<Waker>) {
        if !self.wakers.is_empty() {
            wakes.extend(mem::take(&mut self.wakers).into_values());
        }
    }
}

/// One of the tasks, which leaves when it is dropped.
struct Watch {
    owner: Arc<Owner>,
    number: u64,
}

impl Watch {
    fn new(owner: &Arc<Owner>) -> Self {
        let watchers = &mut owner.lock().watchers;
        watchers.last += 1;
        Self {
            owner: Arc::clone(owner),
            number: watchers.last,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let left = self.owner.lock().watchers.wakers.remove(&self.number);
        drop(left);
    }
}

impl SharedBroker {
    /// Waits until the broker meets a condition, which is checked now and after each change, with
    /// the broker locked.
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait.
    pub async fn until(&self, mut condition: impl FnMut(&Broker) -> bool) {
        self.watch(|state| condition(&state.broker)).await;
    }

    /// As [`until`](Self::until), with the state around the broker.
    pub(crate) async fn watch(&self, mut condition: impl FnMut(&SharedState) -> bool) {
        let watch = Watch::new(&self.0.owner);
        poll_fn(|cx| {
            let waker = cx.waker().clone();
            let mut state = watch.owner.lock();
            if condition(&state) {
                return Poll::Ready(());
            }
            let replaced = state.watchers.wakers.insert(watch.number, waker);
            drop(state);
            drop(replaced);
            Poll::Pending
        })
        .await;
    }
}

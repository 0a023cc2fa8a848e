//! The calls that wait for their replies.

use std::{
    collections::BTreeMap,
    mem,
    sync::PoisonError,
    task::{Poll, Waker},
};

use amqp_core::{protocol::basic::Properties, wire::ShortStr};

use super::{error::RpcError, reply::result_of};
use crate::{
    consumer::Message,
    error::Error,
    publishing::{Window, window::Room},
    session::{
        later::{Later, register},
        waiters::Place,
    },
    sync::Mutex,
};

/// The calls of a client.
pub(super) struct Calls {
    prefix: ShortStr,
    state: Mutex<State>,
}

struct State {
    room: Room,
    /// The queue of the replies.
    reply_to: ShortStr,
    calls: BTreeMap<u64, Entry>,
    last: u64,
    /// The number of replies that no call waits for.
    late: u64,
    /// The reason for which there are no more replies. `Some` once the consumer has ended.
    ended: Option<Error>,
}

#[derive(Default)]
struct Entry {
    /// The request was accepted into the output buffer.
    is_sent: bool,
    waker: Option<Waker>,
    result: Option<Result<Message, RpcError>>,
}

/// A call that was counted. Dropping it makes its reply a late one.
pub(super) struct Call<'a> {
    calls: &'a Calls,
    number: u64,
    bytes: usize,
}

/// The wait for room in the window.
pub(super) struct Entering<'a> {
    calls: &'a Calls,
    bytes: usize,
    place: Place,
}

impl Calls {
    pub(super) fn new(window: Window, prefix: ShortStr, reply_to: ShortStr) -> Self {
        Self {
            prefix,
            state: Mutex::new(State {
                room: Room::new(window),
                reply_to,
                calls: BTreeMap::new(),
                last: 0,
                late: 0,
                ended: None,
            }),
        }
    }

    pub(super) const fn enter(&self, bytes: usize) -> Entering<'_> {
        Entering {
            calls: self,
            bytes,
            place: None,
        }
    }

    pub(super) fn late(&self) -> u64 {
        self.with(|state, _| state.late)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.with(|state, _| state.calls.len())
    }

    /// The correlation id of a call.
    fn id(&self, number: u64) -> Option<ShortStr> {
        ShortStr::try_from(format!("{}{number}", self.prefix)).ok()
    }

    /// Gives a reply to its call, or counts it as late.
    pub(super) fn on_reply(&self, message: Message) {
        let properties = message.properties().unwrap_or_default();
        let number = self.number_of(&properties);
        let result = result_of(message, &properties);
        // Dropped without the lock.
        let _late = self.with(|state, later| {
            let entry = number.and_then(|number| state.calls.get_mut(&number));
            match entry {
                Some(entry) if entry.result.is_none() => {
                    entry.result = Some(result);
                    later.wake(entry.waker.take());
                    None
                }
                _ => {
                    state.late += 1;
                    Some(result)
                }
            }
        });
    }

    fn number_of(&self, reply: &Properties) -> Option<u64> {
        let id = reply.correlation_id.as_deref()?;
        id.strip_prefix(&*self.prefix)?.parse().ok()
    }

    /// The queue of the replies.
    pub(super) fn reply_to(&self) -> ShortStr {
        self.with(|state, _| state.reply_to.clone())
    }

    pub(super) fn is_reply_to(&self, queue: &ShortStr) -> bool {
        self.with(|state, _| state.reply_to == *queue)
    }

    /// Notes the new name of a queue.
    pub(super) fn rename(&self, from: &ShortStr, to: ShortStr) {
        self.with(|state, _| {
            if state.reply_to == *from {
                state.reply_to = to;
            }
        });
    }

    /// Ends the calls with a request that was sent: their replies are lost. Requests that wait for a
    /// recovery are sent after it.
    pub(super) fn interrupt(&self, error: &Error) {
        self.with(|state, later| {
            for entry in state.calls.values_mut() {
                if entry.is_sent {
                    entry.lose(error, later);
                }
            }
        });
    }

    /// Ends all calls: the consumer has ended.
    pub(super) fn end(&self, error: Error) {
        self.with(|state, later| {
            for entry in state.calls.values_mut() {
                entry.lose(&error, later);
            }
            state.ended = Some(error);
            state.room.dismiss(later);
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut State, &mut Later) -> T) -> T {
        let mut later = Later::default();
        let result = {
            // No critical section panics. If one did, the state would still be usable.
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            act(&mut state, &mut later)
        };
        later.run();
        result
    }
}

impl Entry {
    fn lose(&mut self, error: &Error, later: &mut Later) {
        if self.result.is_none() {
            self.result = Some(Err(RpcError::Lost(error.clone())));
            later.wake(self.waker.take());
        }
    }
}

impl<'a> Entering<'a> {
    /// Ready once there is room, or the client has ended.
    pub(super) fn poll(&mut self, waker: &Waker) -> Poll<Result<Call<'a>, Error>> {
        let waker = waker.clone();
        let Self {
            calls,
            bytes,
            place,
        } = self;
        calls.with(|state, later| {
            if let Some(error) = &state.ended {
                later.drop_waker(Some(waker));
                return Poll::Ready(Err(error.clone()));
            }
            if !state.room.take(*bytes, place) {
                state.room.wait(*bytes, place, waker, later);
                return Poll::Pending;
            }
            later.drop_waker(Some(waker));
            state.last += 1;
            state.calls.insert(state.last, Entry::default());
            Poll::Ready(Ok(Call {
                calls,
                number: state.last,
                bytes: *bytes,
            }))
        })
    }
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        let Self {
            calls,
            bytes,
            place,
        } = self;
        calls.with(|state, later| state.room.leave(*bytes, place, later));
    }
}

impl Call<'_> {
    /// The correlation id.
    pub(super) fn id(&self) -> Option<ShortStr> {
        self.calls.id(self.number)
    }

    /// Notes that the request was accepted into the output buffer.
    pub(super) fn set_sent(&self) {
        self.calls.with(|state, _| {
            if let Some(entry) = state.calls.get_mut(&self.number) {
                entry.is_sent = true;
            }
        });
    }

    /// Ready with the result of the call.
    pub(super) fn poll(&self, waker: &Waker) -> Poll<Result<Message, RpcError>> {
        let waker = waker.clone();
        self.calls.with(|state, later| {
            let Some(entry) = state.calls.get_mut(&self.number) else {
                later.drop_waker(Some(waker));
                return Poll::Pending;
            };
            match mem::take(&mut entry.result) {
                Some(result) => {
                    later.drop_waker(Some(waker));
                    Poll::Ready(result)
                }
                None => {
                    register(&mut entry.waker, waker, later);
                    Poll::Pending
                }
            }
        })
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let _result = self.calls.with(|state, later| {
            state.room.release(self.bytes, later);
            let entry = state.calls.remove(&self.number)?;
            later.drop_waker(entry.waker);
            entry.result
        });
    }
}

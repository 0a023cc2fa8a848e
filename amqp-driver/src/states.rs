//! The states of connections and channels, as streams.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use amqp_core::{ChannelId, CloseReason, wire::ShortStr};
use futures_core::Stream;

use crate::session::{shared::Shared, state::State, waiters::Place};

/// The state of a connection.
///
/// ```text
///  Opening ──> Open <──> Blocked     Recovering <──> Open, Blocked (a connection that recovers)
///     └──────────┴──────────┴──> Closing ──> Closed
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// The handshake is in progress.
    Opening,
    /// The connection can be used.
    Open,
    /// The server is short of a resource and accepts no publishes
    /// ([`connection.blocked`](https://www.rabbitmq.com/docs/connection-blocked)): they wait.
    Blocked {
        /// The server's reason.
        reason: ShortStr,
    },
    /// The connection is lost, and is being recovered: handles wait. Only on a connection with
    /// [`Options::recovery`](crate::Options); the
    /// [events](crate::Connection::recovery_events) say more.
    Recovering,
    /// The connection is closing.
    Closing,
    /// The connection has ended, with the reason.
    Closed(CloseReason),
}

/// The state of a channel.
///
/// ```text
///  Open <──> Paused     Recovering <──> Open (of a connection that recovers)
///    └─────────┴──> Closed
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelState {
    /// The channel can be used.
    Open,
    /// The server has paused publishing on the channel (`channel.flow`, section 1.5.2.3 of the
    /// protocol reference): publishes wait.
    Paused,
    /// The channel or its connection is lost, and is being recovered: handles wait.
    Recovering,
    /// The channel or its connection has ended, with the reason.
    Closed(CloseReason),
}

/// The states of a connection, as a [`Stream`] that ends after [`Closed`](ConnectionState::Closed).
/// The first item is the current state; a state that was left before the stream was polled is
/// skipped.
#[derive(Debug)]
pub struct ConnectionStates {
    shared: Arc<Shared>,
    place: Place,
    last: Option<ConnectionState>,
}

/// The states of a channel, as a [`Stream`] that ends after [`Closed`](ChannelState::Closed), or
/// when the last handle of the channel is dropped. The first item is the current state; a state
/// that was left before the stream was polled is skipped.
#[derive(Debug)]
pub struct ChannelStates {
    shared: Arc<Shared>,
    id: ChannelId,
    place: Place,
    last: Option<ChannelState>,
}

impl ConnectionStates {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            place: None,
            last: None,
        }
    }

    /// Returns the next state that differs from the last one, or `None` after
    /// [`Closed`](ConnectionState::Closed).
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn next(&mut self) -> Option<ConnectionState> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl ChannelStates {
    pub(crate) const fn new(shared: Arc<Shared>, id: ChannelId) -> Self {
        Self {
            shared,
            id,
            place: None,
            last: None,
        }
    }

    /// Returns the next state that differs from the last one, or `None` after the stream's end.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn next(&mut self) -> Option<ChannelState> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

/// The current state of a connection.
pub(crate) fn connection_state(state: &State) -> ConnectionState {
    if let Some(reason) = &state.closed {
        ConnectionState::Closed(reason.clone())
    } else if state.is_closing() {
        ConnectionState::Closing
    } else if state.is_held(None) {
        ConnectionState::Recovering
    } else if state.machine.close_reason().is_some() {
        ConnectionState::Closing
    } else if let Some(reason) = &state.blocked {
        let reason = reason.clone();
        ConnectionState::Blocked { reason }
    } else if state.opened {
        ConnectionState::Open
    } else {
        ConnectionState::Opening
    }
}

fn channel_state(state: &State, id: ChannelId) -> Option<ChannelState> {
    let channel = state.channels.get(id)?;
    let closed = channel.closed.as_ref().or(state.closed.as_ref());
    Some(match closed {
        Some(reason) => ChannelState::Closed(reason.clone()),
        None if state.is_held(Some(id)) => ChannelState::Recovering,
        None if channel.paused => ChannelState::Paused,
        None => ChannelState::Open,
    })
}

impl Stream for ConnectionStates {
    type Item = ConnectionState;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self {
            shared,
            place,
            last,
        } = &mut *self;
        if matches!(last, Some(ConnectionState::Closed(_))) {
            return Poll::Ready(None);
        }
        let waker = cx.waker().clone();
        shared.with(|state, later| {
            let current = Some(connection_state(state));
            if current == *last {
                state.state_changed.wait(place, waker, later);
                return Poll::Pending;
            }
            later.drop_waker(Some(waker));
            last.clone_from(&current);
            Poll::Ready(current)
        })
    }
}

impl Stream for ChannelStates {
    type Item = ChannelState;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self {
            shared,
            id,
            place,
            last,
        } = &mut *self;
        if matches!(last, Some(ChannelState::Closed(_))) {
            return Poll::Ready(None);
        }
        let waker = cx.waker().clone();
        shared.with(|state, later| {
            let current = channel_state(state, *id);
            if current.is_some() && current == *last {
                if let Some(channel) = state.channels.get_mut(*id) {
                    channel.need_extras().watchers.wait(place, waker, later);
                }
                return Poll::Pending;
            }
            later.drop_waker(Some(waker));
            last.clone_from(&current);
            Poll::Ready(current)
        })
    }
}

impl Drop for ConnectionStates {
    fn drop(&mut self) {
        let place = &mut self.place;
        self.shared
            .with(|state, later| state.state_changed.leave(place, later));
    }
}

impl Drop for ChannelStates {
    fn drop(&mut self) {
        let (id, place) = (self.id, &mut self.place);
        self.shared.with(|state, later| {
            let channel = state.channels.get_mut(id);
            if let Some(extras) = channel.and_then(|channel| channel.extras_mut()) {
                extras.watchers.leave(place, later);
            }
        });
    }
}

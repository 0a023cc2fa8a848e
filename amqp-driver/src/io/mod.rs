//! The seam between the handles and a runtime: the traits of an adapter, and the driver that moves
//! the bytes.
//!
//! An adapter implements [`Runtime`] with a [`Transport`] and a [`Timer`], and
//! [`connect`](crate::connect()) then works on its runtime. An event loop without a runtime gets a
//! [`Driver`] from [`Connection::start`](crate::Connection::start) and polls it.

mod clock;
mod driver;
#[cfg(feature = "futures-io")]
mod futures_stream;
#[cfg(feature = "futures-rustls")]
mod futures_tls;
mod pipe;
mod runtime;
mod transport;

use std::task::{Context, Waker};

#[cfg(feature = "futures-io")]
pub use self::futures_stream::{FuturesStream, Socket};
pub use self::{
    clock::SleepClock,
    driver::{DrivenEndpoint, Driver},
    pipe::{Pipe, pipe},
    runtime::{Runtime, within},
    transport::{Clock, Slices, Timer, Transport},
};
#[cfg(feature = "tls")]
pub use crate::tls::peer_certificates;
pub use crate::{
    session::shared::ClientEndpoint,
    tls::{Secured, Tls},
};

/// Stores the waker of the polling task, unless it is stored already.
pub fn register_waker(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

//! The seam between the handles and a runtime: the traits of an adapter, and the driver that moves
//! the bytes.
//!
//! An adapter implements [`Runtime`] with a [`Transport`] and a [`Timer`], and
//! [`connect`](crate::connect()) then works on its runtime. An event loop without a runtime gets a
//! [`Driver`] from [`Connection::start`](crate::Connection::start) and polls it.

mod boxed;
mod clock;
mod driver;
#[cfg(feature = "futures-io")]
mod futures_stream;
#[cfg(feature = "futures-rustls")]
mod futures_tls;
mod lent;
mod locked;
mod pipe;
mod runtime;
mod thread;
mod transport;

#[cfg(feature = "futures-io")]
pub use self::futures_stream::{FuturesStream, Socket};
pub(crate) use self::{boxed::BoxTransport, lent::Lend};
pub use self::{
    clock::SleepClock,
    driver::{DrivenEndpoint, Driver},
    lent::LentDriver,
    locked::{poll_locked, wake_all},
    pipe::{Pipe, pipe},
    runtime::{Runtime, within},
    thread::in_thread,
    transport::{Clock, Slices, Timer, Transport, no_wakeup},
};
#[cfg(feature = "tls")]
pub use crate::tls::peer_certificates;
pub use crate::{
    connect::dial,
    session::shared::ClientEndpoint,
    tls::{Secured, Tls},
};

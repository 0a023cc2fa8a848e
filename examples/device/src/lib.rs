//! A client and a broker on a processor without an operating system, each behind a serial port.
//!
//! The machines need an allocator, and nothing else of a system: the port and the clock are traits
//! that the board implements. [`Client`] and [`Station`] are the loops, without a heap of their own
//! making and without waiting: the board calls `turn` when a port is ready or a deadline has come.
//!
//! `.ci/deep targets` builds the static library for `thumbv7em-none-eabihf`, with [`run_on_device`]
//! as its entry; on a host, the tests run the same code.

#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

mod client;
mod loopback;
mod port;
mod station;
#[cfg(target_os = "none")]
mod target;

use alloc::string::String;

use amqp_core::Instant;

pub use self::{
    client::{Client, Progress},
    loopback::{Port as LoopbackPort, loopback},
    port::Port,
    station::Station,
};

/// The number of messages that [`run`] sends through the broker.
pub const MESSAGES: u64 = 100;

/// Runs a client on a broker over a loopback line of `room` bytes each way, by that clock, until the
/// client has closed its connection. Returns the number of messages that came back.
///
/// # Errors
/// The reason in words, if the connection ends early or a setting is refused.
pub fn run(room: usize, mut clock: impl FnMut() -> Instant) -> Result<u64, String> {
    let (near, far) = loopback(room);
    let mut client = Client::new(near, clock(), MESSAGES)?;
    let mut station = Station::new(far, clock())?;
    loop {
        let progress = client.turn(clock())?;
        station.turn(clock());
        if let Progress::Finished(count) = progress {
            return Ok(count);
        }
        // A board sleeps here until a port interrupts, or until the earlier of both deadlines.
    }
}

/// The entry for a program in C: `uint32_t amqp_run_on_device(uint64_t (*nanoseconds)(void))`.
/// Returns the number of messages that came back, or 0 after a failure.
#[cfg_attr(
    target_os = "none",
    expect(unsafe_code, reason = "a name for the linker")
)]
#[cfg_attr(target_os = "none", unsafe(export_name = "amqp_run_on_device"))]
pub extern "C" fn run_on_device(nanoseconds: extern "C" fn() -> u64) -> u32 {
    #[cfg(target_os = "none")]
    target::begin();
    let count = run(64, || Instant::from_nanos(nanoseconds()));
    count.map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX))
}

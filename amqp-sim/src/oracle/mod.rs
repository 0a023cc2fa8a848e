//! Oracles: they are given all that programs do and see, and know at any time whether that can be.
//!
//! - [`Ledger`]: each publish has one outcome, which is true; nothing that was confirmed is lost;
//!   no repeat without `redelivered`; order by publisher and queue.
//! - [`Requests`]: each request has an outcome, and has it in time.
//! - [`Turns`]: no participant starves.
//! - [`check_memory`]: a connection is within its limits.
//!
//! Lost wake-ups are looked for [anyway](crate::Check::wakeups).
//!
//! Give a check to [`Sim::always`](crate::Sim::always), and call the final ones behind
//! [`Sim::run`](crate::Sim::run), where that everything ends is checked as well.

mod ledger;
mod memory;
mod requests;
mod turns;

pub use self::{
    ledger::{Ledger, MessageId, Settlement},
    memory::check_memory,
    requests::Requests,
    turns::Turns,
};

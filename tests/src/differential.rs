//! Random programs, run on two brokers, with a comparison of the answers.
//!
//! A [program](program::Program) is a list of steps that comes from a seed: declare, bind, publish,
//! consume, acknowledge, delete, and wrong things on purpose. A [`Lane`] runs it on a broker, over
//! TCP with this project's client, one step after another, and after each step waits until nothing
//! moves any more. The result is a [`Trace`]: replies, errors with their texts, deliveries,
//! returns, and the number of messages and consumers of each queue; without the names and times
//! that differ from run to run. Two brokers that behave alike give the same trace.
//!
//! [`compare`] runs many programs, reports the first difference of each that has one, and makes it
//! small. Where RabbitMQ does not give the same trace twice, the difference is its own.

pub mod compare;
mod consuming;
pub mod generate;
mod inject;
pub mod kept;
mod kinds;
mod lane;
pub mod names;
pub mod policies;
pub mod program;
mod run;
mod steps;
mod trace;

pub use self::{lane::Lane, trace::Trace};

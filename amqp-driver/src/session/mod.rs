//! The state that the handles of a connection share with its driver, behind one lock.
//!
//! | file | concern |
//! |---|---|
//! | `shared.rs` | the lock, the driver's endpoint, waits for replies |
//! | `state.rs`, `channel_table.rs`, `consumers.rs` | channels, and the events of the machine |
//! | `driver_task.rs`, `inline.rs` | the task of the driver, and writes on the thread of a command |
//! | `requests.rs`, `slots.rs` | requests in flight |
//! | `publish.rs`, `lines.rs` | publishing, and the order of publishers that wait for room |
//! | `confirms/` | outcomes of publishes |
//! | `deliveries.rs`, `untaken.rs`, `withheld.rs`, `buffer.rs` | messages that the application has not taken, and their bound |
//! | `recovering.rs` | a connection that recovers: lost, restored, going on |
//! | `alarms.rs`, `waiters.rs` | deadlines, wakers |
//! | `later.rs`, `budget.rs` | effects deferred until after the lock, yielding |
//!
//! Imports run one way: the types that the state holds, `state.rs`, then the files that implement its
//! behaviour and `shared.rs`.

pub(crate) mod alarms;
pub(crate) mod budget;
pub(crate) mod buffer;
mod channel_table;
pub(crate) mod confirms;
mod consumers;
mod deliveries;
pub(crate) mod driver_task;
mod inline;
pub(crate) mod later;
pub(crate) mod lines;
#[cfg(test)]
mod open;
pub(crate) mod publish;
pub(crate) mod recovering;
mod requests;
pub(crate) mod shared;
pub(crate) mod slots;
pub(crate) mod state;
pub(crate) mod untaken;
pub(crate) mod waiters;
mod withheld;

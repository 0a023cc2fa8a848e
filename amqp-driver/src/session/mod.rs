//! The state that the handles of a connection share with its driver, behind one lock.
//!
//! | file | concern |
//! |---|---|
//! | `shared.rs` | the lock, the driver's endpoint, waits for replies |
//! | `state.rs` | channels, and the events of the machine |
//! | `requests.rs` | requests in flight |
//! | `publish.rs`, `lines.rs` | publishing, and the order of publishers that wait for room |
//! | `confirms.rs` | outcomes of publishes |
//! | `deliveries.rs`, `withheld.rs`, `buffer.rs` | messages that the application has not taken, and their bound |
//! | `alarms.rs`, `waiters.rs` | deadlines, wakers |
//! | `later.rs`, `budget.rs` | effects deferred until after the lock, yielding |

pub(crate) mod alarms;
pub(crate) mod budget;
pub(crate) mod buffer;
mod channel_table;
pub(crate) mod confirms;
pub(crate) mod deliveries;
pub(crate) mod later;
pub(crate) mod lines;
pub(crate) mod publish;
pub(crate) mod requests;
pub(crate) mod shared;
pub(crate) mod state;
pub(crate) mod waiters;
mod withheld;

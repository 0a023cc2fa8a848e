//! The orders in which threads take the locks of a connection: all of them, up to a number of
//! preemptions.
//!
//! A test is a small world: a connection, a driver, a server and a few threads, over and over from
//! the start, each time in another order. An order in which all threads wait is a deadlock, which is
//! how a lost wake-up shows. With shuttle, a thread is switched only at a lock (`lock.rs`), which is
//! enough where all that threads share is behind one, and `explore.rs` enumerates the switches.
//!
//! | file | rule |
//! |---|---|
//! | `parking.rs` | the driver looks for work under the lock before it parks |
//! | `inline.rs` | a command that is awaited, and no other, is written on its own thread |
//! | `lent.rs` | a thread that waits for an answer reads it itself |
//! | `replies.rs` | a reply finds the future that waits in its slot, or is undone |
//! | `turns.rs` | publishers that wait for room get it, whatever becomes of the others |
//! | `waiting.rs` | `poll_locked`, waiters, pipes, pools and background work |
//!
//! That of a set of futures stands beside it, in `consuming/running.rs`.

pub(crate) mod explore;
mod inline;
mod lent;
pub(crate) mod lock;
mod parking;
mod replies;
mod turns;
mod waiting;
mod world;

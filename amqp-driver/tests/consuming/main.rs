//! Loops over deliveries: each message is settled once, and the loop ends with a reason.

mod batch_acker;
mod draining;
mod for_each;
mod groups;
mod retrying;
mod tools;

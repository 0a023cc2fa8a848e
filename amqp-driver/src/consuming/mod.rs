//! Consuming in production: bodies that run side by side, and an end with a reason.
//!
//! [`Consumer::for_each_concurrent`](crate::Consumer::for_each_concurrent) calls a body for each
//! delivery and acknowledges the message when the body has run. Everything here is a future of the
//! caller: nothing is spawned, so that it is the same on every runtime.
//!
//! | type | purpose |
//! |---|---|
//! | [`ForEach`] | the loop, as a future that ends with an [`Ended`] |
//! | [`ForEachOptions`] | the treatment of failures, the order by key, the merging of acknowledgements |
//! | [`OnFailure`], [`Retry`] | the end of a message after a failure of its body |
//! | [`Stopper`] | ends the loop from outside, with a deadline and a report, [`Drained`] |
//! | [`BatchAcker`] | merges acknowledgements to `multiple` |
//! | [`ConsumerGroup`] | several queues as one fair stream, with a prefetch that can be changed |

mod batch_acker;
mod claim;
mod confirmed;
mod credit;
mod end;
mod for_each;
mod group;
mod lanes;
mod member;
mod options;
mod retry;
mod running;
mod source;
mod stopper;
mod work;

pub use self::{
    batch_acker::BatchAcker,
    credit::GroupCredit,
    end::{Counts, EndReason, Ended, Failure, Panicked},
    for_each::ForEach,
    group::{ConsumerGroup, GroupDelivery, GroupPrefetch},
    options::{Buffered, ForEachOptions, OnFailure},
    retry::Retry,
    stopper::{Drained, Stopper},
};

//! Durability: the entities and messages that outlive a stop of the broker
//! (<https://www.rabbitmq.com/docs/persistence-conf>), as data.
//!
//! - `change.rs`: a change of the durable state, and `codec.rs`: its bytes.
//! - `journal.rs`: the changes that the host has not stored, and the replies that wait for it.
//! - `record.rs`: the changes of each operation of the broker.
//! - `administration.rs`: the changes of users, virtual hosts, policies and parameters, and
//!   `administration_codec.rs`: their bytes.
//! - `streams.rs`: the changes of streams.
//! - `stop.rs`: stopping and starting in place.
//! - `snapshot.rs` and `restore.rs`: the state as a sequence of changes, and the way back.

mod administration;
mod administration_codec;
mod change;
mod codec;
pub(crate) mod journal;
mod record;
mod restore;
mod snapshot;
mod stop;
mod streams;

#[cfg(feature = "definitions")]
pub(crate) use self::administration_codec::is_storable_value;
pub(crate) use self::{administration_codec::is_storable, record::Place};
pub use self::{
    change::{
        Change, DurableBinding, DurableExchange, DurableMessage, DurableQueue, DurableVhost,
        MessageState, StreamMessage,
    },
    codec::BadChange,
    restore::RestoreError,
};

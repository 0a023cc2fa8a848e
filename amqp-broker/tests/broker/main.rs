//! The behaviour of the broker, seen by clients that are joined to it in memory.

mod ack_timeout;
mod administration;
mod changes;
mod connections;
mod dead_letters;
mod delivery;
mod exchanges;
mod external;
mod fairness;
mod faults;
mod hostile;
mod journal;
mod kept_administration;
mod limits;
mod listing;
mod notices;
mod policies;
mod protocol_faults;
mod publishing;
mod queues;
mod quorum;
mod restarts;
mod rig;
mod settings;
mod stream_retention;
mod streams;

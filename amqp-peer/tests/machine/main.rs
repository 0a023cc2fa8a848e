//! The machine of peers under virtual time, with transports in memory.

mod foreign;
mod rig;

mod causes;
mod certificates;
mod cuts;
mod delivering;
mod dialing;
mod hostile;
mod joining;
mod limits;
mod listeners;
mod receipts;
mod repeating;
mod storing;
mod stragglers;
mod throttle;
mod ttl;
mod worlds;

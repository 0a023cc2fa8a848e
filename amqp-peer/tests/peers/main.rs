//! Peers over real sockets, on every runtime, with the roles of listener and connector swapped.

mod bounds;
mod calls;
mod faults;
mod handles;
mod kill;
mod links;
mod messages;
mod refusing;
mod rig;
mod strangers;
mod throttled;
mod timed;
mod tls;

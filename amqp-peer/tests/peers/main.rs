//! Peers over real sockets, on every runtime, with the roles of listener and connector swapped.

mod calls;
mod faults;
mod handles;
mod kill;
mod links;
mod messages;
mod rig;
mod throttled;
mod tls;

//! The client for an event loop of one's own, on the embedded broker.

mod everything;
mod loops;
mod prefetch;
mod puka;
mod recovery;
mod sockets;
mod tools;
mod turns;

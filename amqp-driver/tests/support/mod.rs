//! The rig that the tests of the client share: a client, a server and the bytes between them, in
//! one thread, step by step, under a clock that the test turns.
#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]

pub(crate) mod operations;
pub(crate) mod peer;
pub(crate) mod rig;
pub(crate) mod world;

pub(crate) use self::{
    peer::{Confirming, Message, Peer, Saw},
    rig::{Order, Probe, Rig, Setup, Task},
    world::{Cut, World},
};

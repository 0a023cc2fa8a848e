//! Tests of calls.

mod attacks;
mod cache;
mod calls;
mod codecs;
mod handles;
mod lasting;
mod rig;
mod world;

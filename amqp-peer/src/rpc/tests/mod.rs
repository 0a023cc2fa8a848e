//! Tests of calls.

mod attacks;
mod cache;
mod calls;
mod codecs;
mod handles;
mod lasting;
mod places;
mod rig;
mod stored;
mod world;

//! The handshake by chosen arguments, and the responses of SASL.

#![no_main]

use amqp_fuzzing::handshake;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| handshake::handshake(data));

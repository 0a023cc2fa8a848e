//! A stream of bytes for a client.

#![no_main]

use amqp_fuzzing::machines;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| machines::client(data));

//! A client and a server at work, over a line that may damage bytes.

#![no_main]

use amqp_fuzzing::pair;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| pair::pair(data));

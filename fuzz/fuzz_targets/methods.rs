//! The arguments of methods, and properties: decoded, encoded, and decoded again.

#![no_main]

use amqp_fuzzing::tables;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tables::methods(data));

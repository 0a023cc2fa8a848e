//! The handles of a client under faults, with megabytes of input that no task takes.

#![no_main]

use amqp_fuzzing::handles;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| handles::handles(data));

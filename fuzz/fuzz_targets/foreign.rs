//! Frames, read by this decoder and by that of `amq-protocol`.

#![no_main]

use amqp_fuzzing::foreign;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| foreign::foreign(data));

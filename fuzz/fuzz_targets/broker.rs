//! A stream of bytes for a broker, which has another client as well.

#![no_main]

use amqp_fuzzing::broker;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| broker::broker(data));

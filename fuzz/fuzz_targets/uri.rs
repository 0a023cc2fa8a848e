//! A text that may be a URI.

#![no_main]

use amqp_fuzzing::uri;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| uri::uri(data));

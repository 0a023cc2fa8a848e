//! A list of frames with damaged fields, for a client, a server and a broker.

#![no_main]

use amqp_fuzzing::frames;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| frames::frames(data));

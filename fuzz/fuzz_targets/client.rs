//! A stream of bytes for a client, in pieces of a size that the first byte gives.

#![no_main]

use amqp_test_support::replay;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some((&pieces, stream)) = data.split_first() {
        let _outcome = replay::client(pieces.into(), stream);
    }
});

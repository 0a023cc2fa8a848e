//! The stack that the decoder needs.

use std::thread;

use super::*;
use crate::protocol::basic::Properties;

/// The decoder's stack in a build without optimization, in bytes. A build with optimization needs
/// less.
const STACK: usize = 192 << 10;

#[test]
fn tables_of_the_maximum_depth_fit_into_a_small_stack() {
    for tag in *b"FA" {
        let headers = [&[0x20, 0][..], &nested(tag, MAX_TABLE_DEPTH)].concat();
        let decode = move || {
            Properties::check(&headers).unwrap();
            Properties::decode(&headers).unwrap()
        };
        // An overflow ends the process.
        let thread = thread::Builder::new().stack_size(STACK).spawn(decode);
        let properties = thread.unwrap().join().unwrap();
        assert_eq!(properties.headers.unwrap().depth(), MAX_TABLE_DEPTH);
    }
}

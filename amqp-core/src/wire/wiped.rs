//! Bytes that are overwritten on drop.

use alloc::vec::Vec;
use core::hint::black_box;

use bytes::Bytes;

/// Bytes that are overwritten before their memory is released.
struct Wiped(Vec<u8>);

/// Creates shared bytes that are overwritten when the last reference is dropped.
pub(super) fn wiped(bytes: Vec<u8>) -> Bytes {
    if bytes.capacity() == 0 {
        return Bytes::new();
    }
    Bytes::from_owner(Wiped(bytes))
}

impl Wiped {
    /// Overwrites the whole capacity: a truncated text is still in the memory after the end.
    fn wipe(&mut self) {
        let capacity = self.0.capacity();
        self.0.clear();
        self.0.resize(capacity, 0);
        // Keeps the compiler from removing the writes, which are dead stores before a release of
        // memory.
        black_box(self.0.as_mut_slice());
    }
}

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        self.wipe();
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn nothing_is_left_in_the_whole_of_the_memory() {
        let mut bytes = b"swordfish".to_vec();
        bytes.truncate(5);
        let (capacity, place) = (bytes.capacity(), bytes.as_ptr());
        let mut wiped = Wiped(bytes);
        wiped.wipe();
        assert_eq!(wiped.0, vec![0; capacity]);
        assert_eq!(wiped.0.as_ptr(), place);
    }

    #[test]
    fn it_is_shared_until_the_last_one_goes() {
        let first = wiped(b"swordfish".to_vec());
        let second = first.clone();
        assert_eq!(first.as_ptr(), second.as_ptr());
        drop(first);
        assert_eq!(second, &b"swordfish"[..]);
    }
}

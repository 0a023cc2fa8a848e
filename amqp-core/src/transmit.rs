//! Output bytes on the way from the machine to the transport.

use alloc::{collections::VecDeque, vec::Vec};
use core::fmt;

use bytes::{Buf, Bytes, BytesMut};

/// Bytes that the machine has emitted and the transport has not yet accepted: a list of segments.
///
/// Owned by the driver, so that writing does not need access to the machine. It is a [`Buf`]: write
/// [`chunk`](Buf::chunk), or all [`segments`](Self::segments) with a vectored write, then call
/// [`advance`](Buf::advance) with the number of bytes that were written.
#[derive(Default)]
pub struct Transmit {
    /// Invariant: no segment is empty.
    segments: VecDeque<Bytes>,
    /// The total length of the segments, in bytes.
    len: usize,
}

impl Transmit {
    /// Creates an empty `Transmit`.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            segments: VecDeque::new(),
            len: 0,
        }
    }

    /// Returns the number of unwritten bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns whether all bytes have been written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the unwritten segments, in order. None of them is empty.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.segments.iter().map(|segment| &segment[..])
    }

    /// Takes all segments, in order, for a transfer to another machine in memory.
    pub fn take_segments(&mut self) -> impl Iterator<Item = Bytes> + '_ {
        self.len = 0;
        self.segments.drain(..)
    }

    /// Moves the first `count` bytes, at most all, to the end of `to`, without a copy: for writes
    /// of limited size.
    pub fn move_front(&mut self, count: usize, to: &mut Self) {
        let mut left = count.min(self.len);
        self.len -= left;
        to.len += left;
        while left > 0
            && let Some(mut front) = self.segments.pop_front()
        {
            if left < front.len() {
                to.segments.push_back(front.split_to(left));
                self.segments.push_front(front);
                return;
            }
            left -= front.len();
            to.segments.push_back(front);
        }
    }

    /// Discards all unwritten bytes, once the connection has ended.
    pub fn clear(&mut self) {
        self.segments = VecDeque::new();
        self.len = 0;
    }

    pub(crate) fn push(&mut self, segment: Bytes) {
        if !segment.is_empty() {
            self.len += segment.len();
            self.segments.push_back(segment);
        }
    }
}

/// Shows only the length: the bytes may contain secrets.
impl fmt::Debug for Transmit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transmit({} bytes)", self.len)
    }
}

impl Buf for Transmit {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.segments.front().map_or(&[], |segment| &segment[..])
    }

    /// Advances by `count` bytes, at most to the end.
    fn advance(&mut self, count: usize) {
        let mut left = count.min(self.len);
        self.len -= left;
        while let Some(front) = self.segments.front_mut() {
            if left < front.len() {
                front.advance(left);
                return;
            }
            left -= front.len();
            self.segments.pop_front();
        }
    }
}

/// The size of the first buffer of [`Segments`], in bytes.
const FIRST_BUFFER: usize = 512;

/// The largest buffer of [`Segments`] that is not made for a single frame, in bytes. A larger one is
/// used once.
const LARGEST_BUFFER: usize = 64 << 10;

/// The maximum number of buffers that are kept to be used again: a hand-out of 256 KiB, and another
/// one that the transport has not written yet.
const EARLIER_BUFFERS: usize = 12;

/// The size to which a window is widened when it was too small, in bytes: enough for some small
/// messages.
const WINDOW: usize = 2048;

/// The size of a window in which most frames of methods, and most frames of a message up to its body,
/// have room, in bytes. It is not begun in less.
const SMALL_WINDOW: usize = 512;

/// Output under construction: small pieces are copied into buffers, large ones are chained.
///
/// A full buffer is followed by another one, so that nothing is copied twice. Buffers are used
/// again once all that was handed out of them is dropped. Behind the output, a buffer has a window:
/// initialized memory, in which frames are written in place.
pub(crate) struct Segments {
    /// The finished pieces.
    done: VecDeque<Bytes>,
    /// The total length of the finished pieces, in bytes.
    done_len: usize,
    /// The buffer for small pieces.
    tail: Buffer,
    /// Earlier buffers, the oldest first, each of at most [`LARGEST_BUFFER`].
    earlier: VecDeque<Buffer>,
    /// The size of the next buffer, in bytes. It doubles with each buffer that is full, and follows
    /// the output between two times at which there is none.
    size: usize,
    /// The number of bytes moved out since there was no output.
    moved: usize,
    /// The bound of `size`.
    size_max: usize,
}

impl fmt::Debug for Segments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segments({} bytes)", self.len())
    }
}

/// A buffer for small pieces.
#[derive(Default)]
struct Buffer {
    /// The output that is not handed out, and the window behind it.
    bytes: BytesMut,
    /// The size of that output, in bytes.
    used: usize,
    /// The size of all of it, in bytes.
    size: usize,
}

impl Buffer {
    /// `Some`, as the output is in the bytes.
    #[inline]
    fn window(&mut self) -> Option<&mut [u8]> {
        self.bytes.get_mut(self.used..)
    }

    /// The number of bytes that fit behind the output.
    fn room(&self) -> usize {
        self.bytes.capacity() - self.used
    }

    /// Widens the window to `len` bytes, as far as there is room. Returns `false` if it is no larger
    /// then.
    fn widen(&mut self, len: usize) -> bool {
        let size = self.used + self.room().min(len);
        let wider = size > self.bytes.len();
        if wider {
            self.bytes.resize(size, 0);
        }
        wider
    }

    /// Appends output that `put` writes, for which there is room.
    fn append(&mut self, put: impl FnOnce(&mut BytesMut)) {
        self.bytes.truncate(self.used);
        put(&mut self.bytes);
        self.used = self.bytes.len();
        self.widen(SMALL_WINDOW);
    }
}

impl Segments {
    /// Creates an empty list for output that is held back at `high` bytes.
    pub(crate) fn new(high: usize) -> Self {
        Self::with_largest((high / 4).clamp(FIRST_BUFFER, LARGEST_BUFFER))
    }

    fn with_largest(size_max: usize) -> Self {
        Self {
            done: VecDeque::new(),
            done_len: 0,
            tail: Buffer::default(),
            earlier: VecDeque::new(),
            size: FIRST_BUFFER,
            moved: 0,
            size_max,
        }
    }

    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.done_len + self.tail.used
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The window. `Some`, as it is behind the output, which is in the buffer.
    #[inline]
    pub(crate) fn window(&mut self) -> Option<&mut [u8]> {
        self.tail.window()
    }

    /// Adds `len` bytes, which were written at the front of the window, to the output.
    #[inline]
    pub(crate) const fn advance(&mut self, len: usize) {
        self.tail.used += len;
    }

    /// The last `len` bytes that were written into the window.
    pub(crate) fn written(&self, len: usize) -> &[u8] {
        let Buffer { bytes, used, .. } = &self.tail;
        bytes
            .get(used.saturating_sub(len)..*used)
            .unwrap_or_default()
    }

    /// Widens the window if it is small, at the beginning of another buffer if need be. Returns `false`
    /// if it is no larger then.
    #[cold]
    pub(crate) fn widen(&mut self) -> bool {
        let len = self.window().map_or(0, |window| window.len());
        if len >= SMALL_WINDOW {
            return false;
        }
        if self.tail.widen(WINDOW) {
            return true;
        }
        self.begin_buffer(SMALL_WINDOW);
        self.tail.widen(WINDOW)
    }

    /// Appends `len` bytes, at most, that `put` writes.
    pub(crate) fn append(&mut self, len: usize, put: impl FnOnce(&mut BytesMut)) {
        if self.tail.room() < len {
            self.begin_buffer(len);
        }
        self.tail.append(put);
    }

    /// Appends a small piece.
    #[inline]
    pub(crate) fn extend(&mut self, piece: &[u8]) {
        let window = self.window();
        match window.and_then(|window| window.get_mut(..piece.len())) {
            Some(room) => {
                room.copy_from_slice(piece);
                self.advance(piece.len());
            }
            None => self.extend_behind(piece),
        }
    }

    /// Appends a piece that does not fit into the window.
    #[inline(never)]
    fn extend_behind(&mut self, piece: &[u8]) {
        self.append(piece.len(), |tail| tail.extend_from_slice(piece));
    }

    /// Appends a large piece, without a copy.
    pub(crate) fn chain(&mut self, piece: Bytes) {
        self.finish_tail();
        self.done_len += piece.len();
        self.done.push_back(piece);
    }

    /// Moves all output into `out`.
    #[inline]
    pub(crate) fn move_into(&mut self, out: &mut Transmit) {
        self.finish_tail();
        self.moved = self.moved.saturating_add(self.done_len);
        self.done_len = 0;
        for piece in self.done.drain(..) {
            out.push(piece);
        }
    }

    /// Discards all output. Finished pieces move to `discarded`; the small pieces after them are
    /// dropped.
    pub(crate) fn clear(&mut self, discarded: &mut Vec<Bytes>) {
        let cleared = core::mem::replace(self, Self::with_largest(self.size_max));
        discarded.extend(cleared.done);
    }

    /// If there is no output, releases the earlier buffers, the present one if its size exceeds
    /// `keep` bytes, and the memory of long lists.
    pub(crate) fn shrink(&mut self, keep: usize) {
        if self.is_empty() {
            if self.moved > 0 {
                let needed = self.moved.min(self.size_max).next_power_of_two();
                self.size = needed.max(self.size / 2).clamp(FIRST_BUFFER, self.size_max);
                self.moved = 0;
                // The next output mostly fits if it begins at the front.
                if self.tail.room() < needed {
                    self.tail.bytes.clear();
                    // Unless the transport still has a part of it.
                    let _free = self.tail.bytes.try_reclaim(self.tail.size);
                }
            }
            self.earlier.clear();
            self.earlier.shrink_to(4);
            if self.tail.size > keep {
                self.tail = Buffer::default();
            }
            if self.done.capacity() > 8 {
                self.done = VecDeque::new();
            }
        }
    }

    /// Begins another buffer, with room for `len` bytes.
    #[cold]
    fn begin_buffer(&mut self, len: usize) {
        self.finish_tail();
        self.tail.bytes.clear();
        // All that was handed out of the buffer may be gone.
        if self.tail.bytes.try_reclaim(len) {
            return;
        }
        let size = self.size.max(len);
        if self.tail.size > 0 {
            self.size = (self.size * 2).min(self.size_max);
        }
        let mut earlier = self.earlier.iter_mut();
        let free = earlier.position(|it| it.bytes.try_reclaim(size));
        let next = free.and_then(|at| self.earlier.remove(at));
        let next = next.unwrap_or_else(|| Buffer {
            bytes: BytesMut::with_capacity(size),
            used: 0,
            size,
        });
        let full = core::mem::replace(&mut self.tail, next);
        if full.size <= LARGEST_BUFFER {
            if self.earlier.len() >= EARLIER_BUFFERS {
                self.earlier.pop_front();
            }
            self.earlier.push_back(full);
        }
    }

    fn finish_tail(&mut self) {
        let Buffer { bytes, used, .. } = &mut self.tail;
        if *used > 0 {
            self.done_len += *used;
            self.done.push_back(bytes.split_to(*used).freeze());
            *used = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn transmit(pieces: &[&'static [u8]]) -> Transmit {
        let mut transmit = Transmit::new();
        for piece in pieces {
            transmit.push(Bytes::from_static(piece));
        }
        transmit
    }

    #[test]
    fn the_front_moves_behind_what_is_there() {
        let all: &[u8] = b"abcdefgh";
        for count in 0..=9 {
            let mut from = transmit(&[b"abc", b"de", b"fgh"]);
            let mut to = transmit(&[b"before"]);
            from.move_front(count, &mut to);
            let moved = count.min(all.len());
            assert_eq!(from.len(), all.len() - moved);
            assert_eq!(to.len(), 6 + moved);
            assert!(
                from.segments()
                    .chain(to.segments())
                    .all(|it| !it.is_empty())
            );
            let rest: Vec<u8> = from.segments().flatten().copied().collect();
            assert_eq!(rest, &all[moved..]);
            let got: Vec<u8> = to.segments().flatten().copied().collect();
            assert_eq!(got, [b"before", &all[..moved]].concat());
        }
    }

    /// Writes `piece` into the window, as frames are. Returns whether it fitted.
    fn write(segments: &mut Segments, piece: &[u8]) -> bool {
        loop {
            if let Some(room) = segments.window().and_then(|it| it.get_mut(..piece.len())) {
                // More than is added to the output, as a write that fails leaves it.
                room.copy_from_slice(piece);
                segments.advance(piece.len());
                return true;
            }
            if !segments.widen() {
                return false;
            }
        }
    }

    /// Pieces of all sizes, added in all ways, leave in order, also when all, some or none of the
    /// earlier output is dropped, so that buffers are used again, or are not.
    #[test]
    fn all_ways_into_the_output_keep_the_order() {
        let sizes = [
            0, 1, 7, 60, 90, 300, 511, 512, 513, 2047, 2048, 2049, 5000, 70_000,
        ];
        let mut random = 1_u32;
        let mut next = |bound: usize| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) as usize % bound
        };
        let mut segments = Segments::new(1 << 18);
        let (mut expected, mut kept) = (Vec::new(), Vec::new());
        for number in 0..20_000_u32 {
            let size = sizes[next(if number % 5 == 0 { sizes.len() } else { 6 })];
            let piece: Vec<u8> = (0..size).map(|at| (number as usize + at) as u8).collect();
            match next(5) {
                0 => segments.append(size, |tail| tail.extend_from_slice(&piece)),
                1 if size > 0 => segments.chain(Bytes::from(piece.clone())),
                2 | 3 => {
                    if !write(&mut segments, &piece) {
                        assert!(size > SMALL_WINDOW, "{size}");
                        segments.extend(&piece);
                    }
                }
                _ => segments.extend(&piece),
            }
            expected.extend(piece);
            assert_eq!(segments.len(), expected.len());
            if next(20) == 0 {
                let mut out = Transmit::new();
                segments.move_into(&mut out);
                assert!(segments.is_empty());
                assert!(out.segments().flatten().eq(&expected));
                expected.clear();
                match next(3) {
                    0 => kept.clear(),
                    1 => kept.push(out),
                    _ => segments.shrink(4096),
                }
            }
        }
    }
}

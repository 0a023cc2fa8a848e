//! An in-memory transport.

use std::{
    fmt, io,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use amqp_core::Transmit;
use bytes::{Buf as _, BytesMut};

use super::{
    locked::{poll_locked, wake_all},
    transport::Transport,
};
use crate::sync::{Mutex, MutexGuard};

/// The maximum number of bytes in flight, each way. As large as the kernel's buffers of a socket on
/// loopback, which a writer fills before it waits.
const CAPACITY: usize = 256 << 10;

/// Returns both ends of an in-memory byte stream: bytes written to one are read from the other.
/// Works under any runtime, and between two.
#[must_use]
pub fn pipe() -> (Pipe, Pipe) {
    let (there, back) = (Arc::default(), Arc::default());
    let one = Pipe {
        reads: Arc::clone(&back),
        writes: Arc::clone(&there),
    };
    let other = Pipe {
        reads: there,
        writes: back,
    };
    (one, other)
}

/// One end of an in-memory byte stream; see [`pipe`]. Dropping it ends both directions.
#[derive(Debug)]
pub struct Pipe {
    reads: Arc<Direction>,
    writes: Arc<Direction>,
}

/// One direction of a pipe.
///
/// No code of the application runs under its lock: wakers are cloned, woken and dropped, and
/// written bodies are dropped, without it.
#[derive(Debug, Default)]
struct Direction(Mutex<State>);

#[derive(Default)]
struct State {
    bytes: BytesMut,
    /// Whether the writer has ended the stream.
    ended: bool,
    /// Whether the reader was dropped.
    broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes may contain a password.
        f.debug_struct("State")
            .field("bytes", &self.bytes.len())
            .field("ended", &self.ended)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

impl Direction {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a state that both ends may wait for, and wakes both.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let wakes = [state.reader.take(), state.writer.take()];
        drop(state);
        wake_all(wakes.into_iter().flatten());
    }
}

impl Transport for Pipe {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        let read = |state: &mut State| {
            if state.bytes.is_empty() {
                return state.ended.then_some((0, None));
            }
            let count = state.bytes.len().min(buf.capacity() - buf.len());
            buf.extend_from_slice(&state.bytes[..count]);
            state.bytes.advance(count);
            if state.bytes.is_empty() {
                state.bytes.clear(); // reuses the front of the buffer
            }
            Some((count, state.writer.take()))
        };
        let read = poll_locked(&self.reads.0, cx.waker(), read, |state| &mut state.reader);
        let (count, writer) = ready!(read);
        wake_all(writer);
        Poll::Ready(Ok(count))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Transmit) -> Poll<io::Result<usize>> {
        let write = |state: &mut State| {
            if state.broken || state.ended {
                return Some(Err(io::Error::from(io::ErrorKind::BrokenPipe)));
            }
            let before = state.bytes.len();
            for segment in out.segments() {
                let room = CAPACITY - state.bytes.len();
                if room == 0 {
                    break;
                }
                let count = segment.len().min(room);
                state.bytes.extend_from_slice(&segment[..count]);
            }
            let count = state.bytes.len() - before;
            (count > 0).then(|| Ok((count, state.reader.take())))
        };
        let written = poll_locked(&self.writes.0, cx.waker(), write, |state| &mut state.writer);
        let (count, reader) = ready!(written)?;
        // Drops the bodies that are written.
        out.advance(count);
        wake_all(reader);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writes.change(|state| state.ended = true);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.writes.change(|state| state.ended = true);
        self.reads.change(|state| {
            state.broken = true;
            state.bytes = BytesMut::new();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    /// A transmit of `len` bytes.
    fn output(len: usize) -> Transmit {
        use amqp_core::{Instant, client};
        let mut machine = client::Connection::new(client::Config::default(), Instant::ORIGIN)
            .expect("the default is good");
        let mut out = Transmit::new();
        machine.poll_transmit(Instant::ORIGIN, &mut out);
        assert_eq!(out.len(), len, "the protocol header");
        out
    }

    fn read(pipe: &mut Pipe, room: usize) -> Poll<Option<Vec<u8>>> {
        let mut buf = BytesMut::with_capacity(room);
        pipe.poll_read(&mut context(), &mut buf).map(|read| {
            let count = read.expect("a pipe does not fail to read");
            assert_eq!(count, buf.len());
            (count > 0).then(|| buf.to_vec())
        })
    }

    #[test]
    fn what_is_written_is_read_from_the_other_end() {
        let (mut one, mut other) = pipe();
        assert!(read(&mut other, 100).is_pending());
        let written = one.poll_write(&mut context(), &mut output(8));
        assert!(matches!(written, Poll::Ready(Ok(8))));
        assert_eq!(read(&mut other, 5), Poll::Ready(Some(b"AMQP\0".to_vec())));
        assert_eq!(
            read(&mut other, 5),
            Poll::Ready(Some(b"\0\x09\x01".to_vec()))
        );
        assert!(read(&mut other, 5).is_pending());
        assert!(read(&mut one, 5).is_pending());
    }

    #[test]
    fn what_passes_is_not_shown() {
        let (mut one, other) = pipe();
        assert!(one.poll_write(&mut context(), &mut output(8)).is_ready());
        let shown = format!("{other:?}");
        assert!(!shown.contains("AMQP"), "{shown}");
    }

    #[test]
    fn what_was_written_before_the_end_is_read() {
        let (mut one, mut other) = pipe();
        assert!(
            one.poll_write(&mut context(), &mut output(8)).is_ready()
                && one.poll_close(&mut context()).is_ready()
        );
        assert_eq!(
            read(&mut other, 100).map(|it| it.map(|it| it.len())),
            Poll::Ready(Some(8))
        );
        assert_eq!(read(&mut other, 100), Poll::Ready(None));
        // The other direction stays open.
        let written = other.poll_write(&mut context(), &mut output(8));
        assert!(matches!(written, Poll::Ready(Ok(8))));
    }

    #[test]
    fn a_dropped_end_ends_both_directions() {
        let (one, mut other) = pipe();
        drop(one);
        assert_eq!(read(&mut other, 100), Poll::Ready(None));
        let written = other.poll_write(&mut context(), &mut output(8));
        assert!(matches!(written, Poll::Ready(Err(_))));
    }
}

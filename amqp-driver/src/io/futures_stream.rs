//! Byte streams of the futures crates as a transport.

use std::{
    cell::Cell,
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use amqp_core::Transmit;
use bytes::{Buf as _, BytesMut};
use futures_io::{AsyncRead, AsyncWrite};

use super::{
    driver::READ_MAX,
    lent::LentDriver,
    transport::{Slices, Transport},
};

thread_local! {
    /// The buffer of all reads: the `futures_io` traits read into initialized memory only.
    /// Initializing the spare capacity for each read, most of which find nothing, would cost more
    /// than copying the bytes read. Its size is that of the largest read of the thread's
    /// connections.
    static LANDING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Any byte stream.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

/// A byte stream with the traits of [`futures_io`], as a transport.
pub struct FuturesStream<S> {
    stream: S,
    inline: bool,
    lender: Option<fn(LentDriver)>,
}

impl<S: Socket> FuturesStream<S> {
    /// A transport over `stream`.
    pub const fn new(stream: S) -> Self {
        Self {
            stream,
            inline: false,
            lender: None,
        }
    }

    /// Sets whether it is [inline](Transport::is_inline), for a stream that may be polled on any
    /// thread.
    #[must_use]
    pub fn inline(mut self, inline: bool) -> Self {
        self.inline = inline;
        self
    }

    /// Sets the function that takes the [lent driver](Transport::lender) of an
    /// [inline](Self::inline) stream.
    #[must_use]
    pub fn lending(mut self, lender: Option<fn(LentDriver)>) -> Self {
        self.lender = lender;
        self
    }

    /// Returns the stream.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl FuturesStream<Box<dyn Socket>> {
    /// A transport over `stream`, with its type erased.
    pub fn boxed(stream: impl Socket + 'static) -> Self {
        Self::new(Box::new(stream))
    }
}

impl<S: Socket> Transport for FuturesStream<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        let room = (buf.capacity() - buf.len()).min(READ_MAX);
        // A stream that reads from another such stream in its own poll finds the buffer taken, and
        // allocates one.
        let mut landing = LANDING.take();
        if landing.len() < room {
            landing.resize(room, 0);
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut landing[..room]);
        if let Poll::Ready(Ok(count)) = read {
            buf.extend_from_slice(&landing[..count]);
        }
        LANDING.set(landing);
        read
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Transmit) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, &Slices::of(out));
        written.map_ok(|count| {
            out.advance(count);
            count
        })
    }

    fn is_inline(&self) -> bool {
        self.inline
    }

    fn lender(&self) -> Option<fn(LentDriver)> {
        self.lender
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

impl<S> fmt::Debug for FuturesStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FuturesStream").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{io::IoSlice, task::Waker};

    use amqp_core::{
        Instant, client, client::Event as ClientEvent, protocol::basic, server, server::Event,
    };

    use super::*;

    /// An in-memory stream that moves a limited number of bytes at a time.
    #[derive(Default)]
    struct Memory {
        to_read: Vec<u8>,
        written: Vec<u8>,
        /// The maximum number of bytes that one call moves.
        step: usize,
        /// The number of slices in the last write.
        slices: usize,
        /// The size of the largest read buffer.
        largest: usize,
        /// Whether there is no input for now.
        dry: bool,
    }

    impl AsyncRead for Memory {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            buf: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            self.largest = self.largest.max(buf.len());
            if self.dry {
                return Poll::Pending;
            }
            let count = self.to_read.len().min(buf.len()).min(self.step);
            buf[..count].copy_from_slice(&self.to_read[..count]);
            self.to_read.drain(..count);
            Poll::Ready(Ok(count))
        }
    }

    impl AsyncWrite for Memory {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(buf)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.slices = slices.len();
            let before = self.written.len();
            for slice in slices {
                let count = slice.len().min(self.step + before - self.written.len());
                self.written.extend_from_slice(&slice[..count]);
            }
            Poll::Ready(Ok(self.written.len() - before))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn read(stream: &mut FuturesStream<Memory>, buf: &mut BytesMut) -> Poll<usize> {
        let read = stream.poll_read(&mut context(), buf);
        read.map(|read| read.expect("memory does not fail"))
    }

    #[test]
    fn what_is_read_is_appended_and_fits_into_the_room() {
        let mut stream = FuturesStream::new(Memory {
            to_read: (0..200).collect(),
            step: 60,
            ..Memory::default()
        });
        let mut buf = BytesMut::with_capacity(100);
        let room = buf.capacity();
        buf.extend_from_slice(b"before");
        let mut all = b"before".to_vec();
        all.extend(0..60);
        assert_eq!(read(&mut stream, &mut buf), Poll::Ready(60));
        assert_eq!(buf, all);
        assert_eq!(stream.stream.largest, room - 6);
        assert_eq!(read(&mut stream, &mut buf), Poll::Ready(room - 66));
        assert_eq!(buf.capacity(), room, "it did not grow");

        // No input for now, then the end of the input.
        buf.reserve(1000);
        let len = buf.len();
        stream.stream.dry = true;
        assert!(read(&mut stream, &mut buf).is_pending());
        stream.stream.dry = false;
        stream.stream.to_read.clear();
        assert_eq!(read(&mut stream, &mut buf), Poll::Ready(0));
        assert_eq!(buf.len(), len);
    }

    #[test]
    fn one_read_is_bounded() {
        let mut stream = FuturesStream::new(Memory::default());
        let mut buf = BytesMut::with_capacity(100 * READ_MAX);
        assert_eq!(read(&mut stream, &mut buf), Poll::Ready(0));
        assert_eq!(stream.stream.largest, READ_MAX);
    }

    /// Exchanges the output of both machines in turns, until neither has any.
    fn talk(client: &mut client::Connection, server: &mut server::Connection) {
        let now = Instant::ORIGIN;
        loop {
            let (mut there, mut back) = (Transmit::new(), Transmit::new());
            client.poll_transmit(now, &mut there);
            let mut input: BytesMut = there.segments().flatten().copied().collect();
            server.handle_input(now, &mut input);
            while let Some(event) = server.poll_event() {
                match event {
                    Event::Authenticate(_) => server.accept().expect("it was asked"),
                    Event::Open { .. } => server.open().expect("it was asked"),
                    _ => {}
                }
            }
            server.poll_transmit(now, &mut back);
            let mut input: BytesMut = back.segments().flatten().copied().collect();
            client.handle_input(now, &mut input);
            while let Some(event) = client.poll_event() {
                assert!(!matches!(event, ClientEvent::Closed(_)), "{event:?}");
            }
            if there.is_empty() && back.is_empty() {
                return;
            }
        }
    }

    /// The output of a hundred publishes with large bodies: many segments.
    fn output() -> Transmit {
        let now = Instant::ORIGIN;
        let config = client::Config::default();
        let mut client = client::Connection::new(config, now).expect("the default is good");
        let config = server::Config::default();
        let mut server = server::Connection::new(config, now).expect("the default is good");
        talk(&mut client, &mut server);
        let (id, _) = client.open_channel().expect("there are channels");
        talk(&mut client, &mut server);
        let mut out = Transmit::new();
        for number in 0..100 {
            let mut channel = client.channel(id).expect("it is open");
            let body = vec![number; 20_000];
            channel
                .publish(
                    &basic::Publish::default(),
                    &basic::Properties::default(),
                    body,
                )
                .expect("it is open");
            client.poll_transmit(now, &mut out);
        }
        out
    }

    #[test]
    fn many_pieces_are_written_at_once_in_order() {
        let mut out = output();
        let all: Vec<u8> = out.segments().flatten().copied().collect();
        let pieces = out.segments().count();
        assert!(pieces > 150, "{pieces}");
        let mut stream = FuturesStream::new(Memory {
            step: 30_001,
            ..Memory::default()
        });
        while !out.is_empty() {
            let before = out.len();
            let written = stream.poll_write(&mut context(), &mut out);
            let Poll::Ready(Ok(count)) = written else {
                panic!("memory is always ready");
            };
            assert!(count > 0 && count == before - out.len());
            assert!(stream.stream.slices > 1 || out.is_empty());
        }
        assert_eq!(stream.stream.written, all);
    }
}

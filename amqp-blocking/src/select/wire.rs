//! The socket of a client, and what is on its way through it.

use std::{
    io::{self, ErrorKind, IoSlice, Read as _, Write as _},
    time::{self, Duration},
};

use amqp_client::core::{Instant, Transmit};
use bytes::{Buf as _, BytesMut};
use mio::{Events, Interest, Poll, Token, net::TcpStream};

/// How many bytes are read at a time.
const READ: usize = 64 << 10;

/// How many pieces go into one vectored write.
const SLICES: usize = 64;

const TOKEN: Token = Token(0);

pub(super) struct Wire {
    pub(super) socket: TcpStream,
    /// The TCP connection is still being made.
    connecting: bool,
    /// What came in; a partial frame at the end.
    pub(super) input: BytesMut,
    pub(super) output: Transmit,
    chunk: Box<[u8]>,
    origin: time::Instant,
    /// For those who wait without a loop of their own.
    poll: Poll,
    events: Events,
}

impl Wire {
    pub(super) fn new(mut socket: TcpStream, connecting: bool) -> io::Result<Self> {
        let poll = Poll::new()?;
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut socket, TOKEN, both)?;
        Ok(Self {
            socket,
            connecting,
            input: BytesMut::new(),
            output: Transmit::new(),
            chunk: vec![0; READ].into(),
            origin: time::Instant::now(),
            poll,
            events: Events::with_capacity(1),
        })
    }

    pub(super) fn now(&self) -> Instant {
        Instant::from_origin(self.origin.elapsed())
    }

    /// Whether the TCP connection stands.
    pub(super) fn is_connected(&mut self) -> io::Result<bool> {
        if self.connecting {
            if let Some(error) = self.socket.take_error()? {
                return Err(error);
            }
            match self.socket.peer_addr() {
                Ok(_) => self.socket.set_nodelay(true)?,
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(false),
                Err(error) => return Err(error),
            }
            self.connecting = false;
        }
        Ok(true)
    }

    pub(super) const fn is_connecting(&self) -> bool {
        self.connecting
    }

    /// Reads what is there, up to a bound: how many bytes, 0 at the end, none if there is nothing
    /// now.
    pub(super) fn read(&mut self) -> io::Result<Option<usize>> {
        let count = now_or_not(|| self.socket.read(&mut self.chunk))?;
        if let Some(count) = count {
            self.input.extend_from_slice(&self.chunk[..count]);
        }
        Ok(count)
    }

    /// Writes what the socket takes; false if that is nothing now.
    pub(super) fn write(&mut self) -> io::Result<bool> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut pieces = 0;
        for (slice, segment) in slices.iter_mut().zip(self.output.segments()) {
            *slice = IoSlice::new(segment);
            pieces += 1;
        }
        let count = now_or_not(|| self.socket.write_vectored(&slices[..pieces]))?;
        self.output.advance(count.unwrap_or_default());
        Ok(count.is_some())
    }

    /// Waits until the socket is ready, or that long.
    pub(super) fn wait(&mut self, interest: Interest, limit: Option<Duration>) -> io::Result<()> {
        // Each time anew, because what was ready before may not have been used up.
        let registry = self.poll.registry();
        registry.reregister(&mut self.socket, TOKEN, interest)?;
        match self.poll.poll(&mut self.events, limit) {
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            waited => waited,
        }
    }
}

/// None if it would block.
fn now_or_not<T>(mut act: impl FnMut() -> io::Result<T>) -> io::Result<Option<T>> {
    loop {
        return match act() {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            done => done.map(Some),
        };
    }
}

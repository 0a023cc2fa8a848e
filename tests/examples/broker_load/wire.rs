//! A client without any behaviour of its own: frames over a socket that blocks.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use amqp_blocking::{
    core::{
        bytes::{Buf, BytesMut},
        frame::{Frame, FrameKind, PROTOCOL_HEADER, split_method},
    },
    protocol::{Method, channel, connection},
};
use amqp_test_support::frames::{login, method};
use amqp_tests::harness::Failure;

/// The time that any reply may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The size of a read, in bytes.
const READ: usize = 64 << 10;

/// The result of a write that may not block for long.
pub(crate) enum Written {
    All,
    Part,
}

pub(crate) struct Client {
    stream: TcpStream,
    input: BytesMut,
}

impl Client {
    /// Connects a socket, and sends nothing.
    pub(crate) fn socket(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let input = BytesMut::new();
        Ok(Self { stream, input })
    }

    /// Opens a connection without heartbeats.
    pub(crate) fn connect(address: SocketAddr) -> Result<Self, Failure> {
        Self::with_heartbeat(address, 0)
    }

    /// Opens a connection with a heartbeat interval, in seconds. The client sends none itself.
    pub(crate) fn with_heartbeat(address: SocketAddr, interval: u16) -> Result<Self, Failure> {
        let mut client = Self::socket(address)?;
        client.greet()?;
        client.call(0, login("guest"))?;
        let mut tune = connection::TuneOk::default();
        (tune.channel_max, tune.frame_max) = (2047, 128 << 10);
        tune.heartbeat = interval;
        let mut output = BytesMut::new();
        method(0, tune, &mut output);
        let open = connection::Open {
            virtual_host: "/".try_into()?,
        };
        method(0, open, &mut output);
        client.send(&output)?;
        client.next()?;
        Ok(client)
    }

    /// Opens a connection with a channel.
    pub(crate) fn with_channel(address: SocketAddr) -> Result<Self, Failure> {
        let mut client = Self::connect(address)?;
        client.call(1, channel::Open)?;
        Ok(client)
    }

    /// Sends the protocol header, and receives `connection.start`.
    pub(crate) fn greet(&mut self) -> Result<(), Failure> {
        self.send(&PROTOCOL_HEADER)?;
        self.next().map(drop)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Sends until the broker has not read for a time.
    pub(crate) fn send_for(
        &mut self,
        mut bytes: &[u8],
        time: Duration,
    ) -> Result<Written, Failure> {
        self.stream.set_write_timeout(Some(time))?;
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error)
                    if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) =>
                {
                    return Ok(Written::Part);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Written::All)
    }

    pub(crate) fn call(
        &mut self,
        channel: u16,
        request: impl Into<Method>,
    ) -> Result<Method, Failure> {
        let mut output = BytesMut::new();
        method(channel, request, &mut output);
        self.send(&output)?;
        self.next()
    }

    /// Returns the next method. Content is discarded.
    pub(crate) fn next(&mut self) -> Result<Method, Failure> {
        loop {
            if let Some(frame) = Frame::parse(&self.input, u32::MAX)? {
                let length = frame.len();
                let method = if frame.kind == FrameKind::Method {
                    let (id, arguments) = split_method(frame.payload)?;
                    Some(Method::decode(id, arguments)?)
                } else {
                    None
                };
                self.input.advance(length);
                match method {
                    Some(method) => return Ok(method),
                    None => continue,
                }
            }
            if self.read()? == 0 {
                return Err("the broker has closed the socket".into());
            }
        }
    }

    fn read(&mut self) -> Result<usize, Failure> {
        let mut buffer = [0; READ];
        let count = self.stream.read(&mut buffer)?;
        self.input.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    /// Discards input until the broker closes the socket. `false` if it has not in that time.
    pub(crate) fn ends_within(&mut self, time: Duration) -> bool {
        let time = time.max(Duration::from_millis(1));
        let mut buffer = [0; 4096];
        loop {
            if self.stream.set_read_timeout(Some(time)).is_err() {
                return true;
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    return ![ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind());
                }
            }
        }
    }
}

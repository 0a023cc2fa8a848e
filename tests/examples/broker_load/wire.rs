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
        wire::{Encode, Secret},
    },
    protocol::{Method, basic, channel, connection},
};
use amqp_tests::harness::Failure;

/// The time that any reply may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The size of a read, in bytes.
const READ: usize = 64 << 10;

/// The size of a header frame for class `basic` without properties, in bytes.
const HEADER: usize = 14;

/// Appends a frame.
fn frame(kind: FrameKind, channel: u16, payload: &[u8], out: &mut BytesMut) {
    Frame {
        kind,
        channel,
        payload,
    }
    .encode(out);
}

/// Appends a method.
pub(crate) fn method(channel: u16, method: impl Into<Method>, out: &mut BytesMut) {
    let method = method.into();
    let id = method.id();
    let mut payload = BytesMut::new();
    payload.extend_from_slice(&id.class.to_be_bytes());
    payload.extend_from_slice(&id.method.to_be_bytes());
    method.encode(&mut payload);
    frame(FrameKind::Method, channel, &payload, out);
}

/// Appends a publish to the default exchange, up to the header of a body of that size.
pub(crate) fn announce(queue: &str, size: u64, out: &mut BytesMut) -> Result<(), Failure> {
    method(1, basic::Publish::default().routing_key(queue)?, out);
    let mut header = [0; HEADER];
    header[1] = 60;
    header[4..12].copy_from_slice(&size.to_be_bytes());
    frame(FrameKind::Header, 1, &header, out);
    Ok(())
}

/// Appends a piece of a body.
pub(crate) fn body(piece: &[u8], out: &mut BytesMut) {
    frame(FrameKind::Body, 1, piece, out);
}

/// `connection.start-ok` with a password.
pub(crate) fn login(password: &str) -> Result<connection::StartOk, Failure> {
    Ok(connection::StartOk {
        mechanism: "PLAIN".try_into()?,
        response: Secret::from(format!("\0guest\0{password}")),
        locale: "en_US".try_into()?,
        ..connection::StartOk::default()
    })
}

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
        let mut client = Self::socket(address)?;
        client.greet()?;
        client.call(0, login("guest")?)?;
        let mut tune = connection::TuneOk::default();
        (tune.channel_max, tune.frame_max) = (2047, 128 << 10);
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

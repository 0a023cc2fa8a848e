//! A client that keeps the order of the deliveries of all its channels: the core over a socket.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{self, Duration},
};

use amqp_blocking::core::{
    ChannelId, Instant, Request, Transmit,
    bytes::{Buf, BytesMut},
    client::{Config, Connection, Delivery, Event},
    protocol::basic,
};
use amqp_tests::harness::Failure;
use socket2::{Domain, Socket, Type};

/// The size of one read, in bytes.
const READ: usize = 16 << 10;

/// How long a reply or a delivery may take.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Client {
    stream: TcpStream,
    machine: Connection,
    input: BytesMut,
    output: Transmit,
    began: time::Instant,
    /// The pause before each read.
    pause: Duration,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self, Failure> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // The kernel's own buffer grows to megabytes, in which messages wait in order.
        socket.set_recv_buffer_size(READ)?;
        socket.connect(&address.into())?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut client = Self {
            stream,
            machine: Connection::new(Config::default(), Instant::ORIGIN)?,
            input: BytesMut::new(),
            output: Transmit::new(),
            began: time::Instant::now(),
            pause: Duration::ZERO,
        };
        client.until(|event| matches!(event, Event::Opened).then_some(()))?;
        Ok(client)
    }

    /// Reads slowly from now on.
    pub(crate) fn slow_down(&mut self, pause: Duration) {
        self.pause = pause;
    }

    pub(crate) fn open_channel(&mut self) -> Result<ChannelId, Failure> {
        let (id, request) = self.machine.open_channel()?;
        self.reply_to(request)?;
        Ok(id)
    }

    pub(crate) fn call<R: Request + amqp_blocking::core::ClientSent>(
        &mut self,
        channel: ChannelId,
        request: &R,
    ) -> Result<(), Failure> {
        let request = self.channel(channel)?.call(request)?;
        self.reply_to(request)
    }

    /// Starts a consumer. Does not wait for the reply.
    pub(crate) fn consume(
        &mut self,
        channel: ChannelId,
        consume: basic::Consume,
    ) -> Result<(), Failure> {
        self.channel(channel)?.consume(consume)?;
        Ok(())
    }

    pub(crate) fn ack(&mut self, delivery: &Delivery) -> Result<(), Failure> {
        let tag = delivery.tag.ok_or("a delivery without a tag")?;
        self.channel(delivery.channel)?
            .ack(amqp_blocking::Tags::One(tag))?;
        Ok(())
    }

    pub(crate) fn next_delivery(&mut self) -> Result<Delivery, Failure> {
        self.until(|event| match event {
            Event::Delivered(delivery) => Some(delivery),
            _ => None,
        })
    }

    fn channel(
        &mut self,
        id: ChannelId,
    ) -> Result<amqp_blocking::core::client::ChannelMut<'_>, Failure> {
        Ok(self.machine.channel(id).ok_or("the channel is closed")?)
    }

    fn reply_to(&mut self, wanted: amqp_blocking::core::RequestId) -> Result<(), Failure> {
        self.until(|event| match event {
            Event::Reply { request, .. } if request == wanted => Some(()),
            _ => None,
        })
    }

    /// Runs until an event is chosen. Events before it are dropped.
    fn until<T>(&mut self, choose: impl Fn(Event) -> Option<T>) -> Result<T, Failure> {
        loop {
            self.write()?;
            while let Some(event) = self.machine.poll_event() {
                if let Event::Closed(reason) = &event {
                    return Err(reason.to_string().into());
                }
                if let Some(chosen) = choose(event) {
                    return Ok(chosen);
                }
            }
            thread::sleep(self.pause);
            let mut buffer = [0; READ];
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                return Err("the broker has closed the socket".into());
            }
            self.input.extend_from_slice(&buffer[..count]);
            self.machine.handle_input(self.now(), &mut self.input);
        }
    }

    fn write(&mut self) -> Result<(), Failure> {
        let now = self.now();
        while self.machine.poll_transmit(now, &mut self.output) {
            while self.output.has_remaining() {
                let count = self.stream.write(self.output.chunk())?;
                self.output.advance(count);
            }
        }
        Ok(())
    }

    fn now(&self) -> Instant {
        Instant::ORIGIN + self.began.elapsed()
    }
}

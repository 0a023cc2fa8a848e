//! A raw socket with frames encoded in advance: the upper bound of any client on this socket.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;

use crate::Result;
use crate::arrivals::PATIENCE;
use crate::clock::{Sample, Stopwatch};
use crate::load::{ACK_EVERY, Confirmed, Load, Shape, check};
use crate::target::Target;
use crate::wire::{self, FRAME_HEAD, method};

/// How much is written at a time, in bytes.
const WRITE: usize = 64 << 10;

/// How much is read at a time, in bytes.
const READ: usize = 128 << 10;

/// The channel in use.
const CHANNEL: u16 = 1;

/// Passes that many messages on one channel.
pub(crate) fn run(target: &Target, shape: &Shape, count: u64) -> Result<Sample> {
    if shape.load == Load::Connect {
        let watch = Stopwatch::start();
        for _ in 0..count {
            Socket::open(target)?.close()?;
        }
        return Ok(watch.stop(count));
    }
    let mut socket = Socket::open(target)?;
    let queue = target.queue(shape, count);
    let mut out = Vec::new();
    wire::put_channel_open(&mut out, CHANNEL);
    socket.ask(&out, method::CHANNEL_OPEN_OK)?;
    out.clear();
    match shape.load {
        Load::Connect | Load::RoundTrip => {
            wire::put_count(&mut out, CHANNEL);
            let watch = Stopwatch::start();
            for _ in 0..count {
                socket.ask(&out, method::QUEUE_DECLARE_OK)?;
            }
            Ok(watch.stop(count))
        }
        Load::Get => {
            wire::put_get(&mut out, CHANNEL, &queue);
            let watch = Stopwatch::start();
            for _ in 0..count {
                socket.ask(&out, method::GET_OK)?;
                socket.skip_content()?;
            }
            Ok(watch.stop(count))
        }
        Load::Publish => socket.publish(target, shape, count),
        Load::Confirm(window) => socket.publish_confirmed(shape, window, count),
        Load::Deliver | Load::DeliverNoAck => {
            let no_ack = shape.load == Load::DeliverNoAck;
            wire::put_consume(&mut out, CHANNEL, &queue, no_ack);
            let watch = Stopwatch::start();
            socket.ask(&out, method::CONSUME_OK)?;
            socket.deliver(shape, count, no_ack)?;
            if no_ack {
                return Ok(watch.stop(count));
            }
            let (_, acks) = socket.counts()?;
            let sample = watch.stop(count);
            if target.counts() {
                check("acknowledgements", acks, shape.acks(count))?;
            }
            Ok(sample)
        }
    }
}

/// Messages encoded one behind the other.
#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    /// The bytes of one.
    one: usize,
}

impl Block {
    fn new(shape: &Shape) -> Self {
        let (body, mut bytes) = (shape.body(), Vec::new());
        wire::put_publish(&mut bytes, CHANNEL, &body);
        let one = bytes.len();
        while bytes.len() < WRITE {
            wire::put_publish(&mut bytes, CHANNEL, &body);
        }
        Self { bytes, one }
    }

    /// Writes that many.
    fn write(&self, stream: &mut TcpStream, count: u64) -> Result<()> {
        let in_block = (self.bytes.len() / self.one) as u64;
        for _ in 0..count / in_block {
            stream.write_all(&self.bytes)?;
        }
        let rest = usize::try_from(count % in_block)?;
        stream.write_all(&self.bytes[..rest * self.one])?;
        Ok(())
    }
}

/// A connection.
#[derive(Debug)]
struct Socket {
    input: BufReader<TcpStream>,
    /// The payload of the last frame.
    payload: Vec<u8>,
}

impl Socket {
    fn open(target: &Target) -> Result<Self> {
        let (authority, vhost) = (&target.parts.authority, &target.parts.vhost);
        let stream = TcpStream::connect((authority.host.as_str(), authority.port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let input = BufReader::with_capacity(READ, stream);
        let payload = Vec::new();
        let mut socket = Self { input, payload };
        socket.ask(wire::PROTOCOL_HEADER, method::START)?;
        let mut out = Vec::new();
        let user = &authority.userinfo;
        wire::put_start_ok(&mut out, &user.username, &user.password);
        socket.ask(&out, method::TUNE)?;
        out.clear();
        wire::put_open(&mut out, vhost);
        socket.ask(&out, method::OPEN_OK)?;
        Ok(socket)
    }

    fn close(mut self) -> Result<()> {
        let mut out = Vec::new();
        wire::put_close(&mut out);
        self.ask(&out, method::CLOSE_OK)
    }

    /// Writes frames, and waits for the method that answers them.
    fn ask(&mut self, frames: &[u8], answer: (u16, u16)) -> Result<()> {
        self.input.get_mut().write_all(frames)?;
        self.read_frame()?;
        let (class, method) = self.method();
        if answer != (class, method) {
            return Err(format!("method {class}.{method} is not the answer").into());
        }
        Ok(())
    }

    /// Reads one frame.
    fn read_frame(&mut self) -> Result<()> {
        let mut head = [0; FRAME_HEAD];
        self.input.read_exact(&mut head)?;
        let [_, _, _, size @ ..] = head;
        self.payload
            .resize(u32::from_be_bytes(size) as usize + 1, 0);
        self.input.read_exact(&mut self.payload)?;
        Ok(())
    }

    /// The number at a place of the last payload.
    fn number<const N: usize>(&self, at: usize) -> u64 {
        let bytes = self.payload.get(at..at + N).unwrap_or_default();
        bytes
            .iter()
            .fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    /// The class and method number of the last payload.
    fn method(&self) -> (u16, u16) {
        (self.number::<2>(0) as u16, self.number::<2>(2) as u16)
    }

    /// Reads a header and its body.
    fn skip_content(&mut self) -> Result<()> {
        self.read_frame()?;
        let mut left = self.number::<8>(4);
        while left > 0 {
            self.read_frame()?;
            left = left.saturating_sub(self.payload.len() as u64 - 1);
        }
        Ok(())
    }

    fn publish(&mut self, target: &Target, shape: &Shape, count: u64) -> Result<Sample> {
        let block = Block::new(shape);
        let watch = Stopwatch::start();
        block.write(self.input.get_mut(), count)?;
        let (published, _) = self.counts()?;
        let sample = watch.stop(count);
        if target.counts() {
            check("messages", published, count)?;
        }
        Ok(sample)
    }

    fn publish_confirmed(&mut self, shape: &Shape, window: usize, count: u64) -> Result<Sample> {
        let mut out = Vec::new();
        wire::put_confirm_select(&mut out, CHANNEL);
        self.ask(&out, method::CONFIRM_SELECT_OK)?;
        let (block, mut confirmed) = (Block::new(shape), Confirmed::default());
        let (mut published, mut settled) = (0, 0);
        let watch = Stopwatch::start();
        while settled < count {
            let room = (window as u64).min(count - settled) - (published - settled);
            if room > 0 {
                block.write(self.input.get_mut(), room)?;
                published += room;
            }
            // All that has come, then publishes for all of it.
            loop {
                self.read_frame()?;
                if self.method() != method::ACK {
                    return Err("something else than an acknowledgement".into());
                }
                settled = confirmed.add(self.number::<8>(4), self.number::<1>(12) != 0);
                if self.input.buffer().is_empty() {
                    break;
                }
            }
        }
        Ok(watch.stop(count))
    }

    /// Receives that many messages.
    fn deliver(&mut self, shape: &Shape, count: u64, no_ack: bool) -> Result<()> {
        let len = wire::delivery_len(&shape.body()) as u64;
        let (mut received, mut acks, mut out) = (0, 0, Vec::new());
        while received < count * len {
            let read = self.input.fill_buf()?.len();
            if read == 0 {
                return Err("the server hung up".into());
            }
            self.input.consume(read);
            received += read as u64;
            let due = received / len / ACK_EVERY;
            if due > acks && !no_ack {
                out.clear();
                for ack in acks + 1..=due {
                    wire::put_ack(&mut out, CHANNEL, ack * ACK_EVERY);
                }
                acks = due;
                self.input.get_mut().write_all(&out)?;
            }
        }
        Ok(())
    }

    /// How many publishes and acknowledgements the small server has counted.
    fn counts(&mut self) -> Result<(u64, u64)> {
        let mut out = Vec::new();
        wire::put_count(&mut out, CHANNEL);
        self.ask(&out, method::QUEUE_DECLARE_OK)?;
        // Behind the name of the queue.
        let at = 4 + 1 + wire::ROUTING_KEY.len();
        Ok((self.number::<4>(at), self.number::<4>(at + 4)))
    }
}

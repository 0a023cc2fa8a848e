//! The small server: counts publishes, and sends deliveries as fast as it can.
//!
//! It is a process of its own, started by [`Sink::start`] and run by [`serve`], with a thread and an
//! open file per connection, which reads 256 KiB at a time and looks at no more than it must.
//!
//! - Publishes are counted. The answer to a `queue.declare` has their number on the connection as
//!   its message count, and the number of acknowledgements as its consumer count. As a connection
//!   is read in order, the answer says that the server has seen everything before.
//! - On a channel in confirm mode, each read ends with an acknowledgement of its publishes.
//! - The queue `blast.COUNT.SIZE.CONSUMERS` sends `COUNT` deliveries of `SIZE` bytes as fast as
//!   the socket takes them, in turn to that many consumers of it on the connection, as soon as the
//!   last of them is there. With a prefetch, no more than that of all of them is unacknowledged,
//!   about. The queue `get.SIZE` gives a message of `SIZE` bytes to each `basic.get`.
//!   Other queues are empty.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{self, Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::{env, thread};

use crate::wire::{self, Arguments, Blast, Consumer, FRAME_HEAD, method};
use crate::{Result, files};

/// The word on the command line that makes this program the server.
pub(crate) const COMMAND: &str = "sink";

/// How much is read at a time, in bytes.
const READ: usize = 256 << 10;

/// How much is written at a time, in bytes.
const WRITE: usize = 128 << 10;

/// The stack of a connection's thread, in bytes: there may be thousands.
const STACK: usize = 256 << 10;

/// The server's process, which ends with this value.
#[derive(Debug)]
pub(crate) struct Sink {
    process: Child,
    port: u16,
}

impl Sink {
    /// Starts the server on a free port.
    pub(crate) fn start() -> Result<Self> {
        let mut process = Command::new(env::current_exe()?)
            .arg(COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let port = line.trim().parse();
        let mut sink = Self { process, port: 0 };
        sink.port = port.map_err(|_| "the server did not start")?;
        Ok(sink)
    }

    /// Where it listens, on loopback.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The name of a queue that sends deliveries.
pub(crate) fn blast_queue(count: u64, size: usize, consumers: u16) -> String {
    format!("blast.{count}.{size}.{consumers}")
}

/// The name of a queue that has a message for each `basic.get`.
pub(crate) fn get_queue(size: usize) -> String {
    format!("get.{size}")
}

/// Runs the server until standard input ends; prints the port first.
pub(crate) fn serve() -> Result<()> {
    files::raise_limit()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?.port());
    thread::spawn(|| {
        // Whether it ends or fails, the parent is gone.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        process::exit(0);
    });
    accept(&listener)
}

/// Serves each connection.
pub(crate) fn accept(listener: &TcpListener) -> Result<()> {
    for stream in listener.incoming() {
        let stream = stream?;
        thread::Builder::new().stack_size(STACK).spawn(move || {
            if let Err(error) = Session::new(stream).and_then(Session::run) {
                eprintln!("sink: {error}");
            }
        })?;
    }
    Ok(())
}

/// The state of a channel.
#[derive(Clone, Copy, Debug, Default)]
struct Channel {
    /// How much of the current body is to come, in bytes.
    body_left: u64,
    /// How many messages came in.
    published: u64,
    /// How many deliveries were acknowledged.
    settled: u64,
    /// Publishes are to be confirmed.
    confirms: bool,
    /// A message came that is not confirmed yet.
    unconfirmed: bool,
}

/// A socket.
#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    /// Held by the writing side: the thread of the connection, or a blast.
    writing: Mutex<()>,
}

impl Socket {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        (&self.stream).write_all(bytes)
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.stream).read(buffer)
    }
}

/// One connection.
#[derive(Debug)]
struct Session {
    socket: Arc<Socket>,
    /// The output of this thread.
    out: Vec<u8>,
    /// By number, up to the highest in use.
    channels: Vec<Channel>,
    published: u64,
    acks: u64,
    /// The prefetch of a consumer; 0 is none.
    prefetch: u64,
    settled: Arc<Settled>,
    /// The channels that have messages to confirm.
    unconfirmed: Vec<u16>,
    /// The consumers of the queue that is to send when all are there.
    consumers: Vec<Consumer>,
    /// Started when `out` has been written.
    blasts: Vec<Blast>,
    closed: bool,
}

impl Session {
    fn new(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        let writing = Mutex::default();
        Ok(Self {
            socket: Arc::new(Socket { stream, writing }),
            out: Vec::new(),
            channels: Vec::new(),
            published: 0,
            acks: 0,
            prefetch: 0,
            settled: Arc::default(),
            unconfirmed: Vec::new(),
            consumers: Vec::new(),
            blasts: Vec::new(),
            closed: false,
        })
    }

    fn run(mut self) -> Result<()> {
        let result = self.serve();
        self.settled.add(u64::MAX); // nothing waits any more
        result
    }

    fn serve(&mut self) -> Result<()> {
        let mut header = [0; 8];
        if (&self.socket.stream).read_exact(&mut header).is_err() {
            return Ok(()); // a probe of the port
        }
        if header != *wire::PROTOCOL_HEADER {
            return Err("a client that does not speak AMQP 0-9-1".into());
        }
        wire::put_start(&mut self.out);
        self.flush()?;

        let mut buffer = vec![0; READ];
        let mut filled = 0;
        while !self.closed {
            let count = match self.socket.read(&mut buffer[filled..]) {
                Ok(count) => count,
                // The client has closed with unread input.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
                Err(error) => return Err(error.into()),
            };
            if count == 0 {
                break;
            }
            filled += count;
            let used = self.take_frames(&buffer[..filled])?;
            buffer.copy_within(used..filled, 0);
            filled -= used;
            self.confirm();
            self.flush()?;
            for blast in self.blasts.drain(..) {
                let (socket, settled) = (Arc::clone(&self.socket), Arc::clone(&self.settled));
                let window = match self.prefetch {
                    0 => u64::MAX,
                    prefetch => prefetch * blast.consumers(),
                };
                thread::spawn(move || send(blast, &socket, window, &settled));
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if !self.out.is_empty() {
            self.socket.write(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }

    /// Looks at all whole frames; gives back how many bytes they have.
    fn take_frames(&mut self, input: &[u8]) -> Result<usize> {
        let mut rest = input;
        while let Some((&head, tail)) = rest.split_first_chunk::<FRAME_HEAD>() {
            let [kind, c1, c0, size @ ..] = head;
            let size = u32::from_be_bytes(size);
            if size > wire::FRAME_MAX {
                return Err(format!("a frame of {size} bytes").into());
            }
            let Some((payload, tail)) = tail.split_at_checked(size as usize) else {
                break;
            };
            let Some((&end, tail)) = tail.split_first() else {
                break;
            };
            let channel = u16::from_be_bytes([c1, c0]);
            if end != wire::FRAME_END || channel > wire::CHANNEL_MAX {
                return Err("a malformed frame".into());
            }
            if usize::from(channel) >= self.channels.len() {
                let channels = usize::from(channel) + 1;
                self.channels.resize(channels, Channel::default());
            }
            match kind {
                1 => self.take_method(channel, payload)?,
                2 => self.take_header(channel, payload)?,
                3 => self.take_body(channel, payload.len() as u64),
                8 => {}
                kind => return Err(format!("a frame of kind {kind}").into()),
            }
            rest = tail;
        }
        Ok(input.len() - rest.len())
    }

    fn take_header(&mut self, channel: u16, payload: &[u8]) -> Result<()> {
        let size = payload.get(4..12).and_then(|size| size.first_chunk());
        let size = u64::from_be_bytes(*size.ok_or("a malformed content header")?);
        self.channels[usize::from(channel)].body_left = size;
        self.take_body(channel, 0);
        Ok(())
    }

    fn take_body(&mut self, number: u16, len: u64) {
        let channel = &mut self.channels[usize::from(number)];
        channel.body_left = channel.body_left.saturating_sub(len);
        if channel.body_left == 0 {
            channel.published += 1;
            self.published += 1;
            if channel.confirms && !channel.unconfirmed {
                channel.unconfirmed = true;
                self.unconfirmed.push(number);
            }
        }
    }

    fn confirm(&mut self) {
        while let Some(number) = self.unconfirmed.pop() {
            let channel = &mut self.channels[usize::from(number)];
            channel.unconfirmed = false;
            wire::put_ack(&mut self.out, number, channel.published);
        }
    }

    fn take_method(&mut self, channel: u16, payload: &[u8]) -> Result<()> {
        let Some((&[c1, c0, m1, m0], arguments)) = payload.split_first_chunk::<4>() else {
            return Err("a malformed method".into());
        };
        let method = (u16::from_be_bytes([c1, c0]), u16::from_be_bytes([m1, m0]));
        let out = &mut self.out;
        match method {
            method::PUBLISH => {}
            method::ACK => {
                self.acks += 1;
                let tag = arguments.first_chunk().ok_or("a malformed ack")?;
                let settled = &mut self.channels[usize::from(channel)].settled;
                let tag = u64::from_be_bytes(*tag).max(*settled);
                self.settled.add(tag - *settled);
                *settled = tag;
            }
            method::START_OK => wire::put_tune(out),
            method::TUNE_OK | method::CLOSE_OK | method::CHANNEL_CLOSE_OK => {}
            method::OPEN => wire::put_open_ok(out),
            method::CLOSE => {
                wire::put_method(out, 0, method::CLOSE_OK, Arguments::new());
                self.closed = true;
            }
            method::CHANNEL_OPEN => {
                self.channels[usize::from(channel)] = Channel::default();
                wire::put_channel_open_ok(out, channel);
            }
            method::CHANNEL_CLOSE => {
                wire::put_method(out, channel, method::CHANNEL_CLOSE_OK, Arguments::new());
            }
            method::QUEUE_DECLARE => {
                let (queue, _) = short_str(arguments.get(2..).unwrap_or_default())?;
                let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
                let arguments = Arguments::new()
                    .short_str(queue)
                    .long(count(self.published))
                    .long(count(self.acks));
                wire::put_method(out, channel, method::QUEUE_DECLARE_OK, arguments);
            }
            method::QOS => {
                let prefetch = arguments.get(4..6).and_then(|count| count.first_chunk());
                self.prefetch = u16::from_be_bytes(*prefetch.ok_or("a malformed qos")?).into();
                wire::put_method(out, channel, method::QOS_OK, Arguments::new());
            }
            method::CONFIRM_SELECT => {
                self.channels[usize::from(channel)].confirms = true;
                let arguments = Arguments::new();
                wire::put_method(out, channel, method::CONFIRM_SELECT_OK, arguments);
            }
            method::GET => {
                let (queue, _) = short_str(arguments.get(2..).unwrap_or_default())?;
                let size = queue
                    .strip_prefix("get.")
                    .ok_or("a queue without messages")?;
                wire::put_get_ok(out, channel, &vec![b'x'; size.parse()?]);
            }
            method::CONSUME => self.consume(channel, arguments)?,
            method::CANCEL => {
                let (tag, _) = short_str(arguments)?;
                let arguments = Arguments::new().short_str(tag);
                wire::put_method(out, channel, method::CANCEL_OK, arguments);
            }
            (class, method) => return Err(format!("method {class}.{method} is not known").into()),
        }
        Ok(())
    }

    fn consume(&mut self, channel: u16, arguments: &[u8]) -> Result<()> {
        let (queue, rest) = short_str(arguments.get(2..).unwrap_or_default())?;
        let (tag, _) = short_str(rest)?;
        let tag = if tag.is_empty() { "generated" } else { tag };
        wire::put_consume_ok(&mut self.out, channel, tag);
        let Some(blast) = queue.strip_prefix("blast.") else {
            return Ok(());
        };
        self.consumers.push(Consumer {
            channel,
            tag: tag.to_owned(),
        });
        let mut numbers = blast.split('.').map(str::parse::<u64>);
        let mut number = || numbers.next().ok_or("a queue without its numbers");
        let (count, size, consumers) = (number()??, number()??, number()??);
        if self.consumers.len() as u64 >= consumers {
            let body = vec![b'x'; usize::try_from(size)?];
            let blast = Blast::new(&self.consumers, &body, count, WRITE);
            self.blasts.push(blast);
            self.consumers.clear();
        }
        Ok(())
    }
}

/// Reads a short string; returns it and the bytes behind it.
fn short_str(bytes: &[u8]) -> Result<(&str, &[u8])> {
    let split = bytes
        .split_first()
        .and_then(|(&len, rest)| rest.split_at_checked(usize::from(len)));
    let (text, rest) = split.ok_or("a malformed short string")?;
    Ok((str::from_utf8(text)?, rest))
}

/// How many deliveries of a connection were acknowledged.
#[derive(Debug, Default)]
struct Settled {
    count: Mutex<u64>,
    more: Condvar,
}

impl Settled {
    fn add(&self, more: u64) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_add(more);
        self.more.notify_all();
    }

    /// Waits until there are that many.
    fn wait_for(&self, least: u64) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        // A poisoned lock has its count all the same.
        drop(self.more.wait_while(count, |count| *count < least));
    }
}

/// Sends a blast, of which at most about a window is unacknowledged.
fn send(mut blast: Blast, socket: &Socket, window: u64, settled: &Settled) {
    let mut sent: u64 = 0;
    while let Some((block, count)) = blast.next_block() {
        settled.wait_for(sent.saturating_sub(window));
        sent += count;
        if socket.write(block).is_err() {
            return; // the client has closed
        }
    }
}

//! A TCP connection that can be watched, held up and cut, between a client and a broker.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

/// The length of the protocol header that a client begins with, in bytes.
const PROTOCOL_HEADER: usize = 8;

/// The type of heartbeat frames.
const HEARTBEAT: u8 = 8;

/// Relays the bytes of clients and a broker, with a thread for each direction, so that it takes
/// part in no runtime. Dropping it cuts all connections.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    to_broker: Tally,
    to_client: Tally,
    /// How many clients have hung up.
    hung_up: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    paused: bool,
    /// Both sockets of each connection.
    sockets: Vec<TcpStream>,
    /// No more connections.
    closed: bool,
}

#[derive(Debug, Default)]
struct Tally {
    bytes: AtomicU64,
    heartbeats: AtomicU64,
}

/// The bytes of one direction, over all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of all kinds.
    pub bytes: u64,
    /// Heartbeat frames.
    pub heartbeats: u64,
}

impl Tally {
    fn read(&self) -> Traffic {
        Traffic {
            bytes: self.bytes.load(SeqCst),
            heartbeats: self.heartbeats.load(SeqCst),
        }
    }
}

impl Relay {
    /// A relay to a broker at that address.
    ///
    /// # Errors
    /// When there is no port for it.
    pub fn start(broker: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let inner = Arc::new(Inner::default());
        let accepting = Arc::clone(&inner);
        thread::spawn(move || {
            for client in listener.incoming() {
                let accepted = client.and_then(|client| accepting.accept(&client, broker));
                if !accepted.unwrap_or_default() {
                    break;
                }
            }
        });
        Ok(Self { address, inner })
    }

    /// Where to connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The bytes that clients have sent.
    #[must_use]
    pub fn to_broker(&self) -> Traffic {
        self.inner.to_broker.read()
    }

    /// The bytes that the broker has sent.
    #[must_use]
    pub fn to_client(&self) -> Traffic {
        self.inner.to_client.read()
    }

    /// How many clients have hung up.
    #[must_use]
    pub fn hung_up(&self) -> usize {
        self.inner.hung_up.load(SeqCst)
    }

    /// Passes nothing on, and reads nothing, until it is resumed: as if the network stood still.
    pub fn pause(&self) {
        self.inner.lock().paused = true;
    }

    /// Goes on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.inner.lock().paused = false;
        self.inner.changed.notify_all();
    }

    /// Cuts all connections. Bytes that were held up are lost.
    pub fn cut(&self) {
        self.inner.cut(false);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.inner.cut(true);
        // The accepting thread gets a connection, and learns that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self, close: bool) {
        let mut state = self.lock();
        state.closed |= close;
        for socket in state.sockets.drain(..) {
            // It may have been cut by a peer.
            let _ = socket.shutdown(Shutdown::Both);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Takes up a connection; false if there shall be no more.
    fn accept(self: &Arc<Self>, client: &TcpStream, broker: SocketAddr) -> io::Result<bool> {
        if self.lock().closed {
            return Ok(false);
        }
        let server = TcpStream::connect(broker)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        self.lock()
            .sockets
            .extend([client.try_clone()?, server.try_clone()?]);
        for (from, to, is_client) in [(client, &server, true), (&server, client, false)] {
            let (from, to) = (from.try_clone()?, to.try_clone()?);
            let inner = Arc::clone(self);
            thread::spawn(move || {
                // A connection ends in many ways, which are all the same here.
                let _ = inner.pass(&from, &to, is_client);
                if is_client {
                    inner.hung_up.fetch_add(1, SeqCst);
                }
                let _ = to.shutdown(Shutdown::Write);
            });
        }
        Ok(true)
    }

    fn pass(&self, mut from: &TcpStream, mut to: &TcpStream, is_client: bool) -> io::Result<()> {
        let (tally, skip) = if is_client {
            (&self.to_broker, PROTOCOL_HEADER)
        } else {
            (&self.to_client, 0)
        };
        let mut frames = Frames::new(skip);
        let mut buffer = [0; 16 << 10];
        loop {
            self.wait_until_resumed();
            let count = from.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            self.wait_until_resumed();
            let piece = &buffer[..count];
            tally.bytes.fetch_add(count as u64, SeqCst);
            tally.heartbeats.fetch_add(frames.heartbeats(piece), SeqCst);
            to.write_all(piece)?;
        }
    }

    fn wait_until_resumed(&self) {
        let mut state = self.lock();
        while state.paused && !state.sockets.is_empty() {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Counts frames in a stream that comes in pieces.
#[derive(Debug)]
struct Frames {
    /// How many bytes are of no interest.
    skip: usize,
    /// The head of a frame, as far as it has come.
    head: Vec<u8>,
}

impl Frames {
    const HEAD: usize = 7;

    const fn new(skip: usize) -> Self {
        Self {
            skip,
            head: Vec::new(),
        }
    }

    /// How many heartbeats begin in this piece.
    fn heartbeats(&mut self, mut piece: &[u8]) -> u64 {
        let mut count = 0;
        while !piece.is_empty() {
            let skipped = self.skip.min(piece.len());
            self.skip -= skipped;
            piece = &piece[skipped..];
            let wanted = (Self::HEAD - self.head.len()).min(piece.len());
            self.head.extend_from_slice(&piece[..wanted]);
            piece = &piece[wanted..];
            if let [kind, _, _, s3, s2, s1, s0] = self.head[..] {
                count += u64::from(kind == HEARTBEAT);
                self.skip = u32::from_be_bytes([s3, s2, s1, s0]) as usize + 1;
                self.head.clear();
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_are_counted_however_the_stream_is_cut() {
        let mut stream = b"AMQP\x00\x00\x09\x01".to_vec();
        for _ in 0..3 {
            stream.extend_from_slice(b"\x08\x00\x00\x00\x00\x00\x00\xce");
            // A frame that has something like a heartbeat in it.
            stream.extend_from_slice(b"\x03\x00\x01\x00\x00\x00\x08");
            stream.extend_from_slice(b"\x08\x00\x00\x00\x00\x00\x00\xce\xce");
        }
        for size in 1..=stream.len() {
            let mut frames = Frames::new(PROTOCOL_HEADER);
            let pieces = stream.chunks(size);
            assert_eq!(pieces.map(|it| frames.heartbeats(it)).sum::<u64>(), 3);
        }
    }
}

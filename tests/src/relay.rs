//! A TCP connection that can be watched, held up and cut, between a client and a broker.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use socket2::SockRef;

/// The length of the protocol header that a client begins with, in bytes.
const PROTOCOL_HEADER: usize = 8;

/// The type of heartbeat frames.
const HEARTBEAT: u8 = 8;

/// Relays the bytes of clients and a broker, with a thread for each direction, so that it takes
/// part in no runtime. A client that comes while the broker does not listen is hung up on. Dropping
/// it cuts all connections.
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
    /// How many bytes of clients the broker's socket has taken.
    passed: AtomicU64,
    /// Bytes of clients that are replaced, and by which others of the same number.
    replaced: Option<(Vec<u8>, Vec<u8>)>,
    /// How many clients have hung up.
    hung_up: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    paused: bool,
    lines: Vec<Weak<Line>>,
    /// The numbers of bytes after which the next connections are cut.
    cut_next: VecDeque<u64>,
    /// No more connections.
    closed: bool,
}

/// A connection of a client, and that to the broker.
#[derive(Debug)]
struct Line {
    client: TcpStream,
    broker: TcpStream,
    is_cut: AtomicBool,
    is_reset: AtomicBool,
    /// The number of bytes to the client after which it is cut.
    cut_after: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// In an orderly way, with FIN.
    Ended,
    /// As after a crash, with RST.
    Reset,
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
        Self::start_with(broker, Inner::default())
    }

    /// A relay that replaces bytes of clients, wherever they are in a piece of the stream.
    ///
    /// # Errors
    /// When there is no port for it.
    pub fn replacing(broker: SocketAddr, bytes: &[u8], by: &[u8]) -> io::Result<Self> {
        assert_eq!(bytes.len(), by.len());
        let replaced = Some((bytes.to_vec(), by.to_vec()));
        let inner = Inner {
            replaced,
            ..Inner::default()
        };
        Self::start_with(broker, inner)
    }

    fn start_with(broker: SocketAddr, inner: Inner) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let inner = Arc::new(inner);
        let accepting = Arc::clone(&inner);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.lock().closed {
                    break;
                }
                if client.and_then(|it| accepting.accept(it, broker)).is_err() {
                    // The broker does not listen, or the system has no socket left.
                    thread::sleep(Duration::from_millis(1));
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

    /// How many bytes of clients have reached the broker's socket: a cut does not lose them.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.inner.passed.load(SeqCst)
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
        self.inner.cut(Cut::Ended, false);
    }

    /// Resets all connections, in both directions. Bytes that were held up are lost.
    pub fn reset(&self) {
        self.inner.cut(Cut::Reset, false);
    }

    /// Cuts the next connections, one for each number, when that many bytes have gone to the client.
    pub fn cut_next(&self, after: impl IntoIterator<Item = u64>) {
        self.inner.lock().cut_next.extend(after);
    }

    /// How many connections are still to be cut by [`cut_next`](Self::cut_next).
    #[must_use]
    pub fn cuts_due(&self) -> usize {
        let state = self.inner.lock();
        let is_due = |line: &Arc<Line>| line.cut_after.is_some() && !line.is_cut.load(SeqCst);
        let lines = state.lines.iter().filter_map(Weak::upgrade);
        state.cut_next.len() + lines.filter(is_due).count()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.inner.cut(Cut::Ended, true);
        // The accepting thread gets a connection, and learns that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self, how: Cut, close: bool) {
        let mut state = self.lock();
        state.closed |= close;
        for line in state.lines.drain(..) {
            if let Some(line) = line.upgrade() {
                line.cut(how);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Takes up a connection.
    fn accept(self: &Arc<Self>, client: TcpStream, broker: SocketAddr) -> io::Result<()> {
        let broker = TcpStream::connect(broker)?;
        client.set_nodelay(true)?;
        broker.set_nodelay(true)?;
        let mut state = self.lock();
        let line = Arc::new(Line {
            client,
            broker,
            is_cut: AtomicBool::default(),
            is_reset: AtomicBool::default(),
            cut_after: state.cut_next.pop_front(),
        });
        state.lines.retain(|line| line.strong_count() > 0);
        state.lines.push(Arc::downgrade(&line));
        drop(state);
        for is_client in [true, false] {
            let (inner, line) = (Arc::clone(self), Arc::clone(&line));
            thread::spawn(move || {
                // A connection ends in many ways, which are all the same here.
                let _ = inner.pass(&line, is_client);
                let to = if is_client {
                    inner.hung_up.fetch_add(1, SeqCst);
                    &line.broker
                } else {
                    &line.client
                };
                if !line.is_reset.load(SeqCst) {
                    let _ = to.shutdown(Shutdown::Write);
                }
            });
        }
        Ok(())
    }

    fn pass(&self, line: &Line, is_client: bool) -> io::Result<()> {
        let (mut from, mut to, tally, skip) = if is_client {
            (&line.client, &line.broker, &self.to_broker, PROTOCOL_HEADER)
        } else {
            (&line.broker, &line.client, &self.to_client, 0)
        };
        let mut left = if is_client { None } else { line.cut_after };
        let mut frames = Frames::new(skip);
        let mut buffer = [0; 16 << 10];
        loop {
            self.wait_until_resumed(line);
            let mut count = from.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            self.wait_until_resumed(line);
            if let Some(left) = &mut left {
                count = count.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= count as u64;
            }
            let piece = &mut buffer[..count];
            tally.bytes.fetch_add(count as u64, SeqCst);
            tally.heartbeats.fetch_add(frames.heartbeats(piece), SeqCst);
            if is_client && let Some((bytes, by)) = &self.replaced {
                replace(piece, bytes, by);
            }
            to.write_all(piece)?;
            if is_client {
                self.passed.fetch_add(count as u64, SeqCst);
            }
            if left == Some(0) {
                line.cut(Cut::Ended);
            }
        }
    }

    fn wait_until_resumed(&self, line: &Line) {
        let mut state = self.lock();
        while state.paused && !line.is_cut.load(SeqCst) {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Line {
    fn cut(&self, how: Cut) {
        self.is_cut.store(true, SeqCst);
        self.is_reset.store(how == Cut::Reset, SeqCst);
        for socket in [&self.client, &self.broker] {
            // It may have been cut by a peer.
            let _ = match how {
                Cut::Ended => socket.shutdown(Shutdown::Both),
                // Its threads end, and closing it sends the reset.
                Cut::Reset => SockRef::from(socket)
                    .set_linger(Some(Duration::ZERO))
                    .and_then(|()| socket.shutdown(Shutdown::Read)),
            };
        }
    }
}

fn replace(piece: &mut [u8], bytes: &[u8], by: &[u8]) {
    for at in 0..(piece.len() + 1).saturating_sub(bytes.len()) {
        let found = &mut piece[at..at + bytes.len()];
        if found == bytes {
            found.copy_from_slice(by);
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

    /// A client of a relay, and its connection at the broker.
    fn connected(relay: &Relay, broker: &TcpListener) -> io::Result<(TcpStream, TcpStream)> {
        let mut client = TcpStream::connect(relay.address())?;
        let (mut broker, _) = broker.accept()?;
        client.write_all(b"1")?;
        broker.read_exact(&mut [0])?;
        Ok((client, broker))
    }

    #[test]
    fn a_cut_ends_connections_and_a_reset_fails_them() -> io::Result<()> {
        let broker = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let relay = Relay::start(broker.local_addr()?)?;
        let read = |mut side: &TcpStream| side.read(&mut [0]).map_err(|error| error.kind());
        let (client, server) = connected(&relay, &broker)?;
        relay.cut();
        assert_eq!((read(&client), read(&server)), (Ok(0), Ok(0)));
        let (client, server) = connected(&relay, &broker)?;
        relay.reset();
        let reset = Err(io::ErrorKind::ConnectionReset);
        assert_eq!((read(&client), read(&server)), (reset, reset));
        Ok(())
    }

    #[test]
    fn a_connection_is_cut_after_a_number_of_bytes_and_the_next_one_is_not() -> io::Result<()> {
        let broker = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let relay = Relay::start(broker.local_addr()?)?;
        relay.cut_next([3]);
        assert_eq!(relay.cuts_due(), 1);
        for expected in ["123", "12345"] {
            let (mut client, mut server) = connected(&relay, &broker)?;
            server.write_all(b"12345")?;
            server.shutdown(Shutdown::Write)?;
            let mut received = String::new();
            client.read_to_string(&mut received)?;
            assert_eq!(received, expected);
            assert_eq!(relay.cuts_due(), 0);
        }
        Ok(())
    }

    #[test]
    fn clients_are_hung_up_on_while_the_broker_does_not_listen() -> io::Result<()> {
        let broker = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = broker.local_addr()?;
        let relay = Relay::start(address)?;
        drop(broker);
        for _ in 0..3 {
            assert_eq!(TcpStream::connect(relay.address())?.read(&mut [0])?, 0);
        }
        let broker = TcpListener::bind(address)?;
        connected(&relay, &broker).map(drop)
    }

    #[test]
    fn bytes_are_replaced_wherever_they_are() {
        let mut piece = *b"tog at the tog";
        replace(&mut piece, b"tog", b"tag");
        assert_eq!(&piece, b"tag at the tag");
        replace(&mut piece[..2], b"tag", b"tog");
        assert_eq!(&piece, b"tag at the tag");
    }

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

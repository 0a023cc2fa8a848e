//! A name server of a test, over UDP and TCP on one port.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

/// The maximum size of an answer over UDP, in bytes (section 4.2.1 of RFC 1035).
const UDP_MAX: usize = 512;

/// The numbers of the types of records.
const CNAME: u16 = 5;
const SRV: u16 = 33;

/// The flags of an answer: a response, recursion desired and available.
const ANSWER: u16 = 0x8180;

const TRUNCATED: u16 = 0x0200;

/// An answer to a question for SRV records.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Priority, weight, port and target of each record.
    Records(Vec<(u16, u16, u16, String)>),
    /// Records of the name that the name in question is an alias of.
    Alias(String, Vec<(u16, u16, u16, String)>),
    /// A response code, such as 2 (SERVFAIL).
    Code(u16),
    /// Packets before the true answer: of another question, cut off, and without sense.
    Noise(Vec<(u16, u16, u16, String)>),
    /// Over UDP an answer that is cut off within its first record.
    Truncated(Vec<(u16, u16, u16, String)>),
    /// No answer.
    Silence,
}

/// A name server. It ends when it is dropped. Names that it does not know do not exist.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Zone {
    names: BTreeMap<String, Answer>,
    /// The number of questions over UDP and over TCP.
    asked: (u32, u32),
    ended: bool,
}

impl NameServer {
    pub fn start() -> io::Result<Self> {
        let (stream, socket) = bind()?;
        let address = stream.local_addr()?;
        let zone = Arc::new(Mutex::new(Zone::default()));
        let (of_socket, of_stream) = (Arc::clone(&zone), Arc::clone(&zone));
        let threads = vec![
            thread::spawn(move || {
                while !lock(&of_socket).ended {
                    // An error is that of a client that is gone.
                    let _gone = serve_packet(&socket, &of_socket);
                }
            }),
            thread::spawn(move || {
                while !lock(&of_stream).ended {
                    if let Ok((client, _)) = stream.accept() {
                        let _gone = serve_stream(client, &of_stream);
                    }
                }
            }),
        ];
        Ok(Self {
            address,
            zone,
            threads,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the answer for a name.
    pub fn set(&self, name: &str, answer: Answer) {
        lock(&self.zone).names.insert(name.to_lowercase(), answer);
    }

    /// Sets the only record of a name.
    pub fn set_record(&self, name: &str, target: &str, port: u16) {
        let records = vec![(0, 0, port, target.to_owned())];
        self.set(name, Answer::Records(records));
    }

    /// The number of questions over UDP and over TCP.
    pub fn asked(&self) -> (u32, u32) {
        lock(&self.zone).asked
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        lock(&self.zone).ended = true;
        // Each thread gets something, and learns that it is over.
        let _ = UdpSocket::bind("127.0.0.1:0").and_then(|it| it.send_to(&[0], self.address));
        let _ = TcpStream::connect(self.address);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Sockets of both kinds at one port, which must be free for both.
fn bind() -> io::Result<(TcpListener, UdpSocket)> {
    let mut attempts = 0;
    loop {
        let stream = TcpListener::bind("127.0.0.1:0")?;
        match UdpSocket::bind(stream.local_addr()?) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts < 100 => {
                attempts += 1;
            }
            bound => return Ok((stream, bound?)),
        }
    }
}

fn lock(zone: &Mutex<Zone>) -> MutexGuard<'_, Zone> {
    zone.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve_packet(socket: &UdpSocket, zone: &Mutex<Zone>) -> io::Result<()> {
    let mut packet = [0; 1024];
    let (size, client) = socket.recv_from(&mut packet)?;
    let question = &packet[..size];
    let Some(name) = name(question) else {
        return Ok(());
    };
    lock(zone).asked.0 += 1;
    let answer = lock(zone).names.get(&name).cloned();
    if let Some(Answer::Noise(_)) = answer {
        let mut other = encode(question, 0, &[], &[]);
        other[0] ^= 1;
        socket.send_to(&other, client)?;
        // It claims 65535 answers, and has none.
        let mut cut = encode(question, 0, &[], &[]);
        cut[6..8].copy_from_slice(&[255; 2]);
        socket.send_to(&cut, client)?;
        socket.send_to(b"noise", client)?;
    }
    let cut = matches!(answer, Some(Answer::Truncated(_)));
    let Some(mut answer) = answer_to(question, answer) else {
        return Ok(());
    };
    if cut {
        answer[2] |= (TRUNCATED >> 8) as u8;
        answer.truncate(question.len() + 10);
    }
    if answer.len() > UDP_MAX {
        answer = encode(question, TRUNCATED, &[], &[]);
    }
    socket.send_to(&answer, client).map(drop)
}

fn serve_stream(mut client: TcpStream, zone: &Mutex<Zone>) -> io::Result<()> {
    let mut size = [0; 2];
    client.read_exact(&mut size)?;
    let mut question = vec![0; u16::from_be_bytes(size).into()];
    client.read_exact(&mut question)?;
    let Some(name) = name(&question) else {
        return Ok(());
    };
    lock(zone).asked.1 += 1;
    let answer = lock(zone).names.get(&name).cloned();
    if let Some(answer) = answer_to(&question, answer) {
        // In pieces, as a network may deliver it.
        client.write_all(&(answer.len() as u16).to_be_bytes())?;
        for piece in answer.chunks(100) {
            client.write_all(piece)?;
        }
    }
    Ok(())
}

/// The name in question, in lower case.
fn name(question: &[u8]) -> Option<String> {
    let mut labels = Vec::new();
    let mut rest = question.get(12..)?;
    while let (size, after) = rest.split_first()?
        && *size > 0
    {
        let (label, after) = after.split_at_checked((*size).into())?;
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        rest = after;
    }
    Some(labels.join("."))
}

fn answer_to(question: &[u8], answer: Option<Answer>) -> Option<Vec<u8>> {
    Some(match answer {
        Some(Answer::Records(records) | Answer::Noise(records) | Answer::Truncated(records)) => {
            encode(question, 0, &[], &records)
        }
        Some(Answer::Alias(alias, records)) => {
            let alias = encode_name(&alias);
            encode(question, 0, &alias, &records)
        }
        Some(Answer::Code(code)) => encode(question, code, &[], &[]),
        None => encode(question, 3, &[], &[]),
        Some(Answer::Silence) => return None,
    })
}

/// An answer with these flags. Its records are those of `alias`, unless that is empty.
fn encode(
    question: &[u8],
    flags: u16,
    alias: &[u8],
    records: &[(u16, u16, u16, String)],
) -> Vec<u8> {
    /// A pointer to the name in question.
    const ASKED: [u8; 2] = [0xc0, 12];
    let mut bytes = question.to_vec();
    bytes[2..4].copy_from_slice(&(ANSWER | flags).to_be_bytes());
    let count = records.len() + usize::from(!alias.is_empty());
    bytes[6..8].copy_from_slice(&(count as u16).to_be_bytes());
    let mut push = |owner: &[u8], kind: u16, data: &[u8]| {
        bytes.extend_from_slice(owner);
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 1, 0, 0, 0, 60]); // class and time to live
        bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
        bytes.extend_from_slice(data);
    };
    let mut owner = &ASKED[..];
    if !alias.is_empty() {
        push(owner, CNAME, alias);
        owner = alias;
    }
    for (priority, weight, port, target) in records {
        let mut data = Vec::new();
        for number in [priority, weight, port] {
            data.extend_from_slice(&number.to_be_bytes());
        }
        data.extend(encode_name(target));
        push(owner, SRV, &data);
    }
    bytes
}

fn encode_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

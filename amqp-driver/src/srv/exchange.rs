//! One question to a name server: over UDP, and over TCP if the answer is too long for that (section
//! 4.2 of RFC 1035).

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use amqp_core::dial::{MAX_RESOLVED, SrvRecord};
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE, header_buffer, rdata::RData,
};

use crate::recovery::random_seed;

/// The maximum size of an answer over UDP that is read, in bytes. Without EDNS a server sends 512.
const UDP_MAX: usize = 4096;

/// The size of the shortest entry of an answer: a name of the root, its type and its class.
const ENTRY_MIN: usize = 5;

/// The number of aliases (CNAME) that are followed.
const ALIASES_MAX: usize = 8;

/// Asks for the SRV records of a name. Empty if there are none.
pub(super) fn ask(
    server: SocketAddr,
    name: &Name<'_>,
    until: Instant,
) -> io::Result<Vec<SrvRecord>> {
    // Unpredictable, as is the port: only the server can answer.
    let id = random_seed() as u16;
    let mut question = Packet::new_query(id);
    question.set_flags(PacketFlag::RECURSION_DESIRED);
    let srv = Question::new(name.clone(), TYPE::SRV.into(), CLASS::IN.into(), false);
    question.questions.push(srv);
    let question = question.build_bytes_vec().map_err(io::Error::other)?;
    let answer = over_udp(server, &question, name, until)?;
    match is_truncated(&answer) {
        true => read(&over_tcp(server, &question, name, until)?, name),
        false => read(&answer, name),
    }
}

/// Sends the question, and returns the answer. Other packets are ignored.
fn over_udp(
    server: SocketAddr,
    question: &[u8],
    name: &Name<'_>,
    until: Instant,
) -> io::Result<Vec<u8>> {
    let socket = match server {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
    }?;
    // Packets from elsewhere do not arrive.
    socket.connect(server)?;
    socket.send(question)?;
    let mut answer = vec![0; UDP_MAX];
    loop {
        socket.set_read_timeout(Some(left(until)?))?;
        let size = socket.recv(&mut answer).map_err(late)?;
        if let Some(answer) = answer.get(..size)
            && is_answer(answer, question, name)
        {
            return Ok(answer.to_vec());
        }
    }
}

fn over_tcp(
    server: SocketAddr,
    question: &[u8],
    name: &Name<'_>,
    until: Instant,
) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, left(until)?)?;
    let size = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.set_write_timeout(Some(left(until)?))?;
    stream.write_all(&[&size.to_be_bytes(), question].concat())?;
    let mut size = [0; 2];
    read_exact(&mut stream, &mut size, until)?;
    let mut answer = vec![0; u16::from_be_bytes(size).into()];
    read_exact(&mut stream, &mut answer, until)?;
    match is_answer(&answer, question, name) {
        true => Ok(answer),
        false => Err(malformed()),
    }
}

/// Reads by a deadline, however few bytes come at a time.
fn read_exact(stream: &mut TcpStream, mut buffer: &mut [u8], until: Instant) -> io::Result<()> {
    while !buffer.is_empty() {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(buffer).map_err(late)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => buffer = buffer.get_mut(count..).unwrap_or_default(),
        }
    }
    Ok(())
}

/// The time that is left.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(late(io::ErrorKind::WouldBlock.into()));
    }
    Ok(left)
}

/// Names an error of a socket that waited in vain.
fn late(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
        }
        _ => error,
    }
}

/// Whether it is an answer to the question, readable as far as it is needed: one that is truncated may
/// end within an entry.
fn is_answer(answer: &[u8], question: &[u8], name: &Name<'_>) -> bool {
    let id = |bytes: &[u8]| bytes.first_chunk::<2>().copied();
    let head = match is_truncated(answer) {
        true => without_entries(answer, question.len()),
        false => None,
    };
    let Ok(packet) = parse(head.as_deref().unwrap_or(answer)) else {
        return false;
    };
    id(answer) == id(question)
        && packet.has_flags(PacketFlag::RESPONSE)
        && matches!(&*packet.questions, [asked] if asked.qname == *name)
}

fn is_truncated(answer: &[u8]) -> bool {
    matches!(
        header_buffer::has_flags(answer, PacketFlag::TRUNCATION),
        Ok(true)
    )
}

/// The header and the question of an answer, which are as long as those that were sent. `Some` if it
/// is long enough.
fn without_entries(answer: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut head = answer.get(..len)?.to_vec();
    // The numbers of answers, name servers and additional records (section 4.1.1 of RFC 1035).
    head.get_mut(6..12)?.fill(0);
    Some(head)
}

/// The SRV records of an answer.
fn read(answer: &[u8], name: &Name<'_>) -> io::Result<Vec<SrvRecord>> {
    let packet = parse(answer)?;
    match packet.rcode() {
        RCODE::NoError => Ok(records(&packet, name)),
        RCODE::NameError => Ok(Vec::new()),
        code => Err(io::Error::other(format!("{code:?}"))),
    }
}

/// Parses a packet, unless it claims more entries than it has bytes for.
fn parse(bytes: &[u8]) -> io::Result<Packet<'_>> {
    let count =
        |of: fn(&[u8]) -> simple_dns::Result<u16>| of(bytes).map_or(usize::MAX, usize::from);
    let counts = [
        header_buffer::questions,
        header_buffer::answers,
        header_buffer::name_servers,
        header_buffer::additional_records,
    ];
    let entries = counts
        .into_iter()
        .fold(0_usize, |sum, of| sum.saturating_add(count(of)));
    if entries > bytes.len() / ENTRY_MIN {
        return Err(malformed());
    }
    Packet::parse(bytes).map_err(|_| malformed())
}

fn records(packet: &Packet<'_>, name: &Name<'_>) -> Vec<SrvRecord> {
    let mut owner = name;
    for _ in 0..ALIASES_MAX {
        let of_owner = |alias: &Name<'_>| *alias == *owner;
        let alias = packet
            .answers
            .iter()
            .find_map(|answer| match &answer.rdata {
                RData::CNAME(alias) if of_owner(&answer.name) => Some(&alias.0),
                _ => None,
            });
        match alias {
            Some(alias) => owner = alias,
            None => break,
        }
    }
    let of_owner = packet.answers.iter().filter(|answer| answer.name == *owner);
    let records = of_owner.filter_map(|answer| match &answer.rdata {
        RData::SRV(srv) => Some(SrvRecord {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: srv.target.to_string(),
        }),
        _ => None,
    });
    records.take(MAX_RESOLVED).collect()
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a malformed answer")
}

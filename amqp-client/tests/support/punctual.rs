//! A server in a thread of its own, which sends its heartbeats whatever the test's runtime does.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread::{self, JoinHandle},
    time::{self, Duration},
};

use amqp_client::{
    core::{
        Instant, Transmit,
        server::{self, Event},
    },
    protocol::channel,
};
use bytes::{Buf as _, BytesMut};

/// For how long a test blocks what runs its connection: longer than a peer may be silent.
pub(crate) const BLOCKED: Duration = Duration::from_millis(2500);

/// Starts one that takes a single connection, with a heartbeat interval of one second. It ends with
/// the connection.
pub(crate) fn start() -> io::Result<(SocketAddr, JoinHandle<io::Result<()>>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || serve(listener.accept()?.0));
    Ok((address, server))
}

/// A server that lets everybody in, sends heartbeats every half a second, and misses none.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    let begun = time::Instant::now();
    let now = || Instant::from_origin(begun.elapsed());
    let config = server::Config {
        heartbeat: 1,
        ..server::Config::default()
    };
    let mut machine = server::Connection::new(config, now()).map_err(io::Error::other)?;
    stream.set_read_timeout(Some(Duration::from_millis(10)))?;
    let (mut input, mut output) = (BytesMut::new(), Transmit::new());
    while !machine.is_finished() {
        let mut buffer = [0; 1024];
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => input.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        machine.set_reading(now(), false);
        machine.handle_input(now(), &mut input);
        machine.handle_timeout(now());
        while let Some(event) = machine.poll_event() {
            let decided = match event {
                Event::Authenticate(_) => machine.accept(),
                Event::Open { .. } => machine.open(),
                Event::Flow { channel, active } => match machine.channel(channel) {
                    Some(mut asked) => asked.send(&channel::FlowOk { active }),
                    None => Ok(()),
                },
                _ => Ok(()),
            };
            decided.map_err(io::Error::other)?;
        }
        machine.poll_transmit(now(), &mut output);
        while output.has_remaining() {
            let count = stream.write(output.chunk())?;
            output.advance(count);
        }
    }
    Ok(())
}

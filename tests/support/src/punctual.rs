//! A connection whose runtime stands still: a program that blocks its only thread for longer than a
//! peer may be silent has not read the peer's heartbeats, which wait to be read. That is not the
//! peer's fault.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread::{self, JoinHandle},
    time::{self, Duration},
};

use amqp_driver::{
    Options, connect,
    core::{
        Instant, Transmit,
        server::{self, Event},
    },
    io::Runtime,
    protocol::channel,
};
use bytes::{Buf as _, BytesMut};

/// For how long the thread is blocked: longer than a peer may be silent.
const BLOCKED: Duration = Duration::from_millis(2500);

/// Connects, and blocks the thread that it is on, which is to be the one that drives the connection.
pub async fn block<R: Runtime>(runtime: R) {
    let (address, server) = start().expect("a port");
    let options = Options::from_uri(&format!("amqp://{address}")).expect("a URI");
    let connection = connect(&runtime, &options)
        .await
        .expect("the server lets everybody in");
    assert_eq!(connection.tuning().heartbeat, 1);
    let channel = connection.open_channel().await.expect("a channel");
    for _ in 0..2 {
        thread::sleep(BLOCKED);
        channel
            .call(channel::Flow { active: true })
            .await
            .expect("the connection is alive");
    }
    connection.close().await.expect("a clean end");
    server.join().expect("no panic").expect("no error");
}

/// Starts a server in a thread of its own, which takes a single connection, with a heartbeat interval
/// of one second. It ends with the connection.
fn start() -> io::Result<(SocketAddr, JoinHandle<io::Result<()>>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || serve(listener.accept()?.0));
    Ok((address, server))
}

/// A server that accepts every client, sends heartbeats every half a second, and misses none.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    let begun = time::Instant::now();
    let now = || Instant::from_origin(begun.elapsed());
    let config = server::Config::default().heartbeat(1);
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

//! What happens to a connection whose runtime stands still.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::{self, Duration},
};

use amqp_tokio::{
    core::{
        Instant, Transmit,
        server::{self, Event},
    },
    protocol::channel,
};
use bytes::{Buf as _, BytesMut};

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

/// A program that blocks its only thread for longer than a peer may be silent has not heard the peer,
/// which is not the peer's fault: its heartbeats wait to be read.
#[tokio::test]
async fn a_blocked_thread_is_no_silent_peer() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = thread::spawn(move || serve(listener.accept()?.0));

    let connection = amqp_tokio::connect(&format!("amqp://{address}"))
        .await
        .expect("the server lets everybody in");
    assert_eq!(connection.tuning().heartbeat, 1);
    let channel = connection.open_channel().await.expect("a channel");
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(2500));
        channel
            .call(channel::Flow { active: true })
            .await
            .expect("the connection is alive");
    }
    connection.close().await.expect("a clean end");
    server.join().expect("no panic").expect("no error");
}

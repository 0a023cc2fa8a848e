//! The end of a served connection on a real socket: the client reads the final frames, and its
//! output sent meanwhile does not turn into a reset.

#![cfg(feature = "broker")]

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use amqp_tokio::{LocalBroker, serve};
use tokio::{net::TcpListener, task};

/// The time limit of steps that end at once.
const PATIENCE: Duration = Duration::from_secs(120);

fn frame(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    let mut frame = vec![1];
    frame.extend(channel.to_be_bytes());
    frame.extend(u32::try_from(arguments.len() + 4).unwrap().to_be_bytes());
    frame.extend([class.to_be_bytes(), method.to_be_bytes()].concat());
    frame.extend(arguments);
    frame.push(0xce);
    frame
}

/// Reads the next method frame: its class and method.
fn read_method(socket: &mut TcpStream) -> io::Result<(u8, u8)> {
    let mut head = [0; 7];
    socket.read_exact(&mut head)?;
    let len = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let mut rest = vec![0; len as usize + 1];
    socket.read_exact(&mut rest)?;
    Ok((rest[1], rest[3]))
}

/// A raw client with an open connection and channel 1.
fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let start_ok = b"\0\0\0\0\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US";
    let tune_ok = b"\0\0\0\x02\0\0\0\0"; // channel_max, frame_max: 131072, heartbeat
    let mut tune_ok = tune_ok.to_vec();
    tune_ok[..6].copy_from_slice(&[0x07, 0xff, 0, 2, 0, 0]);
    socket.write_all(b"AMQP\0\0\x09\x01")?;
    assert_eq!(read_method(&mut socket)?, (10, 10));
    socket.write_all(&frame(0, 10, 11, start_ok))?;
    assert_eq!(read_method(&mut socket)?, (10, 30));
    socket.write_all(&frame(0, 10, 31, &tune_ok))?;
    socket.write_all(&frame(0, 10, 40, b"\x01/\0\0"))?;
    assert_eq!(read_method(&mut socket)?, (10, 41));
    socket.write_all(&frame(1, 20, 10, b"\0"))?;
    assert_eq!(read_method(&mut socket)?, (20, 11));
    Ok(socket)
}

/// Some messages to the default exchange.
fn publishes() -> Vec<u8> {
    let mut publish = frame(1, 60, 40, b"\0\0\0\x04none\0");
    publish.extend(b"\x02\0\x01\0\0\0\x0e\0\x3c\0\0\0\0\0\0\0\0\0\x03\0\0\xce");
    publish.extend(b"\x03\0\x01\0\0\0\x03abc\xce");
    publish.repeat(20)
}

/// Sends `last`, then bursts of publishes. Returns the method that the server ends with.
fn send_on(mut socket: TcpStream, last: &[u8]) -> io::Result<(u8, u8)> {
    socket.write_all(last)?;
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(2));
        socket.write_all(&publishes())?;
    }
    let method = read_method(&mut socket)?;
    // The end of the stream, not a reset.
    assert_eq!(socket.read(&mut [0; 1])?, 0);
    Ok(method)
}

/// Bursts, of which a busy machine may be late with one.
const ATTEMPTS: usize = 10;

/// The end of a connection that waits for nothing. One that waits for its client takes a second.
const AT_ONCE: Duration = Duration::from_millis(900);

#[tokio::test]
async fn a_client_that_sends_on_reads_the_final_frame() -> io::Result<()> {
    let mut took = Vec::new();
    while took.len() < ATTEMPTS {
        let last = shutdown_after_final_frames().await?;
        if last < AT_ONCE {
            return Ok(());
        }
        took.push(last);
    }
    panic!("connections were left: the shutdown took {took:?}");
}

/// Clients send on, and read the final frame. Returns the time of the shutdown behind them.
async fn shutdown_after_final_frames() -> io::Result<Duration> {
    const ROUNDS: usize = 20;
    let server = serve(
        TcpListener::bind("127.0.0.1:0").await?,
        LocalBroker::default(),
    )?;
    let address = server.local_addr();
    let close = frame(0, 10, 50, b"\0\xc8\0\0\0\0\0");
    // A frame without its end octet: the server does not await an answer to its close.
    let fault = b"\x08\0\0\0\0\0\0\0".to_vec();
    for (last, expected) in [(close, (10, 51)), (fault, (10, 50))] {
        for round in 0..ROUNDS {
            let last = last.clone();
            let raw = task::spawn_blocking(move || send_on(open(address)?, &last));
            let answer = raw.await?;
            assert_eq!(answer.ok(), Some(expected), "round {round}");
        }
    }
    // All have ended.
    let begun = Instant::now();
    server.shutdown().await;
    Ok(begun.elapsed())
}

/// A client that answers the close of the server and keeps its socket open.
#[tokio::test]
async fn a_client_that_keeps_its_socket_holds_a_shutdown_for_a_second() -> io::Result<()> {
    let mut took = Vec::new();
    while took.len() < ATTEMPTS {
        let [of_broker, of_server] = shutdown_with_a_kept_socket().await?;
        // The broker does not wait.
        if of_broker < AT_ONCE && of_server < Duration::from_secs(3) {
            return Ok(());
        }
        took.push([of_broker, of_server]);
    }
    panic!("{took:?}");
}

/// The times until the broker, and the server, have done with a client that keeps its socket.
async fn shutdown_with_a_kept_socket() -> io::Result<[Duration; 2]> {
    let broker = LocalBroker::default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = serve(listener, broker.clone())?;
    let address = server.local_addr();
    let raw = task::spawn_blocking(move || {
        let mut socket = open(address)?;
        assert_eq!(read_method(&mut socket)?, (10, 50));
        socket.write_all(&frame(0, 10, 51, b""))?;
        io::Result::Ok(socket)
    });
    while broker.inspect().connections.is_empty()
        || broker.inspect().connections[0].channels.is_empty()
    {
        task::yield_now().await;
    }
    let begun = Instant::now();
    let stopping = task::spawn(server.shutdown());
    let socket = raw.await??;
    while !broker.inspect().connections.is_empty() {
        task::yield_now().await;
    }
    let of_broker = begun.elapsed();
    stopping.await?;
    let of_server = begun.elapsed();
    drop(socket);
    Ok([of_broker, of_server])
}

//! An event loop of one's own with only std around the machine: a thread that reads, a thread that
//! writes, and between them the loop, which owns the machine and waits for either or for a deadline.
//!
//! It publishes three confirmed messages, consumes and acknowledges them, on the server that the
//! environment variable `AMQP_URL` names, by default `amqp://127.0.0.1`. Loops on mio, `poll(2)`,
//! io_uring and rustls are in `examples/embedding` of the repository.

use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, Interrupted};
use std::io::{self, Read as _, Write as _};
use std::sync::mpsc::{RecvTimeoutError, channel, sync_channel};
use std::{env, error::Error, net::Shutdown, net::TcpStream, process, thread, time::Duration};

use amqp_core::bytes::{Buf as _, BytesMut};
use amqp_core::client::{Config, Connection, Event, Outcome};
use amqp_core::protocol::{Method, ReplyCode, basic, confirm, queue};
use amqp_core::{Instant, Tags, Transmit, dial::Address, uri::Uri};

const MESSAGES: [&str; 3] = ["Hello", "World", "!"];
const READ: usize = 64 << 10;
/// The number of reads that wait for the loop; then the reader waits, and after it the server.
const READS: usize = 4;
/// The time that the last write may take, once the connection has ended.
const LINGER: Duration = Duration::from_secs(1);

/// The report of a thread.
enum Done {
    /// Bytes that were read; none at the end of the stream.
    Read(Vec<u8>),
    /// The rest of the output, after a write.
    Written(Transmit),
    Failed(io::Error),
}

fn main() {
    if let Err(error) = run() {
        eprintln!("event_loop: {error}");
        process::exit(1);
    }
}

/// To the first address that takes the connection. `dial::Dialer` knows how to do this better.
fn connect(addresses: &[Address]) -> Result<TcpStream, Box<dyn Error>> {
    let mut failures = Vec::new();
    for address in addresses {
        let Address::Tcp { host, port } = address else {
            continue;
        };
        match TcpStream::connect((host.as_str(), *port)) {
            Ok(socket) => return Ok(socket),
            Err(error) => failures.push(format!("could not reach {address}: {error}")),
        }
    }
    Err(failures.join("; ").into())
}

fn run() -> Result<(), Box<dyn Error>> {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1".to_owned());
    let uri: Uri = url.parse()?;
    if uri.scheme.as_str() == "amqps" {
        return Err("amqps needs TLS, which this example does not have".into());
    }
    let socket = connect(&uri.addresses)?;
    socket.set_nodelay(true)?;
    let (done, reports) = sync_channel(READS);
    let (to_write, outputs) = channel::<Transmit>();
    let (mut source, mut sink, written) = (socket.try_clone()?, socket.try_clone()?, done.clone());
    thread::spawn(move || {
        let mut buffer = vec![0; READ];
        loop {
            let report = match source.read(&mut buffer) {
                Err(error) if error.kind() == Interrupted => continue,
                Err(error) => Done::Failed(error),
                Ok(count) => Done::Read(buffer[..count].to_vec()),
            };
            let is_last = !matches!(&report, Done::Read(bytes) if !bytes.is_empty());
            if done.send(report).is_err() || is_last {
                return;
            }
        }
    });
    thread::spawn(move || {
        for mut output in outputs {
            let report = match sink.write(output.chunk()) {
                Ok(count) => {
                    output.advance(count);
                    Done::Written(output)
                }
                Err(error) if error.kind() == Interrupted => Done::Written(output),
                Err(error) => Done::Failed(error),
            };
            if written.send(report).is_err() {
                return;
            }
        }
    });

    let start = std::time::Instant::now();
    let now = || Instant::from_origin(start.elapsed());
    let mut machine = Connection::new(Config::from_uri(&uri)?, now())?;
    let mut input = BytesMut::new();
    let mut output = Some(Transmit::new()); // `None` while the writer has it
    let mut acked = 0;
    loop {
        // Taking out more only when all was written bounds the output that waits.
        if let Some(mut next) = output.take() {
            if !next.is_empty() || machine.poll_transmit(now(), &mut next) {
                to_write.send(next)?;
            } else {
                output = Some(next);
            }
        }
        let deadline = machine.poll_timeout().map(|(at, _)| at - now());
        let is_finished = machine.is_finished();
        let report = match (is_finished, deadline) {
            (true, _) if output.is_some() => break,
            (true, _) => reports.recv_timeout(LINGER),
            (false, Some(deadline)) => reports.recv_timeout(deadline),
            (false, None) => reports.recv().map_err(RecvTimeoutError::from),
        };
        match report {
            Ok(Done::Read(bytes)) if bytes.is_empty() => machine.handle_eof(now()),
            Ok(Done::Read(bytes)) => {
                input.extend_from_slice(&bytes);
                machine.handle_input(now(), &mut input); // leaves a partial frame in there
            }
            Ok(Done::Written(rest)) => {
                if !rest.is_empty() {
                    machine.handle_written(now());
                }
                output = Some(rest);
            }
            Ok(Done::Failed(error)) => {
                fail(&mut machine, now(), &error);
                output = Some(Transmit::new());
            }
            Err(_) if is_finished => break,
            Err(_) => {}
        }
        machine.handle_timeout(now()); // does nothing before its time
        while let Some(event) = machine.poll_event() {
            step(&mut machine, event, &mut acked)?;
        }
    }
    let _not_connected = socket.shutdown(Shutdown::Both); // ends the threads
    let fault = machine.close_reason().filter(|reason| !reason.is_clean());
    fault.map_or(Ok(()), |reason| Err(reason.clone().into()))
}

/// A server that hangs up may mean something by it, which a fault of the network does not.
fn fail(machine: &mut Connection, now: Instant, error: &io::Error) {
    let message = error.to_string();
    match error.kind() {
        ConnectionReset | ConnectionAborted | BrokenPipe => machine.handle_reset(now, &message),
        _ => machine.handle_transport_error(now, &message),
    }
}

/// The application: each event leads to its next step.
fn step(machine: &mut Connection, event: Event, acked: &mut u64) -> Result<(), Box<dyn Error>> {
    const GONE: &str = "the channel has ended";
    match event {
        Event::Opened => drop(machine.open_channel()?),
        Event::Reply { channel, reply, .. } => {
            let mut channel = channel.and_then(|id| machine.channel(id)).ok_or(GONE)?;
            if let Method::ChannelOpenOk(_) = reply {
                channel.call(&confirm::Select::default())?;
                channel.call(&queue::Declare::default().exclusive(true))?;
            } else if let Method::QueueDeclareOk(declared) = reply {
                println!("declared the queue {}", declared.queue);
                let publish = basic::Publish::default().routing_key(declared.queue);
                for message in MESSAGES {
                    channel.publish(&publish, &basic::Properties::default(), message)?;
                }
            }
        }
        Event::Settled {
            channel,
            first,
            last,
            outcome: Outcome::Acked,
        } => {
            println!("published and confirmed: {} to {}", first.get(), last.get());
            *acked += last.get() + 1 - first.get();
            if *acked == MESSAGES.len() as u64 {
                let mut channel = machine.channel(channel).ok_or(GONE)?;
                channel.consume(basic::Consume::default())?; // from the queue declared last
            }
        }
        Event::Delivered(delivery) => {
            let mut channel = machine.channel(delivery.channel).ok_or(GONE)?;
            channel.ack(Tags::One(delivery.tag.ok_or("no tag")?))?;
            println!("consumed and acknowledged: {:?}", delivery.content.body);
            if delivery.method.delivery_tag == MESSAGES.len() as u64 {
                machine.close(ReplyCode::SUCCESS, "goodbye");
            }
        }
        Event::Settled { outcome, .. } => return Err(format!("not confirmed: {outcome:?}").into()),
        Event::ChannelClosed { reason, .. } => return Err(reason.into()),
        _ => {}
    }
    Ok(())
}

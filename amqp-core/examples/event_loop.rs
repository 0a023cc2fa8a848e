//! An event loop of one's own: the machine, a non-blocking socket, and only std around them. It
//! publishes three confirmed messages, consumes and acknowledges them, on the server that the
//! environment variable `AMQP_URL` names, by default `amqp://127.0.0.1`.

use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, WouldBlock};
use std::io::{self, Read as _, Write as _};
use std::{env, error::Error, net::TcpStream, process, thread, time::Duration};

use amqp_core::bytes::{Buf as _, BytesMut};
use amqp_core::client::{Config, Connection, Event, Outcome};
use amqp_core::protocol::{Method, ReplyCode, basic, confirm, queue};
use amqp_core::{Instant, Tags, Transmit, dial::Address, uri::Uri};

const MESSAGES: [&str; 3] = ["Hello", "World", "!"];
const NAP: Duration = Duration::from_millis(1);

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
    let mut socket = connect(&uri.addresses)?;
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    let start = std::time::Instant::now();
    let now = || Instant::from_origin(start.elapsed());
    let mut machine = Connection::new(Config::from_uri(&uri)?, now())?;
    let (mut buffer, mut input, mut output) = (vec![0; 65_536], BytesMut::new(), Transmit::new());
    let mut acked = 0;
    loop {
        machine.handle_timeout(now()); // does nothing before its time
        while let Some(event) = machine.poll_event() {
            step(&mut machine, event, &mut acked)?;
        }
        if machine.is_finished() {
            let fault = machine.close_reason().filter(|reason| !reason.is_clean());
            return fault.map_or(Ok(()), |reason| Err(reason.clone().into()));
        }
        // Taking out more only when all was written bounds what waits.
        if !output.is_empty() || machine.poll_transmit(now(), &mut output) {
            match socket.write(output.chunk()) {
                Ok(count) => {
                    output.advance(count);
                    continue;
                }
                Err(error) if error.kind() == WouldBlock => {}
                Err(error) => fail(&mut machine, now(), &error),
            }
        }
        match socket.read(&mut buffer) {
            Ok(0) => machine.handle_eof(now()),
            Ok(count) => {
                input.extend_from_slice(&buffer[..count]);
                machine.handle_input(now(), &mut input); // leaves a partial frame in there
            }
            Err(error) if error.kind() == WouldBlock => {
                // A real loop waits here, with epoll, kqueue or the like, until it can read, or
                // write if there is output, or the deadline has come. Std can only take a nap.
                let deadline = machine.poll_timeout().map(|(at, _)| at - now());
                thread::sleep(deadline.unwrap_or(NAP).min(NAP));
            }
            Err(error) => fail(&mut machine, now(), &error),
        }
    }
}

/// A server that hangs up may mean something by it, which a fault of the network does not.
fn fail(machine: &mut Connection, now: Instant, error: &io::Error) {
    let message = error.to_string();
    match error.kind() {
        ConnectionReset | ConnectionAborted | BrokenPipe => machine.handle_reset(now, &message),
        _ => machine.handle_transport_error(now, &message),
    }
}

/// What the program is for: each event leads to its next step.
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

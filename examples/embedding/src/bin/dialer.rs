//! [`Dialer`] in a loop: it names the steps, and this program takes them on [mio], with a thread for
//! each name to resolve. The loop of the example `mio` goes on with the stream.

#[expect(dead_code, reason = "the `main` of the other example")]
#[path = "mio.rs"]
mod mio_loop;

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, ToSocketAddrs as _},
    process::ExitCode,
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
    thread,
    time::Duration,
};

use amqp_core::{
    CloseCause,
    client::Connection,
    dial::{AttemptId, Dialer, Order, SrvError, Step, Target},
};
use amqp_embedding::{Clock, Failure, Settings, end_of, run};
use mio::{Events, Interest, Poll, Registry, Token, Waker, net::TcpStream};

/// The time for each address, unless the URI has one.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The token of the resolvers. Those of the streams are below.
const RESOLVED: Token = Token(usize::MAX);

type Resolved = (AttemptId, io::Result<Vec<SocketAddr>>);

/// A connection attempt in flight.
struct Attempt {
    id: AttemptId,
    token: Token,
    stream: TcpStream,
}

fn main() -> ExitCode {
    run(dial)
}

fn dial(settings: Settings) -> Result<(), Failure> {
    let clock = Clock::start();
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(16);
    let waker = Arc::new(Waker::new(poll.registry(), RESOLVED)?);
    let (to_loop, from_resolvers) = channel();
    let timeout = settings.uri.connection_timeout.unwrap_or(TIMEOUT);
    let mut dialer = Dialer::new(settings.uri.addresses.clone(), Order::Listed, timeout);
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut next_token = 0;
    let mut winner = None;
    loop {
        match dialer.poll_step(clock.now()) {
            Step::Resolve {
                attempt,
                host,
                port,
            } => resolve(attempt, host, port, to_loop.clone(), Arc::clone(&waker)),
            // No URI has an SRV record. A program with `Address::Srv` asks a resolver here.
            Step::LookUp { attempt, .. } => {
                dialer.handle_records(attempt, Err(SrvError::NotFound), 0);
            }
            Step::Connect { attempt, to } => {
                let token = Token(next_token);
                next_token += 1;
                match start(&to, poll.registry(), token) {
                    Ok(stream) => attempts.push(Attempt {
                        id: attempt,
                        token,
                        stream,
                    }),
                    Err(error) => dialer.handle_failed(attempt, &error.to_string()),
                }
            }
            // A late result of a resolver has no effect.
            Step::Abandon => attempts.clear(),
            Step::Wait(until) => {
                match poll.poll(&mut events, Some(until - clock.now())) {
                    Err(error) if error.kind() != ErrorKind::Interrupted => {
                        return Err(error.into());
                    }
                    _ => {}
                }
                for (attempt, addresses) in from_resolvers.try_iter() {
                    match addresses {
                        Ok(addresses) => dialer.handle_resolved(attempt, addresses),
                        Err(error) => dialer.handle_failed(attempt, &error.to_string()),
                    }
                }
                for event in &events {
                    let at = attempts.iter().position(|it| it.token == event.token());
                    let Some(mut attempt) = at.map(|at| attempts.swap_remove(at)) else {
                        continue;
                    };
                    match is_connected(&attempt.stream) {
                        Ok(false) => attempts.push(attempt),
                        Ok(true) => {
                            poll.registry().deregister(&mut attempt.stream)?;
                            if dialer.handle_connected(attempt.id) {
                                winner = Some(attempt.stream);
                            }
                        }
                        Err(error) => dialer.handle_failed(attempt.id, &error.to_string()),
                    }
                }
            }
            Step::Connected(attempt) => {
                let stream = winner.take().ok_or("connected without a stream")?;
                stream.set_nodelay(true)?;
                let mut machine = Connection::new(settings.config()?, clock.now())?;
                let mut application = settings.application();
                mio_loop::drive(clock, stream, &mut machine, &mut application)?;
                let refused = |cause: &CloseCause| {
                    // Other nodes have the same users.
                    !matches!(cause, CloseCause::AuthenticationFailed { .. })
                };
                match machine.close_reason() {
                    Some(reason) if !application.has_begun() && refused(reason.cause()) => {
                        dialer.handle_refused(attempt, &reason.to_string());
                    }
                    _ => return end_of(&machine),
                }
            }
            Step::GiveUp => return Err(dialer.failures().to_string().into()),
        }
    }
}

/// Resolves a name in a thread of its own: the calls of the system block.
fn resolve(
    attempt: AttemptId,
    host: String,
    port: u16,
    results: Sender<Resolved>,
    waker: Arc<Waker>,
) {
    thread::spawn(move || {
        let addresses = (host.as_str(), port).to_socket_addrs();
        if results
            .send((attempt, addresses.map(Iterator::collect)))
            .is_ok()
        {
            let _loop_has_ended = waker.wake();
        }
    });
}

/// Starts to connect.
fn start(to: &Target, registry: &Registry, token: Token) -> io::Result<TcpStream> {
    let Target::Tcp(address) = to else {
        return Err(io::Error::new(ErrorKind::Unsupported, "neither TCP nor IP"));
    };
    let mut stream = TcpStream::connect(*address)?;
    registry.register(&mut stream, token, Interest::WRITABLE)?;
    Ok(stream)
}

/// Whether an attempt has succeeded; the error if it has failed.
fn is_connected(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

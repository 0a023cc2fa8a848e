//! The machine on [mio], with vectored writes.
//!
//! Readiness is edge-triggered: mio reports it once, and it lasts until a call returns `WouldBlock`.
//! So the loop keeps it in two flags, and waits only if neither leads to work.

use std::{
    io::{self, ErrorKind, IoSlice, Read as _, Write as _},
    net::Shutdown,
    process::ExitCode,
    time::Duration,
};

use amqp_core::{
    Transmit,
    bytes::{Buf as _, BytesMut},
    client::Connection,
    uri::Scheme,
};
use amqp_embedding::{Application, Clock, Failure, READ, end_of, handle_error, is_temporary, run};
use mio::{Events, Interest, Poll, Token, net::TcpStream};

/// The number of segments of one write: a large body is a segment of its own, and so are the frame
/// ends between its pieces.
const SEGMENTS: usize = 64;

fn main() -> ExitCode {
    run(|settings| {
        let clock = Clock::start();
        let socket = TcpStream::from_std(settings.connect(Scheme::Amqp)?);
        let mut machine = Connection::new(settings.config()?, clock.now())?;
        let mut application = settings.application();
        drive(clock, socket, &mut machine, &mut application)?;
        end_of(&machine)
    })
}

/// Drives the machine until its connection has ended.
pub(crate) fn drive(
    clock: Clock,
    mut socket: TcpStream,
    machine: &mut Connection,
    application: &mut Application,
) -> Result<(), Failure> {
    let mut poll = Poll::new()?;
    let both = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(&mut socket, Token(0), both)?;
    let mut events = Events::with_capacity(4);
    let mut buffer = vec![0; READ];
    let (mut input, mut output) = (BytesMut::new(), Transmit::new());
    let (mut readable, mut writable) = (true, true);
    loop {
        // Output leaves first: then `poll_transmit` shows that the peer reads, before a deadline of
        // it is judged. More is taken out only when all is written, so that back-pressure is right.
        if writable && (!output.is_empty() || machine.poll_transmit(clock.now(), &mut output)) {
            match write(&mut socket, &output) {
                Ok(count) => {
                    output.advance(count);
                    if !output.is_empty() {
                        machine.handle_written(clock.now());
                    }
                }
                Err(error) if is_temporary(&error) => {
                    writable = error.kind() == ErrorKind::Interrupted;
                }
                Err(error) => {
                    handle_error(machine, clock.now(), &error);
                    output.clear();
                }
            }
        }
        // One read for each write: neither direction starves the other.
        let reading = !application.is_busy();
        machine.set_reading(clock.now(), reading);
        if readable && reading && !machine.is_finished() {
            match socket.read(&mut buffer) {
                Ok(0) => {
                    readable = false;
                    machine.handle_eof(clock.now());
                }
                Ok(count) => {
                    input.extend_from_slice(&buffer[..count]);
                    machine.handle_input(clock.now(), &mut input); // a partial frame stays in there
                }
                Err(error) if is_temporary(&error) => {
                    readable = error.kind() == ErrorKind::Interrupted;
                }
                Err(error) => {
                    readable = false;
                    handle_error(machine, clock.now(), &error);
                }
            }
        }
        machine.handle_timeout(clock.now()); // does nothing before its time
        application.step(machine)?;

        let writes = !output.is_empty() || machine.has_transmit();
        if machine.is_finished() && !(writes && writable) {
            // The peer has not taken the rest by now, and will not.
            let _not_connected = socket.shutdown(Shutdown::Write);
            return Ok(());
        }
        let reads = readable && !application.is_busy();
        let timeout = if reads || (writes && writable) || application.has_work() {
            Some(Duration::ZERO)
        } else {
            machine.poll_timeout().map(|(at, _)| at - clock.now())
        };
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            readable |= event.is_readable();
            writable |= event.is_writable();
        }
    }
}

/// Writes the segments of the output with one call.
fn write(socket: &mut TcpStream, output: &Transmit) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); SEGMENTS];
    let mut count = 0;
    for (slice, segment) in slices.iter_mut().zip(output.segments()) {
        *slice = IoSlice::new(segment);
        count += 1;
    }
    socket.write_vectored(&slices[..count])
}

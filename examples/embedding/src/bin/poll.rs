//! The machine on `poll(2)`, by [rustix].
//!
//! Readiness is level-triggered: each wait names the conditions that matter at this moment, and
//! nothing is to be remembered. A busy application is protected by not asking for input.

use std::process::ExitCode;

#[cfg(unix)]
mod unix {
    use std::{
        io::{ErrorKind, Read as _, Write as _},
        net::Shutdown,
    };

    use amqp_core::{
        Transmit,
        bytes::{Buf as _, BytesMut},
        client::Connection,
        uri::Scheme,
    };
    use amqp_embedding::{Clock, Failure, READ, Settings, end_of, handle_error, is_temporary};
    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        io::Errno,
    };

    pub(super) fn run(settings: Settings) -> Result<(), Failure> {
        let clock = Clock::start();
        let mut socket = settings.connect(Scheme::Amqp)?;
        let mut machine = Connection::new(settings.config()?, clock.now())?;
        let mut application = settings.application();
        let mut buffer = vec![0; READ];
        let (mut input, mut output) = (BytesMut::new(), Transmit::new());
        loop {
            // Inwards: a queue that is long enough stops the reading, and by that the server. The
            // machine must know it, as silence of the peer is no fault then.
            let reading = !application.is_busy();
            machine.set_reading(clock.now(), reading);
            let writes = !output.is_empty() || machine.has_transmit();
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::IN, reading);
            wanted.set(PollFlags::OUT, writes);
            let mut sockets = [PollFd::new(&socket, wanted)];
            let deadline = machine.poll_timeout().map(|(at, _)| at - clock.now());
            let timeout = if application.has_work() {
                Some(Timespec::default())
            } else {
                // Rounded up to the next nanosecond at worst, so never a turn too early for long.
                deadline.map(Timespec::try_from).transpose()?
            };
            match poll(&mut sockets, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready = sockets[0].revents();
            let failed = ready.intersects(PollFlags::ERR | PollFlags::HUP);

            if ready.contains(PollFlags::OUT) || (failed && writes) {
                if output.is_empty() {
                    machine.poll_transmit(clock.now(), &mut output);
                }
                match socket.write(output.chunk()) {
                    Ok(count) => {
                        output.advance(count);
                        if !output.is_empty() {
                            machine.handle_written(clock.now());
                        }
                    }
                    Err(error) if is_temporary(&error) => {}
                    Err(error) => {
                        handle_error(&mut machine, clock.now(), &error);
                        output.clear();
                    }
                }
            }
            if reading && (ready.contains(PollFlags::IN) || failed) && !machine.is_finished() {
                match socket.read(&mut buffer) {
                    Ok(0) => machine.handle_eof(clock.now()),
                    Ok(count) => {
                        input.extend_from_slice(&buffer[..count]);
                        machine.handle_input(clock.now(), &mut input);
                    }
                    Err(error) if is_temporary(&error) => {}
                    Err(error) => handle_error(&mut machine, clock.now(), &error),
                }
            }
            machine.handle_timeout(clock.now());
            application.step(&mut machine)?;
            if machine.is_finished() {
                // The final frames are few. A socket that does not take them at once has a peer
                // that does not read.
                while !output.is_empty() {
                    match socket.write(output.chunk()) {
                        Ok(count) => output.advance(count),
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(_) => break,
                    }
                }
                let _not_connected = socket.shutdown(Shutdown::Write);
                return end_of(&machine);
            }
        }
    }
}

#[cfg(unix)]
fn main() -> ExitCode {
    amqp_embedding::run(unix::run)
}

#[cfg(not(unix))]
fn main() -> ExitCode {
    eprintln!("error: this system has no poll(2)");
    ExitCode::FAILURE
}

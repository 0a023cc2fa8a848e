//! The machine on io_uring: the kernel owns the buffers of the operations in flight, and gives them
//! back with the results.
//!
//! Where the kernel has no io_uring, or forbids it, two threads take its place. They are chosen with
//! `AMQP_KERNEL=threads`, too. The loop is the same, and fits any other completion-based interface.

#[cfg(target_os = "linux")]
mod ring;
mod threads;

use std::{env, io, net::TcpStream, process::ExitCode, time::Duration};

use amqp_core::{
    Transmit,
    bytes::{Buf as _, BytesMut},
    client::Connection,
    uri::Scheme,
};
use amqp_embedding::{
    Application, Clock, Failure, READ, Settings, end_of, handle_error, is_temporary, run,
};

/// The least room to read into; with less, the buffer is enlarged first.
const ROOM: usize = 4 << 10;
/// The time that the last write may take, once the connection has ended.
const LINGER: Duration = Duration::from_secs(1);

/// A completed operation, with its buffer.
enum Done {
    /// The bytes that were read; none at the end of the stream.
    Read(io::Result<BytesMut>),
    /// The output, and the number of its bytes that were written.
    Written(Transmit, io::Result<usize>),
}

/// A completion-based interface with at most one operation in flight in each direction.
trait Kernel {
    /// Begins to read into the spare capacity of the buffer, which is empty.
    fn read(&mut self, buffer: BytesMut) -> io::Result<()>;
    /// Begins to write the output.
    fn write(&mut self, output: Transmit) -> io::Result<()>;
    /// Waits for an operation to complete, until the timeout. It may return `None` early.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Option<Done>>;
}

fn main() -> ExitCode {
    run(|settings: Settings| {
        let clock = Clock::start();
        let socket = settings.connect(Scheme::Amqp)?;
        socket.set_nonblocking(false)?; // an operation waits in the kernel
        let mut machine = Connection::new(settings.config()?, clock.now())?;
        let mut kernel = kernel(socket)?;
        drive(
            clock,
            &mut *kernel,
            &mut machine,
            &mut settings.application(),
        )?;
        end_of(&machine)
    })
}

fn kernel(socket: TcpStream) -> io::Result<Box<dyn Kernel>> {
    let threads = env::var_os("AMQP_KERNEL").is_some_and(|name| name == "threads");
    #[cfg(target_os = "linux")]
    if !threads {
        match ring::Uring::new(socket.try_clone()?) {
            Ok(ring) => return Ok(Box::new(ring)),
            Err(error) => eprintln!("no io_uring here: {error}"),
        }
    }
    if !threads {
        eprintln!("two threads take its place");
    }
    Ok(Box::new(threads::Threads::new(socket)?))
}

fn drive(
    clock: Clock,
    kernel: &mut dyn Kernel,
    machine: &mut Connection,
    application: &mut Application,
) -> Result<(), Failure> {
    let mut input = BytesMut::new();
    let mut output = Some(Transmit::new()); // `None` while the kernel has it
    let (mut reading, mut ended) = (false, false);
    loop {
        if let Some(mut next) = output.take() {
            if !next.is_empty() || machine.poll_transmit(clock.now(), &mut next) {
                kernel.write(next)?;
            } else {
                output = Some(next);
            }
        }
        if machine.is_finished() && output.is_some() {
            return Ok(());
        }
        if !reading && !ended && !application.is_busy() {
            if input.capacity() - input.len() < ROOM {
                input.reserve(READ);
            }
            // A partial frame stays in front; the kernel gets the room behind it.
            kernel.read(input.split_off(input.len()))?;
            reading = true;
        }
        machine.set_reading(clock.now(), reading);

        let deadline = machine.poll_timeout().map(|(at, _)| at - clock.now());
        let timeout = match (machine.is_finished(), application.has_work()) {
            (true, _) => Some(LINGER),
            (false, true) => Some(Duration::ZERO),
            (false, false) => deadline,
        };
        match kernel.wait(timeout)? {
            Some(Done::Read(read)) => {
                reading = false;
                match read {
                    Ok(bytes) if bytes.is_empty() => {
                        ended = true;
                        machine.handle_eof(clock.now());
                    }
                    Ok(bytes) => {
                        input.unsplit(bytes); // neighbours in memory: without a copy
                        machine.handle_input(clock.now(), &mut input);
                    }
                    Err(error) if is_temporary(&error) => {}
                    Err(error) => {
                        ended = true;
                        handle_error(machine, clock.now(), &error);
                    }
                }
            }
            Some(Done::Written(mut rest, written)) => {
                match written {
                    Ok(count) => rest.advance(count),
                    Err(error) if is_temporary(&error) => {}
                    Err(error) => {
                        rest.clear();
                        handle_error(machine, clock.now(), &error);
                    }
                }
                if !rest.is_empty() {
                    machine.handle_written(clock.now());
                }
                output = Some(rest);
            }
            None if machine.is_finished() => return Ok(()),
            None => {}
        }
        machine.handle_timeout(clock.now());
        application.step(machine)?;
    }
}

//! The parts that the event loops of this package share: their application, its settings, a clock,
//! and the meaning of I/O errors. The loops themselves are in `src/bin`, each in one file.

mod application;
mod settings;

use std::{
    error::Error,
    io::{self, ErrorKind},
    process::ExitCode,
};

use amqp_core::{Instant, client::Connection};

pub use self::{application::Application, settings::Settings};

/// The error of an example.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The number of bytes that a loop reads at a time.
pub const READ: usize = 64 << 10;

/// The monotonic clock of a loop. The machine counts from an origin that its caller chooses: here it
/// is the start of the program.
#[derive(Clone, Copy, Debug)]
pub struct Clock(std::time::Instant);

impl Clock {
    /// Starts the clock.
    #[must_use]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// Returns the time.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::from_origin(self.0.elapsed())
    }
}

/// Reports a failure of the transport to the machine.
///
/// A server that hangs up during the login may refuse the credentials by that, which a failure of
/// the network does not: so three kinds are set apart.
pub fn handle_error(machine: &mut Connection, now: Instant, error: &io::Error) {
    let message = error.to_string();
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            machine.handle_reset(now, &message);
        }
        _ => machine.handle_transport_error(now, &message),
    }
}

/// Whether the call is to be repeated: later if the socket is not ready, at once after a signal.
#[must_use]
pub fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Returns how a finished connection has ended.
///
/// # Errors
/// The reason, unless the connection was closed on request and the server has answered.
pub fn end_of(machine: &Connection) -> Result<(), Failure> {
    match machine.close_reason() {
        Some(reason) if !reason.is_clean() => Err(reason.clone().into()),
        _ => Ok(()),
    }
}

/// Runs an example, and prints its error.
pub fn run(example: fn(Settings) -> Result<(), Failure>) -> ExitCode {
    match Settings::from_environment().and_then(example) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

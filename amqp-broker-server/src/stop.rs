//! The signals that stop the program.

use std::{io, process};

/// The exit code of a program that a second signal ends.
const IMPATIENT: i32 = 1;

#[cfg(unix)]
mod system {
    use std::io;

    use tokio::signal::unix::{Signal, SignalKind, signal};

    /// SIGTERM and SIGINT.
    pub(crate) struct Signals {
        terminate: Signal,
        interrupt: Signal,
    }

    impl Signals {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            })
        }

        /// Waits for the next signal, and returns its name.
        pub(crate) async fn received(&mut self) -> &'static str {
            tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
            }
        }
    }
}

#[cfg(not(unix))]
mod system {
    use std::{future, io};

    /// Ctrl-C.
    pub(crate) struct Signals(());

    impl Signals {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self(()))
        }

        /// Waits for the next signal, and returns its name.
        pub(crate) async fn received(&mut self) -> &'static str {
            if tokio::signal::ctrl_c().await.is_err() {
                future::pending::<()>().await;
            }
            "Ctrl-C"
        }
    }
}

/// The signals that stop the program. From its creation on they do not end it by themselves.
pub(crate) struct Signals(system::Signals);

impl Signals {
    /// Handles the signals from now on.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(system::Signals::new()?))
    }

    /// Waits for a signal, and returns its name.
    pub(crate) async fn received(&mut self) -> &'static str {
        self.0.received().await
    }

    /// Ends the program at the next signal, in a task.
    pub(crate) fn exit_at_next(mut self) {
        tokio::spawn(async move {
            self.received().await;
            process::exit(IMPATIENT);
        });
    }
}

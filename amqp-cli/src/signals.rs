//! The request to end: SIGINT, and SIGTERM where there is one.

use std::{io, process, time::Duration};

use tokio::sync::watch;

use crate::note;

/// The exit code of a second signal, as a shell reports SIGINT.
const INTERRUPTED: i32 = 130;

/// The time after which an end that waits is explained.
const EXPLAINED: Duration = Duration::from_secs(3);

/// Becomes ready at the first signal. The second one ends the process as it stands.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Takes the signals over. Needs a tokio runtime.
    pub(crate) fn install() -> io::Result<Self> {
        let mut signals = Signals::install()?;
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            signals.next().await;
            if sender.send(true).is_ok() {
                let second = tokio::time::timeout(EXPLAINED, signals.next());
                if second.await.is_err() {
                    note!("waiting for what is under way: a second signal ends it at once");
                    signals.next().await;
                }
            }
            process::exit(INTERRUPTED);
        });
        Ok(Self(receiver))
    }

    /// Waits for the first signal. Cancel safe.
    pub(crate) async fn requested(&mut self) {
        // The sender lives as long as the process.
        let _sent = self.0.wait_for(|requested| *requested).await;
    }

    /// Whether the first signal has come.
    pub(crate) fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}

/// The signals of the system.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?,
            #[cfg(unix)]
            interrupt: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?,
        })
    }

    /// Waits for a signal. Cancel safe.
    async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

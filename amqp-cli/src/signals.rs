//! The request to end: SIGINT, and SIGTERM where there is one.

use std::{io, process};

use tokio::sync::watch;

/// The exit code of a second signal, as a shell reports SIGINT.
const INTERRUPTED: i32 = 130;

/// Becomes ready at the first signal. The second one ends the process as it stands.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Takes the signals over. Needs a tokio runtime.
    pub(crate) fn install() -> io::Result<Self> {
        #[cfg(unix)]
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        #[cfg(unix)]
        let mut interrupt =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                #[cfg(unix)]
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                #[cfg(not(unix))]
                if tokio::signal::ctrl_c().await.is_err() {
                    return;
                }
                if *sender.borrow() {
                    process::exit(INTERRUPTED);
                }
                if sender.send(true).is_err() {
                    process::exit(INTERRUPTED);
                }
            }
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

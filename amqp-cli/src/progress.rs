//! Progress bars of long work, on the standard error if that is a terminal.

use std::{
    io::{self, IsTerminal as _},
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Whether `--quiet` was given.
static QUIET: OnceLock<bool> = OnceLock::new();

/// The bar that is on the screen.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

pub(crate) fn set_quiet(quiet: bool) {
    let _set_before = QUIET.set(quiet);
}

/// The unit of a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Messages,
    Bytes,
}

/// Starts a bar with a length, or a count without one. It is invisible where there is no terminal,
/// and so costs no more than an addition.
pub(crate) fn bar(length: Option<u64>, unit: Unit) -> ProgressBar {
    let quiet = QUIET.get().copied().unwrap_or_default();
    if quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr_with_hz(10));
    let template = match (unit, length) {
        (Unit::Messages, Some(_)) => {
            "{bar:30} {human_pos} of {human_len} messages, {per_sec}, {eta} left {msg}"
        }
        (Unit::Messages, None) => "{spinner} {human_pos} messages, {per_sec} {msg}",
        (Unit::Bytes, Some(_)) => {
            "{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left {msg}"
        }
        (Unit::Bytes, None) => "{spinner} {bytes}, {bytes_per_sec} {msg}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
    bar
}

/// Runs a function that prints, with the bar out of the way.
pub(crate) fn suspended<T>(print: impl FnOnce() -> T) -> T {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match shown.filter(|bar| !bar.is_finished()) {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

//! The standard output and the standard error: pipes that close, and colours on terminals.

use std::{
    env,
    io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _},
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll},
    thread,
};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use tokio::sync::{mpsc, oneshot};

use crate::progress;

/// Prints a line to the standard error, after the name of the program. A closed one is ignored.
#[macro_export]
macro_rules! note {
    ($($text:tt)*) => {
        $crate::terminal::note(format_args!($($text)*))
    };
}

/// The use of colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
    #[default]
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// The colours of the standard output, set once by [`set_color`].
static COLOR: OnceLock<Color> = OnceLock::new();

pub(crate) fn set_color(color: Color) {
    let _set_before = COLOR.set(color);
}

/// Whether the standard output has colours.
fn is_colored() -> bool {
    match COLOR.get().copied().unwrap_or_default() {
        Color::Always => true,
        Color::Never => false,
        // <https://no-color.org>
        Color::Auto => {
            let plain = env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty())
                || env::var_os("TERM").is_some_and(|it| it == "dumb");
            !plain && io::stdout().is_terminal()
        }
    }
}

/// The styles of the parts of a line, plain where there are no colours.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Styles {
    pub(crate) dim: Style,
    pub(crate) name: Style,
    pub(crate) key: Style,
}

impl Styles {
    /// Those of the standard output.
    pub(crate) fn of_output() -> Self {
        if !is_colored() {
            return Self::default();
        }
        let color = |color: AnsiColor| Style::new().fg_color(Some(color.into()));
        Self {
            dim: Style::new().dimmed(),
            name: color(AnsiColor::Cyan),
            key: color(AnsiColor::Yellow),
        }
    }
}

/// Prints a line to the standard error.
pub(crate) fn note(text: std::fmt::Arguments<'_>) {
    let line = format!("amqp: {text}\n");
    let _closed = progress::suspended(|| io::stderr().lock().write_all(line.as_bytes()));
}

/// The standard output, buffered until [`flush`](Output::flush). An error of a closed pipe is one
/// as any other: nothing panics.
pub(crate) struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    pub(crate) fn new() -> Self {
        Self(BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Prints whole lines to the standard output, on a thread of its own: an output that is not read
/// blocks neither the workers nor the signals.
#[derive(Clone, Debug)]
pub(crate) struct Printer(mpsc::Sender<String>);

/// The most texts that wait for the printer.
const WAITING: usize = 16;

impl Printer {
    /// Starts the thread. It ends with the last printer, or with an error, and then the receiver has
    /// the result.
    pub(crate) fn start() -> io::Result<(Self, Printed)> {
        let (sender, mut receiver) = mpsc::channel::<String>(WAITING);
        let (done, result) = oneshot::channel();
        thread::Builder::new()
            .name("output".into())
            .spawn(move || {
                let mut written = Ok(());
                while let (Ok(()), Some(lines)) = (&written, receiver.blocking_recv()) {
                    let mut out = io::stdout().lock();
                    written = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
                }
                let _not_awaited = done.send(written);
            })?;
        Ok((Self(sender), Printed(result)))
    }

    /// Prints lines. Waits until there is room for them, and has no effect after an error.
    pub(crate) async fn print(&self, lines: String) {
        if !lines.is_empty() {
            let _ended = self.0.send(lines).await;
        }
    }
}

/// The end of a [`Printer`].
#[derive(Debug)]
pub(crate) struct Printed(oneshot::Receiver<io::Result<()>>);

impl Future for Printed {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.0).poll(cx);
        result.map(|it| it.unwrap_or_else(|_| Err(io::Error::other("the printer has ended"))))
    }
}

/// Prints lines that are short to the standard output.
pub(crate) fn print(text: impl std::fmt::Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

//! The failure of a command: its exit code and its text.

use std::{fmt, io, process::ExitCode};

use amqp_tokio::{
    ConnectError, Error, TlsError,
    arguments::ArgumentError,
    wire::{DecodeError, ShortStrError},
};

/// The exit codes besides 0. The help and the README list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// The standard output was closed by its reader.
    Closed = 0,
    /// The broker has refused a request or a message, or a step has failed.
    Failed = 1,
    /// An option, a setting or the input is malformed.
    Usage = 2,
    /// There is no such queue or exchange, no message, or no server of calls.
    Nothing = 3,
    /// There is no connection: the broker is not reached, refuses the login, or was lost.
    NoConnection = 4,
    /// No answer came in time.
    TimedOut = 5,
}

/// The end of a command that has not done its work.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    /// Empty if there is nothing to say.
    text: String,
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(code: Code, text: impl fmt::Display) -> Self {
        Self {
            code,
            text: text.to_string(),
        }
    }

    pub(crate) fn failed(text: impl fmt::Display) -> Self {
        Self::new(Code::Failed, text)
    }

    pub(crate) fn usage(text: impl fmt::Display) -> Self {
        Self::new(Code::Usage, text)
    }

    /// Returns an end without a text, where all was said before or there is nothing to say.
    pub(crate) fn silent(code: Code) -> Self {
        Self::new(code, "")
    }

    /// Adds the circumstance to the front of the text.
    pub(crate) fn while_doing(self, doing: impl fmt::Display) -> Self {
        let text = format!("{doing}: {}", self.text);
        Self { text, ..self }
    }

    /// Whether the reader of the standard output has gone.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        self.code == Code::Closed
    }

    /// Prints the text to the standard error, and returns the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.text.is_empty() {
            crate::note!("{}", self.text);
        }
        ExitCode::from(self.code as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            _ if error.is_not_found() => Code::Nothing,
            Error::Unanswered { .. } | Error::TimedOut { .. } => Code::TimedOut,
            Error::Misuse(_) => Code::Usage,
            Error::ConnectionClosed(reason) if reason.code().is_none() => Code::NoConnection,
            Error::ConnectionClosed(_) if error.is_connection_forced() => Code::NoConnection,
            _ => Code::Failed,
        };
        Self::new(code, error.report())
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let code = match &error {
            ConnectError::Uri(_)
            | ConnectError::Misuse(_)
            | ConnectError::Tls {
                error: TlsError::Setup(_),
                ..
            } => Code::Usage,
            _ => Code::NoConnection,
        };
        Self::new(code, error.report())
    }
}

impl From<ShortStrError> for Failure {
    fn from(error: ShortStrError) -> Self {
        Self::usage(error)
    }
}

impl From<ArgumentError> for Failure {
    fn from(error: ArgumentError) -> Self {
        Self::usage(error)
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::failed(error)
    }
}

/// Of the standard output, and of files that were opened before.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::silent(Code::Closed),
            _ => Self::failed(format_args!("cannot write: {error}")),
        }
    }
}

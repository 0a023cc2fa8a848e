//! Messages as they are printed and read.

pub(crate) mod input;
pub(crate) mod json;
pub(crate) mod output;
pub(crate) mod properties;

use clap::ValueEnum;

/// The form of messages on the standard input and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// The body as it is: of the input, all of it is one message.
    Raw,
    /// A body a line.
    Lines,
    /// A body, then a NUL.
    Nul,
    /// A message a line, as JSON with its properties.
    Json,
}

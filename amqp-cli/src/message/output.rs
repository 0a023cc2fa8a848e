//! Printing messages.

use std::io::{self, Write};

use amqp_tokio::{Body, Fetched, Message};

use super::{Format, json::JsonMessage};

/// Prints a delivered message.
pub(crate) fn write_delivered(
    out: &mut impl Write,
    format: Format,
    message: &Message,
) -> io::Result<()> {
    match format {
        Format::Json => write_json(out, &JsonMessage::delivered(message)),
        _ => write_body(out, format, &message.body),
    }
}

/// Prints a fetched message.
pub(crate) fn write_fetched(
    out: &mut impl Write,
    format: Format,
    fetched: &Fetched,
) -> io::Result<()> {
    match format {
        Format::Json => write_json(out, &JsonMessage::fetched(fetched)),
        _ => write_body(out, format, &fetched.body),
    }
}

/// Prints a message as a line of JSON.
pub(crate) fn write_json(out: &mut impl Write, message: &JsonMessage) -> io::Result<()> {
    serde_json::to_writer(&mut *out, message)?;
    out.write_all(b"\n")
}

/// Prints a body as it is, and the end that the format has.
fn write_body(out: &mut impl Write, format: Format, body: &Body) -> io::Result<()> {
    for piece in body.pieces() {
        out.write_all(piece)?;
    }
    match format {
        Format::Lines => out.write_all(b"\n"),
        Format::Nul => out.write_all(b"\0"),
        Format::Raw | Format::Json => Ok(()),
    }
}

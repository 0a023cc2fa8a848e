//! [rabbitmq-c](https://github.com/alanxz/rabbitmq-c), where it is installed: a program in C, which
//! is compiled when the measurements begin, and is a process of its own in each of them.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{self, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use crate::clock::Sample;
use crate::load::{ACK_EVERY, Load, Shape, check};
use crate::target::Target;
use crate::watchdog::LIMIT;
use crate::wire::{CONSUMER_TAG, ROUTING_KEY};
use crate::{Error, Result};

/// The program.
const SOURCE: &str = include_str!("peer_rabbitmq_c.c");

/// Compiles the program.
///
/// # Errors
/// Without a C compiler, or without rabbitmq-c: one line that says so.
pub(crate) fn compile() -> Result<()> {
    let program = program()?;
    // Another run may be using the program, or compiling it.
    let compiled = program.with_extension(process::id().to_string());
    let mut compiler = Command::new("cc")
        .args(["-O2", "-x", "c", "-", "-o"])
        .arg(&compiled)
        .arg("-lrabbitmq")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cc does not run: {error}"))?;
    if let Some(mut source) = compiler.stdin.take() {
        // A compiler that fails early says why.
        let _ = source.write_all(SOURCE.as_bytes());
    }
    let output = compiler.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let error = said
            .lines()
            .find(|line| line.contains("error") || line.contains("cannot"));
        let error = error.unwrap_or("no error message").trim();
        return Err(format!("without librabbitmq-dev, perhaps, cc fails: {error}").into());
    }
    fs::rename(compiled, program)?;
    Ok(())
}

/// The path of the program: beside this one.
fn program() -> Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name("amqp-bench-rabbitmq-c"))
}

/// Passes that many messages on one channel.
pub(crate) fn run(target: &Target, shape: &Shape, count: u64) -> Result<Sample> {
    let (authority, vhost) = (&target.parts.authority, &target.parts.vhost);
    let window = match shape.load {
        Load::Confirm(window) => window,
        _ => 1,
    };
    let output = Command::new(program()?)
        .args([&authority.host, &authority.port.to_string()])
        .args([&authority.userinfo.username, &authority.userinfo.password])
        .args([vhost, &LIMIT.as_secs().to_string(), name(shape.load)])
        .args([
            &count.to_string(),
            &shape.size.to_string(),
            &window.to_string(),
        ])
        .args([&target.queue(shape, count), ROUTING_KEY, CONSUMER_TAG])
        .arg(ACK_EVERY.to_string())
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} ({})", said.trim(), output.status).into());
    }
    let said = String::from_utf8(output.stdout)?;
    let mut numbers = said.split_whitespace().map(str::parse::<u64>);
    let mut number = || {
        Ok::<_, Error>(
            numbers
                .next()
                .ok_or("a measurement without its numbers")??,
        )
    };
    let (elapsed, worked) = (number()?, number()?);
    let (published, acks) = (number()?, number()?);
    if target.counts() {
        match shape.load {
            Load::Publish | Load::Confirm(_) => check("messages", published, count)?,
            Load::Deliver => check("acknowledgements", acks, shape.acks(count))?,
            _ => {}
        }
    }
    Ok(Sample {
        messages: count,
        elapsed: Duration::from_nanos(elapsed),
        worked: Duration::from_nanos(worked),
        allocations: 0,
    })
}

/// The load, as the program calls it.
const fn name(load: Load) -> &'static str {
    match load {
        Load::RoundTrip => "round-trip",
        Load::Connect => "connect",
        Load::Confirm(_) => "confirm",
        Load::Publish => "publish",
        Load::Deliver => "deliver",
        Load::DeliverNoAck => "deliver-no-ack",
        Load::Get => "get",
    }
}

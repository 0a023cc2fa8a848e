//! The measurements beside those in time: memory, the embedded broker and the core.

use crate::load::MANY_CHANNELS;
use crate::memory::Client;
use crate::options::Options;
use crate::results::{Instructions, Results};
use crate::target::Target;
use crate::watchdog::{self, LIMIT};
use crate::{Result, embedded, fleet, instructions, machine, memory};

/// Adds a measurement of that name to the results.
type Measure = fn(&mut Results, &Target, &'static str) -> Result<()>;

/// All of them, by their names.
const PARTS: &[(&str, Measure)] = &[
    ("memory/amqp-core", |results, target, name| {
        results
            .footprints
            .push(memory::measure(Client::Core, target, name)?);
        Ok(())
    }),
    ("memory/amqp-tokio", |results, target, name| {
        results
            .footprints
            .push(memory::measure(Client::Tokio, target, name)?);
        Ok(())
    }),
    ("memory/amqp-tokio, after use", |results, target, name| {
        results
            .footprints
            .push(memory::measure(Client::TokioAfterUse, target, name)?);
        Ok(())
    }),
    ("memory/lapin", |results, target, name| {
        results
            .footprints
            .push(memory::measure(Client::Lapin, target, name)?);
        Ok(())
    }),
    ("memory/amqprs", |results, target, name| {
        results
            .footprints
            .push(memory::measure(Client::Amqprs, target, name)?);
        Ok(())
    }),
    (fleet::TOKIO, |results, target, name| {
        results.fleets.push(fleet::measure(target, name)?);
        Ok(())
    }),
    (fleet::BLOCKING, |results, target, name| {
        results.fleets.push(fleet::measure(target, name)?);
        Ok(())
    }),
    ("embedded broker, 5000 connections", |results, _, name| {
        results.fleets.push(embedded::connections(name)?);
        Ok(())
    }),
    (
        "embedded broker, 1000000 messages of 16 B",
        |results, _, name| {
            results.queued.extend(embedded::queued(name, 16)?);
            Ok(())
        },
    ),
    (
        "embedded broker, 1000000 messages of 1 KiB",
        |results, _, name| {
            results.queued.extend(embedded::queued(name, 1 << 10)?);
            Ok(())
        },
    ),
    ("embedded figures", |results, _, _| {
        results.embedded = Some(embedded::figures()?);
        Ok(())
    }),
    ("core allocations", |results, _, _| {
        results.allocations = Some(machine::allocations()?);
        Ok(())
    }),
];

/// The counts of the core's instructions, and whether messages come in.
const INSTRUCTIONS: &[(&str, bool)] = &[("core publish", false), ("core deliver", true)];

/// The names of those that are selected.
pub(crate) fn names(options: &Options) -> Vec<&'static str> {
    let parts = PARTS.iter().map(|&(name, _)| name);
    parts.filter(|name| options.wants(name)).collect()
}

/// Measures those that are selected.
pub(crate) fn measure(results: &mut Results, options: &Options, target: &Target) -> Result<()> {
    for &(name, measure) in PARTS {
        if options.wants(name) {
            eprintln!("{name}");
            watchdog::watch(name, LIMIT, || measure(results, target, name))
                .map_err(|error| format!("{name}: {error}"))?;
        }
    }
    for &(name, deliver) in INSTRUCTIONS {
        if options.instructions && options.wants(name) {
            eprintln!("instructions of {name}");
            results.instructions.push(Instructions {
                name,
                one_channel: instructions::count(1, deliver)?,
                many_channels: instructions::count(MANY_CHANNELS, deliver)?,
            });
        }
    }
    Ok(())
}

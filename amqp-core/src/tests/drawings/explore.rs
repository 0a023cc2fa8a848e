//! The states of a machine and the steps between them, found by trying every step in every state.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use std::format;

use super::subject::{Command, NUMBER, Step, Subject};
use crate::{
    close::Stage,
    machine::ChannelLife,
    tests::{harmless, side::Role},
};

/// The part of a machine that is explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// A connection from its beginning, with the methods of connections.
    Connection,
    /// A channel of an open connection, with those of channels.
    Channel,
}

/// The reason for a change of the state, as a label of an arrow. Sorted as it is drawn.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// A method, a header or a body comes in.
    Hears(&'static str),
    Calls(&'static str),
    /// All output was taken.
    HandOut,
    /// The transport ends, or a deadline passes.
    Ends(&'static str),
    /// Anything else comes in: a fault of the peer, with its code. The code is 0 if it is no AMQP.
    Fault(u16),
}

/// An arrow: its states, causes, and the methods that are sent with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Arrow {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) cause: Cause,
    pub(super) sent: Vec<&'static str>,
}

fn build(role: Role, scope: Scope, path: &[Step]) -> Subject {
    let mut subject = match scope {
        Scope::Connection => Subject::new(role),
        Scope::Channel => Subject::open(role),
    };
    for step in path {
        assert!(subject.take(*step).is_some(), "{step:?} of {path:?}");
    }
    subject
}

fn steps(scope: Scope) -> Vec<Step> {
    let mut steps = Vec::new();
    let number = match scope {
        Scope::Connection => 0,
        Scope::Channel => NUMBER,
    };
    for (index, method) in harmless::every_method().iter().enumerate() {
        if method.rule().connection == (scope == Scope::Connection) {
            steps.push(Step::Hear(index, number));
        }
    }
    match scope {
        Scope::Connection => {
            steps.extend([Step::Greeting, Step::HandOut, Step::Eof, Step::Deadline])
        }
        Scope::Channel => {
            let headers = [true, false].map(|empty| Step::Header { empty });
            steps.extend(headers);
            steps.push(Step::Body);
        }
    }
    for command in Command::ALL {
        let of_channel = matches!(command, Command::OpenChannel | Command::CloseChannel);
        if of_channel == (scope == Scope::Channel) {
            steps.push(Step::Call(command));
        }
    }
    steps
}

/// The methods that have an effect, and are no fault.
fn heard(role: Role, scope: Scope, path: &[Step]) -> Vec<&'static str> {
    let methods = harmless::every_method();
    let mut names = Vec::new();
    for step in steps(scope) {
        if let Step::Hear(index, _) = step {
            let mut subject = build(role, scope, path);
            let before = (subject.stage(), subject.side.is_finished());
            let Some(effect) = subject.take(step) else {
                continue;
            };
            let changed = before != (subject.stage(), subject.side.is_finished());
            let has_effect = effect.has_events || !effect.sent.is_empty() || changed;
            if effect.fault.is_none() && has_effect {
                names.push(methods[index].rule().name);
            }
        }
    }
    names
}

/// The name of the state. Those of a handshake differ in the methods that have an effect.
fn name(role: Role, scope: Scope, path: &[Step]) -> String {
    let subject = build(role, scope, path);
    if scope == Scope::Channel {
        if subject.side.close_reason().is_some() {
            return "Connection closing".into();
        }
        let name = match subject.channel() {
            None => "Free",
            Some((ChannelLife::Opening(_), ..)) => "Opening",
            Some((ChannelLife::Open, true, _)) => "Header due",
            Some((ChannelLife::Open, false, true)) => "Body due",
            Some((ChannelLife::Open, false, false)) => "Open",
            Some((ChannelLife::Closing(_), ..)) => "Closing",
            Some((ChannelLife::ClosingRemote, ..)) => "Closing remotely",
        };
        return name.into();
    }
    if subject.side.is_finished() {
        return "Closed".into();
    }
    match subject.stage() {
        Stage::Open => return "Open".into(),
        Stage::Closing if subject.has_output() => return "Draining".into(),
        Stage::Closing => return "Closing".into(),
        _ => {}
    }
    if subject.stage() == Stage::Greeting && role == Role::Server {
        return "Expects header".into();
    }
    let mut due = heard(role, scope, path);
    due.retain(|name| *name != "connection.close");
    let due: Vec<_> = due.iter().map(|name| method(name)).collect();
    match (due.is_empty(), subject.stage()) {
        (false, _) => format!("Expects {}", due.join(" or ")),
        (true, Stage::Opening) => "Decides on the host".into(),
        (true, _) => "Decides on the login".into(),
    }
}

/// The name of a method without its class, if that is the connection.
pub(super) fn method(name: &'static str) -> &'static str {
    name.strip_prefix("connection.").unwrap_or(name)
}

/// All arrows of a machine, from its first state on.
pub(super) fn explore(role: Role, scope: Scope) -> Vec<Arrow> {
    let methods = harmless::every_method();
    let first = name(role, scope, &[]);
    let mut known = BTreeMap::from([(first.clone(), Vec::new())]);
    let mut open = alloc::vec![first];
    let mut arrows = Vec::new();
    while let Some(from) = open.pop() {
        let path = known[&from].clone();
        let effective = heard(role, scope, &path);
        for step in steps(scope) {
            let mut subject = build(role, scope, &path);
            let Some(effect) = subject.take(step) else {
                continue;
            };
            let mut next = path.clone();
            next.push(step);
            let to = name(role, scope, &next);
            let cause = match (effect.fault, step) {
                (Some(code), _) => Cause::Fault(code),
                (None, Step::Hear(..)) if from == "Expects header" => Cause::Fault(0),
                (None, Step::Hear(index, _)) => Cause::Hears(methods[index].rule().name),
                (None, Step::Greeting) => Cause::Hears("protocol header"),
                (None, Step::Header { empty: true }) => Cause::Hears("header of an empty body"),
                (None, Step::Header { empty: false }) => Cause::Hears("content header"),
                (None, Step::Body) => Cause::Hears("last of the body"),
                (None, Step::Call(command)) => Cause::Calls(command.name()),
                (None, Step::HandOut) => Cause::HandOut,
                (None, Step::Eof) => Cause::Ends("end of the transport"),
                (None, Step::Deadline) => Cause::Ends("deadline"),
            };
            // Steps that are ignored are no arrows.
            let is_ignored = match &cause {
                Cause::Ends(_) | Cause::HandOut => to == from,
                // It hands the close out, too, which is a step of its own.
                Cause::Hears(_) if from == "Draining" => to == "Closing",
                Cause::Hears(name) => {
                    to == from && effect.sent.is_empty() && !effective.contains(name)
                }
                Cause::Calls(_) | Cause::Fault(_) => false,
            };
            if is_ignored {
                continue;
            }
            if !known.contains_key(&to) {
                known.insert(to.clone(), next);
                open.push(to.clone());
            }
            arrows.push(Arrow {
                from: from.clone(),
                to,
                cause,
                sent: effect.sent,
            });
        }
    }
    arrows.sort();
    arrows.dedup();
    arrows
}

//! The legality table as a page.

use alloc::{
    string::{String, ToString as _},
    vec::Vec,
};
use core::fmt::Write as _;
use std::format;

use crate::{
    MethodDef as _, MethodId, Rule,
    protocol::{RULES, channel},
    tests::{
        legality::{Expected, PLACES, Place, STEPS, Step, during_handshake, when_open},
        side::Role,
    },
};

const INTRODUCTION: &str = "\
<!-- Written by the test `pages_are_fresh` of amqp-core; see CONTRIBUTING.md. -->

# What is legal where

Every method of AMQP 0-9-1 and of RabbitMQ's extensions, and what a `client::Connection` and a `server::Connection` of
this crate do when it comes in. The first table is `amqp_core::protocol::RULES`, which is generated from the
specification and read by the machine. The others follow from it, and a test tries each cell on the machine.

## States

The arrows are not drawn by hand: they are what the machine did when each method came in, each command was called, and
the transport or its time ended, in each state.

![The states of a client's connection](client-connection.svg)

![The states of a server's connection](server-connection.svg)

![The states of a client's channel](client-channel.svg)

![The states of a server's channel](server-channel.svg)

## Methods

C is the client, S the server. A content is a header with properties and a body in frames behind the method.

";

/// The whole page.
pub(super) fn page() -> String {
    let mut page = INTRODUCTION.to_string();
    rules(&mut page);
    for role in Role::BOTH {
        handshake(&mut page, role);
        open(&mut page, role);
    }
    page
}

fn name_of(id: MethodId) -> &'static str {
    RULES
        .iter()
        .find(|rule| rule.id == id)
        .map_or("", |rule| rule.name)
}

fn names(ids: &[MethodId]) -> String {
    let names: Vec<_> = ids.iter().map(|id| format!("`{}`", name_of(*id))).collect();
    names.join(", ")
}

fn rules(page: &mut String) {
    page.push_str("| method | id | sent by | channel | content | its reply | replies to |\n");
    page.push_str("|---|---|---|---|---|---|---|\n");
    for rule in RULES {
        let senders = match (rule.client_sends, rule.server_sends) {
            (true, true) => "C, S",
            (true, false) => "C",
            (false, _) => "S",
        };
        let channel = match rule.id {
            channel::Open::ID => "unused",
            _ if rule.connection => "0",
            _ => "open",
        };
        let content = if rule.content { "yes" } else { "" };
        let _ = writeln!(
            page,
            "| `{}` | {}, {} | {senders} | {channel} | {content} | {} | {} |",
            rule.name,
            rule.id.class,
            rule.id.method,
            names(rule.responses),
            names(rule.answers),
        );
    }
}

fn side(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Server => "server",
    }
}

/// The effect of the method there in words, or the code of the close.
fn cell(expected: &Expected) -> String {
    match expected {
        Expected::Accepted => "**yes**".into(),
        Expected::Ignored => "ignored".into(),
        Expected::Answered => "answered".into(),
        Expected::Closed => "ends it".into(),
        Expected::Refused(_, code) => code.to_string(),
    }
}

fn table<T: Copy>(
    page: &mut String,
    columns: &[(T, &str)],
    rules: &[&Rule],
    expected: impl Fn(&Rule, T) -> Expected,
) {
    page.push_str("| method |");
    for (_, name) in columns {
        let _ = write!(page, " {name} |");
    }
    page.push_str("\n|---|");
    page.push_str(&"---|".repeat(columns.len()));
    page.push('\n');
    for rule in rules {
        let _ = write!(page, "| `{}` |", rule.name);
        for (column, _) in columns {
            let _ = write!(page, " {} |", cell(&expected(rule, *column)));
        }
        page.push('\n');
    }
}

fn handshake(page: &mut String, role: Role) {
    let _ = writeln!(
        page,
        "\n## A {} in the handshake\n\nOn channel 0. Methods of channels are refused with 503, and so \
         are methods that the other side does not send.\n",
        side(role)
    );
    let columns: Vec<_> = STEPS
        .into_iter()
        .filter(|step| step.role() == role)
        .map(|step| {
            let name = match step {
                Step::Start => "at the beginning",
                Step::SecureOrTune => "`start-ok` sent",
                Step::OpenOk => "`open` sent",
                Step::StartOk => "`start` sent",
                Step::CredentialsUndecided => "login undecided",
                Step::SecureOk => "`secure` sent",
                Step::TuneOk => "`tune` sent",
                Step::Open => "`tune-ok` received",
                Step::HostUndecided => "host undecided",
            };
            (step, name)
        })
        .collect();
    let rules: Vec<_> = RULES
        .iter()
        .filter(|rule| rule.connection && role.hears(rule))
        .collect();
    table(page, &columns, &rules, |rule, step| {
        during_handshake(step, rule, 0)
    });
}

fn open(page: &mut String, role: Role) {
    let _ = writeln!(
        page,
        "\n## A {} with an open connection\n\nReplies are legal on channel 0 and on an open channel \
         when their request is pending; here none is. A number is the code of the close of the \
         connection by which the method is refused. Those that the other side does not send are \
         refused with 503 everywhere.\n",
        side(role)
    );
    let columns = PLACES.map(|place| {
        let name = match place {
            Place::ChannelZero => "channel 0",
            Place::Open => "open",
            Place::NeverOpened => "never opened",
            Place::OverTheMaximum => "over the maximum",
            Place::ClosedByThePeer => "closed by the peer",
            Place::ClosedByThisSide => "closed by this side",
            Place::Closing => "close sent",
            Place::HeaderDue => "header due",
            Place::BodyDue => "body due",
        };
        (place, name)
    });
    let rules: Vec<_> = RULES.iter().filter(|rule| role.hears(rule)).collect();
    table(page, &columns, &rules, |rule, place| {
        when_open(role, rule, place)
    });
}

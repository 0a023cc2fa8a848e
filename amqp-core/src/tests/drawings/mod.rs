//! The pages of the documentation that are made from the machine: drawings of its states, and the
//! legality table. The states and arrows are those that every method of the table leads to.

mod draw;
mod explore;
mod layouts;
mod page;
mod subject;
mod svg;

use alloc::{string::String, vec::Vec};
use std::{env, format, fs};

use self::{
    draw::{Layout, draw},
    explore::{Scope, explore},
};
use super::side::Role;
use crate::protocol::RULES;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");
const REFRESH: &str = "UPDATE_GOLDEN=1 cargo test -p amqp-core --lib drawings";

/// Draws the states of a side.
fn drawing(layout: &Layout, role: Role, scope: Scope) -> String {
    let replies: Vec<_> = RULES
        .iter()
        .filter(|rule| rule.connection == (scope == Scope::Connection) && role.hears(rule))
        .filter(|rule| !rule.answers.is_empty() && !is_of_a_stage(rule.name))
        .map(|rule| rule.name)
        .collect();
    draw(layout, &explore(role, scope), &replies)
}

/// Whether a reply has an arrow of its own.
fn is_of_a_stage(name: &str) -> bool {
    let stages = [
        "start-ok",
        "secure-ok",
        "tune-ok",
        "open-ok",
        "close-ok",
        "tune",
        "secure",
    ];
    stages
        .iter()
        .any(|stage| name.ends_with(&format!(".{stage}")))
}

#[test]
fn pages_are_fresh() {
    let pages = [
        (
            layouts::CLIENT_CONNECTION.file,
            drawing(&layouts::CLIENT_CONNECTION, Role::Client, Scope::Connection),
        ),
        (
            layouts::SERVER_CONNECTION.file,
            drawing(&layouts::SERVER_CONNECTION, Role::Server, Scope::Connection),
        ),
        (
            layouts::CLIENT_CHANNEL.file,
            drawing(&layouts::CLIENT_CHANNEL, Role::Client, Scope::Channel),
        ),
        (
            layouts::SERVER_CHANNEL.file,
            drawing(&layouts::SERVER_CHANNEL, Role::Server, Scope::Channel),
        ),
        ("legality.md", page::page()),
    ];
    for (file, page) in pages {
        let path = format!("{FOLDER}/{file}");
        if env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
            fs::write(&path, &page).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == page,
            "{path} is not fresh. To refresh it: {REFRESH}"
        );
    }
}

//! Minimal specifications for each rule, and facts of the built-in one.

mod built_in;
mod merging;
mod refused;
mod source;

use crate::{
    model::{Class, Field, Kind},
    spec,
};

/// Returns a whole file with these elements.
fn file(elements: &str) -> String {
    format!(r#"<amqp major="0" minor="9" revision="1" port="5672">{elements}</amqp>"#)
}

/// Returns the last class in files with these elements.
fn class(sources: &[&str]) -> Class {
    let files: Vec<String> = sources.iter().map(|elements| file(elements)).collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    spec(&files).unwrap().classes.pop().unwrap()
}

fn field(field: &Field) -> (&str, Kind) {
    (&field.name, field.kind)
}

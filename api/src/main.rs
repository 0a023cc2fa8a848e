//! Prints the public interface of a crate, an item a line, from the JSON of rustdoc. See `.ci/deep`.

use std::{env, error::Error};

use public_api::Builder;

/// The traits that say nothing about a type that its users can rely on.
const IMPLIED: [&str; 6] = [
    "core::marker::Freeze",
    "core::marker::StructuralPartialEq",
    "core::marker::Unpin",
    "core::marker::UnsafeUnpin",
    "core::panic::unwind_safe::RefUnwindSafe",
    "core::panic::unwind_safe::UnwindSafe",
];

/// The methods that follow from the trait alone.
const METHODS: [&str; 4] = ["::clone(&self)", "::eq(&self, ", "::fmt(&self, ", "::hash<"];

fn main() -> Result<(), Box<dyn Error>> {
    let file = env::args().nth(1).ok_or("usage: amqp-api FILE.json")?;
    let interface = Builder::from_rustdoc_json(file)
        .omit_blanket_impls(true)
        .build()?;
    for item in interface.items() {
        let item = item.to_string();
        let implied = |name: &&str| item.contains(&format!("{name} for "));
        let method = |name: &&str| item.starts_with("pub fn ") && item.contains(*name);
        if !IMPLIED.iter().any(|it| implied(it)) && !METHODS.iter().any(|it| method(it)) {
            println!("{item}");
        }
    }
    Ok(())
}

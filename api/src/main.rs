//! Prints the public interface of a crate, an item a line, from the JSON of rustdoc. See `.ci/deep`.

use std::{env, error::Error};

use public_api::Builder;

fn main() -> Result<(), Box<dyn Error>> {
    let file = env::args().nth(1).ok_or("usage: amqp-api FILE.json")?;
    // The traits that are implemented by themselves belong to each interface: a type that is no
    // longer `Send` is another. Those of all types say nothing.
    let interface = Builder::from_rustdoc_json(file)
        .omit_blanket_impls(true)
        .build()?;
    print!("{interface}");
    Ok(())
}

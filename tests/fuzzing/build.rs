//! Generates the layout of each method's arguments, and the dictionary, from the specification.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("layouts.rs"), amqp_codegen::generate_layouts()?)?;
    fs::write(out.join("amqp.dict"), amqp_codegen::generate_dictionary()?)?;
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}

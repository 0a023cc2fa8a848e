//! Generates the protocol's methods and rules from the specification.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?).join("protocol.rs");
    fs::write(out, amqp_codegen::generate()?)?;
    // The specification travels inside amqp-codegen, so a change of it rebuilds this script.
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}

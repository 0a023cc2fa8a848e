//! Generates the protocol's methods, rules and strategies for property tests from the specification.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("protocol.rs"), amqp_codegen::generate()?)?;
    fs::write(
        out.join("strategies.rs"),
        amqp_codegen::generate_strategies()?,
    )?;
    // The specification travels inside amqp-codegen, so a change of it rebuilds this script.
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}

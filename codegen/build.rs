//! Locates the XML of the specification: `spec/` of the workspace in a checkout, `spec/` of this
//! crate in a package.
//!
//! In a checkout the latter holds symbolic links, for packaging. They are not read, because a
//! checkout on Windows may have text files in their place.

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let package = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let workspace = package.join("..").join("spec");
    let spec = if workspace.join("amqp0-9-1.xml").is_file() {
        workspace
    } else {
        package.join("spec")
    };
    println!("cargo::rustc-env=AMQP_SPEC={}", spec.display());
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}

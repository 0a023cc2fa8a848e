//! The first block of code of each README of a client, as a function of the broker's address, for
//! the test target `readmes`.

use std::{env, error::Error, fs, path::Path};

/// The READMEs, by the names of their modules.
const READMES: [(&str, &str); 5] = [
    ("readme", "README.md"),
    ("readme_tokio", "amqp-tokio/README.md"),
    ("readme_smol", "amqp-smol/README.md"),
    ("readme_async_std", "amqp-async-std/README.md"),
    ("readme_blocking", "amqp-blocking/README.md"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let out = env::var("OUT_DIR")?;
    for (module, readme) in READMES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(readme);
        println!("cargo::rerun-if-changed={}", path.display());
        let text = fs::read_to_string(&path)?;
        let block = text.split("```rust").nth(1).ok_or(readme)?;
        let (_, code) = block.split_once('\n').ok_or(readme)?;
        let code = code.split("```").next().ok_or(readme)?;
        let code = replace(code, "fn main()", "pub(crate) fn hello(url: &str)", readme)?;
        let code = replace(&code, "\"amqp://127.0.0.1\"", "url", readme)?;
        let code = code.replace("async pub(crate) fn", "pub(crate) async fn");
        fs::write(Path::new(&out).join(format!("{module}.rs")), code)?;
    }
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}

/// Replaces a text that is there once.
fn replace(code: &str, from: &str, to: &str, readme: &str) -> Result<String, String> {
    match code.matches(from).count() {
        1 => Ok(code.replace(from, to)),
        count => Err(format!("{readme} has {count} times {from}")),
    }
}

//! snakeMQ, from PyPI.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Result, process::free_port};

/// The package. Its other needs are in the library of Python.
const PACKAGE: &str = "snakeMQ==1.6";

/// A layer of snakeMQ.
#[derive(Clone, Copy)]
pub(crate) enum Layer {
    Packets,
    Messages,
}

/// An installed snakeMQ.
pub(crate) struct Snake {
    python: PathBuf,
}

/// The maximum number of its messages: with 100,000 in its queue it stands still.
const MESSAGES_MAX: usize = 20_000;

impl Snake {
    /// Installs it into a virtual environment in the target directory, unless it is there.
    pub(crate) fn install() -> Result<Self> {
        let program = env::current_exe()?;
        // target/PROFILE/examples/peers
        let target = program.ancestors().nth(3).ok_or("no target directory")?;
        let directory = target.join("foreign/snakemq-1.6");
        let python = directory.join("bin/python");
        let done = directory.join("installed");
        if !done.exists() {
            let _ = fs::remove_dir_all(&directory);
            run(Command::new("python3").args(["-m", "venv"]).arg(&directory))?;
            run(Command::new(&python).args(["-m", "pip", "install", "--quiet", PACKAGE]))?;
            fs::write(done, "")?;
        }
        Ok(Self { python })
    }

    /// The number of packets or messages per second.
    pub(crate) fn measure(&self, layer: Layer, count: usize) -> Result<f64> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/peers/snake.py");
        let (layer, count) = match layer {
            Layer::Packets => ("packets", count),
            Layer::Messages => ("messages", count.min(MESSAGES_MAX)),
        };
        let output = run(Command::new(&self.python)
            .arg(script)
            .arg(layer)
            .args([count.to_string(), free_port()?.to_string()]))?;
        Ok(output.trim().parse()?)
    }
}

/// Runs a program, and returns its output.
fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name}: {}\n{text}", output.status).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

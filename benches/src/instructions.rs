//! Instructions per message in the core, which no other load on the machine can disturb: this
//! program is run again in valgrind's callgrind, which counts them.

use std::env;
use std::process::Command;

use crate::Result;
use crate::machine::Machine;

/// The word on the command line that makes this program drive the core and nothing else.
pub(crate) const COMMAND: &str = "drive";

/// How many messages are counted: enough for what happens once in a while to show.
const COUNT: u64 = 20_000;

/// What the core is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drive {
    /// How many channels are open.
    pub(crate) channels: u16,
    /// Over how many the messages are spread; publishes go over all.
    pub(crate) used: usize,
    /// How many messages.
    pub(crate) count: u64,
    /// Whether they come in; otherwise they are published.
    pub(crate) deliver: bool,
}

impl Drive {
    /// Does it.
    pub(crate) fn run(self) -> Result<()> {
        let mut machine = Machine::open(self.channels, true)?;
        if self.deliver {
            machine.receive(self.used, self.count)?;
        } else {
            machine.publish(self.count)?;
        }
        Ok(())
    }
}

/// Counts the instructions per message.
pub(crate) fn count(channels: u16, deliver: bool) -> Result<f64> {
    let turn = if deliver { "receive_turn" } else { "publish_turn" };
    let numbers = [
        u64::from(channels),
        u64::from(channels),
        COUNT,
        u64::from(deliver),
    ];
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg(format!("--toggle-collect=*Machine*{turn}*"))
        .arg(env::current_exe()?)
        .arg(COMMAND)
        .args(numbers.map(|number| number.to_string()))
        .output()
        .map_err(|error| format!("valgrind does not run: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse::<f64>().ok())
        .filter(|&collected| output.status.success() && collected > 0.0)
        .ok_or_else(|| format!("callgrind counted nothing: {said}"))?;
    Ok(collected / COUNT as f64)
}

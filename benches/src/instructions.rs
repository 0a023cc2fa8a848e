//! Instructions per message in the core, which no other load on the machine can disturb: this
//! program is run again in valgrind's callgrind, which counts them.

use std::env;
use std::process::Command;

use crate::Result;
use crate::machine::Machine;

/// The word on the command line that makes this program drive the core and nothing else.
pub(crate) const COMMAND: &str = "drive";

/// The number of counted messages: enough for acknowledgements on each of many channels, and for
/// rare steps to show.
const COUNT: u64 = 200_000;

/// The load of the core.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drive {
    /// How many channels are open; they take turns.
    pub(crate) channels: u16,
    /// How many messages, at least.
    pub(crate) count: u64,
    /// Whether they come in; otherwise they are published.
    pub(crate) deliver: bool,
}

impl Drive {
    /// Does it, and prints how many messages passed.
    pub(crate) fn run(self) -> Result<()> {
        let mut machine = Machine::open(self.channels, true)?;
        let sample = if self.deliver {
            machine.receive(self.channels.into(), self.count)?
        } else {
            machine.publish(self.count)?
        };
        println!("{}", sample.messages);
        Ok(())
    }
}

/// Counts the instructions per message.
pub(crate) fn count(channels: u16, deliver: bool) -> Result<f64> {
    let turn = if deliver {
        "receive_turn"
    } else {
        "publish_turn"
    };
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--collect-atstart=no",
        ])
        .arg(format!("--toggle-collect=*Machine*{turn}*"))
        .arg(env::current_exe()?)
        .arg(COMMAND)
        .args([channels.into(), COUNT, u64::from(deliver)].map(|number| number.to_string()))
        .output()
        .map_err(|error| format!("valgrind does not run: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse::<f64>().ok())
        .filter(|&collected| output.status.success() && collected > 0.0)
        .ok_or_else(|| format!("callgrind counted nothing: {said}"))?;
    let messages: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok(collected / messages)
}

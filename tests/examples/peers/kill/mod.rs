//! Kills of a sender or a receiver at random points.

mod account;
pub(crate) mod receiver;
mod record;
pub(crate) mod sender;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use self::account::Account;
use crate::{
    Result,
    options::Kill,
    process::{PATIENCE, Process, Role, free_port},
    random::Random,
};

pub(crate) const SENDER: &str = "kill-sender";
pub(crate) const RECEIVER: &str = "kill-receiver";

/// The longest time from the start of a round to its kill, in microseconds. The shortest is none: a
/// process is killed while it opens its storage, too.
const LONGEST: u64 = 400_000;

/// The name of the file with the receiver's records.
const RECORDS: &str = "records";

pub(crate) fn show(options: Kill) -> Result {
    let mut random = Random::new(options.seed);
    let swapped = options.rounds / 2;
    for (receiver, rounds) in [
        (Role::Listens, options.rounds - swapped),
        (Role::Dials, swapped),
    ] {
        let folder = tempfile::tempdir()?;
        let mut run = Run {
            folder: folder.path(),
            receiver,
            port: free_port()?,
            senders: 0,
            account: Account::default(),
        };
        run.kill(rounds, &mut random)?;
    }
    println!("none lost, none accepted twice, all in order");
    Ok(())
}

/// Rounds with one assignment of roles.
struct Run<'a> {
    folder: &'a Path,
    /// The role of the receiver.
    receiver: Role,
    port: u16,
    /// The number of processes of the sender so far.
    senders: u32,
    account: Account,
}

impl Run<'_> {
    fn kill(&mut self, rounds: usize, random: &mut Random) -> Result {
        let mut receiver = self.start_receiver()?;
        let mut sender = self.start_sender()?;
        let (mut senders, mut receivers) = (0, 0);
        let start = Instant::now();
        for round in 1..=rounds {
            self.follow(&sender, &receiver, random.below(LONGEST))?;
            let side = random.below(9);
            // The other one goes on, and both end in one of nine.
            if side >= 4 {
                let rest = receiver.kill()?;
                self.account.receiver_lines(&rest)?;
                receivers += 1;
                receiver = self.start_receiver()?;
            }
            if side <= 4 {
                let rest = sender.kill()?;
                self.account.sender_lines(&rest)?;
                senders += 1;
                sender = self.start_sender()?;
            }
            if round % 10 == 0 {
                let seconds = start.elapsed().as_secs_f64();
                eprintln!(
                    "{round} of {rounds} kills in {seconds:.1} s: {}",
                    self.account
                );
            }
        }
        // The rest is delivered.
        sender.end_input();
        let deadline = Instant::now() + PATIENCE;
        let mut has_ended = false;
        while !has_ended {
            let line = sender.line(Instant::now() + Duration::from_millis(5));
            has_ended = line.as_deref() == Some("done");
            self.account.sender_lines(line.as_slice())?;
            self.account.receiver_lines(&taken(&receiver))?;
            if Instant::now() > deadline {
                return Err(format!("the rest is not delivered: {}", self.account).into());
            }
        }
        sender.end()?;
        receiver.end_input();
        self.account.receiver_lines(&rest_of(&receiver))?;
        receiver.end()?;
        let records = record::read(&self.folder.join(RECORDS))?;
        self.account.check(&records)?;
        println!(
            "{rounds} rounds, the receiver {}: {senders} kills of the sender, {receivers} of the receiver; {}",
            self.receiver.word(),
            self.account
        );
        Ok(())
    }

    /// Follows both for some microseconds.
    fn follow(&mut self, sender: &Process, receiver: &Process, micros: u64) -> Result {
        let end = Instant::now() + Duration::from_micros(micros);
        while Instant::now() < end {
            let slice = Instant::now() + Duration::from_millis(2);
            while let Some(line) = sender.line(slice.min(end)) {
                self.account.sender_lines(&[line])?;
                if Instant::now() > slice {
                    break;
                }
            }
            self.account.receiver_lines(&taken(receiver))?;
        }
        Ok(())
    }

    fn start_receiver(&mut self) -> Result<Process> {
        self.account.receiver_starts();
        let arguments = [
            self.folder.display().to_string(),
            self.receiver.word().to_owned(),
            self.port.to_string(),
        ];
        Process::start(RECEIVER, &arguments)
    }

    fn start_sender(&mut self) -> Result<Process> {
        self.senders += 1;
        let role = match self.receiver {
            Role::Listens => Role::Dials,
            Role::Dials => Role::Listens,
        };
        let arguments = [
            self.folder.display().to_string(),
            role.word().to_owned(),
            self.port.to_string(),
            self.senders.to_string(),
        ];
        Process::start(SENDER, &arguments)
    }
}

/// The lines of a process that are there now.
fn taken(process: &Process) -> Vec<String> {
    std::iter::from_fn(|| process.line(Instant::now())).collect()
}

/// The lines of a process until its end.
fn rest_of(process: &Process) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    std::iter::from_fn(|| process.line(deadline)).collect()
}

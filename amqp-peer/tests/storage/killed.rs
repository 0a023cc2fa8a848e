//! Processes that are killed in the midst of batches.

use std::{
    hint,
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::{Duration, Instant},
};

use amqp_peer::storage::{Change, SqliteStorage, Storage, Stored};

use super::{
    data::{File, Outcome, accept, bob, fails, message, path_of_child, process, remove_to},
    model::Model,
};

/// The number of kills.
const KILLS: u64 = 50;

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % sides
    }
}

/// The batch of a number, from 1 on. Its clock has the number.
fn batch(number: u64) -> Vec<Change> {
    let mut dice = Dice(number);
    let mut changes: Vec<Change> = (0..5 + dice.roll(30))
        .map(|it| {
            let sequence = number * 100 + it;
            let len = match dice.roll(20) {
                0 => 100_000,
                1 => 5000,
                _ => 20,
            };
            Change::Pushed {
                to: bob(),
                sequence,
                message: message(sequence, len as usize),
            }
        })
        .collect();
    changes.push(accept(number));
    changes.push(Change::Forgotten {
        from: bob(),
        below: number.saturating_sub(20),
    });
    // The last five batches stay.
    changes.push(remove_to(
        (number.saturating_sub(4) * 100).saturating_sub(1),
    ));
    if number.is_multiple_of(100) {
        changes.push(Change::Cleared { to: bob() });
    }
    changes.push(Change::Clock {
        name: bob(),
        disconnected: Duration::from_secs(number),
        since: None,
    });
    changes
}

/// The number of the last batch.
fn last(stored: &Stored) -> u64 {
    stored
        .clocks
        .get(&bob())
        .map_or(0, |clock| clock.disconnected.as_secs())
}

#[test]
fn a_process_that_is_killed_leaves_whole_batches_and_all_that_were_stored() -> Outcome {
    let file = File::new();
    let mut dice = Dice(1);
    let mut model = Model::default();
    // In the storage, and in the model.
    let mut number = 0;
    let mut unsaid = 0;
    for kill in 0..KILLS {
        let mut child = process("killed::the_process_that_is_killed", &file.path, &[])
            .stdout(Stdio::piped())
            .spawn()?;
        let said = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut said = said.lines();
        let mut stored = number;
        // Some are killed while they open the file.
        let lines = if kill % 5 == 0 { 0 } else { 1 + dice.roll(12) };
        for _ in 0..lines {
            for line in said.by_ref() {
                // The line may begin with the name of the test.
                if let Some((_, last)) = line?.split_once("stored ") {
                    stored = last.parse()?;
                    break;
                }
            }
        }
        let most = if lines == 0 { 30_000 } else { 4000 };
        let pause = Duration::from_micros(dice.roll(most));
        let start = Instant::now();
        while start.elapsed() < pause {
            hint::spin_loop();
        }
        child.kill()?;
        child.wait()?;
        // The output from before the kill.
        for line in said.map_while(Result::ok) {
            if let Some((_, last)) = line.split_once("stored ")
                && let Ok(last) = last.parse()
            {
                stored = last;
            }
        }

        let loaded = file.load()?;
        let found = last(&loaded);
        assert!(
            found == stored || found == stored + 1,
            "kill {kill}: {found} batches are there, {stored} were stored"
        );
        unsaid += found - stored;
        while number < found {
            number += 1;
            model.apply(&batch(number));
        }
        assert_eq!(loaded, model.stored(), "kill {kill}");
    }
    println!("{KILLS} kills, {number} batches, {unsaid} stored and not said");
    assert!(number > KILLS, "{number}");
    Ok(())
}

/// Stores batches until it is killed, from the first that is not there.
#[test]
fn the_process_that_is_killed() -> Outcome {
    let Some(path) = path_of_child() else {
        return Ok(());
    };
    let mut storage = SqliteStorage::open(&path)?;
    let done = last(&storage.load()?);
    fails(
        SqliteStorage::open(&path),
        amqp_peer::storage::StorageErrorKind::Locked,
    );
    for number in done + 1.. {
        storage.apply(&batch(number))?;
        println!("stored {number}");
    }
    Ok(())
}

//! A process that is killed with messages in its outbox, which are in a file.

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use amqp_peer::{Config, Message, storage::SqliteStorage};

use crate::rig::{Adapter, Outcome, World, name, on_every_runtime};

on_every_runtime!(persistent_messages_of_a_killed_process_are_delivered);

/// The variable with the file of the process that is to be killed.
const FILE: &str = "AMQP_PEER_TEST_FILE";

/// The number of persistent messages, and of transient ones.
const COUNT: usize = 20;

/// SNK-35.
async fn persistent_messages_of_a_killed_process_are_delivered<R: Adapter>(
    world: World<R>,
) -> Outcome {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("outbox");
    let mut process = Command::new(env::current_exe()?)
        .args([
            "--exact",
            "kill::queues_and_waits",
            "--nocapture",
            "--ignored",
        ])
        .env(FILE, &file)
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(process.stdout.take().ok_or("no output")?);
    let is_ready = |line: std::io::Result<String>| line.is_ok_and(|line| line.ends_with("queued"));
    assert!(output.lines().any(is_ready));
    process.kill()?;
    process.wait()?;

    let storage = SqliteStorage::open(&file)?;
    let mut alice = world.start_with(Config::new("alice")?.storage(storage))?;
    assert_eq!(alice.peer.outbox(&name("bob")).messages, COUNT);
    let mut bob = world.start("bob")?;
    world.link(&mut alice, &mut bob).await?;
    for number in 0..COUNT {
        bob.expect(format!("{number}").as_bytes()).await?;
    }
    alice
        .peer
        .send(&name("bob"), Message::new("the last"))
        .await?;
    bob.expect(b"the last").await
}

/// The process that is killed.
#[test]
#[ignore = "a process of its own runs it"]
fn queues_and_waits() -> Outcome {
    let Some(file) = env::var_os(FILE) else {
        return Ok(());
    };
    let storage = SqliteStorage::open(Path::new(&file))?;
    let (alice, _events) = amqp_peer::blocking::start(Config::new("alice")?.storage(storage))?;
    for number in 0..COUNT {
        let message = Message::new(format!("{number}"));
        alice.send(&name("bob"), message.clone())?;
        alice.send(&name("bob"), message.persistent())?;
    }
    println!("queued");
    alice.stopped();
    Ok(())
}

//! The examples, each as processes of their own: this program, run once more.

mod program;

#[path = "../../examples/alice.rs"]
mod alice;
#[path = "../../examples/blocking.rs"]
mod blocking;
#[path = "../../examples/bob.rs"]
mod bob;
#[path = "../../examples/calls.rs"]
mod calls;
#[path = "../../examples/chat.rs"]
mod chat;
#[path = "../../examples/jack.rs"]
mod jack;
#[path = "../../examples/outbox.rs"]
mod outbox;
#[path = "../../examples/tls.rs"]
mod tls;

use std::{env, error::Error, process::ExitCode};

use libtest_mimic::{Arguments, Trial};

use self::program::Program;

type Failure = Box<dyn Error>;
type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// The variable that names the example to run in place of the tests.
const EXAMPLE: &str = "AMQP_PEER_EXAMPLE";

fn main() -> ExitCode {
    if let Ok(example) = env::var(EXAMPLE) {
        return match run(&example) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{example}: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let trial = |name: &str, test: fn() -> Result| {
        Trial::test(name, move || {
            test().map_err(|error| error.to_string().into())
        })
    };
    let trials = vec![
        trial(
            "bob_alice_and_jack_greet_each_other_in_any_order",
            bob_alice_and_jack_greet_each_other_in_any_order,
        ),
        trial(
            "the_outbox_survives_kill_9_and_each_message_arrives_once",
            the_outbox_survives_kill_9_and_each_message_arrives_once,
        ),
        trial("calls_go_in_both_directions", calls_go_in_both_directions),
        trial("certificates_name_the_peers", certificates_name_the_peers),
        trial("two_users_chat_over_pipes", two_users_chat_over_pipes),
        trial("blocking_peers_talk", blocking_peers_talk),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Runs an example.
fn run(example: &str) -> Result {
    match example {
        "alice" => alice::main(),
        "blocking" => blocking::main(),
        "bob" => bob::main(),
        "chat" => chat::main(),
        "jack" => jack::main(),
        "outbox" => outbox::main(),
        "calls" => calls::main(),
        "tls" => tls::main(),
        _ => Err("there is no such example".into()),
    }
}

/// A port at which nothing listens.
fn free_port() -> Result<String> {
    Ok(amqp_test_support::ports::free_port()?.to_string())
}

fn bob_alice_and_jack_greet_each_other_in_any_order() -> Result {
    for order in [
        ["bob", "alice", "jack"],
        ["bob", "jack", "alice"],
        ["alice", "bob", "jack"],
        ["alice", "jack", "bob"],
        ["jack", "alice", "bob"],
        ["jack", "bob", "alice"],
    ] {
        let (bobs, jacks) = (free_port()?, free_port()?);
        let mut programs = Vec::new();
        for name in order {
            programs.push((name, Program::start(name, &[&bobs, &jacks])?));
        }
        for (name, program) in &mut programs {
            let mut missing: Vec<String> = order
                .iter()
                .filter(|other| *other != name)
                .map(|other| format!("hello from {other}"))
                .collect();
            while !missing.is_empty() {
                let line = program.until(|line| line.starts_with("hello from "))?;
                let at = missing.iter().position(|it| *it == line);
                missing.remove(at.ok_or_else(|| format!("{name}: {line:?} came twice"))?);
            }
        }
    }
    Ok(())
}

fn the_outbox_survives_kill_9_and_each_message_arrives_once() -> Result {
    let folder = tempfile::tempdir()?;
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (outbox, inbox, port) = (file("outbox.db"), file("inbox.db"), free_port()?);

    let mut sending = Program::start("outbox", &["send", &outbox, &port, "first", "second"])?;
    sending.until_line("0 wait")?;
    sending.until_line("stored: second")?;
    sending.kill()?;
    let mut sending = Program::start("outbox", &["send", &outbox, &port, "third"])?;
    sending.until_line("2 wait")?;
    sending.until_line("stored: third")?;
    sending.kill()?;

    let mut receiving = Program::start("outbox", &["receive", &inbox, &port])?;
    let sending = Program::start("outbox", &["send", &outbox, &port])?;
    let lines = sending.end()?;
    assert_eq!(lines[0], "3 wait");
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.starts_with("delivered: "))
            .count(),
        3
    );
    for text in ["first", "second", "third"] {
        receiving.until_line(&format!("received: {text}"))?;
    }
    receiving.kill()?;

    // All is delivered: another run has nothing to send, and another receiver gets nothing again.
    let mut receiving = Program::start("outbox", &["receive", &inbox, &port])?;
    let sending = Program::start("outbox", &["send", &outbox, &port, "fourth"])?;
    assert_eq!(sending.end()?[0], "0 wait");
    let line = receiving.until(|line| line.starts_with("received: "))?;
    assert_eq!(line, "received: fourth");
    Ok(())
}

fn calls_go_in_both_directions() -> Result {
    let lines = Program::start("calls", &[])?.end()?;
    assert!(lines.contains(&"84 / 2 = 42".into()), "{lines:?}");
    assert!(
        lines.contains(&"1 / 0: division by zero (Range)".into()),
        "{lines:?}"
    );
    Ok(())
}

fn certificates_name_the_peers() -> Result {
    let lines = Program::start("tls", &[])?.end()?;
    for line in [
        "mallory is refused: the certificate does not allow the name",
        "alice sees 1 certificate of bob",
        "bob sees 1 certificate of alice",
        "bob: Body(8 bytes: b\"a secret\")",
    ] {
        assert!(lines.contains(&line.into()), "{lines:?}");
    }
    Ok(())
}

fn two_users_chat_over_pipes() -> Result {
    let mut bob = Program::start("chat", &["bob", "--listen", "127.0.0.1:0"])?;
    let line = bob.until(|line| line.starts_with("* listening at "))?;
    let address = line.trim_start_matches("* listening at ").to_owned();
    // To one that is away.
    bob.enter("/to alice are you there?")?;
    let mut alice = Program::start("chat", &["alice", "--connect", &address])?;
    alice.until_line("* bob is here")?;
    bob.until_line("* alice is here")?;
    alice.until_line("bob: are you there?")?;
    bob.enter("/who")?;
    bob.until_line("* here: alice")?;
    alice.enter("hello all")?;
    bob.until_line("alice: hello all")?;
    bob.enter("\u{7}hello alice")?;
    alice.until_line("bob:  hello alice")?;
    bob.enter("/nothing")?;
    bob.until_line("* /who, /to NAME TEXT, /quit")?;
    alice.enter("/quit")?;
    alice.end()?;
    bob.until_line("* alice has left: ended by the peer")?;
    // The end of the input ends it.
    bob.end()?;
    Ok(())
}

fn blocking_peers_talk() -> Result {
    let lines = Program::start("blocking", &[])?.end()?;
    let wanted = [
        "bob has the tea",
        "bob has the cake",
        "bob: thanks for tea",
        "bob: thanks for cake",
    ];
    assert_eq!(lines, wanted);
    Ok(())
}

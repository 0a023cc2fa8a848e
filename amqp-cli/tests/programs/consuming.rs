//! `consume` and `tail`.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use amqp_tests::harness::Outcome;

use crate::rig::{Place, Running, broker_process, embedded, until, wait};

/// Declares a queue with the lines of numbers.
fn filled(place: &Place, queue: &str, count: u32) -> Outcome {
    place.good(&["declare", "queue", queue])?;
    let input: String = (1..=count).map(|n| format!("{n}\n")).collect();
    place
        .run_with(&["publish", "-r", queue, "-l"], input.as_bytes())?
        .good()?;
    Ok(())
}

pub(crate) fn messages_are_printed_and_acknowledged(place: &Place) -> Outcome {
    filled(place, "q", 1000)?;
    let lines = place.run(&["consume", "-q", "q", "-c", "700"])?.lines()?;
    assert_eq!((lines.len(), lines[699].as_str()), (700, "700"));
    assert_eq!(place.messages("q")?, 300);
    let lines = place
        .run(&["consume", "-q", "q", "--idle", "5s"])?
        .lines()?;
    assert_eq!((lines.len(), lines[0].as_str()), (300, "701"));
    place
        .run(&["consume", "-q", "q", "--idle", "10ms"])?
        .fails(3, "")?;
    filled(place, "q", 3)?;
    let lines = place
        .run(&["consume", "-q", "q", "-A", "-c", "3"])?
        .lines()?;
    assert_eq!(lines, ["1", "2", "3"]);
    Ok(())
}

pub(crate) fn a_closed_pipe_is_no_failure(place: &Place) -> Outcome {
    filled(place, "q", 20_000)?;
    let mut command = place.command(&["consume", "-q", "q"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().ok_or("no output")?);
    out.read_line(&mut line)?;
    assert_eq!(line, "1\n");
    drop(out);
    let status = wait(&mut child)?;
    let mut errors = child.stderr.take().ok_or("no errors")?;
    let errors = std::io::read_to_string(&mut errors)?;
    assert_eq!((status.code(), errors.as_str()), (Some(0), ""));
    // A pipe takes 64 KiB: the rest is there.
    assert!(place.messages("q")? > 2000);
    Ok(())
}

pub(crate) fn a_command_runs_for_each_message(place: &Place) -> Outcome {
    filled(place, "q", 3)?;
    let script = "read line; echo \"$line $AMQP_ROUTING_KEY $AMQP_REDELIVERED\"";
    let lines = place
        .run(&["consume", "-q", "q", "-c", "3", "sh", "-c", script])?
        .lines()?;
    assert_eq!(lines, ["1 q 0", "2 q 0", "3 q 0"]);
    // A command that does not read its input, of a size that no pipe takes.
    place
        .run_with(&["publish", "-r", "q"], &vec![b'x'; 1 << 20])?
        .good()?;
    place.good(&["consume", "-q", "q", "-c", "1", "true"])?;
    filled(place, "q", 1)?;
    let lines = place
        .run(&["consume", "-q", "q", "-c", "1", "--format", "json", "cat"])?
        .lines()?;
    assert!(lines[0].contains(r#""body":"1""#), "{lines:?}");
    assert_eq!(place.messages("q")?, 0);
    Ok(())
}

pub(crate) fn a_failed_command_leaves_the_message(place: &Place) -> Outcome {
    filled(place, "q", 2)?;
    place
        .run(&["consume", "-q", "q", "false"])?
        .fails(1, "false: exit status: 1")?;
    place.until_messages("q", 2)?;
    let missing = place.run(&["consume", "-q", "q", "/no/such/program"])?;
    missing.fails(2, "cannot run /no/such/program")?;
    place.until_messages("q", 2)?;
    // It comes again, until it succeeds.
    let folder = tempfile::tempdir()?;
    let mark = folder.path().join("tried").display().to_string();
    let script =
        format!("test -e {mark} || {{ touch {mark}; exit 7; }}; cat; echo \" $AMQP_REDELIVERED\"");
    let arguments = [
        "consume",
        "-q",
        "q",
        "-c",
        "3",
        "--on-failure",
        "requeue",
        "sh",
        "-c",
        &script,
    ];
    let lines = place.run(&arguments)?.lines()?;
    assert_eq!(lines, ["1 1", "2 0"]);
    Ok(())
}

pub(crate) fn a_failed_command_can_reject_the_message(place: &Place) -> Outcome {
    place.good(&["declare", "queue", "failed"])?;
    let arguments = [
        "-a",
        "x-dead-letter-exchange=",
        "-a",
        "x-dead-letter-routing-key=failed",
    ];
    place.good(&[&["declare", "queue", "q"], &arguments[..]].concat())?;
    place
        .run_with(&["publish", "-r", "q", "-l"], b"good\nbad\n")?
        .good()?;
    let script = "grep -q good";
    place.good(&[
        "consume",
        "-q",
        "q",
        "-c",
        "2",
        "--on-failure",
        "reject",
        "sh",
        "-c",
        script,
    ])?;
    place.until_messages("failed", 1)?;
    assert_eq!(place.good(&["get", "failed"])?, "bad");
    Ok(())
}

pub(crate) fn a_signal_ends_it_in_good_order(place: &Place) -> Outcome {
    filled(place, "q", 3)?;
    for signal in ["INT", "TERM"] {
        let mut consumer = Running::start(place.command(&["consume", "-q", "q"]))?;
        for line in ["1", "2", "3"] {
            assert_eq!(consumer.line()?, line);
        }
        consumer.signal(signal)?;
        assert_eq!(consumer.ended()?, (Some(0), Vec::new()));
        assert_eq!(place.messages("q")?, 0);
        filled(place, "q", 3)?;
    }
    // The command that runs is waited for, the others stay.
    let script = "echo begun; read stop < \"$0\"; echo ended";
    let folder = tempfile::tempdir()?;
    let pipe = folder.path().join("pipe").display().to_string();
    std::process::Command::new("mkfifo").arg(&pipe).status()?;
    let mut consumer =
        Running::start(place.command(&["consume", "-q", "q", "sh", "-c", script, &pipe]))?;
    assert_eq!(consumer.line()?, "begun");
    consumer.signal("TERM")?;
    fs::write(&pipe, "stop\n")?;
    assert_eq!(consumer.ended()?, (Some(0), vec!["ended".to_owned()]));
    place.until_messages("q", 2)
}

pub(crate) fn no_message_is_taken_for_a_count_of_0(place: &Place) -> Outcome {
    filled(place, "q", 3)?;
    assert_eq!(place.good(&["consume", "-q", "q", "-c", "0", "-A"])?, "");
    assert_eq!(place.good(&["consume", "-q", "q", "-c", "0"])?, "");
    let got = place.good(&["get", "q", "-c", "9", "--format", "json"])?;
    assert_eq!(got.lines().count(), 3);
    assert!(!got.contains("redelivered"), "{got}");
    Ok(())
}

/// A signal of a terminal goes to the command, too, which ends by it.
pub(crate) fn a_command_that_a_signal_ends_leaves_the_message(place: &Place) -> Outcome {
    filled(place, "q", 3)?;
    for treatment in ["reject", "requeue", "stop"] {
        let arguments = ["consume", "-q", "q", "--on-failure", treatment];
        let script = ["sh", "-c", "kill -s INT $PPID; exit 130"];
        let ended = place.run(&[&arguments[..], &script].concat())?;
        ended.fails(1, "sh -c kill -s INT $PPID; exit 130: exit status: 130")?;
        place.until_messages("q", 3)?;
    }
    Ok(())
}

pub(crate) fn a_signal_ends_it_though_the_broker_is_silent() -> Outcome {
    let (broker, place) = broker_process()?;
    filled(&place, "q", 1)?;
    let mut consumer = Running::start(place.command(&["consume", "-q", "q"]))?;
    assert_eq!(consumer.line()?, "1");
    let mut ping = Running::start(place.command(&["ping", "-c", "1000", "--interval", "0"]))?;
    ping.line_with("round trip 3: ")?;
    let mut publisher = Running::start(place.command(&["publish", "-r", "q", "-l"]))?;
    publisher.say("2\n")?;
    assert_eq!(consumer.line()?, "2");
    let mut bench = Running::start(place.command(&["bench", "-m", "100000000"]))?;
    until(|| Ok(bench.catches_interrupts()?))?;
    broker.signal("STOP")?;
    for running in [&consumer, &ping, &bench, &publisher] {
        running.signal("INT")?;
    }
    // The acknowledgements may be lost.
    consumer.error_with("no answer came in time: messages that were printed may come again")?;
    assert_eq!(consumer.code()?, Some(5));
    assert_eq!(ping.code()?, Some(0));
    bench.error_with("interrupted")?;
    assert_eq!(bench.code()?, Some(1));
    Ok(())
}

pub(crate) fn an_exchange_is_watched(place: &Place) -> Outcome {
    let tail = ["tail", "amq.topic", "-r", "order.*", "--count", "2"];
    let mut running = Running::start(place.command(&tail))?;
    // Until it is bound.
    until(|| {
        let ended = place.run(&[
            "publish",
            "-e",
            "amq.topic",
            "-r",
            "order.new",
            "-b",
            "3 apples\x1b[2J",
        ])?;
        Ok(ended.code == Some(0))
    })?;
    place.good(&[
        "publish",
        "-e",
        "amq.topic",
        "-r",
        "order.new",
        "-H",
        "n: 1",
        "-b",
        "\u{fc}",
    ])?;
    let line = running.line()?;
    assert!(
        line.ends_with("amq.topic \"order.new\" delivery_mode=2 12 bytes"),
        "{line}"
    );
    assert_eq!(running.line()?, r"    3 apples\u{1b}[2J");
    let line = running.line()?;
    assert!(
        line.contains(r#" headers={"n":"1"} delivery_mode=2 2 bytes"#),
        "{line}"
    );
    assert_eq!(running.line()?, "    \u{fc}");
    assert_eq!(running.ended()?.0, Some(0));
    place.run(&["tail", ""])?.fails(2, "the default exchange")?;
    let missing = place.run(&["tail", "none"])?;
    missing.fails(3, "no exchange 'none'")?;
    assert_eq!(missing.errors.lines().count(), 1, "{}", missing.errors);
    Ok(())
}

pub(crate) fn queues_are_declared_and_bound_on_request(place: &Place) -> Outcome {
    // A queue that is there stays as it is.
    place.good(&["declare", "queue", "q", "-a", "x-max-length=5"])?;
    let arguments = [
        "consume",
        "-q",
        "q",
        "-e",
        "amq.topic",
        "-r",
        "a.#",
        "-r",
        "b",
        "--idle",
        "10ms",
    ];
    place.run(&arguments)?.fails(3, "")?;
    for key in ["a.x", "b"] {
        place.good(&["publish", "-e", "amq.topic", "-r", key, "-b", key])?;
    }
    assert_eq!(place.messages("q")?, 2);
    place
        .run(&["consume", "-q", "new", "-d", "--idle", "10ms"])?
        .fails(3, "")?;
    assert_eq!(place.messages("new")?, 0);
    // Without a word of the queue that was not there.
    let ended = place.run(&["consume", "-q", "newer", "-d", "--idle", "10ms"])?;
    assert_eq!((ended.code, ended.errors.as_str()), (Some(3), ""));
    let own = place.run(&["consume", "-e", "amq.fanout", "--idle", "10ms"])?;
    own.fails(3, "amqp: the queue is amq.gen-")?;
    place
        .run(&["consume", "-r", "key", "-q", "q"])?
        .fails(2, "--exchange")?;
    Ok(())
}

pub(crate) fn a_restart_of_the_broker_is_survived() -> Outcome {
    let (broker, place) = embedded()?;
    filled(&place, "q", 2)?;
    let mut consumer = Running::start(place.command(&["consume", "-q", "q"]))?;
    assert_eq!(
        (consumer.line()?, consumer.line()?),
        ("1".into(), "2".into())
    );
    broker.broker().restart();
    consumer.error_with("recovered")?;
    place.good(&["publish", "-r", "q", "-b", "3"])?;
    consumer.line_with("3")?;
    consumer.signal("INT")?;
    assert_eq!(consumer.ended()?.0, Some(0));
    assert_eq!(place.messages("q")?, 0);

    let mut consumer = Running::start(place.command(&["consume", "-q", "q", "--no-recover"]))?;
    place.good(&["publish", "-r", "q", "-b", "4"])?;
    assert_eq!(consumer.line()?, "4");
    broker.broker().restart();
    assert_eq!(consumer.ended()?.0, Some(4));
    Ok(())
}

pub(crate) fn a_signal_ends_the_wait_for_a_lost_broker() -> Outcome {
    let (broker, place) = embedded()?;
    filled(&place, "q", 1)?;
    let mut consumer = Running::start(place.command(&["consume", "-q", "q"]))?;
    assert_eq!(consumer.line()?, "1");
    let mut publisher = Running::start(place.command(&["publish", "-r", "q", "-l", "--recover"]))?;
    publisher.say("2\n")?;
    assert_eq!(consumer.line()?, "2");
    drop(broker);
    consumer.error_with("reconnecting")?;
    publisher.error_with("reconnecting")?;
    consumer.signal("INT")?;
    assert_eq!(consumer.code()?, Some(0));
    // It waits until it can publish.
    publisher.say("3\n")?;
    publisher.error_with("reconnecting: attempt 2")?;
    publisher.signal("INT")?;
    publisher.error_with("message 2: ")?;
    assert_eq!(publisher.code()?, Some(4));
    Ok(())
}

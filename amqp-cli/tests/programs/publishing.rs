//! `publish` and `get`.

use std::fs;

use amqp_tests::harness::Outcome;

use crate::rig::{PROGRAM, Place, Running, embedded, end, nowhere, program};

pub(crate) fn a_body_is_published_and_got(place: &Place) -> Outcome {
    assert_eq!(place.good(&["declare", "queue", "jobs"])?, "jobs\n");
    assert_eq!(place.good(&["publish", "-r", "jobs", "-b", "sweep"])?, "");
    place
        .run_with(&["publish", "--routing-key=jobs"], b"two\nlines\n")?
        .good()?;
    assert_eq!(place.good(&["get", "jobs"])?, "sweep");
    // A body that looks like an option.
    place.good(&["publish", "-r", "jobs", "--mandatory", "-b", "--help"])?;
    assert_eq!(
        place.good(&["get", "-q", "jobs", "--requeue"])?,
        "two\nlines\n"
    );
    assert_eq!(place.good(&["get", "--queue", "jobs"])?, "two\nlines\n");
    assert_eq!(place.good(&["get", "jobs"])?, "--help");
    let empty = place.run(&["get", "jobs"])?;
    empty.fails(3, "")?;
    assert_eq!((empty.out.len(), empty.errors.len()), (0, 0));
    Ok(())
}

pub(crate) fn lines_are_messages_in_order(place: &Place) -> Outcome {
    place.good(&["declare", "queue", "jobs"])?;
    place
        .run_with(&["publish", "-r", "jobs", "-l"], b"one\n\nthree\r\nfour")?
        .good()?;
    place
        .run_with(&["publish", "-r", "jobs", "-0"], b"a\nb\0c\0")?
        .good()?;
    let bodies = place.good(&["get", "jobs", "-c", "9", "--format", "nul"])?;
    assert_eq!(bodies, "one\0\0three\r\0four\0a\nb\0c\0");
    Ok(())
}

pub(crate) fn messages_that_no_queue_takes_are_reported(place: &Place) -> Outcome {
    let returned = "message 1: the message was returned: 312 (no-route) NO_ROUTE";
    place
        .run(&["publish", "-r", "none", "-b", "x"])?
        .fails(1, returned)?;
    let input: String = (1..=50).map(|n| format!("{n}\n")).collect();
    let ended = place.run_with(&["publish", "-r", "none", "-l"], input.as_bytes())?;
    ended.fails(
        1,
        "50 of 50 messages were not confirmed\n  50: the message was returned: 312",
    )?;
    // Not one for each.
    assert!(ended.errors.lines().count() < 20, "{}", ended.errors);
    place.good(&["publish", "-r", "none", "-b", "x", "--no-mandatory"])?;
    Ok(())
}

pub(crate) fn unconfirmed_messages_are_written_and_taken_again(place: &Place) -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("failed.json");
    let path = file.display().to_string();
    place
        .run_with(
            &[
                "publish",
                "-r",
                "later",
                "-l",
                "-H",
                "a: b",
                "--unconfirmed",
                &path,
            ],
            b"1\n2\n",
        )?
        .fails(1, "2 of 2")?;
    let written = fs::read(&file)?;
    let text = String::from_utf8(written.clone())?;
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains(r#""unconfirmed":"the message was returned: 312 (no-route) NO_ROUTE""#));
    place.good(&["declare", "queue", "later"])?;
    place
        .run_with(&["publish", "--format", "json"], &written)?
        .good()?;
    let messages = place
        .run(&["get", "later", "-c", "5", "--format", "json"])?
        .lines()?;
    let expected = r#"{"exchange":"","routing_key":"later","properties":{"headers":{"a":"b"},"delivery_mode":2},"body":"1"}"#;
    assert_eq!(messages[0], expected);
    assert_eq!(messages.len(), 2);
    Ok(())
}

pub(crate) fn unconfirmed_messages_do_not_replace_what_is_still_needed(place: &Place) -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("failed.json");
    let path = file.display().to_string();
    let kept = "{\"routing_key\":\"none\",\"body\":\"1\"}\n";
    // The input itself, under another name.
    fs::write(&file, kept)?;
    let link = folder.path().join("link.json");
    fs::hard_link(&file, &link)?;
    let mut command = place.command(&["publish", "--format", "json", "--unconfirmed", &path]);
    command.stdin(fs::File::open(&link)?);
    let ended = command.output()?;
    let errors = String::from_utf8(ended.stderr)?;
    assert!(errors.contains("is the input"), "{errors}");
    assert_eq!(ended.status.code(), Some(2));
    assert_eq!(fs::read_to_string(&file)?, kept);
    // A run that publishes nothing.
    let arguments = ["publish", "-r", "q", "-l", "--unconfirmed", &path];
    let mut unreached = program(&arguments);
    unreached.args(["-u", &nowhere()?]);
    end(unreached, b"1\n")?.fails(4, "could not reach")?;
    assert_eq!(fs::read_to_string(&file)?, kept);
    // One that publishes begins anew.
    place.good(&["declare", "queue", "q"])?;
    place.run_with(&arguments, b"1\n")?.good()?;
    assert_eq!(fs::read_to_string(&file)?, "");
    let arguments = ["publish", "-r", "q", "-l", "--unconfirmed", "/no/folder/f"];
    place
        .run_with(&arguments, b"1\n")?
        .fails(2, "cannot create /no/folder/f")?;
    let arguments = [
        "publish",
        "-r",
        "none",
        "-l",
        "--unconfirmed",
        "/dev/stdout",
    ];
    let ended = place.run_with(&arguments, b"1\n")?;
    ended.fails(1, "1 of 1")?;
    assert!(ended.text().contains("NO_ROUTE"));
    Ok(())
}

pub(crate) fn a_missing_exchange_ends_the_run(place: &Place) -> Outcome {
    let missing = "NOT_FOUND - no exchange 'none'";
    place
        .run(&["publish", "-e", "none", "-b", "x"])?
        .fails(3, missing)?;
    // Such an input never ends, unless the program does.
    let input = b"line\n".repeat(100_000);
    let ended = place.run_with(&["publish", "-e", "none", "-l"], &input)?;
    ended.fails(3, "messages were not confirmed")?;
    ended.fails(3, missing)?;
    Ok(())
}

pub(crate) fn returned_messages_are_reported_without_confirms(place: &Place) -> Outcome {
    place.good(&["declare", "queue", "jobs"])?;
    place
        .run_with(&["publish", "-r", "jobs", "-l", "--no-confirm"], b"1\n2\n")?
        .good()?;
    assert_eq!(place.messages("jobs")?, 2);
    let input = b"line\n".repeat(3000);
    place
        .run_with(&["publish", "-r", "none", "-l", "--no-confirm"], &input)?
        .fails(
            1,
            "3000 of 3000 messages were not confirmed\n  3000: the message was returned",
        )?;
    Ok(())
}

pub(crate) fn octets_of_all_kinds_arrive(place: &Place) -> Outcome {
    place.good(&["declare", "queue", "q"])?;
    let octets: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    place.run_with(&["publish", "-r", "q"], &octets)?.good()?;
    let json = place.run(&["get", "q", "--format", "json"])?;
    assert!(json.text().contains("body_base64"));
    place
        .run_with(&["publish", "--format", "json"], &json.out)?
        .good()?;
    assert_eq!(place.run(&["get", "q"])?.out, octets);
    // A body of the command line that is not UTF-8, as amqp-publish has it.
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt as _;
        let mut command = place.command(&["publish", "-r", "q", "-b"]);
        command.arg(std::ffi::OsStr::from_bytes(b"\xff\n"));
        end(command, b"")?.good()?;
        assert_eq!(place.run(&["get", "q"])?.out, b"\xff\n");
        let mut command = place.command(&["publish", "-r", "q", "-b", "x", "-H"]);
        command.arg(std::ffi::OsStr::from_bytes(b"n: \xff"));
        end(command, b"")?.good()?;
        let got = place.good(&["get", "q", "--format", "json"])?;
        assert!(
            got.contains(r#""headers":{"n":{"long_str":[255]}}"#),
            "{got}"
        );
    }
    // Lines that are not UTF-8.
    place
        .run_with(&["publish", "-r", "q", "-l"], b"\xff\xfe\n\xc3\n")?
        .good()?;
    let lines = place.run(&["consume", "-q", "q", "-c", "2"])?;
    assert_eq!(lines.out, b"\xff\xfe\n\xc3\n");
    Ok(())
}

pub(crate) fn json_has_all_properties_both_ways(place: &Place) -> Outcome {
    place.good(&["declare", "queue", "q"])?;
    let message = concat!(
        r#"{"exchange":"","routing_key":"q","properties":{"content_type":"text/plain","#,
        r#""content_encoding":"identity","headers":{"bool":true,"long":{"i64":9007199254740993},"#,
        r#""octets":{"bytes":[0,255]},"ratio":{"f64":"0.1"},"table":{"table":{"text":"grün"}},"#,
        r#""nothing":null,"list":[1,"two"],"when":{"timestamp":1700000000}},"#,
        r#""delivery_mode":1,"priority":3,"correlation_id":"c","reply_to":"r","#,
        r#""expiration":"600000","message_id":"m","timestamp":1700000000,"type":"t","#,
        r#""user_id":"guest","app_id":"a"},"body":"grün\n"}"#
    );
    place
        .run_with(&["publish", "--format", "json"], message.as_bytes())?
        .good()?;
    let got = place.good(&["get", "q", "--format", "json"])?;
    assert_eq!(got, format!("{message}\n"));
    // Options precede, for all messages.
    place
        .run_with(
            &[
                "publish",
                "--format",
                "json",
                "-r",
                "q",
                "-C",
                "a/b",
                "--transient",
                "-H",
                "bool: no",
            ],
            br#"{"routing_key":"other","properties":{"priority":1},"body":"x"}"#,
        )?
        .good()?;
    let got = place.good(&["get", "q", "--format", "json"])?;
    let expected = r#"{"exchange":"","routing_key":"q","properties":{"content_type":"a/b","headers":{"bool":"no"},"delivery_mode":1,"priority":1},"body":"x"}"#;
    assert_eq!(got.trim_end(), expected);
    Ok(())
}

/// 800 MB in lines of 16 KiB, with half of that as the limit of the address space.
pub(crate) fn more_is_published_than_there_is_memory(place: &Place) -> Outcome {
    place.good(&["declare", "queue", "q", "-a", "x-max-length=10"])?;
    let script = format!(
        "ulimit -v 400000; yes \"$(printf '%016384d' 7)\" | head -n 50000 | \"{PROGRAM}\" publish -r q -l"
    );
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &script]).env("AMQP_URL", &place.url);
    // The arena of each thread reserves 64 MiB.
    shell.env("MALLOC_ARENA_MAX", "1");
    end(shell, b"")?.good()?;
    assert_eq!(place.messages("q")?, 10);
    Ok(())
}

pub(crate) fn large_messages_arrive(place: &Place) -> Outcome {
    place.good(&["declare", "queue", "q"])?;
    let mut line = vec![b'x'; 100 << 20];
    line.push(b'\n');
    place
        .run_with(&["publish", "-r", "q", "-l"], &line)?
        .good()?;
    let got = place.run(&["consume", "-q", "q", "-c", "1"])?;
    assert!(got.out == line, "{} bytes", got.out.len());
    Ok(())
}

pub(crate) fn a_restart_of_the_broker_loses_nothing() -> Outcome {
    let (broker, place) = embedded()?;
    place.good(&["declare", "queue", "q"])?;
    let mut publisher = Running::start(place.command(&["publish", "-r", "q", "-l", "--recover"]))?;
    for number in 1..=3 {
        publisher.say(&format!("{number}\n"))?;
        place.until_messages("q", number)?;
        broker.broker().restart();
        publisher.error_with("recovered")?;
    }
    publisher.end_input();
    assert_eq!(publisher.ended()?.0, Some(0));
    let bodies = place.good(&["get", "q", "-c", "9", "--format", "lines"])?;
    assert_eq!(bodies, "1\n2\n3\n");

    let mut publisher = Running::start(place.command(&["publish", "-r", "q", "-l"]))?;
    publisher.say("1\n")?;
    place.until_messages("q", 1)?;
    publisher.signal("INT")?;
    publisher.error_with("the input from message 2 on was not published: interrupted")?;
    assert_eq!(publisher.code()?, Some(1));
    place.good(&["purge", "q"])?;

    // Without --recover the loss is reported.
    let mut publisher = Running::start(place.command(&["publish", "-r", "q", "-l"]))?;
    publisher.say("1\n")?;
    place.until_messages("q", 1)?;
    broker.broker().restart();
    publisher
        .error_with("the input from message 2 on was not published: the connection is closed")?;
    // It does not wait for the end of the input.
    assert_eq!(publisher.code()?, Some(4));
    Ok(())
}

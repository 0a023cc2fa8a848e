//! The exit codes and the texts of failures.

use std::net::TcpListener;

use amqp_tests::harness::Outcome;

use crate::rig::{Place, end, nowhere, program};

pub(crate) fn things_that_are_missing_end_with_3(place: &Place) -> Outcome {
    let no_queue = "NOT_FOUND - no queue 'none'";
    for arguments in [
        &["get", "none"][..],
        &["consume", "-q", "none"],
        &["purge", "none"],
        &["declare", "queue", "none", "--passive"],
        &["bind", "-e", "amq.topic", "-q", "none"],
    ] {
        place.run(arguments)?.fails(3, no_queue)?;
    }
    place
        .run(&["rpc", "call", "-r", "none", "-b", "x"])?
        .fails(3, "there is no server")?;
    place
        .run(&["declare", "exchange", "none", "--passive"])?
        .fails(3, "no exchange 'none'")
}

pub(crate) fn misuse_ends_with_2(place: &Place) -> Outcome {
    let long = "x".repeat(256);
    for (arguments, text) in [
        (&["--port"][..], "unexpected argument"),
        (
            &["publish", "-b", "x"],
            "give --routing-key, or --exchange, or both",
        ),
        (
            &["publish", "-r", "q", "-b", "x", "-l"],
            "cannot be used with",
        ),
        (&["publish", "-r", &long, "-b", "x"], "255"),
        (
            &["publish", "-r", "q", "-b", "x", "-H", "none"],
            "not \"NAME: VALUE\"",
        ),
        (
            &["publish", "-r", "q", "-b", "x", "--headers", "5"],
            "--headers",
        ),
        (
            &["publish", "-r", "q", "-b", "x", "--expiration", "soon"],
            "--expiration",
        ),
        (
            &["publish", "-r", "q", "-b", "x", "--window", "0"],
            "--window",
        ),
        (&["ping", "-u", "http://localhost"], "the URL of --url"),
        (&["ping", "--profile", "none"], "no profile [none]"),
        (&["ping", "--cacert", "/ca.pem"], "certificates are for TLS"),
        (&["ping", "--authfile", "/no/file"], "cannot read /no/file"),
        (&["ping", "-s", ":5672"], "not a host"),
        (&["declare", "queue"], "required"),
        (&["declare", "queue", "q", "-a", "x"], "not NAME=VALUE"),
        (
            &["declare", "exchange", ""],
            "the default exchange exists always",
        ),
        (&["consume", "-q", "q", "-p", "0"], "--prefetch-count"),
        (&["rpc", "serve", "-q", "q"], "required"),
        (&["rpc", "serve", "-q", "", "cat"], "the queue has no name"),
        (&["bench", "--size", "600000000"], "--size"),
    ] {
        let ended = place.run(arguments)?;
        ended
            .fails(2, text)
            .map_err(|error| format!("{arguments:?}: {error}"))?;
        assert!(ended.out.is_empty());
    }
    place.run(&[])?.fails(2, "Usage: amqp")?;
    // A wrong message after a right one.
    place.good(&["declare", "queue", "q"])?;
    for (line, text) in [
        (r#"{"boddy":"x"}"#, "unknown field `boddy`"),
        (
            r#"{"body":"x","body_base64":"eA=="}"#,
            "both body and body_base64",
        ),
        (r#"{"body_base64":"?"}"#, "body_base64"),
        ("[", "expected an object"),
        ("[]", "expected an object"),
        (r#"["", "q"]"#, "expected an object"),
        (r#"{"properties":[]}"#, "expected an object"),
        ("{", "EOF"),
    ] {
        let input = format!("{{\"body\":\"good\"}}\n{line}\n");
        let ended = place.run_with(
            &["publish", "--format", "json", "-r", "q"],
            input.as_bytes(),
        )?;
        ended.fails(2, text)?;
        ended.fails(2, "message 2 of the input")?;
    }
    assert_eq!(place.messages("q")?, 8);
    Ok(())
}

/// The forms of the file: that of amqp-tools has a colon.
pub(crate) fn a_login_is_read_from_a_file(place: &Place) -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("auth").display().to_string();
    for text in [
        "username:guest\npassword:guest\n",
        "username:guest\npassword:guest",
        "username guest\r\npassword guest\r\n",
    ] {
        std::fs::write(&file, text)?;
        place.good(&["ping", "--authfile", &file])?;
    }
    for text in ["", "usernameguest\n", "username:guest\npass:guest\n"] {
        std::fs::write(&file, text)?;
        place
            .run(&["ping", "--authfile", &file])?
            .fails(2, "there is no line")?;
    }
    Ok(())
}

pub(crate) fn a_full_disk_ends_with_1(place: &Place) -> Outcome {
    const FULL: &str = "/dev/full";
    if !std::path::Path::new(FULL).exists() {
        return Ok(());
    }
    place.good(&["declare", "queue", "q"])?;
    place
        .run_with(&["publish", "-r", "q", "-l"], b"1\n2\n")?
        .good()?;
    for arguments in [
        &["--help"][..],
        &["publish", "--help"],
        &["--version"],
        &["man"],
        &["completions", "bash"],
        &["ping"],
        &["get", "q"],
        &["consume", "-q", "q", "-c", "1"],
        &["proxy", "--listen", "127.0.0.1:0"],
    ] {
        let mut command = place.command(arguments);
        command.stdout(std::fs::File::create(FULL)?);
        let ended = command.output()?;
        let errors = String::from_utf8(ended.stderr)?;
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {errors}");
        assert!(errors.contains("cannot write"), "{arguments:?}: {errors}");
    }
    place.until_messages("q", 2)
}

pub(crate) fn a_wrong_login_ends_with_4(place: &Place) -> Outcome {
    let ended = place.run(&["ping", "--password", "hunter2"])?;
    ended.fails(4, "ACCESS_REFUSED - Login was refused")?;
    assert!(!ended.errors.contains("hunter2"));
    place
        .run(&["ping", "--vhost", "none"])?
        .fails(4, "vhost none not found")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("auth").display().to_string();
    std::fs::write(&file, "username guest\npassword guest\n")?;
    place.good(&["ping", "--authfile", &file])?;
    std::fs::write(&file, "username guest\npassword wrong\n")?;
    place
        .run(&["ping", "--authfile", &file])?
        .fails(4, "ACCESS_REFUSED")?;
    std::fs::write(&file, "password guest\n")?;
    place
        .run(&["ping", "--authfile", &file])?
        .fails(2, "no line \"username:...\"")
}

pub(crate) fn no_broker_ends_with_4() -> Outcome {
    let url = nowhere()?;
    for arguments in [
        &["publish", "-r", "q", "-b", "x"][..],
        &["consume", "-q", "q"],
        &["get", "q"],
        &["ping"],
        &["bench", "-m", "1"],
        &["tail", "amq.topic"],
        &["rpc", "call", "-r", "q", "-b", "x"],
    ] {
        let mut command = program(arguments);
        command.args(["-u", &url]);
        if arguments[0] == "consume" {
            command = program(&["consume", "-u", &url, "-q", "q"]);
        }
        end(command, b"")?.fails(4, "could not reach 127.0.0.1:")?;
    }
    Ok(())
}

pub(crate) fn a_silent_broker_ends_with_5() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("amqp://{}", listener.local_addr()?);
    end(program(&["ping", "-u", &url, "--timeout", "50ms"]), b"")?
        .fails(5, "no answer came in time")?;
    // One that speaks another protocol.
    let answering = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (_silent, _) = listener.accept()?;
        let (mut stream, _) = listener.accept()?;
        stream.read_exact(&mut [0; 8])?;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    });
    end(program(&["ping", "-u", &url]), b"")?.fails(4, "HTTP")?;
    answering.join().map_err(|_| "a thread panicked")??;
    Ok(())
}

pub(crate) fn huge_headers_arrive(place: &Place) -> Outcome {
    place.good(&["declare", "queue", "q"])?;
    let value = "x".repeat(100_000);
    let message =
        format!(r#"{{"routing_key":"q","properties":{{"headers":{{"h":"{value}"}}}},"body":"x"}}"#);
    place
        .run_with(&["publish", "--format", "json"], message.as_bytes())?
        .good()?;
    assert!(
        place
            .good(&["get", "q", "--format", "json"])?
            .contains(&value)
    );
    // More than a frame.
    let value = "x".repeat(1 << 20);
    let message = format!(r#"{{"routing_key":"q","properties":{{"headers":{{"h":"{value}"}}}}}}"#);
    place
        .run_with(&["publish", "--format", "json"], message.as_bytes())?
        .fails(2, "message 1")?;
    Ok(())
}

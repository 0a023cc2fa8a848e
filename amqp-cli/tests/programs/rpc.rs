//! `rpc call` and `rpc serve`.

use amqp_tests::harness::Outcome;

use crate::rig::{Place, Running, embedded, until};

pub(crate) fn calls_are_served_by_a_command(place: &Place) -> Outcome {
    let script = "read n; test \"$n\" -gt 0 || exit 3; echo $((n * n))";
    let serve = [
        "rpc", "serve", "-q", "squares", "--jobs", "4", "sh", "-c", script,
    ];
    let mut server = Running::start(place.command(&serve))?;
    until(|| {
        Ok(place
            .run(&["declare", "queue", "squares", "--passive"])?
            .code
            == Some(0))
    })?;
    assert_eq!(
        place.good(&["rpc", "call", "-r", "squares", "-b", "12"])?,
        "144\n"
    );
    let input: String = (1..=30).map(|n| format!("{n}\0")).collect();
    let replies = place.run_with(
        &["rpc", "call", "-r", "squares", "-0", "--format", "raw"],
        input.as_bytes(),
    )?;
    let replies = replies.lines()?;
    let expected: Vec<String> = (1..=30).map(|n| (n * n).to_string()).collect();
    assert_eq!(replies, expected);
    let failed = place.run_with(
        &["rpc", "call", "-r", "squares", "-l", "--format", "raw"],
        b"2\n0\n3\n",
    )?;
    failed.fails(1, "request 2: the server reported 3: sh: exit status: 3")?;
    assert_eq!(failed.text(), "4\n9\n");
    server.signal("TERM")?;
    assert_eq!(server.ended()?.0, Some(0));
    place
        .run(&[
            "rpc",
            "call",
            "-r",
            "squares",
            "-b",
            "1",
            "--timeout",
            "50ms",
        ])?
        .fails(5, "no reply came in time")
}

pub(crate) fn requests_are_sent_in_their_order(place: &Place) -> Outcome {
    let folder = tempfile::tempdir()?;
    let served = folder.path().join("served");
    let script = format!("cat >> {}; echo done", served.display());
    let serve = ["rpc", "serve", "-q", "order", "sh", "-c", &script];
    let mut server = Running::start(place.command(&serve))?;
    let is_served = || {
        let ended = place.run(&["declare", "queue", "order", "--passive"])?;
        Ok(ended.text().contains("1 consumers"))
    };
    until(is_served)?;
    let requests: String = (10..60).map(|number| format!("{number}\n")).collect();
    let call = ["rpc", "call", "-r", "order", "-l", "--timeout", "10m"];
    place.run_with(&call, requests.as_bytes())?.good()?;
    assert_eq!(
        std::fs::read_to_string(&served)?,
        requests.replace('\n', "")
    );
    server.signal("INT")?;
    assert_eq!(server.ended()?.0, Some(0));
    Ok(())
}

pub(crate) fn a_reply_is_printed_though_the_next_one_is_late(place: &Place) -> Outcome {
    let folder = tempfile::tempdir()?;
    let pipe = folder.path().join("pipe").display().to_string();
    std::process::Command::new("mkfifo").arg(&pipe).status()?;
    let script = format!("read n; test \"$n\" = 1 || read wait < {pipe}; echo \"$n\"");
    let serve = ["rpc", "serve", "-q", "slow", "sh", "-c", &script];
    let mut server = Running::start(place.command(&serve))?;
    let is_served = || {
        let ended = place.run(&["declare", "queue", "slow", "--passive"])?;
        Ok(ended.text().contains("1 consumers"))
    };
    until(is_served)?;
    let call = [
        "rpc",
        "call",
        "-r",
        "slow",
        "-l",
        "--format",
        "raw",
        "--timeout",
        "10m",
    ];
    let mut caller = Running::start(place.command(&call))?;
    caller.say("1\n2\n")?;
    assert_eq!(caller.line()?, "1");
    caller.signal("INT")?;
    std::fs::write(&pipe, "go\n")?;
    assert_eq!(caller.line()?, "2");
    // The input has not ended.
    caller.error_with("the input from request 3 on was not sent: interrupted")?;
    assert_eq!(caller.code()?, Some(1));
    server.signal("INT")?;
    assert_eq!(server.ended()?.0, Some(0));
    Ok(())
}

pub(crate) fn a_lost_connection_ends_the_calls() -> Outcome {
    let (broker, place) = embedded()?;
    let mut server = Running::start(place.command(&["rpc", "serve", "-q", "echo", "cat"]))?;
    let is_served = || {
        let ended = place.run(&["declare", "queue", "echo", "--passive"])?;
        Ok(ended.text().contains("1 consumers"))
    };
    until(is_served)?;
    let mut idle = Running::start(place.command(&["rpc", "call", "-r", "echo", "-l"]))?;
    let mut busy = Running::start(place.command(&["rpc", "call", "-r", "echo", "-l"]))?;
    for caller in [&mut idle, &mut busy] {
        caller.say("x\n")?;
        assert_eq!(caller.line()?, "x");
    }
    busy.flood("x\n")?;
    drop(broker);
    for caller in [&mut idle, &mut busy] {
        caller.error_with(" on was not sent: ")?;
        assert_eq!(caller.code()?, Some(4));
    }
    server.signal("INT")?;
    server.code()?;
    Ok(())
}

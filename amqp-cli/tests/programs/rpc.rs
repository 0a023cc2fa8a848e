//! `rpc call` and `rpc serve`.

use amqp_tests::harness::Outcome;

use crate::rig::{Place, Running, until};

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

//! Debian's amqp-tools and the program, with the same options.

use std::process::Command;

use amqp_tests::harness::Outcome;

use crate::rig::{Place, end, program};

/// The commands of amqp-tools, and those here.
const PAIRS: [(&str, &[&str]); 5] = [
    ("amqp-publish", &["publish"]),
    ("amqp-consume", &["consume"]),
    ("amqp-get", &["get"]),
    ("amqp-declare-queue", &["declare", "queue"]),
    ("amqp-delete-queue", &["delete", "queue"]),
];

/// The options of amqp-tools 0.15, as `--help` lists them.
const OPTIONS: [(&str, &str); 5] = [
    (
        "amqp-publish",
        "-e --exchange -r --routing-key -p --persistent -C --content-type -t --reply-to -l \
         --line-buffered -E --content-encoding -H --header -b --body -u",
    ),
    (
        "amqp-consume",
        "-q --queue -e --exchange -r --routing-key -d --declare -x --exclusive -A --no-ack -c \
         --count -p --prefetch-count -u",
    ),
    ("amqp-get", "-q --queue -u"),
    ("amqp-declare-queue", "-q --queue -d --durable -u"),
    (
        "amqp-delete-queue",
        "-q --queue -u --if-unused -e --if-empty",
    ),
];

const CONNECTION: &str = "--url -s --server --port --vhost --username --password --heartbeat \
     --authfile --ssl --cacert --key --cert";

pub(crate) fn the_same_options_do_the_same(place: &Place) -> Outcome {
    for ((tool, options), (_, command)) in OPTIONS.into_iter().zip(PAIRS) {
        let help = end(program(&[command, &["--help"][..]].concat()), b"")?.good()?;
        for option in options
            .split_whitespace()
            .chain(CONNECTION.split_whitespace())
        {
            let is_there = help.split([' ', ',', '\n']).any(|word| {
                word == option
                    || word
                        .strip_prefix(option)
                        .is_some_and(|it| it.starts_with('='))
            });
            assert!(is_there, "{tool} {option}: {help}");
        }
    }
    if Command::new("amqp-publish").arg("--help").output().is_err() {
        let required = std::env::var_os("AMQP_REQUIRE_FOREIGN").is_some_and(|it| it == "1");
        return match required {
            true => Err("amqp-tools are not installed".into()),
            false => Ok(()),
        };
    }
    // Messages of one are those of the other.
    let url = ["-u", &place.url];
    let tool = |arguments: &[&str], input: &[u8]| {
        let (name, rest) = arguments.split_first().ok_or("no tool")?;
        let mut command = Command::new(name);
        command.args(url).args(rest);
        end(command, input)
    };
    let ours = |arguments: &[&str], input: &[u8]| place.run_with(arguments, input);
    assert_eq!(
        ours(&["declare", "queue", "-q", "q", "-d"], b"")?.good()?,
        "q\n"
    );
    assert_eq!(
        tool(&["amqp-declare-queue", "-q", "q", "-d"], b"")?.good()?,
        "q\n"
    );
    let message = [
        "-r",
        "q",
        "-C",
        "text/plain",
        "-E",
        "identity",
        "-t",
        "back",
        "-H",
        "n: 1",
        "-p",
        "-b",
        "x",
    ];
    tool(&[&["amqp-publish"], &message[..]].concat(), b"")?.good()?;
    ours(&[&["publish"], &message[..]].concat(), b"")?.good()?;
    let json = ours(&["get", "-q", "q", "--format", "json", "-c", "2"], b"")?.lines()?;
    assert_eq!(json[0], json[1]);
    ours(&["publish", "-r", "q", "-l"], b"1\n2\n3\n4\n")?.good()?;
    assert_eq!(tool(&["amqp-get", "-q", "q"], b"")?.good()?, "1");
    assert_eq!(ours(&["get", "-q", "q"], b"")?.good()?, "2");
    assert_eq!(
        tool(&["amqp-consume", "-q", "q", "-c", "1", "cat"], b"")?.good()?,
        "3"
    );
    assert_eq!(
        ours(&["consume", "-q", "q", "-c", "1", "cat"], b"")?.good()?,
        "4"
    );
    tool(&["amqp-publish", "-r", "q", "-l"], b"1\n")?.good()?;
    let deleted = place.run(&["delete", "queue", "-q", "q", "-u"])?.good()?;
    assert_eq!(deleted, "1\n");
    Ok(())
}

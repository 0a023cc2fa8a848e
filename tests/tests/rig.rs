//! The rig itself: the promises about its nodes, and that a test which cannot run does not pass in
//! silence.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use amqp_tests::harness::{self, Broker, Failure, Outcome, Scenario};
use amqp_tests::rabbitmq::{Node, free_port};

/// For scenarios that start nodes themselves, on a machine that has other things to do.
const LONG: Duration = Duration::from_secs(1200);

/// Set for a copy of this program that starts a node, says where, and waits to be killed.
const VICTIM: &str = "AMQP_TESTS_RIG_VICTIM";

fn main() -> ExitCode {
    if env::var_os(VICTIM).is_some() {
        return victim();
    }
    harness::run(vec![
        Scenario::local(
            "rig_free_ports_are_all_different",
            free_ports_are_all_different,
        ),
        Scenario::local(
            "rig_without_rabbitmq_scenarios_are_skipped_by_name",
            without_rabbitmq_scenarios_are_skipped_by_name,
        ),
        Scenario::local(
            "rig_without_rabbitmq_scenarios_fail_when_it_is_required",
            without_rabbitmq_scenarios_fail_when_it_is_required,
        ),
        Scenario::shared(
            "rig_node_answers_a_protocol_header_with_a_frame",
            node_answers_a_protocol_header_with_a_frame,
        ),
        Scenario::shared("rig_ctl_gives_the_output", ctl_gives_the_output),
        Scenario::shared("rig_ctl_tells_why_it_failed", ctl_returns_its_error),
        Scenario::shared("rig_vhosts_come_and_go", vhosts_come_and_go),
        Scenario::shared(
            "rig_vhost_names_are_escaped_in_uris",
            vhost_names_are_escaped_in_uris,
        ),
        Scenario::shared(
            "rig_every_fresh_vhost_is_another",
            every_fresh_vhost_is_another,
        ),
        Scenario::shared(
            "rig_bad_configuration_is_an_error_with_the_log",
            bad_configuration_is_an_error_with_the_log,
        )
        .limit(LONG),
        Scenario::shared("rig_two_nodes_do_not_meet", two_nodes_do_not_meet).limit(LONG),
        Scenario::shared(
            "rig_dropped_node_leaves_nothing",
            dropped_node_leaves_nothing,
        )
        .limit(LONG),
        Scenario::shared(
            "rig_node_does_not_outlive_a_killed_process",
            node_does_not_outlive_a_killed_process,
        )
        .limit(LONG),
        Scenario::alone(
            "rig_configuration_reaches_the_broker",
            configuration_reaches_the_broker,
        )
        .config("frame_max = 4096"),
        Scenario::alone(
            "rig_paused_node_is_silent_until_resumed",
            paused_node_is_silent_until_resumed,
        ),
        Scenario::alone(
            "rig_node_comes_back_with_what_it_had",
            node_comes_back_with_its_contents,
        )
        .limit(LONG),
    ])
}

fn free_ports_are_all_different() -> Outcome {
    let ports: BTreeSet<u16> = (0..50).map(|_| free_port()).collect::<Result<_, _>>()?;
    assert_eq!(ports.len(), 50);
    Ok(())
}

/// Runs one scenario of this file that needs a broker, in a process that finds none.
fn without_rabbitmq(required: &str) -> io::Result<Output> {
    Command::new(env::current_exe()?)
        .args(["--exact", "rig_ctl_gives_the_output"])
        .env("AMQP_RABBITMQ_BIN", "/nonexistent")
        .env("AMQP_REQUIRE_RABBITMQ", required)
        .output()
}

fn without_rabbitmq_scenarios_are_skipped_by_name() -> Outcome {
    let Output { status, stdout, .. } = without_rabbitmq("0")?;
    let stdout = String::from_utf8(stdout)?;
    assert!(
        stdout.contains("test rig_ctl_gives_the_output ... ignored (no RabbitMQ installed)"),
        "{stdout}"
    );
    assert!(stdout.contains("0 passed; 0 failed; 1 ignored"), "{stdout}");
    assert!(status.success());
    Ok(())
}

fn without_rabbitmq_scenarios_fail_when_it_is_required() -> Outcome {
    let Output { status, stdout, .. } = without_rabbitmq("1")?;
    let stdout = String::from_utf8(stdout)?;
    assert!(stdout.contains("0 passed; 1 failed; 0 ignored"), "{stdout}");
    assert!(stdout.contains("no RabbitMQ installed"), "{stdout}");
    assert!(!status.success());
    Ok(())
}

/// The time limit of steps that end soon.
const PATIENCE: Duration = Duration::from_secs(120);

/// Opens a connection and reads the payload of the first frame that comes: `connection.start`.
fn greet(node: &Node) -> io::Result<Vec<u8>> {
    greet_within(node, PATIENCE)
}

/// The same, with a limit of its own.
fn greet_within(node: &Node, limit: Duration) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((node.host(), node.port()))?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"AMQP\x00\x00\x09\x01")?;
    let mut header = [0; 7];
    stream.read_exact(&mut header)?;
    let [kind, c0, c1, s0, s1, s2, s3] = header;
    assert_eq!((kind, c0, c1), (1, 0, 0), "a method frame on channel 0");
    let mut payload = vec![0; u32::from_be_bytes([s0, s1, s2, s3]) as usize + 1];
    stream.read_exact(&mut payload)?;
    assert_eq!(payload.pop(), Some(0xCE), "the end of the frame");
    Ok(payload)
}

fn node_answers_a_protocol_header_with_a_frame(broker: Broker) -> Outcome {
    let start = greet(&broker.node)?;
    assert_eq!(start[..4], [0, 10, 0, 10], "connection.start");
    assert!(start.windows(8).any(|part| part == b"RabbitMQ"));
    Ok(())
}

fn ctl_gives_the_output(broker: Broker) -> Outcome {
    let vhosts = broker.node.ctl(&["list_vhosts"])?;
    assert!(vhosts.lines().any(|line| line == "/"), "{vhosts}");
    assert!(vhosts.lines().any(|line| line == broker.vhost), "{vhosts}");
    Ok(())
}

fn ctl_returns_its_error(broker: Broker) -> Outcome {
    let error = broker
        .node
        .delete_vhost("nowhere")
        .expect_err("there is no such vhost")
        .to_string();
    assert!(
        error.starts_with("rabbitmqctl delete_vhost nowhere: exit status: "),
        "{error}"
    );
    assert!(
        error.contains("Virtual host 'nowhere' does not exist"),
        "{error}"
    );
    Ok(())
}

fn vhosts_come_and_go(broker: Broker) -> Outcome {
    let there = || {
        broker
            .node
            .ctl(&["list_vhosts"])
            .map(|list| list.lines().any(|line| line == "passing"))
    };
    broker.node.add_vhost("passing")?;
    assert!(there()?);
    assert_eq!(
        broker
            .node
            .ctl(&["list_permissions", "--vhost", "passing"])?
            .trim(),
        "guest\t.*\t.*\t.*"
    );
    broker.node.delete_vhost("passing")?;
    assert!(!there()?);
    Ok(())
}

fn vhost_names_are_escaped_in_uris(broker: Broker) -> Outcome {
    let address = format!(
        "amqp://guest:guest@{}:{}/",
        broker.node.host(),
        broker.node.port()
    );
    assert_eq!(broker.node.uri(), address.clone() + "%2F");
    assert_eq!(
        broker.node.uri_of("a b/ü"),
        address.clone() + "a%20b%2F%C3%BC"
    );
    assert_eq!(broker.uri, address + &broker.vhost);
    Ok(())
}

fn every_fresh_vhost_is_another(broker: Broker) -> Outcome {
    let names: BTreeSet<String> = (0..20)
        .map(|_| broker.node.fresh_vhost())
        .collect::<Result<_, _>>()?;
    assert_eq!(names.len(), 20);
    assert!(!names.contains(&broker.vhost));
    let made = broker.node.ctl(&["list_vhosts"])?;
    assert!(
        names
            .iter()
            .all(|name| made.lines().any(|line| line == name)),
        "{made}"
    );
    Ok(())
}

fn bad_configuration_is_an_error_with_the_log(_: Broker) -> Outcome {
    let error = Node::start_with(&["no.such.setting = 1"])
        .expect_err("RabbitMQ refuses this")
        .to_string();
    assert!(
        error.starts_with("RabbitMQ ended while it started"),
        "{error}"
    );
    assert!(error.contains("no.such.setting"), "{error}");
    Ok(())
}

fn two_nodes_do_not_meet(broker: Broker) -> Outcome {
    let other = Node::start()?;
    assert_ne!(other.port(), broker.node.port());
    assert_ne!(other.pid(), broker.node.pid());
    other.add_vhost("elsewhere")?;
    assert!(!broker.node.ctl(&["list_vhosts"])?.contains("elsewhere"));
    greet(&other)?;
    greet(&broker.node)?;
    Ok(())
}

/// The processes that were started with this directory in their environment: the supervisor, the
/// port mapper, the broker and its helpers.
fn processes_of(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let directory = directory
        .to_str()
        .ok_or("the directory's name is not UTF-8")?
        .as_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let process = entry?.path();
        // Empty for a file that is no process, or one that ended just now.
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        if environment
            .windows(directory.len())
            .any(|part| part == directory)
        {
            found.push(process);
        }
    }
    Ok(found)
}

fn dropped_node_leaves_nothing(_: Broker) -> Outcome {
    let node = Node::start()?;
    let directory = node.directory().to_owned();
    assert!(processes_of(&directory)?.len() >= 3);
    node.pause()?; // it cannot even help to end itself
    drop(node);
    assert!(!directory.exists());
    // The processes that the machine itself had started end when they find that it is gone.
    let deadline = Instant::now() + PATIENCE;
    while !processes_of(&directory)?.is_empty() {
        assert!(Instant::now() < deadline, "{:?}", processes_of(&directory)?);
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn victim() -> ExitCode {
    let node = Node::start().expect("a node");
    println!("{}", node.directory().display());
    thread::sleep(Duration::from_secs(600));
    ExitCode::FAILURE
}

fn node_does_not_outlive_a_killed_process(_: Broker) -> Outcome {
    let mut victim = Command::new(env::current_exe()?)
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut directory = String::new();
    BufReader::new(victim.stdout.take().ok_or("no output")?).read_line(&mut directory)?;
    let directory = PathBuf::from(directory.trim_end());
    assert!(processes_of(&directory)?.len() >= 3);
    victim.kill()?;
    victim.wait()?;
    let deadline = Instant::now() + PATIENCE;
    while directory.exists() || !processes_of(&directory)?.is_empty() {
        assert!(
            Instant::now() < deadline,
            "still there: {:?}",
            processes_of(&directory)?
        );
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn configuration_reaches_the_broker(broker: Broker) -> Outcome {
    let frame_max = broker
        .node
        .ctl(&["eval", "application:get_env(rabbit, frame_max)."])?;
    assert_eq!(frame_max.trim(), "{ok,4096}");
    Ok(())
}

fn paused_node_is_silent_until_resumed(broker: Broker) -> Outcome {
    broker.node.pause()?;
    let limit = Duration::from_secs(1);
    let error = greet_within(&broker.node, limit).expect_err("a paused broker does not answer");
    assert!(
        matches!(
            error.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        ),
        "{error}"
    );
    broker.node.resume()?;
    greet(&broker.node)?;
    Ok(())
}

fn node_comes_back_with_its_contents(broker: Broker) -> Outcome {
    let node = &broker.node;
    let (port, first) = (node.port(), node.pid());
    node.add_vhost("lasting")?;
    node.kill()?;
    assert_eq!(node.pid(), None);
    assert_eq!(
        greet(node).expect_err("nobody listens").kind(),
        io::ErrorKind::ConnectionRefused
    );
    node.pause().expect_err("there is nothing to pause");
    node.restart()?;
    let second = node.pid();
    greet(node)?;
    node.pause()?; // an orderly stop gets through to a paused broker
    node.restart()?;
    greet(node)?;
    assert_eq!(node.port(), port);
    assert_eq!(BTreeSet::from([first, second, node.pid()]).len(), 3);
    assert!(
        node.ctl(&["list_vhosts"])?
            .lines()
            .any(|line| line == "lasting")
    );
    Ok(())
}

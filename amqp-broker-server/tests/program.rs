//! The program from outside: its options, signals, listeners, log and page.

mod rig;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use amqp_tokio::{
    Connection, Options, connect, connect_with,
    core::dial::Address,
    protocol::{ReplyCode, basic, queue},
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use serde_json::json;
use tokio::{
    runtime::{Builder, Runtime},
    time,
};

use crate::rig::{Failure, Outcome, Program, until};

const ANY: &str = "127.0.0.1:0";

fn runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Declares a queue, and publishes with a confirm.
async fn works(connection: &Connection) -> Outcome {
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel
        .call(queue::Declare::default().queue("tasks"))
        .await?;
    let to_tasks = basic::Publish::default().routing_key("tasks");
    let confirm = channel
        .publish(&to_tasks, &basic::Properties::default(), "1")
        .await?;
    confirm.await?;
    Ok(())
}

#[test]
fn a_signal_closes_connections_with_320_and_ends_the_program() -> Outcome {
    for signal in ["TERM", "INT"] {
        let mut program = Program::start(&["--listen", ANY])?;
        runtime()?.block_on(async {
            let connection = connect(program.address(0)).await?;
            works(&connection).await?;
            program.signal(signal)?;
            let reason = connection.closed().await;
            let close = reason.by_peer().ok_or("closed by the client")?;
            assert_eq!(close.code, ReplyCode::CONNECTION_FORCED);
            assert_eq!(
                close.text,
                "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"
            );
            Ok::<_, Failure>(())
        })?;
        let (status, log) = program.ended()?;
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(
            log.contains(&format!("SIG{signal}: closing the connections")),
            "{log}"
        );
    }
    Ok(())
}

#[test]
fn a_client_that_does_not_answer_delays_the_end_and_a_second_signal_does_not_wait() -> Outcome {
    let (bounded, impatient) = (runtime()?, runtime()?);
    let mut programs = [
        Program::start(&["--listen", ANY])?,
        Program::start(&["--listen", ANY])?,
    ];
    // Nothing polls these connections any more.
    let _kept = [
        bounded.block_on(connect(programs[0].address(0)))?,
        impatient.block_on(connect(programs[1].address(0)))?,
    ];
    for program in &programs {
        program.signal("TERM")?;
    }
    thread::sleep(Duration::from_secs(1));
    assert!(programs[1].is_running()?);
    programs[1].signal("TERM")?;
    // That of a program that has not waited.
    let (status, _) = programs[1].ended()?;
    assert_eq!(status.code(), Some(1));

    let (status, log) = programs[0].ended()?;
    assert_eq!(status.code(), Some(0));
    assert!(
        log.contains("[warning] 1 connections did not close in time"),
        "{log}"
    );
    Ok(())
}

#[test]
fn connections_are_logged() -> Outcome {
    let program = Program::start(&["--listen", ANY, "--max-connections", "1"])?;
    let address = program.address(0).to_owned();
    runtime()?.block_on(async {
        let host = address.strip_prefix("amqp://").ok_or("no host")?;
        assert!(
            connect(&format!("amqp://guest:wrong@{host}"))
                .await
                .is_err()
        );
        // The program may still have the one that was refused.
        let mut attempts = 0;
        let connection = loop {
            match connect(&address).await {
                Ok(connection) => break connection,
                Err(error) if attempts == 1000 => return Err(error.into()),
                Err(_) => time::sleep(Duration::from_millis(10)).await,
            }
            attempts += 1;
        };
        assert!(connect(&address).await.is_err());
        connection.close().await?;
        Ok::<_, Failure>(())
    })?;
    let log = program.stop()?;
    for expected in [
        "[warning] connection 1 (127.0.0.1:",
        "): PLAIN login refused: user 'guest'",
        "): user 'guest' authenticated and granted access to vhost '/'",
        "refused: there are 1 connections already",
        "): closed by the peer: 200",
        "SIGTERM: closing the connections",
        "[info] stopped",
    ] {
        assert!(log.contains(expected), "{expected}: {log}");
    }
    assert!(!log.contains("[debug]"), "{log}");
    Ok(())
}

#[test]
fn the_log_can_be_quiet_or_verbose() -> Outcome {
    for (option, has_info, has_debug) in [("--quiet", false, false), ("-v", true, true)] {
        let program = Program::start(&["--listen", ANY, option])?;
        runtime()?.block_on(async {
            connect(program.address(0)).await?.close().await?;
            Ok::<_, Failure>(())
        })?;
        let log = program.stop()?;
        assert_eq!(log.contains("authenticated"), has_info, "{option}: {log}");
        assert_eq!(log.contains("accepted"), has_debug, "{option}: {log}");
    }
    Ok(())
}

#[test]
fn guest_is_warned_of_beyond_loopback() -> Outcome {
    let exposed = ["--listen", "0.0.0.0:0", "--http", "0.0.0.0:0", "-q"];
    let log = Program::start(&exposed)?.stop()?;
    assert!(
        log.contains("user 'guest' can log in from other hosts"),
        "{log}"
    );
    assert!(log.contains("the page needs no login"), "{log}");
    let own_user = ["--listen", "0.0.0.0:0", "--user", "me:secret", "-q"];
    assert_eq!(Program::start(&own_user)?.stop()?, "");
    assert_eq!(Program::start(&["--listen", ANY, "-q"])?.stop()?, "");
    Ok(())
}

#[test]
fn users_have_their_permissions() -> Outcome {
    let program = Program::start(&[
        "--listen",
        ANY,
        "--user",
        "me:se:cret",
        "--vhost",
        "mine",
        "--permissions",
        "me",
        "mine",
        "^tasks$",
        "",
        "",
    ])?;
    let host = program.address(0).trim_start_matches("amqp://").to_owned();
    runtime()?.block_on(async {
        assert!(connect(&format!("amqp://{host}")).await.is_err());
        assert!(
            connect(&format!("amqp://me:se%3Acret@{host}"))
                .await
                .is_err()
        );
        let connection = connect(&format!("amqp://me:se%3Acret@{host}/mine")).await?;
        let channel = connection.open_channel().await?;
        channel
            .call(queue::Declare::default().queue("tasks"))
            .await?;
        let other = channel.call(queue::Declare::default().queue("other")).await;
        let error = other.err().ok_or("declared")?;
        assert!(error.to_string().contains("ACCESS_REFUSED"), "{error}");
        connection.close().await?;
        Ok(())
    })
}

#[test]
fn definitions_take_the_place_of_guest() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("definitions.json");
    let definitions = json!({
        "vhosts": [{ "name": "shop" }],
        "users": [{ "name": "anna", "password": "secret", "tags": [] }],
        "permissions": [{
            "user": "anna", "vhost": "shop", "configure": "", "write": ".*", "read": ".*",
        }],
        "queues": [{ "name": "orders", "vhost": "shop", "durable": true }],
        "bindings": [{
            "source": "none", "vhost": "shop", "destination": "orders",
            "destination_type": "queue", "routing_key": "",
        }],
    });
    fs::write(&path, definitions.to_string())?;
    let path = path.display().to_string();
    let others = ["--user", "other:secret", "--vhost", "own"];
    let arguments = ["--listen", ANY, "--http", ANY, "--definitions", &path];
    let program = Program::start(&[&arguments[..], &others].concat())?;
    let host = program.address(0).trim_start_matches("amqp://").to_owned();
    runtime()?.block_on(async {
        assert!(connect(&format!("amqp://{host}")).await.is_err());
        for login in [
            "anna:secret@{}/shop",
            "other:secret@{}/shop",
            "other:secret@{}/own",
        ] {
            let uri = format!("amqp://{}", login.replace("{}", &host));
            connect(&uri).await?.close().await?;
        }
        Ok::<_, Failure>(())
    })?;
    let queues = program.json("/api/queues")?;
    assert_eq!(queues["queues"][0]["name"], "orders");
    let log = program.stop()?;
    assert!(log.contains("definitions.json: bindings[0]: "), "{log}");

    // They are the same at the next start, with the messages that were kept.
    let data = folder.path().join("data").display().to_string();
    let arguments = [&arguments[..], &["--data", &data]].concat();
    for ready in [0, 1] {
        let program = Program::start(&arguments)?;
        let queues = program.json("/api/queues")?;
        assert_eq!(queues["total"], 1, "{queues}");
        assert_eq!(queues["queues"][0]["ready"], ready);
        let host = program.address(0).trim_start_matches("amqp://");
        runtime()?.block_on(async {
            let connection = connect(&format!("amqp://anna:secret@{host}/shop")).await?;
            let channel = connection.open_channel().await?.confirm_select().await?;
            let to_orders = basic::Publish::default().routing_key("orders");
            let persistent = basic::Properties::default().delivery_mode(2);
            channel.publish(&to_orders, &persistent, "1").await?.await?;
            Ok::<_, Failure>(())
        })?;
        program.stop()?;
    }

    fs::write(&path, "{\"users\": 1}")?;
    let (code, _, errors) = Program::fail(&arguments)?;
    assert_eq!((code, errors.lines().count()), (Some(1), 1), "{errors}");
    assert!(errors.contains("definitions.json: users: "), "{errors}");
    let (code, _, errors) = Program::fail(&["--definitions", "/missing"])?;
    assert_eq!(code, Some(1));
    assert!(
        errors.starts_with("amqp-broker: cannot read /missing: "),
        "{errors}"
    );
    Ok(())
}

#[test]
fn durable_state_outlives_a_stop_and_a_crash() -> Outcome {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("new").display().to_string();
    let arguments = ["--listen", ANY, "--http", ANY, "--data", &data];
    let declare = |channel: amqp_tokio::ConfirmChannel, name: &'static str| async move {
        channel.call(queue::Declare::default().queue(name)).await?;
        let persistent = basic::Properties::default().delivery_mode(2);
        let to_queue = basic::Publish::default().routing_key(name);
        channel.publish(&to_queue, &persistent, name).await?.await?;
        let transient = basic::Properties::default();
        channel
            .publish(&to_queue, &transient, "gone")
            .await?
            .await?;
        Ok::<_, Failure>(())
    };
    for (round, end) in ["KILL", "TERM"].into_iter().enumerate() {
        let mut program = Program::start(&arguments)?;
        let queues = program.json("/api/queues")?;
        assert_eq!(queues["total"], round, "{queues}");
        let (code, _, errors) = Program::fail(&arguments)?;
        assert_eq!((code, errors.lines().count()), (Some(1), 1), "{errors}");
        assert!(errors.contains("is open already"), "{errors}");
        runtime()?.block_on(async {
            let connection = connect(program.address(0)).await?;
            let channel = connection.open_channel().await?.confirm_select().await?;
            declare(channel, ["killed", "stopped"][round]).await?;
            program.signal(end)?;
            connection.closed().await;
            Ok::<_, Failure>(())
        })?;
        program.ended()?;
    }
    let program = Program::start(&arguments)?;
    for name in ["killed", "stopped"] {
        let messages = program.json(&format!("/api/queues/%2F/{name}/messages"))?;
        let messages = messages["messages"].as_array().ok_or("no messages")?;
        assert_eq!(messages.len(), 1, "{messages:?}");
        assert_eq!(messages[0]["body"], name);
    }
    program.stop()?;
    let file = folder.path().join("file");
    fs::write(&file, "")?;
    let below = file.join("data").display().to_string();
    let (code, _, errors) = Program::fail(&["--listen", ANY, "--data", &below])?;
    assert_eq!(code, Some(1));
    assert!(
        errors.starts_with("amqp-broker: cannot create "),
        "{errors}"
    );
    Ok(())
}

#[cfg(unix)]
#[test]
fn a_unix_socket_replaces_one_that_was_left_behind_and_is_removed() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("amqp.sock");
    drop(std::os::unix::net::UnixListener::bind(&path)?);
    assert!(path.exists());
    let listen = format!("unix:{}", path.display());
    let program = Program::start(&["--listen", &listen, "--listen", ANY])?;
    assert_eq!(program.address(0), listen);
    let (code, _, errors) = Program::fail(&["--listen", &listen])?;
    assert_eq!(code, Some(1));
    assert!(
        errors.starts_with("amqp-broker: cannot listen on "),
        "{errors}"
    );
    runtime()?.block_on(async {
        let mut options = Options::default();
        options.addresses = vec![Address::unix(path.display().to_string())];
        let connection = connect_with(&options).await?;
        works(&connection).await?;
        connection.close().await?;
        Ok::<_, Failure>(())
    })?;
    program.stop()?;
    assert!(!path.exists());
    Ok(())
}

/// Writes `ca.pem`, and the certificates and keys of a server and a client with the name `guest`.
fn certificates(folder: &Path) -> Outcome {
    let named = |name: &str| {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, name);
        subject
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = named("an authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    fs::write(folder.join("ca.pem"), params.self_signed(&key)?.pem())?;
    let authority = Issuer::new(params, key);
    for (file, name, hosts) in [
        ("server", "broker", vec!["127.0.0.1".into()]),
        ("client", "guest", Vec::new()),
    ] {
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name = named(name);
        let key = KeyPair::generate()?;
        fs::write(
            folder.join(format!("{file}.pem")),
            params.signed_by(&key, &authority)?.pem(),
        )?;
        fs::write(folder.join(format!("{file}.key")), key.serialize_pem())?;
    }
    Ok(())
}

#[test]
fn clients_with_a_certificate_log_in_with_tls() -> Outcome {
    let folder = tempfile::tempdir()?;
    certificates(folder.path())?;
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (cert, key, ca) = (file("server.pem"), file("server.key"), file("ca.pem"));
    let arguments = [
        "--listen-tls",
        ANY,
        "--cert",
        &cert,
        "--key",
        &key,
        "--ca",
        &ca,
        "--verify-peer",
        "--login-from",
        "common-name",
        "--listen",
        ANY,
    ];
    let program = Program::start(&arguments)?;
    assert!(program.address(0).starts_with("amqps://127.0.0.1:"));
    let uri = format!("{}?cacertfile={ca}", program.address(0));
    let client = format!(
        "&certfile={}&keyfile={}",
        file("client.pem"),
        file("client.key")
    );
    runtime()?.block_on(async {
        assert!(connect(&uri).await.is_err());
        let connection = connect(&format!("{uri}{client}&auth_mechanism=external")).await?;
        works(&connection).await?;
        connection.close().await?;
        Ok::<_, Failure>(())
    })?;
    let log = program.stop()?;
    assert!(log.contains("user 'guest' authenticated"), "{log}");
    Ok(())
}

#[test]
fn wrong_options_end_it_with_2_and_a_failed_start_with_1() -> Outcome {
    let folder = tempfile::tempdir()?;
    certificates(folder.path())?;
    let file = |name: &str| folder.path().join(name).display().to_string();
    fs::write(file("empty"), "")?;
    let taken = TcpListener::bind(ANY)?;
    let taken = taken.local_addr()?.to_string();
    let (cert, key, other) = (file("server.pem"), file("server.key"), file("client.key"));
    let (missing, empty) = (file("missing"), file("empty"));
    let tls = |cert, key| ["--listen-tls", ANY, "--cert", cert, "--key", key];
    let cases: [(&[&str], i32, &str); 9] = [
        (&["--port", "5672"], 2, "there is no option --port"),
        (&["--listen"], 2, "missing argument for option '--listen'"),
        (&["--verify-peer"], 2, "options of TLS need --listen-tls"),
        (&["--listen", &taken], 1, "cannot listen on 127.0.0.1:"),
        (
            &["--listen", ANY, "--http", &taken],
            1,
            "Address already in use",
        ),
        (&tls(&missing, &key), 1, "No such file or directory"),
        (&tls(&cert, &empty), 1, "empty: no private key in PEM form"),
        (
            &tls(&key, &key),
            1,
            "server.key: no certificate in PEM form",
        ),
        (&tls(&cert, &other), 1, "with the key "),
    ];
    for (arguments, code, text) in cases {
        let (ended, out, errors) = Program::fail(arguments)?;
        assert_eq!(ended, Some(code), "{arguments:?}: {errors}");
        assert!(
            errors.starts_with("amqp-broker: ") && errors.contains(text),
            "{errors}"
        );
        let lines = if code == 2 { 2 } else { 1 };
        assert_eq!(
            (errors.lines().count(), out.as_str()),
            (lines, ""),
            "{errors}"
        );
    }
    let (code, out, errors) = Program::fail(&["--help"])?;
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(out.contains("Usage: amqp-broker [OPTION...]"));
    let (code, out, _) = Program::fail(&["-V"])?;
    assert_eq!(code, Some(0));
    assert_eq!(out, format!("amqp-broker {}\n", env!("CARGO_PKG_VERSION")));
    Ok(())
}

#[test]
fn the_page_is_json_too() -> Outcome {
    let program = Program::start(&["--listen", ANY, "--http", "0"])?;
    let _connection = runtime()?.block_on(async {
        let connection = connect(program.address(0)).await?;
        works(&connection).await?;
        let channel = connection.open_channel().await?;
        let to_tasks = basic::Publish::default().routing_key("tasks");
        let text = basic::Properties::default().content_type("text/plain");
        channel.publish(&to_tasks, &text, "é".repeat(3000)).await?;
        let plain = basic::Properties::default();
        channel.publish(&to_tasks, &plain, vec![0xff, 0]).await?;
        channel.call(queue::Declare::default().queue("a/b")).await?;
        let fetched = channel.get(basic::Get::default().queue("tasks")).await?;

        let page = program.json("/api/overview")?;
        assert_eq!(page["connections"], 1);
        assert_eq!(page["queues"], 2);
        assert_eq!(page["messages"]["published"], 3);
        assert_eq!(page["messages"]["ready"], 2);
        assert_eq!(page["messages"]["unacked"], 1);
        assert_eq!(page["listening"], json!([program.address(0)]));
        assert_eq!(page["memory"]["alarm"], false);
        let queues = program.json("/api/queues")?;
        assert_eq!(
            (&queues["total"], &queues["more"]),
            (&json!(2), &json!(false))
        );
        assert_eq!(queues["queues"][0]["name"], "a/b");
        let messages = json!({ "published": 3, "delivered": 1, "acked": 0 });
        assert_eq!(queues["queues"][1]["messages"], messages);
        let connections = program.json("/api/connections")?;
        let own = &connections["connections"][0];
        assert_eq!(
            (&own["user"], &own["product"]),
            (&json!("guest"), &json!("amqp-core"))
        );
        assert!(
            own["peer"]
                .as_str()
                .is_some_and(|it| it.starts_with("127.0.0.1:"))
        );
        let exchanges = program.json("/api/exchanges?contains=TOPIC")?;
        assert_eq!(exchanges["exchanges"][0]["name"], "amq.topic");
        let bindings = program.json("/api/exchanges/%2F/amq.topic/bindings")?;
        assert_eq!(bindings["bindings"], json!([]));
        fetched.ok_or("nothing fetched")?.ack()?;
        connection.flush().await?;
        Ok::<_, Failure>(connection)
    })?;
    let messages = program.json("/api/queues/%2F/tasks/messages?count=1")?;
    let first = &messages["messages"][0];
    assert_eq!(messages["messages"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&first["size"], &first["body_is_cut"]),
        (&json!(6000), &json!(true))
    );
    assert_eq!(first["body"].as_str().map(str::len), Some(4096));
    assert_eq!(first["properties"], json!({ "content_type": "text/plain" }));
    let messages = program.json("/api/queues/%2F/tasks/messages")?;
    let second = &messages["messages"][1];
    assert_eq!(
        (&second["body"], &second["body_encoding"]),
        (&json!("ff00"), &json!("hex"))
    );
    assert_eq!(program.get("/api/queues/%2F/a%2Fb/messages")?.status, 200);
    assert_eq!(program.get("/api/queues/%2F/none/messages")?.status, 404);
    until("rates", || {
        let rates = program.json("/api/overview")?["rates"]
            .as_array()
            .map(Vec::len);
        Ok((rates >= Some(2)).then_some(()))
    })
}

#[test]
fn the_page_is_for_this_host_and_changes_nothing() -> Outcome {
    let program = Program::start(&["--listen", ANY, "--http", ANY])?;
    let html = program.get("/")?;
    assert_eq!(html.status, 200);
    for header in [
        "content-security-policy: default-src 'none'; script-src 'self';",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "cache-control: no-store",
    ] {
        assert!(html.head.contains(header), "{header}: {}", html.head);
    }
    assert!(!html.head.contains("access-control-allow"));
    for path in ["/page.css", "/page.js", "/favicon.ico"] {
        assert_eq!(program.get(path)?.status, 200, "{path}");
    }
    assert_eq!(
        program
            .request("GET", "/api/overview", "evil.example")?
            .status,
        421
    );
    assert_eq!(program.request("GET", "/", "127.0.0.1:1")?.status, 200);
    let refused = program.request("DELETE", "/api/queues", "localhost")?;
    assert_eq!(refused.status, 405);
    assert!(refused.head.contains("allow: get, head"));
    assert_eq!(program.get("/api/none")?.status, 404);
    Ok(())
}

#[test]
fn slow_readers_of_the_page_do_not_keep_it_from_others() -> Outcome {
    let program = Program::start(&["--listen", ANY, "--http", ANY])?;
    let silent: Vec<TcpStream> = (0..32)
        .map(|_| TcpStream::connect(("127.0.0.1", program.page_port())))
        .collect::<Result<_, _>>()?;
    let start = Instant::now();
    // Waits for one of those to be closed for its silence.
    assert_eq!(program.get("/api/overview")?.status, 200);
    // It is two seconds of silence, and the delay of a busy machine.
    assert!(start.elapsed() > Duration::from_secs(1));
    assert!(start.elapsed() < Duration::from_secs(30));
    drop(silent);
    let mut stream = TcpStream::connect(("127.0.0.1", program.page_port()))?;
    // It is closed at the limit of a request, which may be before all is written.
    let _closed = stream.write_all(&[b'x'; 100_000]);
    let mut answer = Vec::new();
    let _ended = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    Ok(())
}

/// Systems start programs with a limit of 1024 open files, and allow more.
#[cfg(target_os = "linux")]
#[test]
fn the_limit_of_open_files_is_raised() -> Outcome {
    let script = "ulimit -Sn 64; exec \"$0\" --listen 127.0.0.1:0 --quiet";
    let mut child = std::process::Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_amqp-broker")])
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)?;
    let limits = fs::read_to_string(format!("/proc/{}/limits", child.id()));
    child.kill()?;
    child.wait()?;
    let limits = limits?;
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let mut numbers = files.ok_or("no limit")?.split_whitespace().skip(3);
    let (soft, hard) = (numbers.next(), numbers.next());
    assert!(soft.is_some() && soft == hard, "{limits}");
    Ok(())
}

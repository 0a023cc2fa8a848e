//! `broker`, `proxy`, `bench` and `ping`.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use amqp_tests::harness::Outcome;

use crate::rig::{Place, Running, embedded, end, program, until, wait};

pub(crate) fn a_ping_names_the_broker(place: &Place) -> Outcome {
    let lines = place
        .run(&["ping", "-c", "2", "--interval", "0"])?
        .lines()?;
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("logged in at RabbitMQ "), "{lines:?}");
    assert!(lines[2].starts_with("round trip 2: "), "{lines:?}");
    Ok(())
}

pub(crate) fn a_bench_has_rates(place: &Place) -> Outcome {
    let arguments = [
        "bench",
        "-m",
        "3000",
        "--publishers",
        "2",
        "--consumers",
        "2",
    ];
    let lines = place.run(&arguments)?.lines()?;
    for (line, start) in lines.iter().zip([
        "published  3000 messages in",
        "confirmed  after",
        "consumed   3000",
        "delivered  after",
    ]) {
        assert!(line.starts_with(start), "{lines:?}");
    }
    let json = place.good(&[
        "bench",
        "-m",
        "500",
        "--size",
        "0",
        "--consumers",
        "0",
        "--json",
    ])?;
    assert!(
        json.contains(r#""messages":500"#) && !json.contains("consumed"),
        "{json}"
    );
    place.good(&[
        "bench",
        "-m",
        "500",
        "--no-confirm",
        "-A",
        "--type",
        "quorum",
    ])?;
    Ok(())
}

pub(crate) fn a_broker_is_served_and_keeps_its_data() -> Outcome {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data").display().to_string();
    let arguments = [
        "broker",
        "--listen",
        "127.0.0.1:0",
        "--user",
        "me:secret",
        "--vhost",
        "staging",
        "--data",
        &data,
    ];
    for round in 0..2 {
        let mut broker = Running::start(program(&arguments))?;
        let line = broker.line()?;
        let address = line
            .strip_prefix("listening on amqp://")
            .ok_or("no address")?;
        let place = Place {
            url: format!("amqp://me:secret@{address}/staging"),
        };
        if round == 0 {
            place.good(&["declare", "queue", "q"])?;
            place.good(&["publish", "-r", "q", "-b", "kept"])?;
        } else {
            assert_eq!(place.good(&["get", "q"])?, "kept");
        }
        let guest = program(&["ping", "-u", &format!("amqp://{address}")]);
        end(guest, b"")?.fails(4, "ACCESS_REFUSED")?;
        let taken = program(&["broker", "--listen", address]);
        end(taken, b"")?.fails(1, "cannot listen on")?;
        broker.signal("INT")?;
        assert_eq!(broker.ended()?.0, Some(0));
    }
    end(program(&["broker", "--user", "none"]), b"")?.fails(2, "not NAME:PASSWORD")
}

pub(crate) fn a_proxy_shows_frames_without_secrets() -> Outcome {
    let (_broker, place) = embedded()?;
    let mut proxy =
        Running::start(place.command(&["proxy", "--listen", "127.0.0.1:0", "--no-heartbeats"]))?;
    let line = proxy.line()?;
    let address = line
        .strip_prefix("listening on amqp://")
        .and_then(|it| it.split(',').next());
    let address = address.ok_or("no address")?;
    let through = Place {
        url: format!("amqp://guest:guest@{address}/embedded"),
    };
    through.good(&["declare", "queue", "q"])?;
    through.good(&[
        "publish",
        "-r",
        "q",
        "-H",
        "token: hunter2",
        "-b",
        "hunter2",
    ])?;
    assert_eq!(through.good(&["get", "q"])?, "hunter2");
    let mut lines = Vec::new();
    for expected in [
        "1 client -> AMQP 0-9-1",
        "1 broker -> connection.start ",
        "1 client -> connection.start-ok ",
        "1 client -> channel 1: queue.declare queue=\"q\" durable",
        "2 client -> channel 1: basic.publish exchange=\"\" routing-key=\"q\" mandatory",
        "2 client -> channel 1: header, 7 bytes of body, ",
        "2 client -> channel 1: body, 7 bytes",
        "2 broker -> channel 1: basic.ack delivery-tag=1",
        "3 broker -> channel 1: basic.get-ok ",
        "3 client -> (end)",
    ] {
        loop {
            let line = proxy
                .line()
                .map_err(|error| format!("{expected}: {error}: {lines:#?}"))?;
            let is_expected = line.contains(expected);
            lines.push(line);
            if is_expected {
                break;
            }
        }
    }
    let all = lines.concat();
    assert!(all.contains("response=(secret)"), "{lines:#?}");
    assert!(!all.contains("hunter2"), "{lines:#?}");
    proxy.signal("INT")?;
    assert_eq!(proxy.ended()?.0, Some(0));

    let shown = [
        "proxy",
        "--listen",
        "127.0.0.1:0",
        "--once",
        "--properties",
        "--bodies=80",
    ];
    let mut proxy = Running::start(place.command(&shown))?;
    let line = proxy.line()?;
    let address = line
        .strip_prefix("listening on amqp://")
        .and_then(|it| it.split(',').next());
    let through = Place {
        url: format!(
            "amqp://guest:guest@{}/embedded",
            address.ok_or("no address")?
        ),
    };
    through.good(&["publish", "-r", "q", "-H", "n: 1", "-b", "apples"])?;
    proxy.line_with(r#"headers={"n":"1"}"#)?;
    proxy.line_with("body, 6 bytes: apples")?;
    assert_eq!(proxy.ended()?.0, Some(0));
    Ok(())
}

pub(crate) fn a_signal_ends_a_proxy_whose_output_is_not_read() -> Outcome {
    let (_broker, place) = embedded()?;
    let mut command = place.command(&["proxy", "--listen", "127.0.0.1:0", "--bodies=256"]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut proxy = command.spawn()?;
    let mut out = BufReader::new(proxy.stdout.take().ok_or("no output")?);
    let mut line = String::new();
    out.read_line(&mut line)?;
    let address = line
        .strip_prefix("listening on amqp://")
        .and_then(|it| it.split(',').next());
    let through = format!(
        "amqp://guest:guest@{}/embedded",
        address.ok_or("no address")?
    );
    // More than a pipe takes, on more connections than there are threads.
    place.good(&["declare", "queue", "q"])?;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = Running::start(program(&["publish", "-u", &through, "-r", "q", "-l"]))?;
        client.flood("0123456789 0123456789 0123456789 0123456789\n")?;
        clients.push(client);
    }
    // They come to a halt with the output.
    let mut count = 0;
    let mut same = 0;
    until(|| {
        let before = std::mem::replace(&mut count, place.messages("q")?);
        same = if count > 0 && before == count {
            same + 1
        } else {
            0
        };
        Ok(same == 3)
    })?;
    let pid = proxy.id().to_string();
    std::process::Command::new("kill")
        .args(["-s", "INT", &pid])
        .status()?;
    assert_eq!(wait(&mut proxy)?.code(), Some(0));
    Ok(())
}

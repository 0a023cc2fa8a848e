//! Connections with TLS.

use amqp_tests::{Clients, Embedded, harness::Outcome};

use crate::rig::{Place, Running, end, program};

pub(crate) fn brokers_are_verified_and_proxied() -> Outcome {
    let broker = Embedded::start_with_tls(|_| (), Clients::Anyone)?;
    let certificates = broker.certificates().ok_or("no certificates")?;
    let file = |name| certificates.path(name);
    let port = broker.address().port().to_string();
    let secure = Place {
        url: format!("amqps://guest:guest@127.0.0.1:{port}/embedded"),
    };
    let (ca, cert, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    let other = file("other-ca.pem");
    secure
        .run(&["ping", "--cacert", &other])?
        .fails(4, "no TLS with 127.0.0.1")?;
    secure.good(&["ping", "--cacert", &ca])?;
    secure.good(&["ping", "--cacert", &ca, "--cert", &cert, "--key", &key])?;
    secure.run(&["ping", "--cert", &cert])?.fails(2, "--key")?;
    secure
        .run(&["ping", "--cacert", "/no/ca.pem"])?
        .fails(2, "/no/ca.pem")?;
    let options = [
        "ping",
        "-s",
        "127.0.0.1",
        "--port",
        &port,
        "--ssl",
        "--cacert",
        &ca,
    ];
    end(
        program(&[&options[..], &["--vhost", "embedded"]].concat()),
        b"",
    )?
    .good()?;
    end(
        program(&["ping", "-s", "127.0.0.1", "--port", &port, "--cacert", &ca]),
        b"",
    )?
    .fails(2, "certificates are for TLS")?;

    // A client without TLS, by way of the proxy.
    let arguments = ["proxy", "--listen", "127.0.0.1:0", "--cacert", &ca];
    let mut proxy = Running::start(secure.command(&arguments))?;
    let through = through(&proxy.line()?)?;
    through.good(&["declare", "queue", "q"])?;
    proxy.line_with("client -> channel 1: queue.declare queue=\"q\" durable")?;
    proxy.line_with("broker -> channel 1: queue.declare-ok")?;
    proxy.signal("TERM")?;
    assert_eq!(proxy.ended()?.0, Some(0));

    // One that does not trust the broker.
    let proxy =
        Running::start(secure.command(&["proxy", "--listen", "127.0.0.1:0", "--cacert", &other]))?;
    let refused = self::through(&proxy.line()?)?;
    refused.run(&["ping"])?.fails(4, "")?;
    proxy.line_with("(no broker: 127.0.0.1:")?;
    Ok(())
}

/// The broker of the first line of a proxy.
fn through(line: &str) -> Result<Place, amqp_tests::harness::Failure> {
    let address = line
        .strip_prefix("listening on amqp://")
        .and_then(|it| it.split(',').next());
    let address = address.ok_or("no address")?;
    Ok(Place {
        url: format!("amqp://guest:guest@{address}/embedded"),
    })
}

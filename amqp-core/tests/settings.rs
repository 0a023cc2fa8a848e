//! Settings are open to additions, and yet can be made in one expression from outside.

use std::time::Duration;

use amqp_core::{
    ApiMisuse, Instant, Limits, Timeouts,
    client::{self, Checks},
    sasl::External,
    server,
    uri::{ServerNameIndication, TlsParameters, Verify},
    wire::FieldTable,
};

fn limits() -> Limits {
    Limits::default()
        .body(1)
        .unlimited_frame(5000)
        .unlimited_chunk(3)
        .output_high(5)
        .output_low(4)
        .unconfirmed(6)
        .empty_frames(7)
}

fn timeouts() -> Timeouts {
    Timeouts::default()
        .handshake(Duration::from_secs(1))
        .close(Duration::from_secs(2))
        .request(Duration::from_secs(3))
}

fn properties() -> FieldTable {
    FieldTable::new().with("product", "test")
}

#[test]
fn each_builder_of_limits_and_timeouts_sets_its_field() {
    let mut expected = Limits::default();
    expected.body = 1;
    expected.unlimited_frame = 5000;
    expected.unlimited_chunk = 3;
    expected.output_high = 5;
    expected.output_low = 4;
    expected.unconfirmed = 6;
    expected.empty_frames = 7;
    assert_eq!(limits(), expected);

    let mut expected = Timeouts::default();
    expected.handshake = Duration::from_secs(1);
    expected.close = Duration::from_secs(2);
    expected.request = Some(Duration::from_secs(3));
    assert_eq!(timeouts(), expected);
    assert_eq!(timeouts().request(None).request, None);
}

#[test]
fn each_builder_of_a_client_sets_its_field() {
    let config = client::Config::default()
        .virtual_host("staging")
        .mechanisms(vec![Box::new(External::new())])
        .locale("de_DE")
        .properties(properties())
        .channel_max(1)
        .frame_max(2)
        .heartbeat(3)
        .checks(Checks::Standard)
        .limits(limits())
        .timeouts(timeouts());
    let mut expected = client::Config::default();
    expected.virtual_host = "staging".try_into().unwrap();
    expected.mechanisms = vec![Box::new(External::new())];
    expected.locale = "de_DE".try_into().unwrap();
    expected.properties = properties();
    expected.channel_max = 1;
    expected.frame_max = 2;
    expected.heartbeat = Some(3);
    expected.checks = Checks::Standard;
    expected.limits = limits();
    expected.timeouts = timeouts();
    assert_eq!(format!("{config:?}"), format!("{expected:?}"));

    let long = "x".repeat(256);
    for config in [
        client::Config::default().virtual_host(&long),
        client::Config::default().locale(&long),
        client::Config::default().properties(FieldTable::new().with(&long, 1)),
    ] {
        let refused = client::Connection::new(config, Instant::ORIGIN);
        assert!(matches!(refused, Err(ApiMisuse::Config { .. })));
    }
}

#[test]
fn each_builder_of_a_server_sets_its_field() {
    let config = server::Config::default()
        .properties(properties())
        .mechanisms("EXTERNAL")
        .locales("de_DE")
        .channel_max(1)
        .frame_max(2)
        .frame_min(3)
        .heartbeat(4)
        .limits(limits())
        .timeouts(timeouts());
    let mut expected = server::Config::default();
    expected.properties = properties();
    expected.mechanisms = "EXTERNAL".into();
    expected.locales = "de_DE".into();
    expected.channel_max = 1;
    expected.frame_max = 2;
    expected.frame_min = 3;
    expected.heartbeat = 4;
    expected.limits = limits();
    expected.timeouts = timeouts();
    assert_eq!(format!("{config:?}"), format!("{expected:?}"));
}

#[test]
fn each_builder_of_tls_parameters_sets_its_field() {
    let name = ServerNameIndication::Name("b".into());
    let parameters = TlsParameters::default()
        .cacertfile("ca")
        .certfile("cert")
        .keyfile("key")
        .verify(Verify::Peer)
        .server_name_indication(name.clone());
    let mut expected = TlsParameters::default();
    expected.cacertfile = Some("ca".into());
    expected.certfile = Some("cert".into());
    expected.keyfile = Some("key".into());
    expected.verify = Some(Verify::Peer);
    expected.server_name_indication = Some(name);
    assert_eq!(parameters, expected);
}

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::ToString;

use proptest::prelude::*;

use super::parse::Value;
use super::*;
use crate::Instant;
use crate::client::{self, Config};

mod bad;

fn uri(text: &str) -> Uri {
    match text.parse() {
        Ok(uri) => uri,
        Err(error) => panic!("{text}: {error}"),
    }
}

/// The parts of a URI: scheme, user name, password, host, port, virtual host.
type Row<'a> = (Scheme, &'a str, &'a str, &'a str, u16, &'a str);

fn check(text: &str, row: Row<'_>) {
    let uri = uri(text);
    let (username, password) = uri.login();
    let password = core::str::from_utf8(password.expose()).unwrap();
    let (scheme, vhost) = (uri.scheme, uri.vhost.as_str());
    let [Address::Tcp { host, port }] = &uri.addresses[..] else {
        panic!("{text}: {:?}", uri.addresses);
    };
    assert_eq!(
        (scheme, username, password, host.as_str(), *port, vhost),
        row,
        "{text}"
    );
}

#[test]
fn a_uri_in_full() {
    use Scheme::Amqp;
    check(
        "amqp://tom:pass@example.com:7777/myvhost",
        (Amqp, "tom", "pass", "example.com", 7777, "myvhost"),
    );
}

#[test]
fn another_scheme_is_named() {
    let error = "invalid://".parse::<Uri>().unwrap_err();
    assert_eq!(error, UriError::UnknownScheme("invalid".into()));
    assert_eq!(
        error.to_string(),
        "the scheme `invalid` is neither `amqp` nor `amqps`"
    );
}

/// The table has puka's 16 kinds of URIs. A slash without text after it names the virtual host `/`
/// (rows 2, 8 and 11), unlike in RabbitMQ's specification. The port of `amqps` is 5671, not 5672
/// (row 15).
#[test]
fn every_kind_of_uri() {
    use Scheme::{Amqp, Amqps};
    for (text, row) in [
        ("amqp://", (Amqp, "guest", "guest", "localhost", 5672, "/")),
        ("amqp:///", (Amqp, "guest", "guest", "localhost", 5672, "/")),
        ("amqp://a:b@c:1/d", (Amqp, "a", "b", "c", 1, "d")),
        (
            "amqp://g%20uest:p%20ass@host/vho%20st",
            (Amqp, "g uest", "p ass", "host", 5672, "vho st"),
        ),
        ("amqp://host", (Amqp, "guest", "guest", "host", 5672, "/")),
        (
            "amqp://host/%2f",
            (Amqp, "guest", "guest", "host", 5672, "/"),
        ),
        (
            "amqp://host/%2F%2f",
            (Amqp, "guest", "guest", "host", 5672, "//"),
        ),
        ("amqp://host/", (Amqp, "guest", "guest", "host", 5672, "/")),
        (
            "amqp://user:pass@host:10000/vhost",
            (Amqp, "user", "pass", "host", 10_000, "vhost"),
        ),
        (
            "amqp://user%61:%61pass@ho%61st:10000/v%2fhost",
            (Amqp, "usera", "apass", "hoast", 10_000, "v/host"),
        ),
        ("amqp://:@/", (Amqp, "", "", "localhost", 5672, "/")),
        (
            "amqp://user@",
            (Amqp, "user", "guest", "localhost", 5672, "/"),
        ),
        ("amqp://user:@", (Amqp, "user", "", "localhost", 5672, "/")),
        ("amqp://[::1]", (Amqp, "guest", "guest", "::1", 5672, "/")),
        (
            "amqps://user:pass@host/vhost",
            (Amqps, "user", "pass", "host", 5671, "vhost"),
        ),
        (
            "amqp:///vhost",
            (Amqp, "guest", "guest", "localhost", 5672, "vhost"),
        ),
        (
            "amqp://u%2f%40:1%2f%40@host/v:1%40",
            (Amqp, "u/@", "1/@", "host", 5672, "v:1@"),
        ),
    ] {
        check(text, row);
    }
}

#[test]
fn a_slash_with_nothing_behind_it_is_the_virtual_host_slash() {
    for text in [
        "amqp:///",
        "amqp://host/",
        "amqp://:@/",
        "amqps://host/?heartbeat=5",
        "amqp://host/%2f",
        "amqp://host",
    ] {
        assert_eq!(uri(text).vhost, "/", "{text}");
        let config = Config::from_uri(&uri(text)).unwrap();
        assert_eq!(config.virtual_host, "/", "{text}");
    }
    // The empty name is set with the option.
    let config = Config {
        virtual_host: ShortStr::default(),
        ..Config::default()
    };
    assert!(client::Connection::new(config, Instant::ORIGIN).is_ok());
}

#[test]
fn a_missing_part_is_not_an_empty_part() {
    assert_eq!(uri("amqp://"), Uri::default());
    assert_eq!(uri("amqp://@").username.as_deref(), Some(""));
    assert_eq!(uri("amqp://@").password, None);
    assert_eq!(uri("amqp://u:@").password, Some(Secret::new()));
    assert_eq!(Uri::try_from("amqp://u@"), Ok(uri("amqp://u@")));
    // A password is bytes, not text.
    assert_eq!(
        uri("amqp://u:%ff%00@").password.unwrap().expose(),
        b"\xff\0"
    );
}

#[test]
fn hosts_and_ports() {
    for (text, host, port) in [
        ("amqp://:10000", "localhost", 10_000),
        ("amqp://host:", "host", 5672),
        ("amqps://host:5672", "host", 5672),
        ("AMQPS://host", "host", 5671),
        ("amqp://127.0.0.1:1", "127.0.0.1", 1),
        ("amqp://h:00065535", "h", 65_535),
        ("amqp://[::1]:5673/", "::1", 5673),
        ("amqp://u:p@[2001:db8::7]", "2001:db8::7", 5672),
        ("amqp://[::ffff:10.0.0.1]:", "::ffff:10.0.0.1", 5672),
        ("amqp://[fe80::1%25eth0]:1", "fe80::1%eth0", 1),
        ("amqp://r%C3%A4bbit", "räbbit", 5672),
        ("amqp://a!$&'()*+;=-._~", "a!$&'()*+;=-._~", 5672),
        ("amqp://a%2Cb", "a,b", 5672),
        ("amqp://u:p,q@h:1", "h", 1),
    ] {
        assert_eq!(uri(text).addresses, [Address::tcp(host, port)], "{text}");
    }
}

#[test]
fn several_hosts() {
    let tcp = |host: &str, port| Address::tcp(host, port);
    for (text, addresses) in [
        (
            "amqp://user:pw@host1:5672,host2,[::1]:5673/vhost?heartbeat=5",
            &[tcp("host1", 5672), tcp("host2", 5672), tcp("::1", 5673)][..],
        ),
        ("amqps://a,b:1", &[tcp("a", 5671), tcp("b", 1)]),
        ("amqp://b,a", &[tcp("b", 5672), tcp("a", 5672)]),
        ("amqp://a,a:,a:5672", &[5672; 3].map(|port| tcp("a", port))),
        (
            "amqp://[fe80::1%25eth0],127.0.0.1:1/",
            &[tcp("fe80::1%eth0", 5672), tcp("127.0.0.1", 1)],
        ),
        ("amqp://a,b@c,d", &[tcp("c", 5672), tcp("d", 5672)]),
    ] {
        assert_eq!(uri(text).addresses, addresses, "{text}");
    }
    let shown = uri("amqp://u:p@one,[::1]:5,[fe80::1%25e]/v").to_string();
    assert_eq!(
        shown,
        "amqp://u:<hidden>@one:5672,[::1]:5,[fe80::1%25e]:5672/v"
    );
}

/// A Unix socket has no URI, so that its display form is not a URI.
#[test]
fn a_unix_socket_is_not_shown_as_a_host() {
    let addresses = vec![Address::unix("/run/x y")];
    let shown = Uri {
        addresses,
        ..Uri::default()
    };
    assert_eq!(shown.to_string(), "amqp://<unix:/run/x%20y>/%2f");
    assert!(shown.to_string().parse::<Uri>().is_err());
}

#[test]
fn tls_parameters() {
    let text = "amqps://h:5671/%2f?cacertfile=/etc/ca.pem&certfile=/my%20own/cert.pem\
                &keyfile=C%3a%5ckey.pem&verify=verify_peer&server_name_indication=myhost";
    let all = uri(&text.replace("%3a", ":"));
    let expected = TlsParameters {
        cacertfile: Some("/etc/ca.pem".to_owned()),
        certfile: Some("/my own/cert.pem".to_owned()),
        keyfile: Some(r"C:\key.pem".to_owned()),
        verify: Some(Verify::Peer),
        server_name_indication: Some(ServerNameIndication::Name("myhost".to_owned())),
    };
    assert_eq!(all.tls, expected);
    assert_eq!(all.to_string(), text);

    let some = uri("amqps://h?verify=verify%5fnone&server_name_indication=disable").tls;
    assert_eq!(some.verify, Some(Verify::None));
    assert_eq!(
        some.server_name_indication,
        Some(ServerNameIndication::Disabled)
    );
    assert!(!some.is_empty());
    assert!(uri("amqps://h?heartbeat=1").tls.is_empty());
    // A CA certificate needs no other parameter.
    assert_eq!(
        uri("amqps://h?cacertfile=ca").tls.cacertfile.as_deref(),
        Some("ca")
    );
}

#[test]
fn parameters() {
    let all = uri(
        "amqp://h?heartbeat=0&connection_timeout=10000&channel_max=2047&frame_max=4294967295\
         &auth_mechanism=plain&auth_mechanism=amqplain",
    );
    assert_eq!(all.heartbeat, Some(0));
    assert_eq!(all.connection_timeout, Some(Duration::from_secs(10)));
    assert_eq!(all.channel_max, Some(2047));
    assert_eq!(all.frame_max, Some(u32::MAX));
    assert_eq!(all.auth_mechanisms, ["PLAIN", "AMQPLAIN"]);
    assert_eq!(all.vhost, "/");

    let some = uri("amqps:///?heartbeat=%36%30&auth_mechanism=RABBIT-CR-DEMO");
    assert_eq!(some.heartbeat, Some(60));
    assert_eq!(some.auth_mechanisms, ["RABBIT-CR-DEMO"]);
    assert_eq!(some.vhost, "/");
    assert_eq!(uri("amqp://h?"), uri("amqp://h"));
    // A slash in the query does not begin a virtual host, and is not part of a number.
    assert_eq!(
        "amqp://h?heartbeat=1/v".parse::<Uri>(),
        Err(UriError::ParameterValue {
            name: "heartbeat",
            expected: u16::EXPECTED
        })
    );
}

#[test]
fn a_uri_never_shows_the_password() {
    let uri = uri("amqp://us%20er:hunter2@[::1]/a%2fb?auth_mechanism=plain&heartbeat=5");
    let shown = uri.to_string();
    assert_eq!(
        shown,
        "amqp://us%20er:<hidden>@[::1]:5672/a%2fb?heartbeat=5&auth_mechanism=PLAIN"
    );
    // The display form does not parse.
    assert_eq!(
        shown.parse::<Uri>(),
        Err(UriError::Password(TextFault::Character))
    );
    let shown = format!("{uri:?} {uri:#?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

fn any_host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z.]{1,12}",
        ".{1,9}",
        Just("::1".to_owned()),
        Just("fe80::1%e n".to_owned()),
        Just("fe80::1%".to_owned())
    ]
}

fn any_tls() -> impl Strategy<Value = TlsParameters> {
    let path = || ".{1,9}";
    let verify = prop_oneof![Just(Verify::Peer), Just(Verify::None)];
    // No generated name is as long as `disable`, which would have another meaning.
    let name = prop_oneof![
        Just(ServerNameIndication::Disabled),
        ".{1,6}".prop_map(ServerNameIndication::Name)
    ];
    (
        proptest::option::of(path()),
        proptest::option::of((path(), path())),
        proptest::option::of(verify),
        proptest::option::of(name),
    )
        .prop_map(|(cacertfile, pair, verify, server_name_indication)| {
            let (certfile, keyfile) = pair.unzip();
            TlsParameters {
                cacertfile,
                certfile,
                keyfile,
                verify,
                server_name_indication,
            }
        })
}

fn any_uri() -> impl Strategy<Value = Uri> {
    let security = prop_oneof![
        Just((Scheme::Amqp, TlsParameters::default())),
        any_tls().prop_map(|tls| (Scheme::Amqps, tls))
    ];
    let address = (any_host(), 1_u16..).prop_map(|(host, port)| Address::Tcp { host, port });
    let place = (
        security,
        proptest::collection::vec(address, 1..4),
        ".{1,20}",
    );
    let limits = (
        any::<Option<u16>>(),
        any::<Option<u16>>(),
        any::<Option<u32>>(),
    );
    let rest = (
        proptest::option::of(".{0,9}"),
        proptest::option::of(1_u64..),
        proptest::collection::vec("[A-Z0-9_-]{1,20}", 0..3),
    );
    (place, limits, rest).prop_map(|(place, limits, rest)| {
        let ((scheme, tls), addresses, vhost) = place;
        let (heartbeat, channel_max, frame_max) = limits;
        let (username, timeout, auth_mechanisms) = rest;
        Uri {
            scheme,
            addresses,
            username,
            password: None,
            vhost: vhost.parse().unwrap(),
            heartbeat,
            connection_timeout: timeout.map(Duration::from_millis),
            channel_max,
            frame_max,
            auth_mechanisms,
            tls,
        }
    })
}

/// Generates text from the parts of URIs, which is usually a valid URI.
fn pieces() -> impl Strategy<Value = String> {
    let host = || prop::sample::select(&["", "h", "a.b:1", "[::1]", "[fe80::1%25e]:7", "h%2c:"]);
    let login = prop::sample::select(&["", "u@", "u:p@", ":@", "a,b:c,d@", "u%25:%@"]);
    let vhost = prop::sample::select(&["", "/", "/v", "/%2f", "/a:b%40c", "/%ff"]);
    let parameter = prop::sample::select(&[
        "heartbeat=5",
        "connection_timeout=70",
        "channel_max=%31",
        "frame_max=0",
        "auth_mechanism=plain",
        "auth_mechanism=X-y",
        "cacertfile=/a/b%26",
        "certfile=c:/%25",
        "keyfile=k&certfile=c",
        "verify=verify_none",
        "server_name_indication=disable",
        "server_name_indication=x.y",
        "",
    ]);
    (
        prop::sample::select(&["amqp://", "amqps://", "AMQPS://"]),
        login,
        prop::collection::vec(host(), 1..4),
        vhost,
        prop::collection::vec(parameter, 0..4),
    )
        .prop_map(|(scheme, login, hosts, vhost, parameters)| {
            let (hosts, query) = (hosts.join(","), parameters.join("&"));
            let mark = if query.is_empty() { "" } else { "?" };
            format!("{scheme}{login}{hosts}{vhost}{mark}{query}")
        })
}

/// Checks that the display form is the same URI, except for the password.
fn check_shown(text: &str) -> Result<(), TestCaseError> {
    if let Ok(mut uri) = text.parse::<Uri>() {
        uri.password = None;
        prop_assert!(!uri.addresses.is_empty(), "{}", text);
        prop_assert_eq!(uri.to_string().parse::<Uri>(), Ok(uri), "{}", text);
    }
    Ok(())
}

proptest! {
    #[test]
    fn uris_round_trip(uri in any_uri()) {
        prop_assert_eq!(uri.to_string().parse::<Uri>(), Ok(uri));
    }

    #[test]
    fn passwords_are_decoded(password in proptest::collection::vec(any::<u8>(), 0..20)) {
        let encoded: String = password.iter().map(|byte| format!("%{byte:02X}")).collect();
        let uri = uri(&format!("amqp://u:{encoded}@h"));
        let decoded = uri.password.unwrap();
        prop_assert_eq!(decoded.expose(), &password[..]);
    }

    /// No input causes a panic, and every display form parses to the same URI.
    #[test]
    fn any_text(
        text in ".{0,40}",
        rest in r"[\]\[:/?#@%a0&=,]{0,20}",
        pieces in pieces(),
    ) {
        check_shown(&text)?;
        check_shown(&format!("amqp://{text}"))?;
        check_shown(&format!("amqp://{rest}"))?;
        check_shown(&format!("amqps://u:p@h/v?{rest}"))?;
        check_shown(&format!("amqps://u:p@h?certfile={rest}&keyfile={text}"))?;
        check_shown(&pieces)?;
    }
}

use alloc::string::ToString;
use alloc::{format, vec};

use proptest::prelude::*;

use super::*;

fn uri(text: &str) -> Uri {
    match text.parse() {
        Ok(uri) => uri,
        Err(error) => panic!("{text}: {error}"),
    }
}

/// What a URI says: scheme, user name, password, host, port, virtual host.
type Row<'a> = (Scheme, &'a str, &'a str, &'a str, u16, &'a str);

fn check(text: &str, row: Row<'_>) {
    let uri = uri(text);
    let (username, password) = uri.login();
    let password = core::str::from_utf8(password.expose()).unwrap();
    assert_eq!(
        (
            uri.scheme,
            username,
            password,
            uri.host.as_str(),
            uri.port,
            uri.vhost.as_str()
        ),
        row,
        "{text}"
    );
}

#[test]
fn tri_07_a_uri_in_full() {
    use Scheme::Amqp;
    check(
        "amqp://tom:pass@example.com:7777/myvhost",
        (Amqp, "tom", "pass", "example.com", 7777, "myvhost"),
    );
}

#[test]
fn tri_08_another_scheme_is_named() {
    let error = "invalid://".parse::<Uri>().unwrap_err();
    assert_eq!(error, UriError::UnknownScheme("invalid".into()));
    assert_eq!(
        error.to_string(),
        "the scheme `invalid` is neither `amqp` nor `amqps`"
    );
}

/// The table has puka's 16 kinds of URIs. Where puka differs from RabbitMQ's specification, the
/// specification wins: a slash with nothing behind it names the virtual host with the empty name,
/// not `/` (rows 2, 8 and 11), and the port of `amqps` is 5671, not 5672 (row 15).
#[test]
fn puk_04_every_kind_of_uri() {
    use Scheme::{Amqp, Amqps};
    for (text, row) in [
        ("amqp://", (Amqp, "guest", "guest", "localhost", 5672, "/")),
        ("amqp:///", (Amqp, "guest", "guest", "localhost", 5672, "")),
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
        ("amqp://host/", (Amqp, "guest", "guest", "host", 5672, "")),
        (
            "amqp://user:pass@host:10000/vhost",
            (Amqp, "user", "pass", "host", 10_000, "vhost"),
        ),
        (
            "amqp://user%61:%61pass@ho%61st:10000/v%2fhost",
            (Amqp, "usera", "apass", "hoast", 10_000, "v/host"),
        ),
        ("amqp://:@/", (Amqp, "", "", "localhost", 5672, "")),
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
    ] {
        check(text, row);
    }
}

#[test]
fn puk_04_what_is_left_out_is_not_what_is_empty() {
    assert_eq!(uri("amqp://"), Uri::default());
    assert_eq!(uri("amqp://@").username.as_deref(), Some(""));
    assert_eq!(uri("amqp://@").password, None);
    assert_eq!(uri("amqp://u:@").password, Some(Secret::new()));
    assert_eq!(Uri::try_from("amqp://u@"), Ok(uri("amqp://u@")));
    // Passwords are bytes.
    assert_eq!(
        uri("amqp://u:%ff%00@").password.unwrap().expose(),
        b"\xff\0"
    );
}

#[test]
fn puk_04_hosts_and_ports() {
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
        ("amqp://a!$&'()*+,;=-._~", "a!$&'()*+,;=-._~", 5672),
    ] {
        let uri = uri(text);
        assert_eq!((uri.host.as_str(), uri.port), (host, port), "{text}");
    }
}

#[test]
fn puk_04_parameters() {
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
    assert_eq!(some.vhost, "");
    assert_eq!(uri("amqp://h?"), uri("amqp://h"));
    // A slash in the query begins no virtual host, but it is no number either.
    assert_eq!(
        "amqp://h?heartbeat=1/v".parse::<Uri>(),
        Err(UriError::ParameterValue {
            name: "heartbeat",
            expected: u16::EXPECTED
        })
    );
}

/// Each error is of the part that is wrong, and says so.
#[test]
fn tri_08_bad_uris() {
    use TextFault::{Character, Escape, NotUtf8};
    use UriError::*;
    let unknown = |name: &str| UnknownParameter(name.into());
    let scheme = |name: &str| UnknownScheme(name.into());
    let value = |name, expected| ParameterValue { name, expected };
    let mechanism = || value("auth_mechanism", "the name of a SASL mechanism");
    let long = format!("amqp://h/{}", "x".repeat(256));
    let long_decoded = format!("amqp://h/{}", "%C3%A9".repeat(128));
    let rows = vec![
        ("", MissingScheme, "scheme"),
        ("localhost", MissingScheme, "scheme"),
        ("localhost:5672", MissingScheme, "scheme"),
        ("amqp:", MissingScheme, "scheme"),
        ("amqp:/", MissingScheme, "scheme"),
        ("amqp:host", MissingScheme, "scheme"),
        ("amqp:/host/vhost", MissingScheme, "scheme"),
        ("://host", MissingScheme, "scheme"),
        (" amqp://host", MissingScheme, "scheme"),
        ("5672://host", MissingScheme, "scheme"),
        ("guest:guest@host://", MissingScheme, "scheme"),
        ("äمqp://host", MissingScheme, "scheme"),
        ("http://asd", scheme("http"), "`http`"),
        ("amqp1://host", scheme("amqp1"), "`amqp1`"),
        ("amqps+tls://host", scheme("amqps+tls"), "`amqps+tls`"),
        ("amq.p://host", scheme("amq.p"), "`amq.p`"),
        ("amqp://us er@host", Username(Character), "user name"),
        ("amqp://us@er@host", Username(Character), "user name"),
        ("amqp://us[er@host", Username(Character), "user name"),
        ("amqp://jürgen@host", Username(Character), "user name"),
        ("amqp://us%@host", Username(Escape), "user name"),
        ("amqp://us%4@host", Username(Escape), "user name"),
        ("amqp://us%4g@host", Username(Escape), "user name"),
        ("amqp://us%+4@host", Username(Escape), "user name"),
        ("amqp://us%ff@host", Username(NotUtf8), "user name"),
        ("amqp://u:a:b@host", Password(Character), "password"),
        ("amqp://u:a@b@host", Password(Character), "password"),
        ("amqp://u:a b@host", Password(Character), "password"),
        ("amqp://u:a\"b@host", Password(Character), "password"),
        (
            "amqp://u:geheimnisträger@host",
            Password(Character),
            "password",
        ),
        ("amqp://u:100%@host", Password(Escape), "password"),
        ("amqp://u:%zz@host", Password(Escape), "password"),
        ("amqp://ho st", Host(Character), "host"),
        ("amqp://host\n", Host(Character), "host"),
        ("amqp://ho<s>t", Host(Character), "host"),
        ("amqp://host]", Host(Character), "host"),
        ("amqp://h\\vhost", Host(Character), "host"),
        ("amqp://h%6", Host(Escape), "host"),
        ("amqp://%c3", Host(NotUtf8), "host"),
        ("amqp://::1", HostAddress, "host"),
        ("amqp://::1:5672/v", HostAddress, "host"),
        ("amqp://host:5672:5673", HostAddress, "host"),
        ("amqp://[]", HostAddress, "host"),
        ("amqp://[::1", HostAddress, "host"),
        ("amqp://[::1]5672", HostAddress, "host"),
        ("amqp://[host]", HostAddress, "host"),
        ("amqp://[127.0.0.1]", HostAddress, "host"),
        ("amqp://[::1%eth0]", HostAddress, "host"),
        ("amqp://[::1%25]", HostAddress, "host"),
        ("amqp://[v1.x]", HostAddress, "host"),
        ("amqp://[fe80::1%25e/0]", HostAddress, "host"),
        ("amqp://host:0", Port, "port"),
        ("amqp://host:65536", Port, "port"),
        ("amqp://host:-1", Port, "port"),
        ("amqp://host:+1", Port, "port"),
        ("amqp://host:amqp", Port, "port"),
        ("amqp://host:5672x/", Port, "port"),
        ("amqp://host: 5672", Port, "port"),
        ("amqp://host:%35", Port, "port"),
        ("amqp://[::1]:x", Port, "port"),
        ("amqp://user:pass", Port, "port"),
        ("amqp://h/a/b", VirtualHost(Character), "virtual host"),
        ("amqp://h//", VirtualHost(Character), "virtual host"),
        ("amqp://h/a b", VirtualHost(Character), "virtual host"),
        ("amqp://h/größe", VirtualHost(Character), "virtual host"),
        ("amqp://h/[v]", VirtualHost(Character), "virtual host"),
        ("amqp://h/%2", VirtualHost(Escape), "virtual host"),
        ("amqp://h/%%2f", VirtualHost(Escape), "virtual host"),
        ("amqp://h/%ff", VirtualHost(NotUtf8), "virtual host"),
        (&long, VirtualHostTooLong { len: 256 }, "virtual host"),
        (
            &long_decoded,
            VirtualHostTooLong { len: 256 },
            "virtual host",
        ),
        ("amqp://h/v#f", Fragment, "`#`"),
        ("amqp://u:p#w@h", Fragment, "`#`"),
        ("amqp://h?a=b@c", Query, "query"),
        ("amqp://h?=1", ParameterName, "query parameter"),
        ("amqp://h?&", ParameterName, "query parameter"),
        ("amqp://h?heartbeat=1&", ParameterName, "query parameter"),
        ("amqp://h?heart%62eat=1", ParameterName, "query parameter"),
        ("amqp://h?heart beat=1", ParameterName, "query parameter"),
        ("amqp://h??heartbeat=1", ParameterName, "query parameter"),
        ("amqp://h?hartbeat=1", unknown("hartbeat"), "`hartbeat`"),
        ("amqp://h?Heartbeat=1", unknown("Heartbeat"), "`Heartbeat`"),
        ("amqp://h?vhost=x", unknown("vhost"), "`vhost`"),
        (
            "amqps://h?verify=verify_none",
            unknown("verify"),
            "`verify`",
        ),
        (
            "amqp://h?heartbeat=1&heartbeat=1",
            RepeatedParameter("heartbeat"),
            "`heartbeat`",
        ),
        (
            "amqp://h?frame_max=1&channel_max=2&frame_max=3",
            RepeatedParameter("frame_max"),
            "`frame_max`",
        ),
        (
            "amqp://h?heartbeat",
            value("heartbeat", u16::EXPECTED),
            "`heartbeat`",
        ),
        (
            "amqp://h?heartbeat=",
            value("heartbeat", u16::EXPECTED),
            "`heartbeat`",
        ),
        (
            "amqp://h?heartbeat=60s",
            value("heartbeat", u16::EXPECTED),
            "`heartbeat`",
        ),
        (
            "amqp://h?heartbeat=1.5",
            value("heartbeat", u16::EXPECTED),
            "`heartbeat`",
        ),
        (
            "amqp://h?heartbeat=-1",
            value("heartbeat", u16::EXPECTED),
            "`heartbeat`",
        ),
        (
            "amqp://h?heartbeat=65536",
            value("heartbeat", u16::EXPECTED),
            "`heartbeat`",
        ),
        (
            "amqp://h?heartbeat=%3",
            value("heartbeat", u16::EXPECTED),
            "`heartbeat`",
        ),
        (
            "amqp://h?channel_max=65536",
            value("channel_max", u16::EXPECTED),
            "`channel_max`",
        ),
        (
            "amqp://h?channel_max=0x10",
            value("channel_max", u16::EXPECTED),
            "`channel_max`",
        ),
        (
            "amqp://h?frame_max=4294967296",
            value("frame_max", u32::EXPECTED),
            "`frame_max`",
        ),
        (
            "amqp://h?frame_max=128K",
            value("frame_max", u32::EXPECTED),
            "`frame_max`",
        ),
        (
            "amqp://h?connection_timeout=18446744073709551616",
            value("connection_timeout", Duration::EXPECTED),
            "`connection_timeout`",
        ),
        (
            "amqp://h?connection_timeout=infinity",
            value("connection_timeout", Duration::EXPECTED),
            "`connection_timeout`",
        ),
        ("amqp://h?auth_mechanism=", mechanism(), "`auth_mechanism`"),
        (
            "amqp://h?auth_mechanism=plain,external",
            mechanism(),
            "`auth_mechanism`",
        ),
        (
            "amqp://h?auth_mechanism=a-name-of-21-letters-",
            mechanism(),
            "`auth_mechanism`",
        ),
    ];
    assert!(rows.len() >= 60);
    for (text, error, names) in rows {
        assert_eq!(text.parse::<Uri>().as_ref(), Err(&error), "{text}");
        let message = error.to_string();
        assert!(message.contains(names), "{text}: {message}");
    }
}

/// A password that should have been encoded breaks a URI apart in many places.
#[test]
fn tri_08_an_error_never_shows_the_password() {
    for text in [
        "amqp://u:hunter2",
        "amqp://u:hun:hunter2@h",
        "amqp://u:hun@hunter2@h",
        "amqp://u:hun/hunter2@h",
        "amqp://u:hunter2/@h",
        "amqp://u:1/hunter2/@h",
        "amqp://u:hun?hunter2@h",
        "amqp://u:1?hunter2@h",
        "amqp://u:1?hunter2=x@h",
        "amqp://u:1?heartbeat=hunter2@h",
        "amqp://u:hun#hunter2@h",
        "amqp://u:1#hunter2@h",
        "amqp://u:hun%hunter2@h",
        "amqp://u:hunter2%@h",
        "amqp://u:hunter2 @h",
        "amqp://u:[hunter2]@h",
        "amqp://u:hunter2@h:port",
        "amqp://u:hunter2@h/a/b",
        "amqp://u:hunter2@h?x=1",
        "amqp//u:hunter2@h",
        "u:hunter2@h",
        "u:hunter2://@h",
    ] {
        let error = text.parse::<Uri>().unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2"), "{text}: {shown}");
    }
}

#[test]
fn puk_04_a_uri_never_shows_the_password() {
    let uri = uri("amqp://us%20er:hunter2@[::1]/a%2fb?auth_mechanism=plain&heartbeat=5");
    let shown = uri.to_string();
    assert_eq!(
        shown,
        "amqp://us%20er:<hidden>@[::1]:5672/a%2fb?heartbeat=5&auth_mechanism=PLAIN"
    );
    // It cannot be used as if it were the real one.
    assert_eq!(
        shown.parse::<Uri>(),
        Err(UriError::Password(TextFault::Character))
    );
    let shown = format!("{uri:?} {uri:#?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

fn any_uri() -> impl Strategy<Value = Uri> {
    let scheme = prop_oneof![Just(Scheme::Amqp), Just(Scheme::Amqps)];
    let host = prop_oneof![
        "[a-z.]{1,12}",
        ".{1,9}",
        Just("::1".to_owned()),
        Just("fe80::1%e n".to_owned()),
        Just("fe80::1%".to_owned())
    ];
    let address = (scheme, host, 1_u16.., ".{0,20}");
    let limits = (
        any::<Option<u16>>(),
        any::<Option<u16>>(),
        any::<Option<u32>>(),
    );
    let rest = (
        proptest::option::of(".{0,9}"),
        any::<Option<u64>>(),
        proptest::collection::vec("[A-Z0-9_-]{1,20}", 0..3),
    );
    (address, limits, rest).prop_map(|(address, limits, rest)| {
        let (scheme, host, port, vhost) = address;
        let (heartbeat, channel_max, frame_max) = limits;
        let (username, timeout, auth_mechanisms) = rest;
        Uri {
            scheme,
            host,
            port,
            username,
            password: None,
            vhost: vhost.parse().unwrap(),
            heartbeat,
            connection_timeout: timeout.map(Duration::from_millis),
            channel_max,
            frame_max,
            auth_mechanisms,
        }
    })
}

proptest! {
    #[test]
    fn puk_04_uris_round_trip(uri in any_uri()) {
        prop_assert_eq!(uri.to_string().parse::<Uri>(), Ok(uri));
    }

    #[test]
    fn puk_04_passwords_are_decoded(password in proptest::collection::vec(any::<u8>(), 0..20)) {
        let encoded: String = password.iter().map(|byte| format!("%{byte:02X}")).collect();
        let uri = uri(&format!("amqp://u:{encoded}@h"));
        let decoded = uri.password.unwrap();
        prop_assert_eq!(decoded.expose(), &password[..]);
    }

    /// Nothing makes it panic.
    #[test]
    fn tri_08_any_text(text in ".{0,40}", rest in r"[\]\[:/?#@%a0&=]{0,20}") {
        let _ = text.parse::<Uri>();
        let _ = format!("amqp://{text}").parse::<Uri>();
        let _ = format!("amqp://{rest}").parse::<Uri>();
        let _ = format!("amqps://u:p@h/v?{rest}").parse::<Uri>();
    }
}

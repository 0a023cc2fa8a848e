//! Invalid URIs, and their errors.

use super::*;

const SNI: &str = "server_name_indication";
const PATH: &str = String::EXPECTED;

/// Each error names the part that is invalid.
#[test]
fn bad_uris() {
    use TextFault::{Character, Escape, NotUtf8};
    use UriError::*;
    let unknown = |name: &str| UnknownParameter(name.into());
    let scheme = |name: &str| UnknownScheme(name.into());
    let value = |name, expected| ParameterValue { name, expected };
    let no_tls = TlsParameterWithoutTls;
    let alone = |name, missing| TlsParameterAlone { name, missing };
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
        ("amqp://h1,", EmptyHost, "host"),
        ("amqp://,h1", EmptyHost, "host"),
        ("amqp://,", EmptyHost, "host"),
        ("amqp://h1,,h2", EmptyHost, "host"),
        ("amqp://u:p@h1,/v", EmptyHost, "host"),
        ("amqp://h1,:5673", EmptyHost, "host"),
        ("amqp://:1,h2", EmptyHost, "host"),
        ("amqp://h1, h2", Host(Character), "host"),
        ("amqp://h1;h2,h 3", Host(Character), "host"),
        ("amqp://h1,h%", Host(Escape), "host"),
        ("amqp://h1,%ff,h3", Host(NotUtf8), "host"),
        ("amqp://h1,::1", HostAddress, "host"),
        ("amqp://h1,[::1", HostAddress, "host"),
        ("amqp://[::1,::2]", HostAddress, "host"),
        ("amqp://[fe80::1%25a,b]", HostAddress, "host"),
        ("amqp://h1:1,h2:0", Port, "port"),
        ("amqp://h1:x,h2", Port, "port"),
        ("amqp://h1,[::1]:65536", Port, "port"),
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
        ("amqp://h/v@w", AtInVirtualHost, "virtual host"),
        ("amqp://u:p@h/v@w", AtInVirtualHost, "`%40`"),
        ("amqp://u:12/p@h", AtInVirtualHost, "`/`"),
        ("amqp://u:1,p/w@h", AtInVirtualHost, "`/`"),
        ("amqp://u:p/w@h", AtInVirtualHost, "`/`"),
        ("amqp://u/n:p@h", AtInVirtualHost, "`/`"),
        ("amqp://u:12/p/w@h/v", AtInVirtualHost, "`/`"),
        ("amqp://h/v#f", Fragment, "`#`"),
        ("amqp://u:p#w@h", Fragment, "`#`"),
        ("amqp://h?a=b@c", Query, "query"),
        ("amqp://u:p?w@h", Query, "`?`"),
        ("amqp://h?=1", ParameterName, "query parameter"),
        ("amqp://h?&", ParameterName, "query parameter"),
        ("amqp://h?heartbeat=1&", ParameterName, "query parameter"),
        ("amqp://h?heart%62eat=1", ParameterName, "query parameter"),
        ("amqp://h?heart beat=1", ParameterName, "query parameter"),
        ("amqp://h??heartbeat=1", ParameterName, "query parameter"),
        ("amqp://h?hartbeat=1", unknown("hartbeat"), "`hartbeat`"),
        ("amqp://h?Heartbeat=1", unknown("Heartbeat"), "`Heartbeat`"),
        ("amqp://h?vhost=x", unknown("vhost"), "`vhost`"),
        ("amqp://h?verify=verify_none", no_tls("verify"), "`verify`"),
        ("amqp://h?verify=x", no_tls("verify"), "`verify`"),
        (
            "amqp://h?cacertfile=a",
            no_tls("cacertfile"),
            "`cacertfile`",
        ),
        ("amqp://h?certfile=a", no_tls("certfile"), "`certfile`"),
        (
            "amqp://h?keyfile=a&certfile=b",
            no_tls("keyfile"),
            "`keyfile`",
        ),
        ("amqp://h?server_name_indication=h", no_tls(SNI), SNI),
        (
            "amqps://h?verify=",
            value("verify", Verify::EXPECTED),
            "`verify`",
        ),
        (
            "amqps://h?verify=peer",
            value("verify", Verify::EXPECTED),
            "`verify`",
        ),
        (
            "amqps://h?verify=VERIFY_PEER",
            value("verify", Verify::EXPECTED),
            "`verify`",
        ),
        (
            "amqps://h?cacertfile",
            value("cacertfile", PATH),
            "`cacertfile`",
        ),
        (
            "amqps://h?cacertfile=",
            value("cacertfile", PATH),
            "`cacertfile`",
        ),
        (
            "amqps://h?cacertfile=/a b",
            value("cacertfile", PATH),
            "`cacertfile`",
        ),
        (
            "amqps://h?certfile=%zz",
            value("certfile", PATH),
            "`certfile`",
        ),
        ("amqps://h?keyfile=%ff", value("keyfile", PATH), "`keyfile`"),
        (
            r"amqps://h?keyfile=C:\key",
            value("keyfile", PATH),
            "`keyfile`",
        ),
        (
            "amqps://h?server_name_indication=",
            value(SNI, ServerNameIndication::EXPECTED),
            SNI,
        ),
        (
            "amqps://h?server_name_indication=a/b",
            value(SNI, ServerNameIndication::EXPECTED),
            SNI,
        ),
        (
            "amqps://h?certfile=a",
            alone("certfile", "keyfile"),
            "`keyfile`",
        ),
        (
            "amqps://h?keyfile=a&cacertfile=b",
            alone("keyfile", "certfile"),
            "`certfile`",
        ),
        (
            "amqps://h?verify=verify_peer&verify=verify_peer",
            RepeatedParameter("verify"),
            "`verify`",
        ),
        (
            "amqps://h?certfile=a&keyfile=b&certfile=a",
            RepeatedParameter("certfile"),
            "`certfile`",
        ),
        ("amqps://h?password=x", unknown("password"), "`password`"),
        (
            "amqps://h?Verify=verify_peer",
            unknown("Verify"),
            "`Verify`",
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
            "amqp://h?connection_timeout=0",
            value("connection_timeout", Duration::EXPECTED),
            "from 1 to",
        ),
        (
            "amqp://h?connection_timeout=%30%30",
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

/// An unencoded password splits a URI in many places, and is in no error.
#[test]
fn an_error_never_shows_the_password() {
    for text in [
        "amqp://u:hunter2",
        "amqp://u:hun:hunter2@h",
        "amqp://u:hun@hunter2@h",
        "amqp://u:hun/hunter2@h",
        "amqp://u:hunter2/@h",
        "amqp://u:1/hunter2/@h",
        "amqp://u:1/hunter2@h",
        "amqp://u:1,hunter2/@h",
        "amqp://hunter2/@h",
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
        "amqp://u:1,,hunter2/@h",
        "amqp://u:hun,hunter2",
        "amqp://u:1,[hunter2/@h",
        "amqps://u:1?verify=hunter2@h",
        "amqps://u:1?certfile=hunter2@h",
        "amqps://u:hunter2@h?keyfile=k",
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

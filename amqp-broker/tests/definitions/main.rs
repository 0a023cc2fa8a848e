//! Definitions that RabbitMQ 3.10.8 has exported: by `rabbitmqctl` (`rabbitmqctl.json`) and by its
//! HTTP API (`http.json`).
#![cfg(feature = "definitions")]

use amqp_broker::{
    ApplyTo, BindingTarget, Broker, Config, Password, UserLimits, VhostLimits,
    definitions::Definitions,
};

const BY_CTL: &str = include_str!("rabbitmqctl.json");
const BY_HTTP: &str = include_str!("http.json");

fn fresh() -> Broker {
    Broker::new(Config::default()).unwrap()
}

#[test]
fn an_export_is_read() {
    for text in [BY_CTL, BY_HTTP] {
        let all = Definitions::from_json(text).unwrap();
        assert_eq!(all.rabbitmq_version.as_deref(), Some("3.10.8"));
        let anna = all.users.iter().find(|it| it.name == "anna").unwrap();
        assert_eq!(anna.tags, ["monitoring", "impersonator"]);
        let limits = UserLimits::default().max_connections(5).max_channels(10);
        assert_eq!(anna.limits, limits);
        let Password::Hash(hash) = &anna.password else {
            panic!("{anna:?}");
        };
        assert!(hash.matches(b"secret") && !hash.matches(b"Secret"));
        let robot = all.users.iter().find(|it| it.name == "robot").unwrap();
        assert_eq!(robot.password, Password::default());
        let [limits] = &all.vhost_limits[..] else {
            panic!("{:?}", all.vhost_limits);
        };
        let expected = VhostLimits::default().max_connections(256).max_queues(1024);
        assert_eq!((limits.vhost.as_str(), limits.limits), ("shop", expected));
        let [roof] = &all.operator_policies[..] else {
            panic!("{:?}", all.operator_policies);
        };
        assert_eq!(
            roof.policy.definition.get("expires"),
            Some(&1_800_000_i64.into())
        );
        assert_eq!(roof.policy.apply_to, ApplyTo::Queues);
        let caps = all
            .policies
            .iter()
            .find(|it| it.policy.name == "caps")
            .unwrap();
        assert_eq!(caps.policy.pattern.as_str(), "^anna-");
        assert_eq!(caps.policy.priority, 3);
        assert_eq!((all.queues.len(), all.bindings.len()), (3, 4));
        let to = BindingTarget::Exchange("lost".parse().unwrap());
        assert!(all.bindings.iter().any(|it| it.destination == to));
    }
}

#[test]
fn what_is_imported_is_exported() {
    for (text, exchanges, warnings) in [(BY_CTL, 3, 1), (BY_HTTP, 4, 0)] {
        let all = Definitions::from_json(text).unwrap();
        let mut broker = fresh();
        assert_eq!(broker.apply(&all).unwrap().len(), warnings);
        let exported = broker.definitions();
        let json = exported.to_json();
        assert_eq!(Definitions::from_json(&json).unwrap(), exported, "{json}");
        assert_eq!(exported.exchanges.len(), exchanges);
        assert_eq!(exported.bindings.len(), all.bindings.len() - warnings);
        let mut again = fresh();
        assert!(again.apply(&exported).unwrap().is_empty());
        assert_eq!(again.definitions(), exported);
        let names = |all: &Definitions| {
            let mut names: Vec<_> = all.users.iter().map(|it| it.name.clone()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&exported), names(&all));
        assert_eq!(exported.queues.len(), all.queues.len());
        assert_eq!(exported.policies.len(), all.policies.len());
        assert_eq!(exported.permissions.len(), all.permissions.len());
    }
}

#[test]
fn errors_name_their_place() {
    let read = |text: &str| Definitions::from_json(text).unwrap_err().to_string();
    for (text, error) in [
        (
            "",
            "line 1, column 0: EOF while parsing a value at line 1 column 0",
        ),
        ("[]", "definitions: expected an object, found an array"),
        (
            r#"{"users": {}}"#,
            "users: expected an array, found an object",
        ),
        (r#"{"users": [{}]}"#, "users[0].name: is missing"),
        (
            r#"{"users": [{"name": "a", "password_hash": "AAAA"}]}"#,
            "users[0].password_hash: is not the base64 of a salt and a hash of \
             rabbit_password_hashing_sha256",
        ),
        (
            r#"{"users": [{"name": "a", "password_hash": "A", "hashing_algorithm": "rabbit_password_hashing_md5"}]}"#,
            "users[0].hashing_algorithm: \"rabbit_password_hashing_md5\" is not supported",
        ),
        (
            r#"{"queues": [{"name": "q", "vhost": "/", "durable": "yes"}]}"#,
            "queues[0].durable: expected a boolean, found a string",
        ),
        (
            r#"{"queues": [{"name": "q", "vhost": "/", "arguments": {"a": {"b": [1, 18446744073709551615]}}}]}"#,
            "queues[0].arguments.a.b[1]: the integer 18446744073709551615 is too large",
        ),
    ] {
        assert_eq!(read(text), error);
    }
    let long = format!(
        r#"{{"queues": [{{"name": "{}", "vhost": "/"}}]}}"#,
        "q".repeat(256)
    );
    assert!(
        read(&long).starts_with("queues[0].name: "),
        "{}",
        read(&long)
    );
    assert!(read(&"[".repeat(100_000)).contains("recursion limit"));
}

#[test]
fn tables_that_cannot_be_encoded_are_refused() {
    let deep = |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    for part in [
        r#""vhosts": [{"name": "/", "metadata": {"a": VALUE}}]"#,
        r#""global_parameters": [{"name": "g", "value": VALUE}]"#,
        r#""parameters": [{"vhost": "/", "component": "c", "name": "p", "value": VALUE}]"#,
        r#""queues": [{"name": "q", "vhost": "/", "durable": true, "arguments": {"a": VALUE}}]"#,
        r#""policies": [{"name": "p", "vhost": "/", "pattern": "",
                         "definition": {"ha-params": VALUE}}]"#,
    ] {
        let text = |depth| format!("{{{}}}", part.replace("VALUE", &deep(depth)));
        let read = |depth| Definitions::from_json(&text(depth)).unwrap();
        assert_eq!(fresh().apply(&read(31)), Ok(Vec::new()), "{part}");
        let error = fresh().apply(&read(32)).unwrap_err().to_string();
        assert!(error.ends_with("nested too deep"), "{error}");
    }
}

#[test]
fn nothing_is_applied_if_a_part_is_wrong() {
    let user = r#""users": [{"name": "new", "password": "p", "tags": []}]"#;
    for (part, error) in [
        (
            r#""queues": [{"name": "q", "vhost": "none"}]"#,
            "queues[0].vhost: virtual host \"none\" does not exist",
        ),
        (
            r#""permissions": [{"user": "no", "vhost": "/", "configure": "", "write": "", "read": ""}]"#,
            "permissions[0].user: user \"no\" does not exist",
        ),
        (
            r#""queues": [{"name": "q", "vhost": "/", "arguments": {"x-message-ttl": -1}}]"#,
            "queues[0]: PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue 'q' in vhost \
             '/': {value_negative,-1}",
        ),
        (
            r#""exchanges": [{"name": "x", "vhost": "/", "type": "x-delayed-message"}]"#,
            "exchanges[0].type: unknown exchange type \"x-delayed-message\"",
        ),
        (
            r#""policies": [{"name": "p", "vhost": "/", "pattern": "", "definition": {"expires": 0}}]"#,
            "policies[0].definition: 0 is not a valid queue expiry",
        ),
    ] {
        let text = format!("{{{user}, {part}}}");
        let all = Definitions::from_json(&text).unwrap();
        let mut broker = fresh();
        let before = broker.definitions();
        assert_eq!(broker.apply(&all).unwrap_err().to_string(), error);
        assert_eq!(broker.definitions(), before);
    }
}

proptest::proptest! {
    /// No text panics, and one that is read can be written, read again and applied or refused.
    #[test]
    fn any_text_is_read_or_refused(cut in 0..BY_HTTP.len(), octet in 0_u8..128, at in 0..BY_HTTP.len()) {
        let mut text = BY_HTTP.as_bytes().to_vec();
        text[at] = octet;
        for text in [&text[..], &text[..cut], &text[cut..]] {
            let Ok(all) = Definitions::from_json(&String::from_utf8_lossy(text)) else {
                continue;
            };
            let again = Definitions::from_json(&all.to_json());
            proptest::prop_assert_eq!(again.as_ref(), Ok(&all));
            let mut broker = fresh();
            let before = broker.definitions();
            if broker.apply(&all).is_err() {
                proptest::prop_assert_eq!(broker.definitions(), before);
            }
        }
    }
}

//! The list of the requests of a channel.

use amqp_core::protocol;

macro_rules! listed {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $reply:ty;)*) => {
        [$((stringify!($name), <$request>::RULE, has_reply::<$request, $reply>())),*]
    };
}

/// Compiles if `R` is the reply of `Q`.
const fn has_reply<Q: amqp_core::Request<Reply = R>, R>() {}

#[test]
fn every_request_with_arguments_is_listed_by_its_name() {
    let listed = amqp_core::channel_requests!(listed);
    let names: Vec<&str> = listed.iter().map(|(name, ..)| *name).collect();
    let called = protocol::RULES.iter().filter(|rule| {
        let request = rule.client_sends && !rule.responses.is_empty();
        request && !rule.connection && !rule.content && !rule.own_command
    });
    // Those of the modes have no arguments.
    let expected: Vec<String> = called
        .map(|rule| rule.name)
        .filter(|name| !name.starts_with("confirm.") && !name.starts_with("tx."))
        .map(|name| name.replace(['.', '-'], "_"))
        .collect();
    assert_eq!(names, expected);
    assert!(names.contains(&"exchange_declare") && names.contains(&"basic_qos"));
    for (name, rule, ()) in listed {
        assert_eq!(rule.name.replace(['.', '-'], "_"), name);
    }
}

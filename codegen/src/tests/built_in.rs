//! Facts of the built-in specification.

use crate::{
    SOURCES,
    model::{Kind, Method, Spec},
    spec,
};

fn built_in() -> Spec {
    spec(&SOURCES).unwrap()
}

fn method<'a>(spec: &'a Spec, class: &str, method: &str) -> &'a Method {
    let class = spec.classes.iter().find(|it| it.name == class).unwrap();
    class.methods.iter().find(|it| it.name == method).unwrap()
}

#[test]
fn a_response_is_inferred_for_recover_only() {
    let spec = built_in();
    let mut inferred = Vec::new();
    for class in &spec.classes {
        for method in &class.methods {
            for response in &method.responses {
                let element = format!("<response name=\"{response}\"/>");
                let within = SOURCES.iter().any(|source| {
                    let class = format!("<class name=\"{}\"", class.name);
                    let method = format!("<method name=\"{}\"", method.name);
                    let class = source.split(&class).nth(1).unwrap_or_default();
                    let class = class.split("</class>").next().unwrap_or_default();
                    let method = class.split(&method).nth(1).unwrap_or_default();
                    method
                        .split("</method>")
                        .next()
                        .unwrap_or_default()
                        .contains(&element)
                });
                if !within {
                    inferred.push(format!("{}.{}", class.name, method.name));
                }
            }
        }
    }
    assert_eq!(inferred, ["basic.recover"]);
    assert_eq!(method(&spec, "basic", "recover").responses, ["recover-ok"]);
}

#[test]
fn every_synchronous_method_is_answered_or_answers() {
    for class in built_in().classes {
        for method in class.methods.iter().filter(|method| method.synchronous) {
            let request = !method.responses.is_empty();
            let answer = !method.answers.is_empty();
            assert!(request != answer, "{}.{}", class.name, method.name);
        }
    }
}

#[test]
fn an_answer_comes_from_the_other_side() {
    for class in built_in().classes {
        for method in &class.methods {
            for response in &method.responses {
                let answer = class
                    .methods
                    .iter()
                    .find(|it| it.name == *response)
                    .unwrap();
                let what = format!("{}.{}", class.name, method.name);
                assert!(
                    !method.client_sends || answer.server_sends,
                    "{what} of a client"
                );
                assert!(
                    !method.server_sends || answer.client_sends,
                    "{what} of a server"
                );
            }
        }
    }
}

#[test]
fn facts_that_the_published_specification_has_wrong_or_odd() {
    let spec = built_in();
    let sent = |class, name| {
        let method = method(&spec, class, name);
        (method.client_sends, method.server_sends)
    };
    assert_eq!(sent("connection", "update-secret"), (true, false));
    assert_eq!(sent("connection", "update-secret-ok"), (false, true));
    assert_eq!(sent("connection", "blocked"), (false, true));
    assert_eq!(sent("connection", "unblocked"), (false, true));
    // A server cancels consumers (https://www.rabbitmq.com/docs/consumer-cancel), and confirms
    // publishes (https://www.rabbitmq.com/docs/confirms).
    assert_eq!(sent("basic", "cancel"), (true, true));
    assert_eq!(sent("basic", "cancel-ok"), (true, true));
    assert_eq!(sent("basic", "ack"), (true, true));
    assert_eq!(sent("basic", "nack"), (true, true));
    assert_eq!(sent("basic", "reject"), (true, false));

    let exchange = spec
        .classes
        .iter()
        .find(|class| class.name == "exchange")
        .unwrap();
    assert_eq!(
        (exchange.index, method(&spec, "exchange", "unbind-ok").index),
        (40, 51)
    );
    assert!(!method(&spec, "channel", "flow-ok").synchronous);
    let no_wait = &method(&spec, "confirm", "select").fields[0];
    assert!(no_wait.no_wait && no_wait.name == "nowait");
}

#[test]
fn a_request_that_more_than_a_reply_follows_has_a_command_of_its_own() {
    let spec = built_in();
    let mut own = Vec::new();
    for class in &spec.classes {
        for method in class.methods.iter().filter(|method| method.own_command) {
            assert!(method.client_sends && !method.responses.is_empty());
            own.push(format!("{}.{}", class.name, method.name));
        }
    }
    assert_eq!(
        own,
        [
            "channel.open",
            "channel.close",
            "basic.consume",
            "basic.get"
        ]
    );
}

#[test]
fn credentials_are_secret() {
    let spec = built_in();
    let mut secrets = Vec::new();
    for class in &spec.classes {
        for method in &class.methods {
            for field in method
                .fields
                .iter()
                .filter(|field| field.kind == Kind::Secret)
            {
                secrets.push(format!("{}.{}.{}", class.name, method.name, field.name));
            }
        }
    }
    let expected = [
        "connection.start-ok.response",
        "connection.secure-ok.response",
        "connection.update-secret.new-secret",
    ];
    assert_eq!(secrets, expected);
}

#[test]
fn queues_are_durable_by_default_and_nothing_else_is_set() {
    let spec = built_in();
    let methods = spec.classes.iter().flat_map(|class| &class.methods);
    let set: Vec<(&str, &str)> = methods
        .flat_map(|method| method.fields.iter().map(move |field| (method, field)))
        .filter(|(_, field)| field.set_by_default)
        .map(|(method, field)| (method.name.as_str(), field.name.as_str()))
        .collect();
    assert_eq!(set, [("declare", "durable")]);
}

#[test]
fn the_built_in_specification_is_documented() {
    let spec = built_in();
    for constant in &spec.constants {
        assert!(!constant.doc.is_empty(), "{}", constant.name);
    }
    for code in &spec.reply_codes {
        assert!(!code.doc.is_empty(), "{}", code.name);
    }
    for class in &spec.classes {
        assert!(!class.doc.is_empty(), "{}", class.name);
        for method in &class.methods {
            assert!(!method.doc.is_empty(), "{}.{}", class.name, method.name);
            for field in class.properties.iter().chain(&method.fields) {
                assert!(
                    !field.doc.is_empty(),
                    "{}.{}.{}",
                    class.name,
                    method.name,
                    field.name
                );
            }
        }
    }
}

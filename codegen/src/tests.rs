//! Minimal specifications for each rule, and facts of the built-in one.

use crate::{
    Error, ErrorKind, SOURCES, generate_from,
    model::{Class, Field, Kind, Method, Spec},
    xml,
};

/// Returns a whole file with these elements.
fn file(elements: &str) -> String {
    format!(r#"<amqp major="0" minor="9" revision="1" port="5672">{elements}</amqp>"#)
}

fn spec(sources: &[&str]) -> Result<Spec, Error> {
    let documents = sources
        .iter()
        .enumerate()
        .map(|(source, text)| xml::read(source, text));
    Spec::new(documents.collect::<Result<_, _>>()?)
}

/// Returns the last class in files with these elements.
fn class(sources: &[&str]) -> Class {
    let files: Vec<String> = sources.iter().map(|elements| file(elements)).collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    spec(&files).unwrap().classes.pop().unwrap()
}

fn built_in() -> Spec {
    spec(&SOURCES).unwrap()
}

fn method<'a>(spec: &'a Spec, class: &str, method: &str) -> &'a Method {
    let class = spec.classes.iter().find(|it| it.name == class).unwrap();
    class.methods.iter().find(|it| it.name == method).unwrap()
}

fn field(field: &Field) -> (&str, Kind) {
    (&field.name, field.kind)
}

/// Returns the error for one file with these elements, and its line.
#[track_caller]
fn fault(elements: &str) -> (u32, ErrorKind) {
    let error = generate_from(&[&file(elements)]).unwrap_err();
    assert_eq!(error.source_index(), 0);
    (error.line(), error.kind().clone())
}

#[test]
fn a_later_file_adds_classes_methods_and_what_methods_have() {
    let class = class(&[
        r#"<class name="a" index="1">
             <doc>One.</doc>
             <method name="m" index="10"><chassis name="server"/><doc>M.</doc></method>
           </class>"#,
        r#"<class name="a" index="1">
             <method name="n" index="20"><chassis name="server"/></method>
             <method name="m">
               <chassis name="client"/>
               <response name="n"/>
               <doc>More.</doc>
               <field name="f" type="octet"/>
             </method>
             <method name="early" index="5"><chassis name="server"/></method>
             <doc>Two.</doc>
           </class>"#,
    ]);
    assert_eq!(class.doc, ["One.", "Two."]);
    let names: Vec<&str> = class
        .methods
        .iter()
        .map(|method| method.name.as_str())
        .collect();
    assert_eq!(names, ["early", "m", "n"], "ordered by index");
    let [_, m, n] = class.methods.as_slice() else {
        panic!("three methods")
    };
    assert_eq!((m.index, m.client_sends, m.server_sends), (10, true, true));
    assert_eq!(m.doc, ["M.", "More."]);
    assert_eq!(m.responses, ["n"]);
    assert_eq!(
        m.fields.iter().map(field).collect::<Vec<_>>(),
        [("f", Kind::Octet)]
    );
    assert_eq!(n.answers, ["m"]);
}

#[test]
fn a_later_file_changes_nothing() {
    let first = file(
        r#"<class name="a" index="1">
             <method name="m" index="10"><chassis name="server"/></method>
           </class>"#,
    );
    let second = file("<class name='a' index='1'>\n<method name='m' index='11'/>\n</class>");
    let error = generate_from(&[&first, &second]).unwrap_err();
    assert_eq!((error.source_index(), error.line()), (1, 2));
    assert_eq!(
        error.to_string(),
        "source 1, line 2: the method m had another index before"
    );

    let constant = file(r#"<constant name="c" value="1"/>"#);
    let error = generate_from(&[&constant, &constant]).unwrap_err();
    assert_eq!(error.to_string(), "source 1, line 1: a second constant c");
}

#[test]
fn who_sends_a_method_follows_from_who_understands_it_unless_it_is_said() {
    let class = class(&[r#"
        <class name="a" index="1">
          <method name="c" index="1"><chassis name="server"/></method>
          <method name="s" index="2"><chassis name="client"/></method>
          <method name="b" index="3"><chassis name="client"/><chassis name="server"/></method>
          <method name="k" index="4" sent-by="server">
            <chassis name="client"/><chassis name="server"/>
          </method>
        </class>"#]);
    let senders: Vec<(bool, bool)> = class
        .methods
        .iter()
        .map(|it| (it.client_sends, it.server_sends))
        .collect();
    assert_eq!(
        senders,
        [(true, false), (false, true), (true, true), (false, true)]
    );
}

#[test]
fn documentation_falls_back_to_the_domain() {
    let class = class(&[r#"
        <domain name="tag" type="longlong"><doc>The domain.</doc></domain>
        <class name="a" index="1">
          <method name="m" index="1">
            <chassis name="server"/>
            <field name="one" domain="tag"/>
            <field name="two" domain="tag"><doc>Its own.</doc></field>
          </method>
        </class>"#]);
    let docs: Vec<&[String]> = class.methods[0]
        .fields
        .iter()
        .map(|it| it.doc.as_slice())
        .collect();
    assert_eq!(docs, [["The domain."], ["Its own."]]);
}

#[test]
fn a_doc_has_paragraphs() {
    let class =
        class(&["<class name='a' index='1'><doc>\n  One\n  two.\n\n \n  Three.\n</doc></class>"]);
    assert_eq!(class.doc, ["One two.", "Three."]);
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

#[test]
fn what_is_not_in_the_schema_is_refused() {
    let error = generate_from(&["<html/>"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "source 0, line 1: <html> where <amqp> should be"
    );
    let error = generate_from(&["<amqp>\n<class></amqp>"]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Xml(_)));
    assert_eq!(error.line(), 2);
    let error = generate_from(&["<amqp/>"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "source 0, line 1: <amqp> lacks the attribute major"
    );

    assert_eq!(
        fault("\n\n<method/>"),
        (
            3,
            ErrorKind::UnexpectedElement {
                element: "method".into(),
                parent: "amqp".into()
            }
        )
    );
    assert_eq!(
        fault("\n<constant name='c' value='1'><p/></constant>"),
        (
            2,
            ErrorKind::UnexpectedElement {
                element: "p".into(),
                parent: "constant".into()
            }
        )
    );
    assert_eq!(
        fault("\n<class name='c' index='1' size='2'/>"),
        (
            2,
            ErrorKind::UnexpectedAttribute {
                attribute: "size".into(),
                element: "class".into()
            }
        )
    );
    assert_eq!(
        fault("<class name='c'/>"),
        (
            1,
            ErrorKind::MissingAttribute {
                attribute: "index",
                element: "class".into()
            }
        )
    );
    assert_eq!(
        fault("<constant name='c' value='many'/>"),
        (
            1,
            ErrorKind::InvalidValue {
                attribute: "value",
                value: "many".into()
            }
        )
    );
    assert_eq!(
        fault("<constant name='reply-c' value='70000'/>"),
        (
            1,
            ErrorKind::InvalidValue {
                attribute: "value",
                value: "70000".into()
            }
        )
    );
    for name in ["", "C", "a--b", "-a", "1a", "a_b", "a b"] {
        assert_eq!(
            fault(&format!("<class name='{name}' index='1'/>")),
            (
                1,
                ErrorKind::InvalidValue {
                    attribute: "name",
                    value: name.into()
                }
            )
        );
    }
}

/// Returns the error for a method with these attributes, in a class of its own.
#[track_caller]
fn method_fault(attributes: &str, elements: &str) -> (u32, ErrorKind) {
    fault(&format!(
        "<class name='c' index='1'>\n\
         <method name='m' index='1' {attributes}>\n\
         <chassis name='server'/>\n\
         {elements}\n\
         </method></class>"
    ))
}

#[test]
fn what_cannot_be_resolved_is_refused() {
    assert_eq!(
        fault("<domain name='d' type='float'/>"),
        (1, ErrorKind::UnknownDomain("float".into()))
    );
    assert_eq!(
        method_fault("", "<field name='f' domain='d'/>"),
        (4, ErrorKind::UnknownDomain("d".into()))
    );
    assert_eq!(
        method_fault("", "<field name='f' type='d'/>"),
        (4, ErrorKind::UnknownDomain("d".into()))
    );
    assert_eq!(
        method_fault("", "<field name='f' domain='bit' type='bit'/>"),
        (4, ErrorKind::DomainAndType("f".into()))
    );
    assert_eq!(
        method_fault("", "<field name='f'/>"),
        (
            4,
            ErrorKind::MissingAttribute {
                attribute: "domain",
                element: "field".into()
            }
        )
    );
    assert_eq!(
        method_fault("", "<field name='f' type='shortstr' secret='1'/>"),
        (4, ErrorKind::SecretType("f".into()))
    );
    assert_eq!(
        method_fault("", "<field name='f' type='short' default='1'/>"),
        (4, ErrorKind::DefaultType("f".into()))
    );
    assert_eq!(
        method_fault("", "<response name='n'/>"),
        (
            4,
            ErrorKind::UnknownResponse {
                method: "m".into(),
                response: "n".into()
            }
        )
    );
    assert_eq!(
        method_fault("content='1'", ""),
        (2, ErrorKind::NoProperties("m".into()))
    );
    assert_eq!(
        method_fault("content='yes'", ""),
        (
            2,
            ErrorKind::InvalidValue {
                attribute: "content",
                value: "yes".into()
            }
        )
    );
    assert_eq!(
        fault("<class name='c' index='1'>\n<method name='m' index='1'/></class>"),
        (2, ErrorKind::NoSender("m".into()))
    );
    assert_eq!(
        fault("<class name='c' index='1'>\n<field name='f' type='bit'/></class>"),
        (2, ErrorKind::BitProperty("f".into()))
    );
}

#[test]
fn what_is_there_twice_is_refused() {
    let duplicate = |element, name: &str| ErrorKind::Duplicate {
        element,
        name: name.to_owned(),
    };
    assert_eq!(
        fault("<class name='c' index='1'/>\n<class name='c' index='2'/>"),
        (2, duplicate("class", "c"))
    );
    assert_eq!(
        method_fault(
            "",
            "<field name='f' type='bit'/>\n<field name='f' type='bit'/>"
        ),
        (5, duplicate("field", "f"))
    );
    assert_eq!(
        fault("<class name='c' index='1'/>\n<class name='d' index='1'/>"),
        (
            2,
            ErrorKind::DuplicateIndex {
                element: "class",
                index: 1,
                first: "c".into(),
                second: "d".into()
            }
        )
    );
    assert_eq!(
        fault(
            "<class name='c' index='1'>\n\
             <method name='m' index='1' sent-by='client'/>\n\
             <method name='n' index='1' sent-by='client'/></class>"
        ),
        (
            3,
            ErrorKind::DuplicateIndex {
                element: "method",
                index: 1,
                first: "m".into(),
                second: "n".into()
            }
        )
    );
}

/// Returns whether a source contains these consecutive lines, with any indentation.
fn has(source: &str, lines: &[&str]) -> bool {
    let source: Vec<&str> = source.lines().map(str::trim).collect();
    source.windows(lines.len()).any(|window| window == lines)
}

#[test]
fn bits_share_octets_until_something_else_comes() {
    let mut fields: String = (0..9)
        .map(|n| format!("<field name='b{n}' type='bit'/>"))
        .collect();
    fields.push_str("<field name='o' type='octet'/><field name='r' type='bit' reserved='1'/>");
    fields.push_str("<field name='last' type='bit'/>");
    let method = format!("<method name='m' index='1' sent-by='client'>{fields}</method>");
    let source = generate_from(&[&file(&format!(
        "<class name='c' index='1'>{method}</class>"
    ))])
    .unwrap();
    assert!(has(
        &source,
        &["bits |= u8::from(self.b7) << 7;", "put::octet(out, bits);"]
    ));
    assert!(has(
        &source,
        &[
            "put::octet(out, u8::from(self.b8));",
            "put::octet(out, self.o);",
            "put::octet(out, u8::from(self.last) << 1);",
            "}"
        ]
    ));
    assert!(has(
        &source,
        &[
            "let (input, bits) = parse::bits(input)?;",
            "let (input, bits_2) = parse::bits(input)?;",
            "let (input, o) = parse::octet(input)?;",
            "let (input, bits_3) = parse::bits(input)?;",
        ]
    ));
    assert!(has(
        &source,
        &["b8: bits_2 & 1 != 0,", "o,", "last: bits_3 & 2 != 0,"]
    ));
    assert!(has(
        &source,
        &["fn encoded_len(&self) -> usize {", "4", "}"]
    ));
}

#[test]
fn more_than_fifteen_properties_take_a_second_word_of_flags() {
    let fields: String = (0..16)
        .map(|n| format!("<field name='p{n}' type='octet'/>"))
        .collect();
    let source = generate_from(&[&file(&format!(
        "<class name='c' index='1'>{fields}</class>"
    ))])
    .unwrap();
    assert!(has(
        &source,
        &["flags |= u16::from(self.p14.is_some()) << 1;"]
    ));
    assert!(has(
        &source,
        &["flags_2 |= u16::from(self.p15.is_some()) << 15;"]
    ));
    assert!(has(&source, &["[flags, flags_2]", "}"]));
    assert!(source.contains("[flags, flags_2]) = parse_flags(input, [0xfffe, 0x8000])?;"));
    assert!(has(&source, &["if flags_2 & 0x8000 != 0 {"]));
}

/// Returns the documentation lines of a constant with this text.
fn documentation(text: &str) -> Vec<String> {
    let constant = format!("<constant name='c' value='1'><doc>{text}</doc></constant>");
    let source = generate_from(&[&file(&constant)]).unwrap();
    let lines = source.lines().skip_while(|line| !line.starts_with("///"));
    let lines = lines.take_while(|line| line.starts_with("///"));
    lines.map(str::to_owned).collect()
}

#[test]
fn documentation_is_plain_text_with_code() {
    assert_eq!(
        documentation("[a link], *stars*, &lt;tags&gt;, but `[code] &lt;x&gt;`; https://a.b/c_d."),
        [r"/// \[a link\], \*stars\*, \<tags\>, but `[code] <x>`; <https://a.b/c_d>."]
    );
    assert_eq!(documentation("a ` b"), [r"/// a \` b"]);
    assert_eq!(
        documentation("- a - b\n\n# c\n\n1. d 1."),
        [r"/// \- a - b", "///", r"/// \# c", "///", r"/// 1\. d 1."]
    );
}

#[test]
fn documentation_is_wrapped() {
    let text = "x".repeat(46);
    let line = format!("/// {text} {text} 1.");
    assert_eq!(line.len(), 100);
    assert_eq!(
        documentation(&format!("{text} {text} 1. y")),
        [line.as_str(), "/// y"]
    );
    assert_eq!(
        documentation(&format!("{text} {text}x 1. `y z`")),
        [format!("/// {text} {text}x"), r"/// 1\. `y z`".to_owned()]
    );
}

#[test]
fn rust_keywords_do_not_matter() {
    let source = generate_from(&[&file(
        "<class name='c' index='1'><method name='m' index='1' sent-by='client'>\
         <field name='type' type='octet'/><field name='match' type='octet'/></method></class>",
    )])
    .unwrap();
    assert!(has(&source, &["pub kind: u8,"]));
    assert!(has(&source, &["/// The specification calls it `type`."]));
    assert!(has(
        &source,
        &["pub fn r#match(mut self, r#match: u8) -> Self {"]
    ));
}

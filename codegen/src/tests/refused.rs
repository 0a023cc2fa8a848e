//! Faulty specifications: each fault is refused, with its line.

use super::file;
use crate::{ErrorKind, generate_from};

/// Returns the error for one file with these elements, and its line.
#[track_caller]
fn fault(elements: &str) -> (u32, ErrorKind) {
    let error = generate_from(&[&file(elements)]).unwrap_err();
    assert_eq!(error.source_index(), 0);
    (error.line(), error.kind().clone())
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
fn elements_and_attributes_outside_the_schema_are_refused() {
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

#[test]
fn unresolved_names_and_types_are_refused() {
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
fn duplicates_are_refused() {
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

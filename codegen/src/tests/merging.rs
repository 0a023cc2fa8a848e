//! Merging and reading files: additions, senders, documentation.

use super::{class, field, file};
use crate::{generate_from, model::Kind};

#[test]
fn a_later_file_adds_classes_methods_and_parts_of_methods() {
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
fn the_sender_is_the_other_side_of_the_chassis_unless_it_is_named() {
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
fn a_doc_has_paragraphs_and_lines() {
    let class =
        class(&["<class name='a' index='1'><doc>\n  One\n  two.\n\n \n  Three.\n</doc></class>"]);
    assert_eq!(class.doc, ["One\ntwo.", "Three."]);
}

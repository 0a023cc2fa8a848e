//! The emitter of a class, as a module.

use super::{methods, names::snake, properties, writer::Writer};
use crate::model::Class;

pub(super) fn emit(w: &mut Writer, class: &Class) {
    let mut body = Writer::new(w.depth() + 1);
    for method in &class.methods {
        methods::emit(&mut body, class, method);
    }
    if !class.properties.is_empty() {
        properties::emit(&mut body, class);
    }

    w.gap();
    w.doc(&class.doc);
    if !class.doc.is_empty() {
        w.line("///");
    }
    let place = if class.connection {
        "on channel 0"
    } else {
        "on an open channel"
    };
    w.note(&format!(
        "Class {} of the protocol; its methods travel {place}.",
        class.index
    ));
    w.block(format!("pub mod {}", snake(&class.name)), |w| {
        w.with_imports(&body, IMPORTS);
    });
}

/// All imports that a class may need, each list in the order of rustfmt.
const IMPORTS: &[&[(&str, &[&str])]] = &[
    &[("bytes", &["BytesMut"])],
    &[
        (
            "super",
            &[
                "ClientMethod",
                "Method",
                "ReplyCode",
                "ServerMethod",
                "flags_len",
                "parse_flags",
                "put_flags",
            ],
        ),
        (
            "crate::method",
            &[
                "ClientSent",
                "MethodDef",
                "NoWait",
                "Request",
                "Rule",
                "ServerSent",
            ],
        ),
        ("crate::method_id", &["MethodId"]),
        (
            "crate::wire",
            &[
                "Decode",
                "DecodeError",
                "Encode",
                "FieldTable",
                "LongStr",
                "Secret",
                "ShortStr",
                "ShortStrError",
                "Timestamp",
                "parse",
                "put",
            ],
        ),
    ],
];

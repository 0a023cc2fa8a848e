//! The emitter of the legality table: the sender, channel, content and replies of each method.

use super::{enums::path, writer::Writer};
use crate::model::Spec;

pub(super) fn emit(w: &mut Writer, spec: &Spec) {
    w.gap();
    w.note("The rules of all methods, ordered by id.");
    w.enclosed("pub static RULES: &[Rule] = &[", "];", |w| {
        for class in &spec.classes {
            for method in &class.methods {
                w.line(format!("{}::RULE,", path(class, method)));
            }
        }
    });

    w.gap();
    w.note("The rule of the method with that id; `None` if there is no such method.");
    w.line("#[must_use]");
    w.block("pub fn rule(id: MethodId) -> Option<&'static Rule>", |w| {
        w.enclosed("Some(match (id.class, id.method) {", "})", |w| {
            for class in &spec.classes {
                for method in &class.methods {
                    let id = format!("({}, {})", class.index, method.index);
                    w.arm(&id, &format!("&{}::RULE", path(class, method)));
                }
            }
            w.line("_ => return None,");
        });
    });

    w.gap();
    w.note("The error for an id that is not, or not from that side, one of a method.");
    w.block("fn unknown_method(id: MethodId) -> DecodeError", |w| {
        w.block("match id.class", |w| {
            let indices: Vec<String> = spec
                .classes
                .iter()
                .map(|class| class.index.to_string())
                .collect();
            w.line(format!(
                "{} => DecodeError::UnknownMethod(id),",
                indices.join(" | ")
            ));
            w.line("class => DecodeError::UnknownClass(class),");
        });
    });
}

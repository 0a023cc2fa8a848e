//! The emitter of the legality table: the sender, channel, content and replies of each method.

use super::{
    enums::{Variant, variants},
    lines,
    writer::Writer,
};
use crate::model::Spec;

pub(super) fn emit(w: &mut Writer, spec: &Spec) {
    let methods = variants(spec);
    let rules = lines(&methods, |it| format!("{}::RULE,", it.path));
    let arms = lines(&methods, |Variant { id, path, .. }| {
        format!("{id} => &{path}::RULE,")
    });
    let classes: Vec<String> = spec
        .classes
        .iter()
        .map(|class| class.index.to_string())
        .collect();
    let classes = classes.join(" | ");
    w.item(format!(
        "/// The rules of all methods, ordered by id.
        pub static RULES: &[Rule] = &[
            {rules}
        ];

        /// Returns the rule of the method with that id. `Some` if there is such a method.
        #[must_use]
        pub fn rule(id: MethodId) -> Option<&'static Rule> {{
            Some(match (id.class, id.method) {{
                {arms}
                _ => return None,
            }})
        }}

        /// Returns the error for an id that is not one of a method of that side.
        fn unknown_method(id: MethodId) -> DecodeError {{
            match id.class {{
                {classes} => DecodeError::UnknownMethod(id),
                class => DecodeError::UnknownClass(class),
            }}
        }}"
    ));
}

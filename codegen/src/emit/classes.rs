//! The emitter of a class, as a module.

use super::{methods, names::snake, properties, writer::Writer};
use crate::model::Class;

pub(super) fn emit(w: &mut Writer, class: &Class) {
    let place = if class.connection {
        "on channel 0"
    } else {
        "on an open channel"
    };
    let index = class.index;
    w.gap();
    w.doc(
        &class.doc,
        &format!("Class {index} of the protocol; its methods travel {place}."),
    );
    w.lines(format!("pub mod {} {{", snake(&class.name)));
    w.lines("use super::*;");
    for method in &class.methods {
        methods::emit(w, class, method);
    }
    if !class.properties.is_empty() {
        properties::emit(w, class);
    }
    w.lines("}");
}

//! The emitter of the constants and the reply codes.

use super::{codec::reply_code, lines, names::upper, writer::Writer};
use crate::{
    model::{Constant, Spec},
    xml::ErrorClass,
};

pub(super) fn emit(w: &mut Writer, spec: &Spec) {
    for constant in &spec.constants {
        let (name, value) = (upper(&constant.name), constant.value);
        let kind = if value <= u8::MAX.into() { "u8" } else { "u32" };
        w.gap();
        w.doc(&constant.doc, &undocumented(constant));
        w.lines(format!("pub const {name}: {kind} = {value};"));
    }
    let Spec {
        major,
        minor,
        revision,
        port,
        ..
    } = spec;
    w.item(format!(
        "/// The major version of the protocol.
        pub const PROTOCOL_MAJOR: u8 = {major};

        /// The minor version of the protocol.
        pub const PROTOCOL_MINOR: u8 = {minor};

        /// The revision of that version.
        pub const PROTOCOL_REVISION: u8 = {revision};

        /// The default TCP port of a server.
        pub const PORT: u16 = {port};"
    ));
    reply_codes(w, &spec.reply_codes);
}

/// Returns the documentation of a constant for which the specification has none.
fn undocumented<T>(constant: &Constant<T>) -> String {
    if constant.doc.is_empty() {
        format!("The constant `{}`.", constant.name)
    } else {
        String::new()
    }
}

fn reply_codes(w: &mut Writer, codes: &[Constant<u16>]) {
    w.item(
        "/// The scope of a fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Severity {
            /// The channel closes, and the connection goes on.
            Soft,
            /// The connection closes.
            Hard,
        }

        /// The reason for a close or a return. Peers also use numbers that have no name here.
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct ReplyCode(pub u16);

        impl ReplyCode {",
    );
    for code in codes {
        let severity = match code.class {
            None => "No error.",
            Some(ErrorClass::Soft) => "A soft error.",
            Some(ErrorClass::Hard) => "A hard error.",
        };
        w.gap();
        w.doc(&code.doc, severity);
        let (name, value) = (reply_code(&code.name), code.value);
        w.lines(format!("pub const {name}: Self = Self({value});"));
    }
    let errors = codes
        .iter()
        .filter_map(|code| Some((reply_code(&code.name), code.class?)));
    let severities = lines(errors, |(name, class)| {
        format!("Self::{name} => Some(Severity::{class:?}),")
    });
    let names = lines(codes, |Constant { name, .. }| {
        format!("Self::{} => Some(\"{name}\"),", reply_code(name))
    });
    w.item(format!(
        "/// Returns the scope of the fault. `Some` if this is a known code of an error.
        #[must_use]
        pub const fn severity(self) -> Option<Severity> {{
            match self {{
                {severities}
                _ => None,
            }}
        }}

        /// Returns the name in the specification, such as `not-found`. `Some` if it has one.
        #[must_use]
        pub const fn name(self) -> Option<&'static str> {{
            match self {{
                {names}
                _ => None,
            }}
        }}
        }}

        impl fmt::Display for ReplyCode {{
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {{
                match self.name() {{
                    Some(name) => write!(f, \"{{}} ({{name}})\", self.0),
                    None => write!(f, \"{{}}\", self.0),
                }}
            }}
        }}

        impl fmt::Debug for ReplyCode {{
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {{
                fmt::Display::fmt(self, f)
            }}
        }}"
    ));
}

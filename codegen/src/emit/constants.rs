//! The emitter of the constants and the reply codes.

use super::{codec::reply_code, names::upper, writer::Writer};
use crate::{
    model::{Constant, Spec},
    xml::ErrorClass,
};

pub(super) fn emit(w: &mut Writer, spec: &Spec) {
    for constant in &spec.constants {
        w.gap();
        doc(w, constant);
        let kind = if constant.value <= u8::MAX.into() {
            "u8"
        } else {
            "u32"
        };
        w.line(format!(
            "pub const {}: {kind} = {};",
            upper(&constant.name),
            constant.value
        ));
    }
    let version = [
        ("MAJOR", "The major version of the protocol.", spec.major),
        ("MINOR", "The minor version of the protocol.", spec.minor),
        ("REVISION", "The revision of that version.", spec.revision),
    ];
    for (name, note, value) in version {
        w.gap();
        w.note(note);
        w.line(format!("pub const PROTOCOL_{name}: u8 = {value};"));
    }
    w.gap();
    w.note("The TCP port of a server, where no other is given.");
    w.line(format!("pub const PORT: u16 = {};", spec.port));
    reply_codes(w, &spec.reply_codes);
}

fn doc<T>(w: &mut Writer, constant: &Constant<T>) {
    w.doc(&constant.doc);
    if constant.doc.is_empty() {
        w.note(&format!("The constant `{}`.", constant.name));
    }
}

fn reply_codes(w: &mut Writer, codes: &[Constant<u16>]) {
    w.gap();
    w.note("How far a fault reaches.");
    w.line("#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]");
    w.block("pub enum Severity", |w| {
        w.note("The channel closes, and the connection goes on.");
        w.line("Soft,");
        w.note("The connection closes.");
        w.line("Hard,");
    });

    w.gap();
    w.note("Why something was closed, or returned. Peers use numbers that have no name here, too.");
    w.line("#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]");
    w.line("pub struct ReplyCode(pub u16);");

    w.gap();
    w.block("impl ReplyCode", |w| {
        for code in codes {
            w.gap();
            doc(w, code);
            w.line("///");
            w.note(match code.class {
                None => "No error.",
                Some(ErrorClass::Soft) => "A soft error.",
                Some(ErrorClass::Hard) => "A hard error.",
            });
            w.line(format!(
                "pub const {}: Self = Self({});",
                reply_code(&code.name),
                code.value
            ));
        }

        w.gap();
        w.note("How far the fault reaches; `None` if it is none, or unknown.");
        w.line("#[must_use]");
        w.block("pub const fn severity(self) -> Option<Severity>", |w| {
            w.block("match self", |w| {
                for code in codes {
                    let severity = match code.class {
                        None => continue,
                        Some(ErrorClass::Soft) => "Soft",
                        Some(ErrorClass::Hard) => "Hard",
                    };
                    let pattern = format!("Self::{}", reply_code(&code.name));
                    w.arm(&pattern, &format!("Some(Severity::{severity})"));
                }
                w.line("_ => None,");
            });
        });

        w.gap();
        w.note("The name in the specification, such as `not-found`; `None` if it has none.");
        w.line("#[must_use]");
        w.block("pub const fn name(self) -> Option<&'static str>", |w| {
            w.block("match self", |w| {
                for code in codes {
                    let pattern = format!("Self::{}", reply_code(&code.name));
                    w.arm(&pattern, &format!("Some(\"{}\")", code.name));
                }
                w.line("_ => None,");
            });
        });
    });

    w.gap();
    w.block("impl fmt::Display for ReplyCode", |w| {
        w.block(
            "fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result",
            |w| {
                w.block("match self.name()", |w| {
                    w.line("Some(name) => write!(f, \"{} ({name})\", self.0),");
                    w.line("None => write!(f, \"{}\", self.0),");
                });
            },
        );
    });

    w.gap();
    w.block("impl fmt::Debug for ReplyCode", |w| {
        w.block(
            "fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result",
            |w| {
                w.line("fmt::Display::fmt(self, f)");
            },
        );
    });
}

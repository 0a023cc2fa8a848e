//! The emitter of a method: its struct and implementations.

use super::{
    codec::{self, field_doc},
    names::{camel, snake},
    writer::Writer,
};
use crate::model::{Class, Field, Kind, Method};

pub(super) fn emit(w: &mut Writer, class: &Class, method: &Method) {
    let name = camel(&method.name);
    let stored: Vec<&Field> = method
        .fields
        .iter()
        .filter(|field| !field.reserved)
        .collect();

    structure(w, class, method, &name, &stored);
    default(w, &name, &stored);
    inherent(w, class, method, &name, &stored);
    codec(w, method, &name);
    traits(w, class, method, &name);
    conversions(w, class, method, &name);
    if method.responses.len() > 1 {
        reply_enum(w, class, method, &name);
    }
    sample(w, &name, &stored);
}

/// Returns the response type of a method: the response itself, or an enum if there are several.
/// `Some` if the method has a response.
fn reply_type(method: &Method) -> Option<String> {
    match method.responses.as_slice() {
        [] => None,
        [response] => Some(camel(response)),
        _ => Some(format!("{}Reply", camel(&method.name))),
    }
}

/// Returns the enums that have the method as a variant.
fn enums(method: &Method) -> impl Iterator<Item = &'static str> {
    [
        ("Method", true),
        ("ClientMethod", method.client_sends),
        ("ServerMethod", method.server_sends),
    ]
    .into_iter()
    .filter_map(|(name, has)| has.then_some(name))
}

/// Returns links to methods of the same class, joined by commas and `conjunction`.
fn links(names: &[String], conjunction: &str) -> String {
    let links: Vec<String> = names
        .iter()
        .map(|name| format!("[`{}`]", camel(name)))
        .collect();
    match links.as_slice() {
        [first @ .., last] if !first.is_empty() => {
            format!("{} {conjunction} {last}", first.join(", "))
        }
        _ => links.concat(),
    }
}

fn structure(w: &mut Writer, class: &Class, method: &Method, name: &str, stored: &[&Field]) {
    w.gap();
    w.doc(&method.doc);
    if !method.doc.is_empty() {
        w.line("///");
    }
    let side = match (method.client_sends, method.server_sends) {
        (true, true) => "either side",
        (true, false) => "the client",
        (false, _) => "the server",
    };
    let mut note = format!(
        "Method {}.{} of class `{}`, sent by {side}",
        class.index, method.index, class.name
    );
    if !method.answers.is_empty() {
        note.push_str(" to answer ");
        note.push_str(&links(&method.answers, "or"));
    }
    if !method.responses.is_empty() {
        note.push_str("; answered by ");
        note.push_str(&links(&method.responses, "or"));
    }
    if method.content {
        note.push_str("; a content follows");
    }
    note.push('.');
    if method.deprecated {
        note.push_str(" Deprecated by the specification.");
    }
    w.note(&note);
    let plain = stored.iter().all(|field| !field.set_by_default);
    w.line(if plain {
        "#[derive(Clone, Debug, Default, PartialEq)]"
    } else {
        "#[derive(Clone, Debug, PartialEq)]"
    });
    if stored.is_empty() {
        w.line(format!("pub struct {name};"));
        return;
    }
    w.block(format!("pub struct {name}"), |w| {
        for field in stored {
            field_doc(w, field);
            w.line(format!(
                "pub {}: {},",
                snake(&field.name),
                field.kind.rust_type()
            ));
        }
    });
}

/// Emits the `Default` of a method with bits that are set by default; other methods derive it.
fn default(w: &mut Writer, name: &str, stored: &[&Field]) {
    if stored.iter().all(|field| !field.set_by_default) {
        return;
    }
    let value = |field: &Field| match field.kind {
        Kind::Bit => field.set_by_default.to_string(),
        kind => format!("{}::default()", kind.rust_type()),
    };
    let values: Vec<String> = stored
        .iter()
        .map(|field| format!("{}: {}", snake(&field.name), value(field)))
        .collect();
    w.gap();
    w.block(format!("impl Default for {name}"), |w| {
        w.block("fn default() -> Self", |w| w.literal("Self", &values, ""));
    });
}

fn inherent(w: &mut Writer, class: &Class, method: &Method, name: &str, stored: &[&Field]) {
    let ids = |names: &[String]| -> Vec<String> {
        names
            .iter()
            .map(|name| format!("{}::ID", camel(name)))
            .collect()
    };
    w.gap();
    w.block(format!("impl {name}"), |w| {
        w.note("Who may send this method, where, with what, and what answers it.");
        w.enclosed("pub const RULE: Rule = Rule {", "};", |w| {
            w.line("id: Self::ID,");
            w.line("name: Self::NAME,");
            w.line(format!("client_sends: {},", method.client_sends));
            w.line(format!("server_sends: {},", method.server_sends));
            w.line(format!("connection: {},", class.connection));
            w.line(format!("content: {},", method.content));
            w.line(format!("synchronous: {},", method.synchronous));
            w.array("responses: &", &ids(&method.responses), ",");
            w.array("answers: &", &ids(&method.answers), ",");
        });
        for field in stored {
            codec::setter(w, field, None);
        }
    });
}

fn codec(w: &mut Writer, method: &Method, name: &str) {
    // Inlines the methods that may be sent once per message: the asynchronous ones, and those with
    // content.
    let inline = |w: &mut Writer| {
        if !method.synchronous || method.content {
            w.line("#[inline]");
        }
    };
    w.gap();
    w.block(format!("impl Encode for {name}"), |w| {
        inline(w);
        w.block("fn encoded_len(&self) -> usize", |w| {
            codec::measure(w, &method.fields)
        });
        w.gap();
        if method.fields.is_empty() {
            w.line("fn encode(&self, _: &mut BytesMut) {}");
        } else {
            inline(w);
            w.block("fn encode(&self, out: &mut BytesMut)", |w| {
                codec::encode(w, &method.fields)
            });
        }
    });

    w.gap();
    w.block(format!("impl Decode for {name}"), |w| {
        inline(w);
        w.block(
            "fn decode(input: &[u8]) -> Result<Self, DecodeError>",
            |w| {
                codec::decode(w, &method.fields);
            },
        );
    });
}

fn traits(w: &mut Writer, class: &Class, method: &Method, name: &str) {
    w.gap();
    w.line(format!("impl crate::method::Sealed for {name} {{}}"));
    w.gap();
    w.block(format!("impl MethodDef for {name}"), |w| {
        w.line(format!(
            "const ID: MethodId = MethodId::new({}, {});",
            class.index, method.index
        ));
        w.line(format!(
            "const NAME: &'static str = \"{}.{}\";",
            class.name, method.name
        ));
    });
    if method.client_sends {
        w.gap();
        w.line(format!("impl ClientSent for {name} {{}}"));
    }
    if method.server_sends {
        w.gap();
        w.line(format!("impl ServerSent for {name} {{}}"));
    }
    let Some(reply) = reply_type(method) else {
        return;
    };
    let no_wait = method.fields.iter().find(|field| field.no_wait);
    w.gap();
    w.block(format!("impl Request for {name}"), |w| {
        w.line(format!("type Reply = {reply};"));
        if let Some(field) = no_wait {
            w.gap();
            w.block("fn no_wait(&self) -> bool", |w| {
                w.line(format!("self.{}", snake(&field.name)))
            });
        }
    });
    if let Some(field) = no_wait {
        w.gap();
        w.block(format!("impl NoWait for {name}"), |w| {
            w.block("fn set_no_wait(&mut self, no_wait: bool)", |w| {
                w.line(format!("self.{} = no_wait;", snake(&field.name)));
            });
        });
    }
}

fn conversions(w: &mut Writer, class: &Class, method: &Method, name: &str) {
    let variant = format!("{}{name}", camel(&class.name));
    for all in enums(method) {
        w.gap();
        w.block(format!("impl From<{name}> for {all}"), |w| {
            w.line("#[inline]");
            w.block(format!("fn from(method: {name}) -> Self"), |w| {
                w.line(format!("Self::{variant}(method)"));
            });
        });
    }

    w.gap();
    w.block(format!("impl TryFrom<Method> for {name}"), |w| {
        w.line("type Error = Method;");
        w.gap();
        w.block("fn try_from(method: Method) -> Result<Self, Method>", |w| {
            w.line(format!("if let Method::{variant}(method) = method {{"));
            w.line("    Ok(method)");
            w.line("} else {");
            w.line("    Err(method)");
            w.line("}");
        });
    });
}

/// Emits the enum of a method's responses, for a method with several.
fn reply_enum(w: &mut Writer, class: &Class, method: &Method, name: &str) {
    let responses: Vec<String> = method.responses.iter().map(|name| camel(name)).collect();
    let class_name = camel(&class.name);
    w.gap();
    w.note(&format!("What answers [`{name}`]."));
    w.line("#[derive(Clone, Debug, PartialEq)]");
    w.block(format!("pub enum {name}Reply"), |w| {
        for (response, spelled) in responses.iter().zip(&method.responses) {
            w.note(&format!("`{}.{spelled}`", class.name));
            w.line(format!("{response}({response}),"));
        }
    });

    // The enum converts into all enums that every response converts into.
    let answers = class
        .methods
        .iter()
        .filter(|answer| method.responses.contains(&answer.name));
    let enums = answers
        .map(|answer| enums(answer).collect::<Vec<_>>())
        .reduce(|mut all, some| {
            all.retain(|name| some.contains(name));
            all
        });
    for all in enums.unwrap_or_default() {
        w.gap();
        w.block(format!("impl From<{name}Reply> for {all}"), |w| {
            w.block(format!("fn from(reply: {name}Reply) -> Self"), |w| {
                w.block("match reply", |w| {
                    for response in &responses {
                        w.arm(&format!("{name}Reply::{response}(method)"), "method.into()");
                    }
                });
            });
        });
    }

    w.gap();
    w.block(format!("impl TryFrom<Method> for {name}Reply"), |w| {
        w.line("type Error = Method;");
        w.gap();
        w.block("fn try_from(method: Method) -> Result<Self, Method>", |w| {
            for (number, response) in responses.iter().enumerate() {
                let otherwise = if number == 0 { "" } else { "} else " };
                w.line(format!(
                    "{otherwise}if let Method::{class_name}{response}(method) = method {{"
                ));
                w.line(format!("    Ok(Self::{response}(method))"));
            }
            w.line("} else {");
            w.line("    Err(method)");
            w.line("}");
        });
    });
}

/// Emits a constructor for tests, with every field from the sampler of the test.
fn sample(w: &mut Writer, name: &str, stored: &[&Field]) {
    w.gap();
    w.line("#[cfg(test)]");
    w.block(format!("impl {name}"), |w| {
        if stored.is_empty() {
            w.line("pub(crate) fn sample(_: &mut impl crate::tests::sampler::Sample) -> Self {");
            w.line("    Self");
            w.line("}");
            return;
        }
        w.block(
            "pub(crate) fn sample(sampler: &mut impl crate::tests::sampler::Sample) -> Self",
            |w| {
                let values: Vec<String> = stored
                    .iter()
                    .map(|field| format!("{}: {}", snake(&field.name), field.kind.sample()))
                    .collect();
                w.literal("Self", &values, "");
            },
        );
    });
}

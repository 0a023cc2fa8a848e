//! The emitter of a method: its struct and implementations.

use super::{
    codec::{self, field_doc},
    lines,
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
    words(w, &name, &stored);
    conversions(w, class, method, &name);
    if method.responses.len() > 1 {
        reply_enum(w, class, method, &name);
    }
}

/// Returns the response type of a method: the response itself, or an enum if there are several.
/// `Some` if the method has a response.
pub(super) fn reply_type(method: &Method) -> Option<String> {
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

/// Returns links to methods of the same class, joined by commas and "or".
fn links(names: &[String]) -> String {
    let links: Vec<String> = names
        .iter()
        .map(|name| format!("[`{}`]", camel(name)))
        .collect();
    match links.as_slice() {
        [first @ .., last] if !first.is_empty() => {
            format!("{} or {last}", first.join(", "))
        }
        _ => links.concat(),
    }
}

fn structure(w: &mut Writer, class: &Class, method: &Method, name: &str, stored: &[&Field]) {
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
        note.push_str(&links(&method.answers));
    }
    if !method.responses.is_empty() {
        note.push_str("; answered by ");
        note.push_str(&links(&method.responses));
    }
    if method.content {
        note.push_str("; a content follows");
    }
    note.push('.');
    if method.deprecated {
        note.push_str(" Deprecated by the specification.");
    }
    w.gap();
    w.doc(&method.doc, &note);
    let plain = stored.iter().all(|field| !field.set_by_default);
    w.lines(if plain {
        "#[derive(Clone, Debug, Default, PartialEq)]"
    } else {
        "#[derive(Clone, Debug, PartialEq)]"
    });
    if stored.is_empty() {
        w.lines(format!("pub struct {name};"));
        return;
    }
    w.lines(format!("pub struct {name} {{"));
    for field in stored {
        let (name, kind) = (snake(&field.name), field.kind.rust_type());
        field_doc(w, field);
        w.lines(format!("pub {name}: {kind},"));
    }
    w.lines("}");
}

/// Emits the `Default` of a method with bits that are set by default; other methods derive it.
fn default(w: &mut Writer, name: &str, stored: &[&Field]) {
    if stored.iter().all(|field| !field.set_by_default) {
        return;
    }
    let values = lines(stored, |field| {
        let value = match field.kind {
            Kind::Bit => field.set_by_default.to_string(),
            kind => format!("{}::default()", kind.rust_type()),
        };
        format!("{}: {value},", snake(&field.name))
    });
    w.item(format!(
        "impl Default for {name} {{
            fn default() -> Self {{
                Self {{
                    {values}
                }}
            }}
        }}"
    ));
}

fn inherent(w: &mut Writer, class: &Class, method: &Method, name: &str, stored: &[&Field]) {
    let ids = |names: &[String]| {
        let ids: Vec<String> = names
            .iter()
            .map(|name| format!("{}::ID", camel(name)))
            .collect();
        ids.join(", ")
    };
    let Method {
        client_sends,
        server_sends,
        content,
        synchronous,
        own_command,
        ..
    } = method;
    let connection = class.connection;
    let (responses, answers) = (ids(&method.responses), ids(&method.answers));
    w.item(format!(
        "impl {name} {{
            /// The rule of this method: its sender, channel, content and replies.
            pub const RULE: Rule = Rule {{
                id: Self::ID,
                name: Self::NAME,
                client_sends: {client_sends},
                server_sends: {server_sends},
                connection: {connection},
                content: {content},
                synchronous: {synchronous},
                own_command: {own_command},
                responses: &[{responses}],
                answers: &[{answers}],
            }};"
    ));
    for field in stored {
        codec::setter(w, field, None);
    }
    w.lines("}");
}

fn codec(w: &mut Writer, method: &Method, name: &str) {
    // Inlines the methods that may be sent once per message: the asynchronous ones, and those with
    // content.
    let inline = if !method.synchronous || method.content {
        "#[inline]\n"
    } else {
        ""
    };
    let len = codec::measure(&method.fields);
    let (encode, put) = if method.fields.is_empty() {
        (
            "fn encode(&self, _: &mut BytesMut) {}".to_owned(),
            "fn put<S: Sink>(&self, _: &mut S) {}".to_owned(),
        )
    } else {
        let statements = codec::encode(&method.fields);
        (
            format!("{inline}fn encode(&self, out: &mut BytesMut) {{\nself.put(out);\n}}"),
            format!("{inline}fn put<S: Sink>(&self, out: &mut S) {{\n{statements}\n}}"),
        )
    };
    let decode = codec::decode(&method.fields);
    let stored = method.fields.iter().filter(|field| !field.reserved);
    let too_long = codec::text_too_long(stored.filter_map(|field| {
        let value = format!("self.{}", snake(&field.name));
        Some((field.name.clone(), field.kind.longest_text(&value)?))
    }));
    w.item(format!(
        "impl Encode for {name} {{
            {inline}fn encoded_len(&self) -> usize {{
                {len}
            }}

            {encode}

            {too_long}
        }}

        impl Sealed for {name} {{
            {put}
        }}

        impl Decode for {name} {{
            {inline}fn decode(input: &[u8]) -> Result<Self, DecodeError> {{
                {decode}
            }}
        }}"
    ));
}

fn traits(w: &mut Writer, class: &Class, method: &Method, name: &str) {
    w.item(format!(
        "impl MethodDef for {name} {{
            const ID: MethodId = MethodId::new({}, {});
            const NAME: &'static str = \"{}.{}\";
        }}",
        class.index, method.index, class.name, method.name
    ));
    if method.client_sends {
        w.item(format!("impl ClientSent for {name} {{}}"));
    }
    if method.server_sends {
        w.item(format!("impl ServerSent for {name} {{}}"));
    }
    let Some(reply) = reply_type(method) else {
        return;
    };
    let Some(field) = method.fields.iter().find(|field| field.no_wait) else {
        w.item(format!(
            "impl Request for {name} {{
                type Reply = {reply};
            }}"
        ));
        return;
    };
    let field = snake(&field.name);
    w.item(format!(
        "impl Request for {name} {{
            type Reply = {reply};

            fn no_wait(&self) -> bool {{
                self.{field}
            }}
        }}

        impl NoWait for {name} {{
            fn set_no_wait(&mut self, no_wait: bool) {{
                self.{field} = no_wait;
            }}
        }}"
    ));
}

/// Emits the method in words.
fn words(w: &mut Writer, name: &str, stored: &[&Field]) {
    let arguments = lines(stored, |field| {
        let value = format!("&self.{}", snake(&field.name));
        format!(".argument(\"{}\", {value})", field.name)
    });
    w.item(format!(
        "/// The name and the arguments, without secrets and without the values of tables.
        impl fmt::Display for {name} {{
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {{
                Words::new(f, Self::NAME)
                    {arguments}
                    .finish()
            }}
        }}"
    ));
}

fn conversions(w: &mut Writer, class: &Class, method: &Method, name: &str) {
    let variant = format!("{}{name}", camel(&class.name));
    for all in enums(method) {
        w.item(format!(
            "impl From<{name}> for {all} {{
                #[inline]
                fn from(method: {name}) -> Self {{
                    Self::{variant}(method)
                }}
            }}"
        ));
    }
    w.item(format!(
        "impl TryFrom<Method> for {name} {{
            type Error = Method;

            fn try_from(method: Method) -> Result<Self, Method> {{
                if let Method::{variant}(method) = method {{
                    Ok(method)
                }} else {{
                    Err(method)
                }}
            }}
        }}"
    ));
}

/// Emits the enum of a method's responses, for a method with several.
fn reply_enum(w: &mut Writer, class: &Class, method: &Method, name: &str) {
    let variants = lines(&method.responses, |spelled| {
        let response = camel(spelled);
        format!("/// `{}.{spelled}`\n{response}({response}),", class.name)
    });
    w.item(format!(
        "/// A response to [`{name}`].
        #[derive(Clone, Debug, PartialEq)]
        pub enum {name}Reply {{
            {variants}
        }}"
    ));

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
    let arms = lines(&method.responses, |response| {
        format!("{name}Reply::{}(method) => method.into(),", camel(response))
    });
    for all in enums.unwrap_or_default() {
        w.item(format!(
            "impl From<{name}Reply> for {all} {{
                fn from(reply: {name}Reply) -> Self {{
                    match reply {{
                        {arms}
                    }}
                }}
            }}"
        ));
    }

    let class = camel(&class.name);
    let branches: String = method
        .responses
        .iter()
        .map(|response| {
            let response = camel(response);
            format!(
                "if let Method::{class}{response}(method) = method {{
                    Ok(Self::{response}(method))
                }} else "
            )
        })
        .collect();
    w.item(format!(
        "impl TryFrom<Method> for {name}Reply {{
            type Error = Method;

            fn try_from(method: Method) -> Result<Self, Method> {{
                {branches}{{
                    Err(method)
                }}
            }}
        }}"
    ));
}

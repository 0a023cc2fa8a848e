//! The emitter of the enums: all methods, and the methods of each sender.

use super::{
    lines,
    names::{camel, snake},
    writer::Writer,
};
use crate::model::{Method, Spec};

/// A method as a variant of an enum.
pub(super) struct Variant<'a> {
    pub(super) method: &'a Method,
    /// The name of the variant.
    pub(super) name: String,
    /// The path of the method's struct.
    pub(super) path: String,
    /// The pattern of the method's id.
    pub(super) id: String,
    /// The name in the specification, with the class.
    pub(super) spelled: String,
    /// Whether the method travels on channel 0.
    pub(super) connection: bool,
}

/// Returns the methods of all classes.
pub(super) fn variants(spec: &Spec) -> Vec<Variant<'_>> {
    let pairs = spec
        .classes
        .iter()
        .flat_map(|class| class.methods.iter().map(move |method| (class, method)));
    pairs
        .map(|(class, method)| Variant {
            method,
            name: camel(&class.name) + &camel(&method.name),
            path: format!("{}::{}", snake(&class.name), camel(&method.name)),
            id: format!("({}, {})", class.index, method.index),
            spelled: format!("{}.{}", class.name, method.name),
            connection: class.connection,
        })
        .collect()
}

pub(super) fn emit(w: &mut Writer, spec: &Spec) {
    let all = &variants(spec);
    let client = |method: &Method| method.client_sends;
    let server = |method: &Method| method.server_sends;
    let (client_note, server_note) = (
        "A method that a client may send.",
        "A method that a server may send.",
    );
    emit_enum(w, all, "Method", "Any method.", |_| true);
    emit_enum(w, all, "ClientMethod", client_note, client);
    emit_enum(w, all, "ServerMethod", server_note, server);
    queries(w, all);
    conversions(w, all, "ClientMethod", client);
    conversions(w, all, "ServerMethod", server);
}

fn emit_enum(
    w: &mut Writer,
    all: &[Variant<'_>],
    name: &str,
    note: &str,
    includes: impl Fn(&Method) -> bool,
) {
    let arms = |line: &dyn Fn(&Variant<'_>) -> String| {
        lines(all.iter().filter(|it| includes(it.method)), line)
    };
    let variants = arms(&|it| format!("/// `{}`\n{}({}),", it.spelled, it.name, it.path));
    let rules = arms(&|it| format!("Self::{}(_) => &{}::RULE,", it.name, it.path));
    let decoded = arms(&|Variant { id, path, .. }| {
        format!("{id} => Self::from({path}::decode(arguments)?),")
    });
    let lens = arms(&|it| format!("Self::{}(method) => method.encoded_len(),", it.name));
    let words = arms(&|it| format!("Self::{}(method) => method.fmt(f),", it.name));
    let encoded = arms(&|it| format!("Self::{}(method) => method.encode(out),", it.name));
    w.item(format!(
        "/// {note}
        #[derive(Clone, Debug, PartialEq)]
        pub enum {name} {{
            {variants}
        }}

        impl {name} {{
            /// Returns the rule of this method: its sender, channel, content and replies.
            #[must_use]
            pub fn rule(&self) -> &'static Rule {{
                match self {{
                    {rules}
                }}
            }}

            /// Returns the numbers of this method on the wire.
            #[must_use]
            pub fn id(&self) -> MethodId {{
                self.rule().id
            }}

            /// Returns the name of this method, such as `queue.declare`.
            #[must_use]
            pub fn name(&self) -> &'static str {{
                self.rule().name
            }}

            /// Decodes the arguments of the method with that id, which must be all of the input.
            pub fn decode(id: MethodId, arguments: &[u8]) -> Result<Self, DecodeError> {{
                Ok(match (id.class, id.method) {{
                    {decoded}
                    _ => return Err(unknown_method(id)),
                }})
            }}
        }}

        /// The name and the arguments, without secrets and without the values of tables.
        impl fmt::Display for {name} {{
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {{
                match self {{
                    {words}
                }}
            }}
        }}

        impl Encode for {name} {{
            fn encoded_len(&self) -> usize {{
                match self {{
                    {lens}
                }}
            }}

            fn encode(&self, out: &mut BytesMut) {{
                match self {{
                    {encoded}
                }}
            }}
        }}"
    ));
}

/// Emits the queries of any method: whether its `no-wait` bit is set, and the queue that it names.
fn queries(w: &mut Writer, all: &[Variant<'_>]) {
    let no_wait = lines(all, |Variant { method, name, .. }| {
        match method.fields.iter().find(|field| field.no_wait) {
            Some(field) => {
                let field = snake(&field.name);
                format!("Self::{name}(method) => method.{field},")
            }
            None => format!("Self::{name}(_) => false,"),
        }
    });
    let queue = lines(all, |Variant { method, name, .. }| {
        if method.fields.iter().any(|field| field.name == "queue") {
            format!("Self::{name}(method) => Some(&method.queue),")
        } else {
            format!("Self::{name}(_) => None,")
        }
    });
    w.item(format!(
        "impl Method {{
            /// Returns whether this is a request that suppresses its response.
            #[must_use]
            pub fn no_wait(&self) -> bool {{
                match self {{
                    {no_wait}
                }}
            }}

            /// Returns the queue that this method names. `Some` if it has a field for one. In a
            /// request an empty name means the queue that was declared last on the channel.
            #[must_use]
            pub fn queue(&self) -> Option<&ShortStr> {{
                match self {{
                    {queue}
                }}
            }}
        }}"
    ));
}

/// Emits the conversion from the enum of one sender to the enum of all methods, and the fallible
/// one back.
fn conversions(
    w: &mut Writer,
    all: &[Variant<'_>],
    name: &str,
    includes: impl Fn(&Method) -> bool,
) {
    let included = all.iter().filter(|it| includes(it.method));
    let widened = lines(included, |it| {
        format!("{name}::{}(method) => method.into(),", it.name)
    });
    let narrowed = lines(all, |it| {
        let body = if includes(it.method) {
            "method.into()"
        } else {
            "return Err(method.into())"
        };
        format!("Method::{}(method) => {body},", it.name)
    });
    w.item(format!(
        "impl From<{name}> for Method {{
            fn from(method: {name}) -> Self {{
                match method {{
                    {widened}
                }}
            }}
        }}

        impl TryFrom<Method> for {name} {{
            type Error = Method;

            /// Fails with the method itself if that side does not send it.
            fn try_from(method: Method) -> Result<Self, Method> {{
                Ok(match method {{
                    {narrowed}
                }})
            }}
        }}"
    ));
}

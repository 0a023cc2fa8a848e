//! The emitter of the strategies: values of every method and of the properties, for property tests.

use super::{
    codec::reply_code,
    enums::{Variant, variants},
    lines,
    names::snake,
    writer::Writer,
};
use crate::model::{Field, Kind, Spec};

/// The number of strategies in a tuple. Those of a method with more fields are tuples in a tuple.
const TUPLE: usize = 8;

/// Emits the strategies of the whole specification.
pub(crate) fn strategies(spec: &Spec) -> String {
    let methods = variants(spec);
    let mut w = Writer::default();
    w.lines(HEAD);
    list(
        &mut w,
        &methods,
        "methods",
        "Method",
        "every method",
        |_| true,
    );
    let (client, server) = ("ClientMethod", "ServerMethod");
    let note = "every method that a client may send";
    list(&mut w, &methods, "client_methods", client, note, |it| {
        it.method.client_sends
    });
    let note = "every method that a server may send";
    list(&mut w, &methods, "server_methods", server, note, |it| {
        it.method.server_sends
    });
    let note = "every request of a client on an open channel";
    list(&mut w, &methods, "requests", client, note, is_request);
    for (name, list) in [
        ("Method", "methods"),
        (client, "client_methods"),
        (server, "server_methods"),
    ] {
        w.item(format!(
            "impl Arbitrary for {name} {{
                type Parameters = Values;
                type Strategy = BoxedStrategy<Self>;

                fn arbitrary_with(values: Values) -> Self::Strategy {{
                    Union::new({list}(&values)).boxed()
                }}
            }}"
        ));
    }
    command(&mut w, &methods);
    reply_codes(&mut w, spec);
    for Variant { method, path, .. } in &methods {
        emit(&mut w, path, &method.fields, Kind::strategy);
    }
    for class in &spec.classes {
        if !class.properties.is_empty() {
            let path = format!("{}::Properties", snake(&class.name));
            emit(&mut w, &path, &class.properties, |kind| {
                format!("option::of({})", kind.strategy())
            });
        }
    }
    w.finish()
}

/// Whether the method is a request of a client on an open channel: `channel.open` opens it.
fn is_request(it: &Variant<'_>) -> bool {
    let method = it.method;
    let opens = it.spelled == "channel.open";
    method.client_sends && !it.connection && !method.responses.is_empty() && !opens
}

/// Emits a function that returns a strategy for each of some methods.
fn list(
    w: &mut Writer,
    methods: &[Variant<'_>],
    name: &str,
    all: &str,
    note: &str,
    includes: impl Fn(&Variant<'_>) -> bool,
) {
    let strategies = lines(methods.iter().filter(|it| includes(it)), |it| {
        let path = &it.path;
        format!("any_with::<protocol::{path}>(values.clone()).prop_map_into().boxed(),")
    });
    w.item(format!(
        "/// Returns a strategy for {note}, ordered by id.
        #[must_use]
        pub fn {name}(values: &Values) -> Vec<BoxedStrategy<{all}>> {{
            vec![
                {strategies}
            ]
        }}"
    ));
}

/// Emits the function that passes a request to the command of a channel.
fn command(w: &mut Writer, methods: &[Variant<'_>]) {
    let arms = lines(methods.iter().filter(|it| is_request(it)), |it| {
        let name = &it.name;
        let call = format!("ClientMethod::{name}(method) => channel.call(method).map(Some),");
        match it.method.fields.iter().find(|field| field.no_wait) {
            Some(field) => {
                let field = snake(&field.name);
                format!(
                    "ClientMethod::{name}(method) if method.{field} => {{
                        channel.send(method).map(|()| None)
                    }}
                    {call}"
                )
            }
            None => call,
        }
    });
    w.item(format!(
        "/// Passes a request to [`ChannelMut::send`] if it asks for no reply, and otherwise to
        /// [`ChannelMut::call`]. Returns the request, `Some` if a reply is due.
        pub(super) fn command(
            channel: &mut ChannelMut<'_>,
            request: &ClientMethod,
        ) -> Result<Option<RequestId>, ApiMisuse> {{
            match request {{
                {arms}
                other => Err(ApiMisuse::NotSentThisWay {{
                    method: Method::from(other.clone()).name(),
                }}),
            }}
        }}"
    ));
}

/// Emits the list of the reply codes.
fn reply_codes(w: &mut Writer, spec: &Spec) {
    let count = spec.reply_codes.len();
    let codes = lines(&spec.reply_codes, |code| {
        format!("ReplyCode::{},", reply_code(&code.name))
    });
    w.item(format!(
        "/// The reply codes of the specification.
        pub(super) const REPLY_CODES: [ReplyCode; {count}] = [
            {codes}
        ];"
    ));
}

/// Emits the strategy of a struct, field by field.
fn emit(w: &mut Writer, path: &str, fields: &[Field], value: impl Fn(Kind) -> String) {
    let fields: Vec<&Field> = fields.iter().filter(|field| !field.reserved).collect();
    let (parameter, strategy) = if fields.is_empty() {
        ("_", "Just(Self).boxed()".to_owned())
    } else {
        let strategies = tuples(&fields, |field| value(field.kind));
        let names = tuples(&fields, |field| snake(&field.name));
        let stored = lines(&fields, |field| format!("{},", snake(&field.name)));
        let strategy = format!(
            "{strategies}
            .prop_map(|{names}| Self {{
                {stored}
            }})
            .boxed()"
        );
        ("values", strategy)
    };
    w.item(format!(
        "impl Arbitrary for protocol::{path} {{
            type Parameters = Values;
            type Strategy = BoxedStrategy<Self>;

            fn arbitrary_with({parameter}: Values) -> Self::Strategy {{
                {strategy}
            }}
        }}"
    ));
}

/// Returns a tuple with an expression for each field, or tuples in a tuple.
fn tuples(fields: &[&Field], expression: impl Fn(&Field) -> String) -> String {
    let tuples: Vec<String> = fields
        .chunks(TUPLE)
        .map(|chunk| {
            let all = lines(chunk, |field| format!("{},", expression(field)));
            format!("(\n{all}\n)")
        })
        .collect();
    match &tuples[..] {
        [tuple] => tuple.clone(),
        _ => format!("(\n{},\n)", tuples.join(",\n")),
    }
}

impl Kind {
    /// Returns the expression of the strategy for a value.
    fn strategy(self) -> String {
        let name = match self {
            Self::Bit => "bit",
            Self::ReplyCode => "reply_code",
            _ => self.wire_name(),
        };
        format!("values.{name}.clone()")
    }
}

const HEAD: &str = "\
// Generated by amqp-codegen from the specification: a change belongs there.

use alloc::{vec, vec::Vec};

use proptest::{
    arbitrary::{Arbitrary, any_with},
    option,
    strategy::{BoxedStrategy, Just, Strategy as _, Union},
};

use super::values::Values;
use crate::{
    client::ChannelMut,
    error::ApiMisuse,
    ids::RequestId,
    protocol::{self, ClientMethod, Method, ReplyCode, ServerMethod},
};
";

//! The emitter of the enums: all methods, and the methods of each sender.

use super::{
    names::{camel, snake},
    writer::Writer,
};
use crate::model::{Class, Method, Spec};

pub(super) fn emit(w: &mut Writer, spec: &Spec) {
    let all = |_: &Method| true;
    emit_enum(w, spec, "Method", "Any method.", all);
    let client = |method: &Method| method.client_sends;
    emit_enum(
        w,
        spec,
        "ClientMethod",
        "A method that a client may send.",
        client,
    );
    let server = |method: &Method| method.server_sends;
    emit_enum(
        w,
        spec,
        "ServerMethod",
        "A method that a server may send.",
        server,
    );
    questions(w, spec);
    for (name, includes) in [
        ("ClientMethod", &client as &dyn Fn(&Method) -> bool),
        ("ServerMethod", &server),
    ] {
        widen(w, spec, name, includes);
        narrow(w, spec, name, includes);
    }
    samples(w, spec);
}

/// Returns the methods of all classes that satisfy a condition.
fn methods(
    spec: &Spec,
    includes: impl Fn(&Method) -> bool,
) -> impl Iterator<Item = (&Class, &Method)> {
    let pairs = spec
        .classes
        .iter()
        .flat_map(|class| class.methods.iter().map(move |it| (class, it)));
    pairs.filter(move |(_, method)| includes(method))
}

/// Returns the variant name of a method.
fn variant(class: &Class, method: &Method) -> String {
    camel(&class.name) + &camel(&method.name)
}

/// Returns the path of a method's struct.
pub(super) fn path(class: &Class, method: &Method) -> String {
    format!("{}::{}", snake(&class.name), camel(&method.name))
}

fn emit_enum(
    w: &mut Writer,
    spec: &Spec,
    name: &str,
    note: &str,
    includes: impl Fn(&Method) -> bool + Copy,
) {
    w.gap();
    w.note(note);
    w.line("#[derive(Clone, Debug, PartialEq)]");
    w.block(format!("pub enum {name}"), |w| {
        for (class, method) in methods(spec, includes) {
            w.note(&format!("`{}.{}`", class.name, method.name));
            w.line(format!(
                "{}({}),",
                variant(class, method),
                path(class, method)
            ));
        }
    });

    w.gap();
    w.block(format!("impl {name}"), |w| {
        w.note("Who may send this method, where, with what, and what answers it.");
        w.line("#[must_use]");
        each(
            w,
            spec,
            includes,
            "pub fn rule(&self) -> &'static Rule",
            |class, method| {
                let (variant, path) = (variant(class, method), path(class, method));
                (format!("Self::{variant}(_)"), format!("&{path}::RULE"))
            },
        );
        w.gap();
        w.note("The numbers of this method on the wire.");
        w.line("#[must_use]");
        w.block("pub fn id(&self) -> MethodId", |w| w.line("self.rule().id"));
        w.gap();
        w.note("The name of this method, such as `queue.declare`.");
        w.line("#[must_use]");
        w.block("pub fn name(&self) -> &'static str", |w| {
            w.line("self.rule().name")
        });
        w.gap();
        w.note("Reads the arguments of the method with that id, which must be all of the input.");
        w.block(
            "pub fn decode(id: MethodId, arguments: &[u8]) -> Result<Self, DecodeError>",
            |w| {
                w.enclosed("Ok(match (id.class, id.method) {", "})", |w| {
                    for (class, method) in methods(spec, includes) {
                        let id = format!("({}, {})", class.index, method.index);
                        let path = path(class, method);
                        w.arm(&id, &format!("Self::from({path}::decode(arguments)?)"));
                    }
                    w.line("_ => return Err(unknown_method(id)),");
                });
            },
        );
    });

    w.gap();
    w.block(format!("impl Encode for {name}"), |w| {
        each(
            w,
            spec,
            includes,
            "fn encoded_len(&self) -> usize",
            |class, method| {
                let pattern = format!("Self::{}(method)", variant(class, method));
                (pattern, "method.encoded_len()".to_owned())
            },
        );
        w.gap();
        each(
            w,
            spec,
            includes,
            "fn encode(&self, out: &mut BytesMut)",
            |class, method| {
                let pattern = format!("Self::{}(method)", variant(class, method));
                (pattern, "method.encode(out)".to_owned())
            },
        );
    });
}

/// Emits a function of an enum with a match over its variants.
fn each(
    w: &mut Writer,
    spec: &Spec,
    includes: impl Fn(&Method) -> bool,
    signature: &str,
    arm: impl Fn(&Class, &Method) -> (String, String),
) {
    w.block(signature, |w| {
        w.block("match self", |w| {
            for (class, method) in methods(spec, includes) {
                let (pattern, body) = arm(class, method);
                w.arm(&pattern, &body);
            }
        });
    });
}

/// Emits the conversion from the enum of one sender to the enum of all methods.
fn widen(w: &mut Writer, spec: &Spec, name: &str, includes: impl Fn(&Method) -> bool) {
    w.gap();
    w.block(format!("impl From<{name}> for Method"), |w| {
        w.block(format!("fn from(method: {name}) -> Self"), |w| {
            w.block("match method", |w| {
                for (class, method) in methods(spec, includes) {
                    w.arm(
                        &format!("{name}::{}(method)", variant(class, method)),
                        "method.into()",
                    );
                }
            });
        });
    });
}

/// Emits the fallible conversion from the enum of all methods to the enum of one sender.
fn narrow(w: &mut Writer, spec: &Spec, name: &str, includes: impl Fn(&Method) -> bool) {
    w.gap();
    w.block(format!("impl TryFrom<Method> for {name}"), |w| {
        w.line("type Error = Method;");
        w.gap();
        w.note("The method itself, if it is not that side's to send.");
        w.block("fn try_from(method: Method) -> Result<Self, Method>", |w| {
            w.enclosed("Ok(match method {", "})", |w| {
                for (class, method) in methods(spec, |_| true) {
                    let pattern = format!("Method::{}(method)", variant(class, method));
                    let body = if includes(method) {
                        "method.into()"
                    } else {
                        "return Err(method.into())"
                    };
                    w.arm(&pattern, body);
                }
            });
        });
    });
}

/// Emits the queries of any method: whether its `no-wait` bit is set, and the queue that it names.
fn questions(w: &mut Writer, spec: &Spec) {
    w.gap();
    w.block("impl Method", |w| {
        w.note("Whether this is a request that asks for no answer.");
        w.line("#[must_use]");
        w.block("pub fn no_wait(&self) -> bool", |w| {
            w.block("match self", |w| {
                for (class, method) in methods(spec, |_| true) {
                    let variant = variant(class, method);
                    match method.fields.iter().find(|field| field.no_wait) {
                        Some(field) => w.arm(
                            &format!("Self::{variant}(method)"),
                            &format!("method.{}", snake(&field.name)),
                        ),
                        None => w.arm(&format!("Self::{variant}(_)"), "false"),
                    }
                }
            });
        });
        w.gap();
        w.note(
            "The queue that this method is about; none if it is about none. In a request an empty \
             name means the queue that was declared last on the channel.",
        );
        w.line("#[must_use]");
        w.block(
            "pub fn queue(&self) -> Option<&crate::wire::ShortStr>",
            |w| {
                w.block("match self", |w| {
                    for (class, method) in methods(spec, |_| true) {
                        let variant = variant(class, method);
                        if method.fields.iter().any(|field| field.name == "queue") {
                            w.arm(&format!("Self::{variant}(method)"), "Some(&method.queue)");
                        } else {
                            w.arm(&format!("Self::{variant}(_)"), "None");
                        }
                    }
                });
            },
        );
    });
}

fn samples(w: &mut Writer, spec: &Spec) {
    w.gap();
    w.note("One of every method for tests, with its fields filled by the test's sampler.");
    w.line("#[cfg(test)]");
    let sampler = "sampler: &mut impl crate::tests::sampler::Sample";
    let signature = (
        "pub(crate) fn samples",
        &[sampler][..],
        " -> alloc::vec::Vec<Method>",
    );
    w.function(signature, |w| {
        w.enclosed("alloc::vec![", "]", |w| {
            for (class, method) in methods(spec, |_| true) {
                w.line(format!("{}::sample(sampler).into(),", path(class, method)));
            }
        });
    });
}

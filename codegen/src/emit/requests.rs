//! The emitter of the list of a channel's requests, as a macro.

use super::{
    methods::reply_type,
    names::{camel, snake},
    writer::Writer,
};
use crate::model::{Class, Method, Spec};

pub(super) fn emit(w: &mut Writer, spec: &Spec) {
    w.item(
        "/// Calls a macro with the requests of a client's channel: the documentation, a name such as
        /// `queue_declare`, the type and the type of the reply of each. The types are below
        /// `protocol`, which has to be in scope.
        ///
        /// These are the requests that [`call`](crate::client::ChannelMut::call) accepts, except for
        /// those without arguments, which change the mode of a channel.
        ///
        /// ```
        /// use amqp_core::protocol;
        ///
        /// macro_rules! names {
        ///     ($($(#[$doc:meta])* $name:ident($request:ty) -> $reply:ty;)*) => {
        ///         [$(stringify!($name)),*]
        ///     };
        /// }
        /// assert!(amqp_core::channel_requests!(names).contains(&\"queue_declare\"));
        /// ```
        #[macro_export]
        macro_rules! channel_requests {
            ($callback:ident) => {
                $callback! {",
    );
    for class in &spec.classes {
        for method in &class.methods {
            request(w, class, method);
        }
    }
    w.lines("}\n};\n}");
}

fn request(w: &mut Writer, class: &Class, method: &Method) {
    let called = method.client_sends && !class.connection && !method.content && !method.own_command;
    let has_arguments = method
        .fields
        .iter()
        .any(|field| !field.reserved && !field.no_wait);
    let Some(reply) = reply_type(method).filter(|_| called && has_arguments) else {
        return;
    };
    let (module, name) = (snake(&class.name), camel(&method.name));
    w.doc(&method.doc, "");
    // The path of the type is written out: a class may be named by a keyword.
    w.lines(format!(
        "{}_{}(protocol::{module}::{name}) -> protocol::{module}::{reply};",
        class.name.replace('-', "_"),
        method.name.replace('-', "_"),
    ));
}

//! The requests of a channel by their names.

use amqp_core::ApiMisuse;
use amqp_driver::{Error, protocol};

use crate::{handles::BaseChannel, wait::wait};

macro_rules! named_requests {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $reply:ty;)*) => {
        /// The requests by their names. Each is a [`call`](Self::call) with a struct of
        /// [`protocol`] or with a preset of [`arguments`](amqp_driver::arguments) that results in
        /// it.
        impl BaseChannel {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// As [`call`](Self::call), and [`Error::Misuse`] for a preset with a setting that
            /// RabbitMQ refuses.
            pub fn $name(
                &self,
                request: impl TryInto<$request, Error: Into<ApiMisuse>>,
            ) -> Result<$reply, Error> {
                wait(self.as_async().$name(request))?
            }
        )*}
    };
}

amqp_core::channel_requests!(named_requests);

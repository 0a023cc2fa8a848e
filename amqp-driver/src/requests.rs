//! The requests of a channel by their names.

use amqp_core::{ApiMisuse, protocol};

use crate::{base_channel::BaseChannel, error::Error};

macro_rules! named_requests {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $reply:ty;)*) => {
        /// The requests by their names. Each is a [`call`](Self::call) with a struct of
        /// [`protocol`] or with a preset of [`arguments`](amqp_core::arguments) that results in it.
        impl BaseChannel {$(
            $(#[$doc])*
            ///
            /// # Cancel safety
            /// As [`call`](Self::call).
            ///
            /// # Errors
            /// As [`call`](Self::call), and [`Error::Misuse`] for a preset with a setting that
            /// RabbitMQ refuses.
            pub async fn $name(
                &self,
                request: impl TryInto<$request, Error: Into<ApiMisuse>>,
            ) -> Result<$reply, Error> {
                let request = request.try_into().map_err(Into::into)?;
                self.call(request).await
            }
        )*}
    };
}

amqp_core::channel_requests!(named_requests);

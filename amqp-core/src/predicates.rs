//! The predicates of reply codes, one table for all errors that have a code.

/// Implements the predicates of reply codes for types with a method `code`, so that an application
/// can ask any error for its cause, however it came.
#[doc(hidden)]
#[macro_export]
macro_rules! reply_code_predicates {
    ($($error:ty),+) => {$(
        impl $error {
            /// Whether it was closed with 404 (not-found): a queue, an exchange or a binding does
            /// not exist.
            #[must_use]
            pub fn is_not_found(&self) -> bool {
                self.code() == Some($crate::protocol::ReplyCode::NOT_FOUND)
            }

            /// Whether it was closed with 403 (access-refused): the permission is missing, the name
            /// is reserved, or the credentials are wrong.
            #[must_use]
            pub fn is_access_refused(&self) -> bool {
                self.code() == Some($crate::protocol::ReplyCode::ACCESS_REFUSED)
            }

            /// Whether it was closed with 405 (resource-locked): the queue is exclusive to another
            /// connection.
            #[must_use]
            pub fn is_resource_locked(&self) -> bool {
                self.code() == Some($crate::protocol::ReplyCode::RESOURCE_LOCKED)
            }

            /// Whether it was closed with 406 (precondition-failed): an entity exists with other
            /// arguments, is in use, or a delivery tag is unknown.
            #[must_use]
            pub fn is_precondition_failed(&self) -> bool {
                self.code() == Some($crate::protocol::ReplyCode::PRECONDITION_FAILED)
            }

            /// Whether it was closed with 320 (connection-forced): an operator closed the
            /// connection, or the server shuts down.
            #[must_use]
            pub fn is_connection_forced(&self) -> bool {
                self.code() == Some($crate::protocol::ReplyCode::CONNECTION_FORCED)
            }

            /// Whether it was closed with 530 (not-allowed): the virtual host does not exist or
            /// refuses the user, or a limit is reached.
            #[must_use]
            pub fn is_not_allowed(&self) -> bool {
                self.code() == Some($crate::protocol::ReplyCode::NOT_ALLOWED)
            }
        }
    )+};
}

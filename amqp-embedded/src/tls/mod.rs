//! Serving with TLS.

pub(crate) mod login;
mod subject;

//! Serving a broker with TLS.

pub(crate) mod login;
mod subject;

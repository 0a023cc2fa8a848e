//! TLS errors after the handshake.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use amqp_core::Transmit;
use bytes::BytesMut;

use super::TlsError;
use crate::io::{LentDriver, Transport};

/// A transport over TLS that records the first TLS error. In TLS 1.3 a client completes the
/// handshake before the server has verified the client certificate: the server's alert arrives with
/// the first read (section 4.4.4 of RFC 8446).
#[derive(Debug)]
pub(crate) struct TlsErrorTap<T> {
    inner: T,
    complaint: FirstTlsError,
}

/// The first TLS error, if any.
#[derive(Clone, Debug, Default)]
pub(crate) struct FirstTlsError(Arc<Mutex<Option<TlsError>>>);

impl<T> TlsErrorTap<T> {
    pub(crate) fn new(inner: T) -> (Self, FirstTlsError) {
        let complaint = FirstTlsError::default();
        let watched = Self {
            inner,
            complaint: complaint.clone(),
        };
        (watched, complaint)
    }

    /// Records a TLS error, and returns it with its text in plain words.
    fn watch<V>(&self, result: Poll<io::Result<V>>) -> Poll<io::Result<V>> {
        result.map_err(|error| match TlsError::of(&error) {
            Some(known) => {
                let told = io::Error::new(error.kind(), known.to_string());
                self.complaint.lock().get_or_insert(known);
                told
            }
            None => error,
        })
    }
}

impl FirstTlsError {
    pub(crate) fn take(&self) -> Option<TlsError> {
        self.lock().take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<TlsError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Transport> Transport for TlsErrorTap<T> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        let result = self.inner.poll_read(cx, buf);
        self.watch(result)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Transmit) -> Poll<io::Result<usize>> {
        let result = self.inner.poll_write(cx, out);
        self.watch(result)
    }

    fn is_inline(&self) -> bool {
        self.inner.is_inline()
    }

    fn lender(&self) -> Option<fn(LentDriver)> {
        self.inner.lender()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = self.inner.poll_flush(cx);
        self.watch(result)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = self.inner.poll_close(cx);
        self.watch(result)
    }
}

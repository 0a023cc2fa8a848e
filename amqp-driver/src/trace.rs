//! Events and spans for `tracing`.
//!
//! A subscriber is foreign code, which may use a handle of the same connection: under the lock,
//! events are only collected, as effects of [`Later`].

use std::{fmt, sync::Arc};

use amqp_core::{
    ChannelId, CloseReason, Instant, MethodId, Origin, RequestId, client,
    dial::{Address, Target},
    protocol::{Method, ReplyCode, basic},
    wire::{FieldTable, ShortStr},
};
use tracing::{Level, Span, debug, debug_span, info, info_span, warn};

use crate::{
    error::Error,
    session::{later::Later, shared::Shared, slots::Answer, state::State},
};

/// The span of a connection, the parent of all that happens on it.
///
/// The last owner drops the span, which calls the subscriber: neither may happen under the lock.
#[derive(Clone)]
pub(crate) struct Trace(Arc<Span>);

impl Trace {
    /// The span of a connection with these client properties.
    pub(crate) fn new(properties: &FieldTable) -> Self {
        let name = connection_name(properties);
        Self(Arc::new(match name {
            Some(name) => info_span!("amqp.connection", name),
            None => info_span!("amqp.connection"),
        }))
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trace")
    }
}

fn connection_name(properties: &FieldTable) -> Option<&str> {
    properties.get("connection_name")?.as_str()
}

/// An event on a connection, to be reported once the lock is released.
#[derive(Debug)]
pub(crate) struct Traced {
    trace: Trace,
    what: What,
}

#[derive(Debug)]
enum What {
    Opened(Box<Opened>),
    Closed(CloseReason),
    Blocked(ShortStr),
    Unblocked,
    ChannelOpened(u16),
    ChannelClosed(u16, CloseReason),
    Flow(u16, bool),
    Consuming(u16, ShortStr),
    Cancelled(u16, ShortStr),
    CancelledByServer(u16, ShortStr),
    Returned(Box<(u16, basic::Return)>),
    Nacked(u16, u64, u64),
    SecretDue,
}

#[derive(Debug)]
struct Opened {
    mechanism: Option<ShortStr>,
    server: Option<String>,
    heartbeat: u16,
    frame_max: u32,
    channel_max: u16,
}

impl State {
    /// Collects the event. Neither deliveries nor positive confirms have one.
    pub(crate) fn trace(&self, event: &client::Event, later: &mut Later) {
        let what = match event {
            client::Event::Opened => What::Opened(Box::new(self.opened())),
            client::Event::Closed(reason) => What::Closed(reason.clone()),
            client::Event::Blocked { reason } => What::Blocked(reason.clone()),
            client::Event::Unblocked => What::Unblocked,
            client::Event::ChannelClosed { channel, reason } => {
                What::ChannelClosed(channel.number(), reason.clone())
            }
            client::Event::Flow { channel, active } => What::Flow(channel.number(), *active),
            client::Event::Reply { channel, reply, .. } => {
                let number = channel.map_or(0, ChannelId::number);
                match reply {
                    Method::ChannelOpenOk(_) => What::ChannelOpened(number),
                    Method::BasicConsumeOk(ok) => What::Consuming(number, ok.consumer_tag.clone()),
                    Method::BasicCancelOk(ok) => What::Cancelled(number, ok.consumer_tag.clone()),
                    _ => return,
                }
            }
            client::Event::ConsumerCancelled { channel, tag, .. } => {
                What::CancelledByServer(channel.number(), tag.clone())
            }
            client::Event::Returned(returned) => What::Returned(Box::new((
                returned.channel.number(),
                returned.method.clone(),
            ))),
            client::Event::Settled {
                channel,
                first,
                last,
                outcome: client::Outcome::Nacked,
            } => What::Nacked(channel.number(), first.get(), last.get()),
            client::Event::SecretDue => What::SecretDue,
            _ => return,
        };
        let trace = self.trace.clone();
        later.trace(Traced { trace, what });
    }

    fn opened(&self) -> Opened {
        let tuning = self.machine.tuning();
        let server = |name| self.machine.server_properties().get(name)?.as_str();
        Opened {
            mechanism: self.machine.mechanism().cloned(),
            server: server("product").map(|product| match server("version") {
                Some(version) => format!("{product} {version}"),
                None => product.to_owned(),
            }),
            heartbeat: tuning.heartbeat,
            frame_max: tuning.frame_max,
            channel_max: tuning.channel_max,
        }
    }
}

impl Traced {
    /// Reports the event to the subscriber.
    pub(crate) fn emit(self) {
        let _entered = self.trace.0.enter();
        match self.what {
            What::Opened(opened) => {
                let Opened {
                    mechanism,
                    server,
                    heartbeat,
                    frame_max,
                    channel_max,
                } = *opened;
                let mechanism = mechanism.as_deref();
                info!(
                    mechanism,
                    server, heartbeat, frame_max, channel_max, "connection opened"
                );
            }
            What::Closed(reason) if reason.is_clean() => info!(%reason, "connection closed"),
            What::Closed(reason) => {
                let (code, origin) = (code_of(&reason), origin_of(&reason));
                warn!(code, origin, %reason, "connection closed");
            }
            What::Blocked(reason) => warn!(reason = &*reason, "publishing blocked by the server"),
            What::Unblocked => info!("publishing unblocked by the server"),
            What::ChannelOpened(channel) => debug!(channel, "channel opened"),
            What::ChannelClosed(channel, reason) => {
                let (code, origin) = (code_of(&reason), origin_of(&reason));
                warn!(channel, code, origin, %reason, "channel closed");
            }
            What::Flow(channel, true) => debug!(channel, "publishing resumed by the server"),
            What::Flow(channel, false) => debug!(channel, "publishing paused by the server"),
            What::Consuming(channel, tag) => debug!(channel, tag = &*tag, "consumer started"),
            What::Cancelled(channel, tag) => debug!(channel, tag = &*tag, "consumer cancelled"),
            What::CancelledByServer(channel, tag) => {
                warn!(channel, tag = &*tag, "consumer cancelled by the server");
            }
            What::Returned(returned) => {
                let (channel, method) = *returned;
                let (exchange, routing_key) = (&*method.exchange, &*method.routing_key);
                let ReplyCode(code) = method.reply_code;
                debug!(channel, code, exchange, routing_key, "publish returned");
            }
            What::Nacked(channel, first, last) => debug!(channel, first, last, "publish refused"),
            What::SecretDue => debug!("a new secret is due"),
        }
    }
}

fn code_of(reason: &CloseReason) -> Option<u16> {
    reason.code().map(|ReplyCode(code)| code)
}

fn origin_of(reason: &CloseReason) -> &'static str {
    match reason.origin() {
        Origin::Local => "local",
        Origin::Remote => "remote",
        _ => "transport",
    }
}

/// The span of a request, from the first poll of its future to the answer.
#[derive(Debug, Default)]
pub(crate) struct RequestTrace(Option<(Span, Instant)>);

impl RequestTrace {
    /// Reports that a request was sent, at the first call.
    pub(crate) fn begin(&mut self, shared: &Shared, channel: Option<ChannelId>, id: RequestId) {
        if self.0.is_some() || !tracing::enabled!(Level::DEBUG) {
            return;
        }
        let (trace, method) = {
            let state = shared.lock();
            (
                state.trace.clone(),
                state.machine.request_method(channel, id),
            )
        };
        let (method, channel) = (
            method.and_then(MethodId::name),
            channel.map(ChannelId::number),
        );
        let span = debug_span!(parent: &*trace.0, "amqp.request", method, channel);
        span.in_scope(|| debug!("request sent"));
        self.0 = Some((span, shared.now()));
    }

    /// Reports the answer.
    pub(crate) fn end(&mut self, shared: &Shared, answer: &Result<Answer, Error>) {
        let Some((span, begun)) = self.0.take() else {
            return;
        };
        let elapsed = shared.now() - begun;
        span.in_scope(|| match answer {
            Ok(Answer::Reply(method)) => {
                debug!(?elapsed, reply = method.name(), "request answered")
            }
            Ok(Answer::Got(Some(_))) => {
                debug!(?elapsed, reply = "basic.get-ok", "request answered")
            }
            Ok(Answer::Got(None)) => {
                debug!(?elapsed, reply = "basic.get-empty", "request answered")
            }
            Ok(Answer::Failed(error)) => debug!(?elapsed, %error, "request failed"),
            Err(error) => debug!(?elapsed, %error, "request failed"),
        });
    }
}

/// Reports that the future was dropped before the answer.
impl Drop for RequestTrace {
    fn drop(&mut self) {
        if let Some((span, _)) = self.0.take() {
            span.in_scope(|| debug!("request abandoned"));
        }
    }
}

/// The span of a connect, from the first address to an open connection.
pub(crate) fn connecting(addresses: &[Address]) -> Span {
    info_span!("amqp.connect", addresses = addresses.len())
}

/// The span of the handshake with a host, that of TLS included.
pub(crate) fn handshake(address: &Address) -> Span {
    debug_span!("amqp.handshake", %address)
}

pub(crate) fn resolving(host: &str) {
    debug!(host, "resolving");
}

pub(crate) fn looking_up(name: &str) {
    debug!(name, "looking up SRV records");
}

pub(crate) fn attempt(to: &Target) {
    match to {
        Target::Tcp(to) => debug!(%to, "connecting"),
        Target::Unix(to) => debug!(to, "connecting"),
        _ => debug!("connecting"),
    }
}

pub(crate) fn attempt_failed(error: &std::io::Error) {
    debug!(%error, "connect failed");
}

pub(crate) fn refused(address: &Address, error: &str) {
    warn!(%address, error, "no connection with the host");
}

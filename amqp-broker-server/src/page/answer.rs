//! Responses: the page's files, and the state of the broker as JSON.

use std::{
    iter,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use amqp_tokio::{
    LocalBroker,
    broker::{ExchangeSummary, QueueSummary},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::{self, Instant, MissedTickBehavior};

use super::{
    history::{History, INTERVAL},
    json,
    request::{Part, Wanted},
};
use crate::clients::Registry;

/// The maximum number of entities in one response.
const ROWS: usize = 500;

/// The maximum number of queues or exchanges that are visited under one lock of the broker.
const CHUNK: usize = 500;

/// The maximum size of the part of a body that is shown, in bytes.
const BODY: usize = 4096;

/// Scripts, styles and requests of this page only; no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// The answers to requests.
pub(crate) struct Answers {
    broker: LocalBroker,
    registry: Registry,
    /// The addresses that the broker listens on.
    listening: Vec<String>,
    started: Instant,
    history: Mutex<History>,
    /// The sums over all queues: `Some` after the first request.
    sums: Mutex<Option<Sums>>,
}

/// Sums over all queues.
#[derive(Clone, Copy)]
struct Sums {
    ready: usize,
    unacked: u64,
    consumers: usize,
    /// The time until which they serve other requests, too.
    until: Instant,
}

impl Answers {
    pub(crate) fn new(broker: LocalBroker, registry: Registry, listening: Vec<String>) -> Self {
        Self {
            broker,
            registry,
            listening,
            started: Instant::now(),
            history: Mutex::default(),
            sums: Mutex::default(),
        }
    }

    /// Samples the sums of the broker, forever.
    pub(crate) async fn keep_history(&self) {
        let mut ticks = time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await;
            let totals = self.broker.with(|broker| broker.totals());
            lock(&self.history).add(now, totals);
        }
    }

    /// Answers a request.
    pub(crate) fn answer(&self, wanted: &Wanted) -> Response<Full<Bytes>> {
        let value = match wanted {
            Wanted::Html => {
                return file("text/html; charset=utf-8", include_str!("assets/page.html"));
            }
            Wanted::Css => return file("text/css; charset=utf-8", include_str!("assets/page.css")),
            Wanted::JavaScript => {
                return file(
                    "text/javascript; charset=utf-8",
                    include_str!("assets/page.js"),
                );
            }
            Wanted::Icon => return file("image/svg+xml", include_str!("assets/icon.svg")),
            Wanted::Overview => Some(self.overview()),
            Wanted::Queues(part) => Some(self.queues(part)),
            Wanted::Exchanges(part) => Some(self.exchanges(part)),
            Wanted::Connections { after } => Some(self.connections(*after)),
            Wanted::Bindings { vhost, exchange } => self.bindings(vhost, exchange),
            Wanted::Messages {
                vhost,
                queue,
                count,
            } => self.messages(vhost, queue, *count),
        };
        match value {
            Some(value) => response(StatusCode::OK, "application/json", value.to_string()),
            None => refusal(StatusCode::NOT_FOUND),
        }
    }

    fn overview(&self) -> Value {
        let sums = self.sums();
        let totals = self.broker.with(|broker| broker.totals());
        let mut messages = json::counts(&totals.messages);
        messages.insert("ready".into(), sums.ready.into());
        messages.insert("unacked".into(), sums.unacked.into());
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime": self.started.elapsed().as_secs(),
            "listening": self.listening,
            "connections": totals.connections,
            "queues": totals.queues,
            "exchanges": totals.exchanges,
            "consumers": sums.consumers,
            "messages": messages,
            "memory": json::memory(&totals),
            "rates": json::rates(&lock(&self.history).rates(Instant::now())),
        })
    }

    /// Returns the sums over all queues. They are computed anew at most each second, and with many
    /// queues at most for a tenth of the time.
    fn sums(&self) -> Sums {
        let mut kept = lock(&self.sums);
        let start = Instant::now();
        if let Some(sums) = kept.filter(|sums| start < sums.until) {
            return sums;
        }
        let (mut ready, mut unacked, mut consumers) = (0, 0, 0);
        for queue in self.all_queues(None) {
            ready += queue.ready;
            unacked += queue.unacked;
            consumers += queue.consumers;
        }
        let pause = (9 * start.elapsed()).max(Duration::from_secs(1));
        let until = Instant::now() + pause;
        *kept.insert(Sums {
            ready,
            unacked,
            consumers,
            until,
        })
    }

    fn queues(&self, part: &Part) -> Value {
        let rows = self.all_queues(part.after.clone());
        let rows = rows.filter(|queue| is_found(&queue.name, part));
        let total = self.broker.with(|broker| broker.totals().queues);
        list("queues", rows.map(|queue| json::queue(&queue)), total)
    }

    fn exchanges(&self, part: &Part) -> Value {
        let rows = self.all_exchanges(part.after.clone());
        let rows = rows.filter(|exchange| is_found(&exchange.name, part));
        let total = self.broker.with(|broker| broker.totals().exchanges);
        list(
            "exchanges",
            rows.map(|exchange| json::exchange(&exchange)),
            total,
        )
    }

    fn connections(&self, after: u64) -> Value {
        let (rows, total) = self.broker.with(|broker| {
            let rows = broker.list_connections(after, ROWS + 1);
            (rows, broker.totals().connections)
        });
        let rows = rows.iter();
        let rows = rows.map(|it| json::connection(it, &self.registry.peer(it.key)));
        list("connections", rows, total)
    }

    fn bindings(&self, vhost: &str, exchange: &str) -> Option<Value> {
        let (rows, total) = self.broker.with(|broker| {
            let rows = broker.list_bindings(vhost, exchange, ROWS + 1)?;
            let total = rows.len();
            Some((rows, total))
        })?;
        Some(list("bindings", rows.iter().map(json::binding), total))
    }

    fn messages(&self, vhost: &str, queue: &str, count: usize) -> Option<Value> {
        let messages = self
            .broker
            .with(|broker| broker.peek(vhost, queue, count, BODY))?;
        let messages: Value = messages.iter().map(json::message).collect();
        Some(json!({ "messages": messages, "body_limit": BODY }))
    }

    /// Visits the queues by virtual host and name. Between chunks the broker works on.
    fn all_queues(&self, after: Option<(String, String)>) -> impl Iterator<Item = QueueSummary> {
        chunks(after, |after| {
            let queues = self.broker.with(|broker| broker.list_queues(after, CHUNK));
            let last = queues
                .last()
                .map(|it| (it.vhost.clone(), it.name.to_string()));
            (queues, last)
        })
    }

    fn all_exchanges(
        &self,
        after: Option<(String, String)>,
    ) -> impl Iterator<Item = ExchangeSummary> {
        chunks(after, |after| {
            let exchanges = self
                .broker
                .with(|broker| broker.list_exchanges(after, CHUNK));
            let last = exchanges
                .last()
                .map(|it| (it.vhost.clone(), it.name.to_string()));
            (exchanges, last)
        })
    }
}

/// A virtual host and a name.
type Place = Option<(String, String)>;

/// Chains chunks of a list: `next` returns the chunk behind a place, and its last place.
fn chunks<T>(
    after: Place,
    mut next: impl FnMut(Option<(&str, &str)>) -> (Vec<T>, Place),
) -> impl Iterator<Item = T> {
    let mut place = Some(after);
    iter::from_fn(move || {
        let after = place.take()?;
        let after = after
            .as_ref()
            .map(|(vhost, name)| (vhost.as_str(), name.as_str()));
        let (chunk, last) = next(after);
        if chunk.len() == CHUNK {
            place = Some(last);
        }
        Some(chunk)
    })
    .flatten()
}

/// Returns whether a name has the text of a part.
fn is_found(name: &str, part: &Part) -> bool {
    part.contains.is_empty() || name.to_lowercase().contains(&part.contains)
}

/// Returns the first rows of a list, whether there are more, and the number of all entities.
fn list(name: &str, mut rows: impl Iterator<Item = Value>, total: usize) -> Value {
    let shown: Vec<Value> = rows.by_ref().take(ROWS).collect();
    json!({ (name): shown, "more": rows.next().is_some(), "total": total, "limit": ROWS })
}

/// Refuses a request with a text for people.
pub(crate) fn refusal(status: StatusCode) -> Response<Full<Bytes>> {
    let mut refusal = response(status, "text/plain; charset=utf-8", format!("{status}\n"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let methods = header::HeaderValue::from_static("GET, HEAD");
        refusal.headers_mut().insert(header::ALLOW, methods);
    }
    refusal
}

fn file(kind: &'static str, text: &'static str) -> Response<Full<Bytes>> {
    response(StatusCode::OK, kind, text)
}

fn response(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in headers {
        let value = header::HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    let own = header::HeaderValue::from_static("same-origin");
    let resource_policy = header::HeaderName::from_static("cross-origin-resource-policy");
    response.headers_mut().insert(resource_policy, own);
    response
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

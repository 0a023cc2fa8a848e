//! The spans and events of the feature `tracing`.
//!
//! A program of its own, in which each thread has a subscriber: `tracing` asks only the subscriber of
//! the current thread for its interest in a callsite, and caches the answer for all threads.
#![cfg(feature = "tracing")]

use std::{
    cell::RefCell,
    fmt::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use amqp_driver::{
    Connection,
    protocol::{ReplyCode, basic, queue},
    wire::{FieldTable, Secret},
};
use amqp_test_support::{Confirming, Rig, Setup};
use bytes::Bytes;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::with_default,
};

thread_local! {
    /// The connection that the subscriber uses at each event.
    static USED: RefCell<Option<Connection>> = const { RefCell::new(None) };
}

/// Keeps the events and spans as text: level, then message and fields.
#[derive(Clone, Default)]
struct Collector {
    lines: Arc<Mutex<Vec<(Level, String)>>>,
    spans: Arc<AtomicU64>,
}

impl Collector {
    fn keep(&self, level: Level, text: String) {
        self.lines.lock().unwrap().push((level, text));
        USED.with_borrow(|connection| {
            if let Some(connection) = connection {
                // Deadlocks if the event is reported under the lock.
                let _ = (connection.stats(), connection.is_open());
            }
        });
    }

    fn take(&self) -> Vec<(Level, String)> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }
}

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = &mut self.0;
        let _ = match field.name() {
            "message" => write!(text, "{value:?}"),
            "elapsed" => write!(text, " elapsed"),
            name => write!(text, " {name}={value:?}"),
        };
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("amqp_driver")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut text = Text(format!("span {}", span.metadata().name()));
        span.record(&mut text);
        self.keep(*span.metadata().level(), text.0);
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        self.keep(*event.metadata().level(), text.0);
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn named() -> Setup {
    let mut setup = Setup::default();
    setup.client.properties = FieldTable::new().with("connection_name", "billing");
    setup
}

/// Runs `body` with a collector, which uses the connection at each event.
fn traced(body: impl FnOnce(&Collector, &mut Rig, &Connection)) {
    let collector = Collector::default();
    with_default(collector.clone(), || {
        let (mut rig, connection) = Rig::start(named());
        USED.with_borrow_mut(|used| *used = Some(connection.clone()));
        body(&collector, &mut rig, &connection);
        USED.with_borrow_mut(Option::take);
    });
}

fn texts(lines: &[(Level, String)]) -> Vec<String> {
    let line = |(level, text): &(Level, String)| format!("{level} {text}");
    lines.iter().map(line).collect()
}

#[test]
fn the_life_of_a_connection_is_told_outside_of_the_lock() {
    traced(|collector, rig, connection| {
        rig.wait(connection.opened()).unwrap();
        assert_eq!(
            texts(&collector.take()),
            [
                "INFO span amqp.connection name=\"billing\"",
                "INFO connection opened mechanism=\"PLAIN\" heartbeat=0 frame_max=131072 \
                 channel_max=2047",
            ]
        );
        rig.peer()
            .machine
            .block("low on memory".try_into().unwrap())
            .unwrap();
        rig.run();
        rig.peer().machine.unblock().unwrap();
        rig.run();
        rig.peer().close(ReplyCode::CONNECTION_FORCED, "shutdown");
        rig.run();
        assert_eq!(
            texts(&collector.take()),
            [
                "WARN publishing blocked by the server reason=\"low on memory\"",
                "INFO publishing unblocked by the server",
                "WARN connection closed code=320 origin=\"remote\" reason=closed by the peer: 320 \
                 (connection-forced): shutdown",
            ]
        );
    });
}

#[test]
fn requests_channels_and_consumers_are_told_with_their_answers() {
    traced(|collector, rig, connection| {
        rig.wait(connection.opened()).unwrap();
        let channel = rig.channel(connection);
        collector.take();
        rig.wait(channel.call(queue::Declare::default())).unwrap();
        let consume = basic::Consume::default().consumer_tag("c");
        let mut consumer = rig.wait(channel.consume(consume.clone())).unwrap();
        rig.wait(consumer.cancel()).unwrap();
        let told: Vec<String> = texts(&collector.take());
        let requests = ["queue.declare", "basic.consume", "basic.cancel"];
        for method in requests {
            let span = format!("DEBUG span amqp.request method=\"{method}\" channel=1");
            assert!(told.contains(&span), "{span} in {told:#?}");
            let answer = format!("DEBUG request answered elapsed reply=\"{method}-ok\"");
            assert!(told.contains(&answer), "{answer} in {told:#?}");
        }
        let sent = told.iter().filter(|it| *it == "DEBUG request sent");
        assert_eq!(sent.count(), requests.len());
        for consumer in ["started", "cancelled"] {
            let text = format!("DEBUG consumer {consumer} channel=1 tag=\"c\"");
            assert!(told.contains(&text), "{told:#?}");
        }

        let other = rig.wait(channel.consume(consume)).unwrap();
        rig.peer().cancel(1, "c");
        rig.run();
        let text = "WARN consumer cancelled by the server channel=1 tag=\"c\"".to_owned();
        assert!(texts(&collector.take()).contains(&text));
        drop(other);

        rig.peer().hold = true;
        let call = rig.spawn({
            let channel = channel.clone();
            async move { channel.call(queue::Declare::default()).await }
        });
        rig.run();
        rig.peer()
            .close_channel(1, ReplyCode::NOT_FOUND, "no queue");
        rig.run();
        assert!(call.take().unwrap().is_err());
        let told = texts(&collector.take());
        let closed = "WARN channel closed channel=1 code=404 origin=\"remote\" reason=closed by \
                      the peer: 404 (not-found): no queue, on channel 1";
        assert!(told.contains(&closed.to_owned()), "{told:#?}");
        let failed = told
            .iter()
            .find(|it| it.starts_with("DEBUG request failed elapsed"));
        assert!(
            failed.is_some_and(|it| it.contains("queue.declare")),
            "{told:#?}"
        );
    });
}

#[test]
fn a_request_that_is_dropped_is_told() {
    traced(|collector, rig, connection| {
        rig.wait(connection.opened()).unwrap();
        let channel = rig.channel(connection);
        rig.peer().mute = true;
        collector.take();
        let call = rig.spawn({
            let channel = channel.clone();
            async move { channel.call(queue::Declare::default()).await }
        });
        rig.run();
        rig.cancel(&call);
        let told = texts(&collector.take());
        assert_eq!(told.last().unwrap(), "DEBUG request abandoned");
    });
}

/// No secret, no body, no header; and nothing per message but a return or a refusal, which are not
/// at the level of information.
#[test]
fn messages_and_secrets_are_not_told() {
    traced(|collector, rig, connection| {
        rig.wait(connection.opened()).unwrap();
        let channel = rig.confirm_channel(connection);
        let update = connection.update_secret(Secret::from("hidden token"), "soon");
        rig.wait(update).unwrap();
        collector.take();
        let publish = basic::Publish::default().routing_key("work");
        let headers = FieldTable::new().with("key", "hidden header");
        let properties = basic::Properties::default().headers(headers);
        rig.peer().confirming = Confirming::AtOnce;
        for _ in 0..10 {
            let confirm = channel.publish(&publish, &properties, "hidden body");
            let confirm = rig.wait(confirm).unwrap();
            rig.wait(confirm).unwrap();
        }
        assert_eq!(texts(&collector.take()), [""; 0]);

        rig.peer().unroutable = true;
        let publish = publish.mandatory(true);
        let confirm = rig
            .wait(channel.publish(&publish, &properties, "hidden body"))
            .unwrap();
        assert!(rig.wait(confirm).is_err());
        rig.peer().confirming = Confirming::ByHand;
        let nacked = rig
            .wait(channel.publish(&publish, &properties, "hidden body"))
            .unwrap();
        rig.run();
        rig.peer().nack(1, 12, false);
        assert!(rig.wait(nacked).is_err());
        let told = texts(&collector.take());
        assert!(told.contains(&"DEBUG publish refused channel=1 first=12 last=12".to_owned()));
        let returned =
            "DEBUG publish returned channel=1 code=312 exchange=\"\" routing_key=\"work\"";
        assert!(told.contains(&returned.to_owned()), "{told:#?}");

        rig.peer().at_once = vec![Bytes::from("hidden body"); 20];
        let mut consumer = rig
            .wait(channel.consume(basic::Consume::default()))
            .unwrap();
        collector.take();
        for _ in 0..20 {
            rig.wait(consumer.next()).unwrap().unwrap().ack().unwrap();
        }
        rig.advance(Duration::from_secs(1));
        assert_eq!(texts(&collector.take()), [""; 0]);
        drop(consumer);
        rig.run();
        assert!(
            texts(&collector.take())
                .iter()
                .all(|it| !it.contains("hidden"))
        );
    });
}

//! The spans and events of the feature `tracing`.
//!
//! A program of its own with one subscriber for all threads: storages and runtimes have threads, and
//! `tracing` caches for all of them the interest in a callsite.
#![cfg(feature = "tracing")]

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt::Write as _,
    future::{Future, poll_fn},
    sync::{
        Mutex, Once,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use amqp_peer::{
    Config, Connect, Event, Events, Listen, Message, Peer, PeerName, Receipts, SendError,
    ServerRuntime, Setup,
    rpc::{CallError, Failure, Json, Proxy},
    start_on,
    storage::{Change, MemoryStorage, Storage, StorageError, StorageErrorKind, Stored},
};
use tokio::sync::Notify;
use tracing::{
    Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

/// A text in secrets and bodies, which no event has.
const HIDDEN: &str = "hidden";

thread_local! {
    /// The spans that are entered.
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// All values, to look for those that must not be there.
static VALUES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static SPANS: Mutex<BTreeMap<u64, String>> = Mutex::new(BTreeMap::new());
static NEXT_SPAN: AtomicU64 = AtomicU64::new(1);
static CHANGED: Notify = Notify::const_new();
/// The peers that the subscriber uses at each event.
static USED: Mutex<Vec<Peer>> = Mutex::new(Vec::new());

/// Keeps the events as text: the spans, the level, the message and the fields.
struct Collector;

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        VALUES.lock().unwrap().push(format!("{value:?}"));
        let text = &mut self.0;
        let _ = match field.name() {
            "message" => write!(text, "{value:?}"),
            // Different in each run.
            name @ ("id" | "wait" | "error" | "reason") => write!(text, " {name}"),
            name => write!(text, " {name}={value:?}"),
        };
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("amqp_peer")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut text = Text(format!("{} ", span.metadata().name()));
        span.record(&mut text);
        let parent = match (span.parent(), span.is_contextual()) {
            (Some(parent), _) => Some(parent.into_u64()),
            (None, true) => ENTERED.with_borrow(|entered| entered.last().copied()),
            (None, false) => None,
        };
        let mut spans = SPANS.lock().unwrap();
        let parent = parent.and_then(|parent| spans.get(&parent).cloned());
        let parent = parent.map_or(String::new(), |parent| format!("{parent} > "));
        let id = NEXT_SPAN.fetch_add(1, Ordering::Relaxed);
        spans.insert(id, format!("{parent}{}", text.0));
        Id::from_u64(id)
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let span = ENTERED.with_borrow(|entered| entered.last().copied());
        let span = span.and_then(|span| SPANS.lock().unwrap().get(&span).cloned());
        let level = *event.metadata().level();
        let line = format!("{}: {level} {}", span.unwrap_or_default(), text.0);
        LINES.lock().unwrap().push(line);
        CHANGED.notify_waiters();
        // Deadlocks if the event is reported under the lock.
        for peer in USED.lock().unwrap().iter() {
            let _state = (peer.links(), peer.connectors(), peer.rpc().stats());
        }
    }

    fn enter(&self, span: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(span.into_u64()));
    }

    fn exit(&self, _: &Id) {
        ENTERED.with_borrow_mut(Vec::pop);
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Runs a scenario with the subscriber.
fn traced(scenario: impl Future<Output = Outcome>) -> Outcome {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Collector).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(scenario)?;
    let values = VALUES.lock().unwrap();
    let hidden: Vec<&String> = values.iter().filter(|it| it.contains(HIDDEN)).collect();
    assert!(hidden.is_empty(), "{hidden:#?}");
    Ok(())
}

fn start(setup: impl Into<Setup>) -> Result<(Peer, Events), Box<dyn std::error::Error>> {
    let (peer, events) = amqp_peer::tokio::start(setup)?;
    USED.lock().unwrap().push(peer.clone());
    Ok((peer, events))
}

/// The lines of a peer, without its span.
fn lines_of(peer: &str) -> Vec<String> {
    let span = format!("amqp.peer  name=\"{peer}\"");
    let lines = LINES.lock().unwrap();
    let of_peer = lines.iter().filter_map(|line| line.strip_prefix(&span));
    let lines = of_peer.map(|line| line.trim_start_matches(": ").to_owned());
    lines.collect()
}

/// Waits until a peer has a line, and returns it.
async fn line(peer: &str, start: &str) -> String {
    let wait = async {
        loop {
            let changed = CHANGED.notified();
            let line = lines_of(peer).into_iter().find(|it| it.starts_with(start));
            if let Some(line) = line {
                return line;
            }
            changed.await;
        }
    };
    let limit = Duration::from_secs(60);
    match tokio::time::timeout(limit, wait).await {
        Ok(line) => line,
        Err(_) => panic!("{peer} has no {start:?}: {:#?}", lines_of(peer)),
    }
}

fn name(name: &str) -> PeerName {
    name.parse().unwrap()
}

/// Waits until the first peer has its link. `from` dials.
async fn link(listener: &Peer, dialer: &Peer, from: &mut Events) -> Outcome {
    let listening = listener.add_listener(Listen::tcp("127.0.0.1:0")).await?;
    let port = listening.port().ok_or("no port")?;
    dialer.add_connector(Connect::tcp("127.0.0.1", port));
    while !matches!(from.next().await, Some(Event::Up(_))) {}
    Ok(())
}

#[test]
fn the_life_of_links_is_told_with_their_causes() -> Outcome {
    traced(async {
        let secret = |name| Ok::<_, amqp_peer::PeerNameError>(Config::new(name)?.secret(HIDDEN));
        let (listener, _at_listener) = start(secret("link-listener")?)?;
        let (dialer, mut at_dialer) = start(secret("link-dialer")?)?;
        // Nothing listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        let connect = Connect::tcp("127.0.0.1", port);
        let in_vain = dialer.add_connector(connect);
        let dialing = format!("DEBUG dialing connector={} attempt=1", in_vain.number());
        assert_eq!(line("link-dialer", "DEBUG dialing").await, dialing);
        line("link-dialer", "WARN dial failed connector=1 error").await;
        line(
            "link-dialer",
            "DEBUG waiting before the next dial connector=1 wait",
        )
        .await;
        // Further failures are not warnings.
        line("link-dialer", "DEBUG dial failed").await;
        dialer.remove_connector(in_vain);

        link(&listener, &dialer, &mut at_dialer).await?;
        let listening = line("link-listener", "INFO listening listener=1 address=127").await;
        assert!(listening.contains("127.0.0.1:"), "{listening}");
        let up = "INFO link up peer=\"link-dialer\" link=1 is_listener=true certificates=0";
        assert_eq!(line("link-listener", "INFO link up").await, up);
        line("link-dialer", "INFO link up peer=\"link-listener\"").await;

        // Another peer has another secret.
        let (stranger, _events) = start(Config::new("link-stranger")?.secret("hidden as well"))?;
        let port = listening.rsplit_once(':').ok_or("no port")?.1.parse()?;
        let refused = stranger.add_connector(Connect::tcp("127.0.0.1", port));
        let told = line("link-stranger", "WARN link refused").await;
        assert!(told.contains("cause=the secret is wrong reason"), "{told}");
        line(
            "link-listener",
            "WARN link refused link=2 is_listener=true cause=the secret",
        )
        .await;
        stranger.remove_connector(refused);

        dialer.stop().await;
        let down = line("link-listener", "INFO link down").await;
        assert!(
            down.starts_with("INFO link down peer=\"link-dialer\" link=1 cause=ended by the peer")
        );
        line("link-dialer", "INFO peer stopping").await;
        line("link-dialer", "INFO peer stopped").await;
        assert_eq!(lines_of("link-dialer")[0], "INFO peer started");

        // What the system refuses.
        let in_use = Listen::tcp(format!("127.0.0.1:{port}"));
        assert!(stranger.add_listener(in_use).await.is_err());
        line("link-stranger", "WARN cannot listen").await;
        Ok(())
    })
}

#[test]
fn a_connection_beyond_the_limits_is_told() -> Outcome {
    traced(async {
        let limits = amqp_peer::Limits::default().pending_links(1);
        let (peer, _events) = start(Config::new("limited")?.limits(limits))?;
        let listening = peer.add_listener(Listen::tcp("127.0.0.1:0")).await?;
        let port = listening.port().ok_or("no port")?;
        let connect = || std::net::TcpStream::connect(("127.0.0.1", port));
        let _strangers = [connect()?, connect()?, connect()?];
        line("limited", "WARN connection not accepted listener=1 error").await;
        line("limited", "DEBUG connection not accepted listener=1 error").await;
        Ok(())
    })
}

#[test]
fn each_message_is_told_without_its_body() -> Outcome {
    traced(async {
        let (alice, mut at_alice) = start(Config::new("sender")?.receipts(Receipts::All))?;
        let (bob, mut at_bob) = start(Config::new("receiver")?)?;
        let to = name("receiver");
        let mortal = Message::new(HIDDEN).ttl(Duration::from_millis(1));
        alice.send(&to, mortal).await?;
        let dropped = "DEBUG message dropped peer=\"receiver\" id reason was_sent=false";
        assert_eq!(line("sender", "DEBUG message dropped").await, dropped);
        let own = alice.send(&name("sender"), Message::new(HIDDEN)).await;
        assert_eq!(own, Err(SendError::OwnName));
        line("sender", "DEBUG message not sent peer=\"sender\" error").await;

        link(&alice, &bob, &mut at_alice).await?;
        let message = Message::new(HIDDEN).kind(HIDDEN)?.persistent();
        alice.send(&to, message).await?;
        let queued = "TRACE message queued peer=\"receiver\" id bytes=6";
        assert_eq!(line("sender", "TRACE message queued").await, queued);
        line("sender", "TRACE message written peer=\"receiver\" id").await;
        let mut received = 0;
        while received < 2 {
            let Some(event) = at_bob.next().await else {
                break;
            };
            if let Event::Received(message) = event {
                received += 1;
                if received == 1 {
                    message.requeue();
                } else {
                    message.accept();
                }
            }
        }
        let came = "TRACE message received from=sender id bytes=6 is_repeated=false";
        assert_eq!(line("receiver", "TRACE message received").await, came);
        line("receiver", "TRACE message given back from=sender id").await;
        line(
            "receiver",
            "TRACE message received from=sender id bytes=6 is_repeated=true",
        )
        .await;
        line("receiver", "TRACE message accepted from=sender id").await;
        line("sender", "TRACE message delivered peer=\"receiver\" id").await;
        // Without receipts as well.
        bob.send(&name("sender"), Message::new(HIDDEN)).await?;
        while let Some(event) = at_alice.next().await {
            if let Event::Received(message) = event {
                message.accept();
                break;
            }
        }
        line("receiver", "TRACE message delivered peer=\"sender\" id").await;
        Ok(())
    })
}

type Started = Result<(Peer, Events), Box<dyn std::error::Error>>;

/// Starts a peer of that name.
type Start = fn(&str) -> Started;

fn start_of<R: ServerRuntime + Default>(name: &str) -> Started {
    let (peer, events) = start_on(R::default(), Config::new(name)?)?;
    USED.lock().unwrap().push(peer.clone());
    Ok((peer, events))
}

#[test]
fn links_and_messages_are_told_on_every_runtime_and_in_both_roles() -> Outcome {
    let runtimes: [(&str, Start); 4] = [
        ("tokio", start_of::<amqp_tokio::Tokio>),
        ("smol", start_of::<amqp_smol::Smol>),
        ("async-std", start_of::<amqp_async_std::AsyncStd>),
        ("blocking", start_of::<amqp_blocking::Blocking>),
    ];
    traced(async {
        for (runtime, sender_listens) in runtimes
            .into_iter()
            .flat_map(|it| [(it, true), (it, false)])
        {
            let (runtime, start) = runtime;
            let from = format!("{runtime}-from-{sender_listens}");
            let to = format!("{runtime}-to-{sender_listens}");
            let (sender, mut at_sender) = start(&from)?;
            let (receiver, mut at_receiver) = start(&to)?;
            if sender_listens {
                link(&sender, &receiver, &mut at_receiver).await?;
            } else {
                link(&receiver, &sender, &mut at_sender).await?;
            }
            let up = |peer: &str, is_listener: bool| {
                format!("INFO link up peer=\"{peer}\" link=1 is_listener={is_listener}")
            };
            line(&from, &up(&to, sender_listens)).await;
            line(&to, &up(&from, !sender_listens)).await;
            sender.send(&name(&to), Message::new(HIDDEN)).await?;
            while let Some(event) = at_receiver.next().await {
                if let Event::Received(message) = event {
                    message.accept();
                    break;
                }
            }
            line(&to, &format!("TRACE message accepted from={from} id")).await;
            let delivered = format!("TRACE message delivered peer=\"{to}\" id");
            line(&from, &delivered).await;
            sender.stop().await;
            line(
                &to,
                &format!("INFO link down peer=\"{from}\" link=1 cause=ended by the peer"),
            )
            .await;
            line(&from, "INFO peer stopped").await;
        }
        Ok(())
    })
}

#[test]
fn calls_are_told_on_both_sides_without_their_values() -> Outcome {
    traced(async {
        let (caller, mut at_caller) = start(Config::new("caller")?)?;
        let (callee, _at_callee) = start(Config::new("callee")?)?;
        let echo = async |text: String| match text.as_str() {
            "" => Err(Failure::new("Empty", HIDDEN)),
            _ => Ok(text),
        };
        callee.rpc().object("echo").method("echo", echo);
        link(&callee, &caller, &mut at_caller).await?;
        let proxy: Proxy<Json> = caller.rpc().proxy(name("callee"), "echo");
        let text: String = proxy.call("echo", HIDDEN).await?;
        assert_eq!(text, HIDDEN);
        let failed = proxy.call::<_, String>("echo", "").await;
        assert!(matches!(failed, Err(CallError::Remote(_))), "{failed:?}");
        let missing = proxy.call::<_, String>("missing", HIDDEN).await;
        assert!(
            matches!(missing, Err(CallError::NoMethod { .. })),
            "{missing:?}"
        );
        proxy.signal("echo", HIDDEN)?;
        let mut abandoned = Box::pin(proxy.call::<_, String>("abandoned", "x"));
        poll_fn(|cx| {
            assert!(abandoned.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        // Before an answer can be taken.
        drop(abandoned);

        let span = |method: &str| {
            format!(" > amqp.call  peer=\"callee\" object=\"echo\" method=\"{method}\": ")
        };
        for (method, text) in [
            ("echo", "DEBUG call begun"),
            ("echo", "DEBUG call answered"),
            ("echo", "DEBUG call failed outcome=\"remote\""),
            ("missing", "DEBUG call failed outcome=\"no-method\""),
            ("abandoned", "DEBUG call abandoned"),
        ] {
            line("caller", &format!("{}{text}", span(method))).await;
        }
        line(
            "caller",
            "DEBUG signal sent peer=\"callee\" object=\"echo\" method=\"echo\"",
        )
        .await;
        let request = "DEBUG request received peer=\"caller\" object=\"echo\" method=\"missing\" is_call=true";
        line("callee", request).await;
        line(
            "callee",
            "DEBUG request refused peer=\"caller\" fault=\"no-method\"",
        )
        .await;
        line(
            "callee",
            "DEBUG request refused peer=\"caller\" fault=\"wrong-kind\"",
        )
        .await;
        let run = " > amqp.request  peer=\"caller\" object=\"echo\" method=\"echo\": ";
        line(
            "callee",
            &format!("{run}DEBUG request handled outcome=\"ok\""),
        )
        .await;
        line(
            "callee",
            &format!("{run}DEBUG request handled outcome=\"failed\""),
        )
        .await;
        Ok(())
    })
}

/// A storage that fails twice.
struct Failing(MemoryStorage, u8);

impl Storage for Failing {
    fn load(&mut self) -> Result<Stored, StorageError> {
        self.0.load()
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), StorageError> {
        if self.1 > 0 {
            self.1 -= 1;
            return Err(StorageError::new(StorageErrorKind::Io, "for a test"));
        }
        self.0.apply(changes)
    }
}

#[test]
fn a_storage_that_fails_and_works_again_is_told() -> Outcome {
    traced(async {
        let storage = Failing(MemoryStorage::new(), 2);
        let (peer, _events) = start(Config::new("storing")?.storage(storage))?;
        let message = Message::new(HIDDEN).persistent();
        let refused = peer.send(&name("absent"), message).await;
        assert!(
            matches!(refused, Err(SendError::Storage { .. })),
            "{refused:?}"
        );
        line("storing", "WARN storage failed error").await;
        line("storing", "DEBUG storage failed error").await;
        line("storing", "INFO storage works again").await;
        Ok(())
    })
}

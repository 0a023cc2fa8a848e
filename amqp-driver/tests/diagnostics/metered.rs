//! The metrics of the feature `metrics`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use amqp_driver::{metrics::ConnectionMetrics, protocol::basic};
use amqp_test_support::{Confirming, Rig};
use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    with_local_recorder,
};

/// Keeps the values by name and label.
#[derive(Debug, Default)]
struct Values {
    counters: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    gauges: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    described: Mutex<Vec<String>>,
}

fn name_of(key: &Key) -> String {
    let labels = key
        .labels()
        .map(|it| format!("{}={}", it.key(), it.value()));
    format!("{}{{{}}}", key.name(), labels.collect::<Vec<_>>().join(","))
}

impl Values {
    fn counter(&self, name: &str) -> u64 {
        let name = format!("amqp_client_{name}{{connection=orders}}");
        self.counters.lock().unwrap()[&name].load(Ordering::Relaxed)
    }

    fn gauge(&self, name: &str) -> f64 {
        let name = format!("amqp_client_{name}{{connection=orders}}");
        f64::from_bits(self.gauges.lock().unwrap()[&name].load(Ordering::Relaxed))
    }
}

impl Recorder for Values {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
        self.described.lock().unwrap().push(key.as_str().to_owned());
    }

    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
        self.described.lock().unwrap().push(key.as_str().to_owned());
    }

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut counters = self.counters.lock().unwrap();
        Counter::from_arc(Arc::clone(counters.entry(name_of(key)).or_default()))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let mut gauges = self.gauges.lock().unwrap();
        Gauge::from_arc(Arc::clone(gauges.entry(name_of(key)).or_default()))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// One connection with `published` publishes, of which one waits for its confirm; then its end.
fn live(values: &Values, metrics: &mut ConnectionMetrics, published: u64) {
    let (mut rig, connection, channel) = Rig::with_confirms();
    let publish = basic::Publish::default();
    let none = basic::Properties::default();
    rig.peer().confirming = Confirming::AtOnce;
    for _ in 1..published {
        let confirm = rig.wait(channel.publish(&publish, &none, "x")).unwrap();
        rig.wait(confirm).unwrap();
        metrics.record(&connection);
    }
    rig.peer().confirming = Confirming::ByHand;
    let waiting = rig.wait(channel.publish(&publish, &none, "x")).unwrap();
    rig.run();
    metrics.record(&connection);
    let gauges = [
        "unconfirmed",
        "channels",
        "connection_open",
        "buffered_bytes",
    ];
    assert_eq!(gauges.map(|it| values.gauge(it)), [1.0, 1.0, 1.0, 0.0]);
    drop((waiting, channel));
    connection.abort();
    rig.run();
    metrics.record(&connection);
    assert_eq!(gauges.map(|it| values.gauge(it)), [0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn counters_go_on_over_connections() {
    let values = Values::default();
    let mut metrics = with_local_recorder(&values, || ConnectionMetrics::new("orders"));
    live(&values, &mut metrics, 7);
    let counts = ["published_total", "confirmed_total"];
    assert_eq!(counts.map(|it| values.counter(it)), [7, 6]);
    let bytes = values.counter("sent_bytes_total");
    live(&values, &mut metrics, 4);
    assert_eq!(counts.map(|it| values.counter(it)), [11, 9]);
    assert!(values.counter("sent_bytes_total") > bytes + 100);

    // Each of them is described, once.
    let mut described = values.described.lock().unwrap().clone();
    described.sort();
    let mut names = Vec::new();
    for map in [&values.counters, &values.gauges] {
        names.extend(map.lock().unwrap().keys().cloned());
    }
    let plain = |name: String| name.split('{').next().unwrap().to_owned();
    let mut names: Vec<String> = names.into_iter().map(plain).collect();
    names.sort();
    assert_eq!(described, names);
}

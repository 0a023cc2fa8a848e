//! The trace contexts and attributes of the feature `opentelemetry`.

use amqp_driver::{
    opentelemetry::{
        HeaderExtractor, HeaderInjector, TRACEPARENT, TRACESTATE, extract, inject,
        process_attributes, publish_attributes, span_name,
    },
    protocol::basic,
    wire::{FieldTable, FieldValue, LongStr},
};
use amqp_test_support::Rig;
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor as _, Injector as _},
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState},
};
use proptest::prelude::*;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn span(state: &str) -> SpanContext {
    SpanContext::new(
        TraceId::from(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c),
        SpanId::from(0xb7ad_6b71_6920_3331),
        TraceFlags::SAMPLED,
        false,
        state.parse().unwrap(),
    )
}

fn with_parent(text: impl Into<LongStr>) -> FieldTable {
    let mut headers = FieldTable::new();
    headers.insert(TRACEPARENT, FieldValue::LongStr(text.into()));
    headers
}

#[test]
fn what_is_injected_is_extracted() {
    for state in ["", "vendor=1", "one=1,two=2"] {
        let context = Context::new().with_remote_span_context(span(state));
        let mut headers = FieldTable::new().with("x-key", 7);
        inject(&context, &mut headers);
        let text = |name: &str| headers.get(name).and_then(FieldValue::as_str);
        assert_eq!(text(TRACEPARENT), Some(PARENT));
        assert_eq!(text(TRACESTATE), Some(state).filter(|it| !it.is_empty()));
        let read = extract(Some(&headers)).unwrap();
        assert!(read.is_remote() && read.is_sampled());
        assert_eq!(read.trace_id(), span(state).trace_id());
        assert_eq!(read.span_id(), span(state).span_id());
        assert_eq!(read.trace_state(), span(state).trace_state());
    }
}

#[test]
fn the_context_of_another_is_replaced_with_its_state() {
    let mut headers = with_parent("garbage");
    let vendor = FieldValue::LongStr("vendor=1".into());
    headers.insert(TRACESTATE, vendor);
    inject(&Context::new(), &mut headers);
    assert_eq!(
        headers.iter().count(),
        2,
        "a context without a span changes nothing"
    );
    inject(
        &Context::new().with_remote_span_context(span("")),
        &mut headers,
    );
    assert!(headers.get(TRACESTATE).is_none());
    assert!(extract(Some(&headers)).is_some());
}

#[test]
fn malformed_headers_have_no_context() {
    let zero_trace = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
    let zero_span = "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01";
    let malformed = [
        "",
        "-",
        "00",
        "00---",
        zero_trace,
        zero_span,
        &PARENT.to_uppercase(),
        &PARENT.replacen("00", "ff", 1),
        &PARENT.replacen("00", "0", 1),
        &PARENT.replacen("00", "+0", 1),
        &PARENT[..PARENT.len() - 1],
        &format!("{PARENT}0"),
        &format!("{PARENT}-00"),
        &format!(" {PARENT}"),
        &PARENT.replace('-', "\u{2010}"),
        &"0".repeat(1 << 20),
    ];
    for text in malformed {
        let read = extract(Some(&with_parent(text)));
        assert!(read.is_none(), "{:?}", text.get(..60));
    }
    // A later version may have more.
    let later = format!("{}-more", PARENT.replacen("00", "01", 1));
    assert!(extract(Some(&with_parent(later.as_str()))).is_some());
    assert!(extract(None).is_none());
    // Of another type, and not in UTF-8.
    let mut headers = with_parent(&b"00-\xff"[..]);
    assert!(extract(Some(&headers)).is_none());
    headers.insert(TRACEPARENT, FieldValue::Bool(true));
    assert!(extract(Some(&headers)).is_none());
}

#[test]
fn a_malformed_state_is_left_out() {
    for state in ["no equals sign", &format!("a={}", "b".repeat(5000))] {
        let mut headers = with_parent(PARENT);
        headers.insert(TRACESTATE, FieldValue::LongStr(state.into()));
        let read = extract(Some(&headers)).unwrap();
        assert_eq!(*read.trace_state(), TraceState::NONE);
    }
}

proptest! {
    #[test]
    fn no_header_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80), text in "[0-9a-f-]{0,60}") {
        let _ = extract(Some(&with_parent(&bytes[..])));
        let mut headers = with_parent(text.as_str());
        headers.insert(TRACESTATE, FieldValue::LongStr(bytes[..].into()));
        let _ = extract(Some(&headers));
    }
}

#[test]
fn other_propagators_use_the_headers() {
    let mut headers = FieldTable::new().with("number", 7);
    let mut injector = HeaderInjector(&mut headers);
    injector.set("b3", "80f198ee56343ba8-1".to_owned());
    injector.set(&"k".repeat(256), "too long a name".to_owned());
    let extractor = HeaderExtractor(&headers);
    assert_eq!(extractor.get("b3"), Some("80f198ee56343ba8-1"));
    assert_eq!(extractor.get("number"), None);
    assert_eq!(extractor.keys(), ["number", "b3"]);
}

fn shown(attributes: &[KeyValue]) -> Vec<String> {
    let shown = |it: &KeyValue| format!("{}={}", it.key, it.value);
    attributes.iter().map(shown).collect()
}

#[test]
fn the_attributes_are_those_of_the_conventions() {
    let publish = basic::Publish::default()
        .exchange("events")
        .routing_key("order.created");
    let properties = basic::Properties::default()
        .message_id("m-1")
        .correlation_id("c-1");
    assert_eq!(
        shown(&publish_attributes(&publish, &properties, 12)),
        [
            "messaging.system=rabbitmq",
            "messaging.operation.name=publish",
            "messaging.operation.type=send",
            "messaging.destination.name=events:order.created",
            "messaging.rabbitmq.destination.routing_key=order.created",
            "messaging.message.body.size=12",
            "messaging.message.id=m-1",
            "messaging.message.conversation_id=c-1",
        ]
    );
    let names = [
        (["events", "", ""], "events"),
        (["", "jobs", ""], "jobs"),
        (["", "", ""], "amq.default"),
        (["", "jobs", "jobs"], "jobs"),
        (["events", "order", "jobs"], "events:order:jobs"),
        (["events", "jobs", "jobs"], "events:jobs"),
    ];
    for ([exchange, key, queue], name) in names {
        let expected = format!("process {name}");
        assert_eq!(span_name("process", exchange, key, queue), expected);
    }

    let (mut rig, connection, channel) = Rig::with_channel();
    let mut consumer = rig
        .wait(channel.consume(basic::Consume::default()))
        .unwrap();
    let tag = consumer.tag().to_string();
    let context = Context::new().with_remote_span_context(span("vendor=1"));
    let mut properties = basic::Properties::default();
    inject(&context, properties.headers.get_or_insert_default());
    rig.peer().deliver_with(1, &tag, &properties, "body");
    let delivery = rig.wait(consumer.next()).unwrap().unwrap();
    assert_eq!(
        shown(&process_attributes(&delivery, "jobs")),
        [
            "messaging.system=rabbitmq",
            "messaging.operation.name=process",
            "messaging.operation.type=process",
            "messaging.destination.name=jobs",
            "messaging.rabbitmq.message.delivery_tag=1",
            "messaging.message.body.size=4",
        ]
    );
    let properties = delivery.properties().unwrap();
    let parent = extract(properties.headers.as_ref()).unwrap();
    assert_eq!(parent.trace_id(), span("").trace_id());
    delivery.ack().unwrap();
    drop((consumer, channel));
    rig.finish(connection);
}

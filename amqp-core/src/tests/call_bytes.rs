//! The exact bytes of calls on exchanges and queues, and the order of calls on several channels.

use alloc::{string::String, vec, vec::Vec};

use proptest::{collection::vec as list, prelude::*};

use crate::{
    ApiMisuse, RequestId,
    client::{ChannelMut, Checks, Config, Connection},
    protocol::{Method, basic, exchange, queue},
    tests::script::*,
    wire::{FieldTable, FieldValue},
};

type Client = Script<Connection>;

/// A value of a table, apart from the codec that is tested.
#[derive(Clone, Debug)]
enum Value {
    Flag(bool),
    Number(i32),
    Text(String),
    Table(Vec<(String, Self)>),
}

/// The arguments of a call.
#[derive(Clone, Debug)]
struct Arguments {
    names: [String; 3],
    flags: [bool; 5],
    table: Vec<(String, Value)>,
}

impl Value {
    fn field(&self) -> FieldValue {
        match self {
            Self::Flag(flag) => (*flag).into(),
            Self::Number(number) => (*number).into(),
            Self::Text(text) => text.as_str().into(),
            Self::Table(fields) => table(fields).into(),
        }
    }
}

fn table(fields: &[(String, Value)]) -> FieldTable {
    let fields = fields.iter();
    fields
        .map(|(key, value)| (name(key), value.field()))
        .collect()
}

fn any_name() -> impl Strategy<Value = String> {
    "\\PC{1,40}"
}

fn any_fields() -> impl Strategy<Value = Vec<(String, Value)>> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Flag),
        any::<i32>().prop_map(Value::Number),
        "\\PC{0,80}".prop_map(Value::Text),
    ];
    let value = leaf.prop_recursive(2, 8, 4, |inner| {
        list((any_name(), inner), 0..4).prop_map(Value::Table)
    });
    list((any_name(), value), 0..5)
}

fn any_arguments() -> impl Strategy<Value = Arguments> {
    let names = [any_name(), any_name(), any_name()];
    (names, any::<[bool; 5]>(), any_fields()).prop_map(|(names, flags, table)| Arguments {
        names,
        flags,
        table,
    })
}

/// The bytes of a method by section 4.2 of the specification.
struct Bytes(Vec<u8>);

impl Bytes {
    /// Class, method, and the reserved number that each of these methods begins with.
    fn of(class: u8, method: u8) -> Self {
        Self(vec![0, class, 0, method, 0, 0])
    }

    fn name(mut self, text: &str) -> Self {
        self.0.push(text.len() as u8);
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// The first one is the lowest bit.
    fn bits(mut self, bits: &[bool]) -> Self {
        let octet = bits
            .iter()
            .rev()
            .fold(0, |octet, bit| octet << 1 | u8::from(*bit));
        self.0.push(octet);
        self
    }

    fn table(mut self, fields: &[(String, Value)]) -> Self {
        let mut inner = Self(Vec::new());
        for (key, value) in fields {
            inner = inner.name(key);
            match value {
                Value::Flag(flag) => inner.0.extend([b't', u8::from(*flag)]),
                Value::Number(number) => {
                    inner.0.push(b'I');
                    inner.0.extend(number.to_be_bytes());
                }
                Value::Text(text) => {
                    inner.0.push(b'S');
                    inner.0.extend((text.len() as u32).to_be_bytes());
                    inner.0.extend_from_slice(text.as_bytes());
                }
                Value::Table(fields) => {
                    inner.0.push(b'F');
                    inner = inner.table(fields);
                }
            }
        }
        self.0.extend((inner.0.len() as u32).to_be_bytes());
        self.0.extend(inner.0);
        self
    }

    fn frame(self, channel: u8) -> Vec<u8> {
        let mut frame = vec![1, 0, channel];
        frame.extend((self.0.len() as u32).to_be_bytes());
        frame.extend(self.0);
        frame.push(0xCE);
        frame
    }
}

/// Sends a call, compares its bytes, and answers it if it is to be answered.
fn check(
    send: impl FnOnce(&mut ChannelMut<'_>) -> Result<Option<RequestId>, ApiMisuse>,
    bytes: Bytes,
    ok: impl Into<Method>,
) {
    let config = Config {
        checks: Checks::Standard,
        ..Config::default()
    };
    let mut client = Client::open_with(config);
    let id = client.channel();
    let request = send(&mut client.on(id)).unwrap();
    assert_eq!(client.bytes(), bytes.frame(1));
    let ok = ok.into();
    if let Some(request) = request {
        client.feed(&of_method(&ok));
        assert_eq!(client.events(), [replied(id, request, ok)]);
    }
    assert!(client.on(id).is_open());
    // Nothing is waited for any more.
    let close = client.on(id).close(crate::protocol::ReplyCode::SUCCESS, "");
    assert!(close.is_ok());
}

/// A frame of channel 1 with that method.
fn of_method(method: &Method) -> Vec<u8> {
    crate::tests::side::method_frame(1, method)
}

macro_rules! call_or_send {
    ($request:ident) => {
        |channel| {
            if $request.no_wait {
                channel.send(&$request).map(|()| None)
            } else {
                channel.call(&$request).map(Some)
            }
        }
    };
}

proptest! {
    #![proptest_config(amqp_test_support::cases(64))]

    #[test]
    fn the_bytes_of_calls_on_exchanges(arguments in any_arguments()) {
        let Arguments { names: [one, two, three], flags, table: fields } = &arguments;
        let [a, b, c, d, no_wait] = *flags;

        let declare = exchange::Declare {
            exchange: name(one),
            kind: name(two),
            passive: a,
            durable: b,
            auto_delete: c,
            internal: d,
            no_wait,
            arguments: table(fields),
        };
        let bytes = Bytes::of(40, 10).name(one).name(two).bits(flags).table(fields);
        check(call_or_send!(declare), bytes, exchange::DeclareOk);

        let delete = exchange::Delete {
            exchange: name(one),
            if_unused: a,
            no_wait,
        };
        let bytes = Bytes::of(40, 20).name(one).bits(&[a, no_wait]);
        check(call_or_send!(delete), bytes, exchange::DeleteOk);

        let bind = exchange::Bind {
            destination: name(one),
            source: name(two),
            routing_key: name(three),
            no_wait,
            arguments: table(fields),
        };
        let bytes = Bytes::of(40, 30).name(one).name(two).name(three);
        check(call_or_send!(bind), bytes.bits(&[no_wait]).table(fields), exchange::BindOk);

        let unbind = exchange::Unbind {
            destination: name(one),
            source: name(two),
            routing_key: name(three),
            no_wait,
            arguments: table(fields),
        };
        let bytes = Bytes::of(40, 40).name(one).name(two).name(three);
        check(call_or_send!(unbind), bytes.bits(&[no_wait]).table(fields), exchange::UnbindOk);
    }

    #[test]
    fn the_bytes_of_calls_on_queues(arguments in any_arguments(), count: u32) {
        let Arguments { names: [one, two, three], flags, table: fields } = &arguments;
        let [a, b, c, d, no_wait] = *flags;

        let declare = queue::Declare {
            queue: name(one),
            passive: a,
            durable: b,
            exclusive: c,
            auto_delete: d,
            no_wait,
            arguments: table(fields),
        };
        let bytes = Bytes::of(50, 10).name(one).bits(flags).table(fields);
        let ok = queue::DeclareOk { queue: name(one), message_count: count, consumer_count: 1 };
        check(call_or_send!(declare), bytes, ok);

        let bind = queue::Bind {
            queue: name(one),
            exchange: name(two),
            routing_key: name(three),
            no_wait,
            arguments: table(fields),
        };
        let bytes = Bytes::of(50, 20).name(one).name(two).name(three);
        check(call_or_send!(bind), bytes.bits(&[no_wait]).table(fields), queue::BindOk);

        let purge = queue::Purge { queue: name(one), no_wait };
        let bytes = Bytes::of(50, 30).name(one).bits(&[no_wait]);
        check(call_or_send!(purge), bytes, queue::PurgeOk { message_count: count });

        let delete = queue::Delete {
            queue: name(one),
            if_unused: a,
            if_empty: b,
            no_wait,
        };
        let bytes = Bytes::of(50, 40).name(one).bits(&[a, b, no_wait]);
        check(call_or_send!(delete), bytes, queue::DeleteOk { message_count: count });

        let unbind = queue::Unbind {
            queue: name(one),
            exchange: name(two),
            routing_key: name(three),
            arguments: table(fields),
        };
        let bytes = Bytes::of(50, 50).name(one).name(two).name(three).table(fields);
        check(|channel| channel.call(&unbind).map(Some), bytes, queue::UnbindOk);
    }

    /// Messages of several frames are the exception: channels take turns with them.
    #[test]
    fn calls_of_several_channels_leave_in_their_order(
        deeds in list((0usize..3, 0u8..3, any::<bool>()), 0..40),
    ) {
        let mut client = Client::roomy();
        let ids = [client.channel(), client.channel(), client.channel()];
        let (mut expected, mut sent) = (Vec::new(), Vec::new());
        for (index, deed, poll) in deeds {
            let id = ids[index];
            match deed {
                0 => {
                    let properties = basic::Properties::default();
                    let body = b"small".as_slice();
                    client.on(id).publish(&publish("q"), &properties, body).unwrap();
                    expected.extend(content(id.number(), publish("q"), body));
                }
                1 => {
                    let declare = queue::Declare::default();
                    client.on(id).call(&declare).unwrap();
                    expected.push(method(id.number(), declare));
                }
                _ => {
                    let purge = queue::Purge { no_wait: true, ..queue::Purge::default() };
                    client.on(id).send(&purge).unwrap();
                    expected.push(method(id.number(), purge));
                }
            }
            if poll {
                sent.extend(client.bytes());
            }
        }
        sent.extend(client.bytes());
        prop_assert_eq!(frames(&sent), expected);
    }
}

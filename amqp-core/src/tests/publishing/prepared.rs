//! Prepared publishes: the same as others in all but the encoding.

use alloc::{boxed::Box, string::String, vec, vec::Vec};

use bytes::Bytes;
use proptest::{collection::vec as list, option, prelude::*, sample::select};

use super::{Client, with_frames};
use crate::{
    ApiMisuse, ChannelId, EncodedProperties, PublishError, PublishSeq,
    client::{Checks, Config, PreparedPublish},
    protocol::{basic, channel, connection},
    tests::script::*,
    wire::FieldTable,
};

/// Two clients with the same channels. One publishes prepared messages, the other plain ones.
struct Twins {
    plain: Client,
    prepared: Client,
    channels: Vec<ChannelId>,
}

impl Twins {
    /// With a channel of each mode: none, confirm, transactional.
    fn new(config: &Config, frame_max: u32) -> Self {
        let tune = connection::Tune {
            channel_max: 300,
            frame_max,
            heartbeat: 0,
        };
        let open = || {
            let mut client = Client::tuned(config.clone(), &tune);
            let (plain, confirm) = (client.channel(), client.confirm_channel());
            let channels = vec![plain, confirm, client.tx_channel()];
            (client, channels)
        };
        let ((plain, channels), (prepared, same)) = (open(), open());
        assert_eq!(channels, same);
        Self {
            plain,
            prepared,
            channels,
        }
    }

    /// Publishes with both. Returns the result, which is the same.
    fn publish(
        &mut self,
        number: usize,
        sample: &Sample,
    ) -> Result<Option<PublishSeq>, PublishError> {
        let id = self.channels[number];
        let Sample {
            method,
            properties,
            encoded,
            body,
        } = sample;
        let encoded = encoded.then(|| EncodedProperties::from(properties));
        let mut on = self.plain.on(id);
        let published = match &encoded {
            Some(encoded) => on.publish(method, encoded, body.clone()),
            None => on.publish(method, properties, body.clone()),
        };
        let prepared = match &encoded {
            Some(encoded) => PreparedPublish::new(method.clone(), encoded),
            None => PreparedPublish::new(method.clone(), properties),
        };
        let prepared = prepared.unwrap();
        assert_eq!(prepared.method(), method);
        let same = self
            .prepared
            .on(id)
            .publish_prepared(&prepared, body.clone());
        assert_eq!(published, same);
        self.compare();
        published
    }

    fn both(&mut self, mut act: impl FnMut(&mut Client)) {
        act(&mut self.plain);
        act(&mut self.prepared);
        self.compare();
    }

    /// The clients are in the same state, as far as can be seen.
    fn compare(&mut self) {
        let (plain, prepared) = (&self.plain.conn, &self.prepared.conn);
        assert_eq!(plain.buffered(), prepared.buffered());
        assert_eq!(plain.stats(), prepared.stats());
        for &id in &self.channels {
            let stats = self.plain.on(id).stats();
            assert_eq!(stats, self.prepared.on(id).stats());
        }
        assert_eq!(self.plain.events(), self.prepared.events());
    }

    /// Both hand out the same bytes.
    fn drain(&mut self) -> Vec<u8> {
        let bytes = self.plain.bytes();
        assert_eq!(bytes, self.prepared.bytes());
        self.compare();
        bytes
    }
}

/// A message.
#[derive(Clone, Debug)]
struct Sample {
    method: basic::Publish,
    properties: basic::Properties,
    /// The properties are given encoded.
    encoded: bool,
    body: Bytes,
}

fn sample(body: &[u8]) -> Sample {
    Sample {
        method: publish("queue").exchange("exchange"),
        properties: basic::Properties::default().message_id("id"),
        encoded: false,
        body: Bytes::copy_from_slice(body),
    }
}

impl Arbitrary for Sample {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        // Longer than the buffer that most heads are written into, and than the smallest frame.
        let long = select(vec![400, 600, 4100]).prop_map(|len| {
            let headers = FieldTable::new().with("long", "x".repeat(len));
            basic::Properties::default().headers(headers)
        });
        let direct = basic::Properties::default().reply_to("amq.rabbitmq.reply-to");
        let properties = prop_oneof![
            2 => Just(basic::Properties::default()),
            3 => any::<basic::Properties>(),
            1 => long,
            1 => Just(direct),
        ];
        let len = prop_oneof![
            1 => Just(0_usize),
            4 => 1_usize..100,
            2 => 4000_usize..4200,
            1 => 0_usize..20_000,
        ];
        let immediate = prop::bool::weighted(0.05);
        (
            any::<basic::Publish>(),
            immediate,
            properties,
            any::<bool>(),
            len,
        )
            .prop_map(|(method, immediate, properties, encoded, len)| Self {
                method: method.immediate(immediate),
                properties,
                encoded,
                body: Bytes::from(vec![7; len]),
            })
            .boxed()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Publish(usize, Box<Sample>),
    /// One call that hands out bytes, or all.
    Drain {
        all: bool,
    },
    Flow(usize, bool),
    Block(bool),
    /// The return of a mandatory publish.
    Return(prop::sample::Index),
    Confirm(u64, bool),
    /// A consumer of direct replies.
    Replies(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0_usize..3, any::<Sample>())
            .prop_map(|(at, sample)| Step::Publish(at, Box::new(sample))),
        2 => any::<bool>().prop_map(|all| Step::Drain { all }),
        1 => (0_usize..3, any::<bool>()).prop_map(|(at, active)| Step::Flow(at, active)),
        1 => any::<bool>().prop_map(Step::Block),
        2 => any::<prop::sample::Index>().prop_map(Step::Return),
        1 => (1_u64..10, any::<bool>()).prop_map(|(seq, multiple)| Step::Confirm(seq, multiple)),
        1 => (0_usize..3).prop_map(Step::Replies),
    ]
}

proptest! {
    #[test]
    fn a_prepared_publish_is_the_same_as_another(
        steps in list(step(), 1..60),
        frame_max in select(vec![4096, 131_072]),
        output_high in select(vec![4096, 50_000, usize::MAX]),
        unconfirmed in select(vec![3, 1000]),
        body_max in option::of(Just(10_000)),
        checks in select(vec![Checks::RabbitMq, Checks::Standard]),
    ) {
        let mut config = Config::default();
        config.limits.output_high = output_high;
        config.limits.output_low = output_high.min(config.limits.output_low);
        config.limits.unconfirmed = unconfirmed;
        config.limits.body = body_max.unwrap_or(config.limits.body);
        config.checks = checks;
        let mut twins = Twins::new(&config, frame_max);
        let mut mandatory = Vec::new();
        for step in steps {
            match step {
                Step::Publish(at, sample) => {
                    if twins.publish(at, &sample).is_ok() && at == 1 && sample.method.mandatory {
                        mandatory.push(sample);
                    }
                }
                Step::Drain { all: true } => drop(twins.drain()),
                Step::Drain { all: false } => {
                    let bytes = twins.plain.bytes_once();
                    assert_eq!(bytes, twins.prepared.bytes_once());
                }
                Step::Flow(at, active) => {
                    let number = twins.channels[at].number();
                    twins.both(|client| client.send(number, &channel::Flow { active }));
                }
                Step::Block(true) => {
                    let blocked = connection::Blocked::default();
                    twins.both(|client| client.send(0, &blocked));
                }
                Step::Block(false) => {
                    twins.both(|client| client.send(0, &connection::Unblocked));
                }
                Step::Return(index) => {
                    if mandatory.is_empty() {
                        continue;
                    }
                    let sample = index.get(&mandatory);
                    let returned = basic::Return::default()
                        .exchange(&sample.method.exchange)
                        .routing_key(&sample.method.routing_key);
                    let number = twins.channels[1].number();
                    twins.both(|client| {
                        client.send_content(number, &returned, &sample.properties, &sample.body);
                    });
                }
                Step::Confirm(seq, multiple) => {
                    let number = twins.channels[1].number();
                    twins.both(|client| client.send(number, &ack(seq, multiple)));
                }
                Step::Replies(at) => {
                    let id = twins.channels[at];
                    let consume = consume("amq.rabbitmq.reply-to", "").no_ack(true).no_wait(true);
                    twins.both(|client| drop(client.on(id).consume(consume.clone())));
                }
            }
        }
        twins.drain();
    }
}

#[test]
fn the_bytes_of_a_prepared_publish() {
    for len in [0, 1, 16, 64, 65, 4000, 4088, 4089, 10_000] {
        for properties in [
            basic::Properties::default(),
            basic::Properties::default()
                .content_type("text/plain")
                .priority(3),
        ] {
            let mut twins = Twins::new(&Config::default(), 4096);
            for number in 0..3 {
                let sample = Sample {
                    properties: properties.clone(),
                    ..sample(&vec![5; len])
                };
                twins.publish(number, &sample).unwrap();
                let bytes = twins.drain();
                let sent = frames(&bytes);
                let id = twins.channels[number].number();
                assert!(sent.iter().all(|frame| frame.channel == id));
                assert_eq!(sent[0], method(id, sample.method));
                let header = EncodedProperties::from(&properties).as_bytes().to_vec();
                assert_eq!(sent[1].what, What::Header(len as u64, header));
            }
        }
    }
}

#[test]
fn one_preparation_serves_all_channels_and_connections() {
    let prepared = PreparedPublish::new(publish("queue"), &basic::Properties::default()).unwrap();
    for frame_max in [4096, 131_072] {
        let tune = connection::Tune {
            channel_max: 300,
            frame_max,
            heartbeat: 0,
        };
        let mut client = Client::tuned(Config::default(), &tune);
        for number in 1..=300 {
            let id = client.channel();
            let body = b"0123456789";
            client.on(id).publish_prepared(&prepared, body).unwrap();
            assert_eq!(client.sent(), content(number, publish("queue"), body));
        }
    }
}

#[test]
fn a_prepared_publish_waits_behind_a_large_message() {
    let mut twins = Twins::new(&Config::default(), 4096);
    for len in [10_000, 0, 3, 5000, 1] {
        twins.publish(1, &sample(&vec![1; len])).unwrap();
    }
    let other = twins.publish(0, &sample(b"other")).unwrap();
    assert_eq!(other, None);
    // In turns of a frame.
    loop {
        let bytes = twins.plain.bytes_once();
        assert_eq!(bytes, twins.prepared.bytes_once());
        if bytes.is_empty() {
            break;
        }
    }
}

#[test]
fn heads_that_do_not_fit_into_a_frame_are_refused_by_each_publish() {
    let headers = FieldTable::new().with("long", "x".repeat(5000));
    let properties = basic::Properties::default().headers(headers);
    let prepared = PreparedPublish::new(publish("queue"), &properties).unwrap();
    let mut small = with_frames(4096);
    let id = small.channel();
    let plain = small.on(id).publish(&publish("queue"), &properties, "body");
    let refused = small.on(id).publish_prepared(&prepared, "body");
    assert_eq!(plain, refused);
    let Err(PublishError::Misuse(ApiMisuse::FrameTooLarge { frame_max, .. })) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(frame_max, 4096);
    assert!(small.bytes().is_empty());
    let mut large = with_frames(131_072);
    let id = large.channel();
    large.on(id).publish_prepared(&prepared, "body").unwrap();
    assert_eq!(large.sent().len(), 3);
}

#[test]
fn an_invalid_message_is_not_prepared() {
    let long = String::from("x").repeat(256);
    let properties = basic::Properties::default();
    let prepared = PreparedPublish::new(publish("queue").exchange(&long), &properties);
    let expected = ApiMisuse::TextTooLong {
        method: "basic.publish",
        field: "exchange",
        len: 256,
    };
    assert_eq!(prepared.unwrap_err(), expected);
    let prepared = PreparedPublish::new(publish("queue"), &properties.message_id(&long));
    let expected = ApiMisuse::TextTooLong {
        method: "basic.publish",
        field: "message-id",
        len: 256,
    };
    assert_eq!(prepared.unwrap_err(), expected);
    let malformed = EncodedProperties::from_wire(Bytes::from_static(b"\x80\x00\x05x"));
    let prepared = PreparedPublish::new(publish("queue"), &malformed);
    let mut client = Client::open();
    let id = client.channel();
    let plain = client.on(id).publish(&publish("queue"), &malformed, "body");
    assert_eq!(plain.unwrap_err(), prepared.unwrap_err().into());
}

#[test]
fn a_prepared_publish_takes_no_body_that_it_refuses() {
    let prepared = PreparedPublish::new(publish("queue"), &basic::Properties::default()).unwrap();
    let mut client = Client::open();
    let id = client.channel();
    client.send(id.number(), &channel::Flow { active: false });
    let mut body = crate::Body::from("body");
    let held = client.on(id).publish_prepared_from(&prepared, &mut body);
    assert!(matches!(held, Err(PublishError::HeldBack { body, .. }) if body.is_empty()));
    assert_eq!(body, "body");
    let held = client.on(id).publish_prepared(&prepared, body);
    assert_eq!(held.unwrap_err().into_body().unwrap(), "body");
}

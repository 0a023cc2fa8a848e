//! Returns against a model of a server that changes properties, routes by them and confirms as it
//! likes.

use alloc::{collections::BTreeMap, format, vec, vec::Vec};

use proptest::{collection::vec as list, prelude::*};

use super::script::*;
use crate::{
    ChannelId, PublishSeq,
    client::{Checks, Config, Connection, Event, Outcome, Returned},
    protocol::{ReplyCode, basic},
    wire::{FieldTable, FieldValue, Timestamp},
};

type Client = Script<Connection>;

/// A publish of the property test. Few values, so that messages are alike in everything but one
/// thing.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    mandatory: bool,
    key: u8,
    body: u8,
    id: Option<u8>,
    /// Values of the headers `a` and `b`.
    headers: [Option<u8>; 2],
    /// Has the header `BCC`, naming that queue.
    bcc: Option<u8>,
    /// Asks for a direct reply.
    replies: bool,
}

impl Sample {
    fn properties(&self) -> basic::Properties {
        let mut table = FieldTable::new();
        for (field, value) in ["a", "b"].into_iter().zip(self.headers) {
            if let Some(value) = value {
                table.push(name(field), i32::from(value));
            }
        }
        if let Some(bcc) = self.bcc {
            table.push(
                name("BCC"),
                vec![FieldValue::from(&*format!("queue-{bcc}"))],
            );
        }
        let mut properties = basic::Properties::default();
        if !table.is_empty() {
            properties.headers = Some(table);
        }
        properties.message_id = self.id.map(|id| name(&format!("{id}")));
        properties.reply_to = self.replies.then(|| name("amq.rabbitmq.reply-to"));
        properties
    }

    fn publish(&self) -> basic::Publish {
        basic::Publish {
            exchange: name("ex"),
            routing_key: name(&format!("key-{}", self.key)),
            mandatory: self.mandatory,
            immediate: false,
        }
    }

    fn body(&self) -> &'static str {
        ["same", "size", "longer"][usize::from(self.body)]
    }
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let value = || prop_oneof![2 => Just(None), 1 => (0u8..2).prop_map(Some)];
    (
        prop::bool::weighted(0.8),
        0u8..2,
        0u8..3,
        value(),
        [value(), value()],
        value(),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(mandatory, key, body, id, headers, bcc, replies)| Sample {
            mandatory,
            key,
            body,
            id,
            headers,
            bcc,
            replies,
        })
}

/// A step of the server.
#[derive(Clone, Copy, Debug)]
struct Server {
    /// The headers that it adds to each message.
    adds: Adds,
    /// A bit for each routing key: a set bit is routed to a queue.
    queues: u8,
    /// Whether it routes by headers instead of by keys.
    by_headers: bool,
}

#[derive(Clone, Copy, Debug)]
enum Adds {
    Nothing,
    Header,
    HeaderAndTimestamp,
}

impl Server {
    fn has(self, queue: u8) -> bool {
        self.queues & (1 << queue) != 0
    }

    fn routes(self, sample: &Sample) -> bool {
        let own = if self.by_headers {
            sample.headers[0].is_some_and(|value| self.has(value))
                || sample.headers[1].is_some_and(|value| self.has(2 + value))
        } else {
            self.has(sample.key)
        };
        own || sample.bcc.is_some_and(|queue| self.has(4 + queue))
    }

    fn change(self, sample: &Sample) -> basic::Properties {
        let mut properties = sample.properties();
        if let Some(headers) = &mut properties.headers {
            headers.remove("BCC");
        }
        if sample.replies {
            properties.reply_to = Some(name("amq.rabbitmq.reply-to.g1h2AA5yZXBseUA"));
        }
        if !matches!(self.adds, Adds::Nothing) {
            let headers = properties.headers.get_or_insert_default();
            // In an order of its own.
            let mut fields = vec![(name("added"), FieldValue::from(1))];
            let old = core::mem::take(headers);
            fields.extend(old.into_iter().collect::<Vec<_>>().into_iter().rev());
            *headers = fields.into_iter().collect();
        }
        if matches!(self.adds, Adds::HeaderAndTimestamp) {
            properties.timestamp = Some(Timestamp(1_700_000_000));
        }
        properties
    }
}

fn any_server() -> impl Strategy<Value = Server> {
    let adds = prop_oneof![
        2 => Just(Adds::Nothing),
        1 => Just(Adds::Header),
        1 => Just(Adds::HeaderAndTimestamp),
    ];
    (adds, any::<u8>(), any::<bool>()).prop_map(|(adds, queues, by_headers)| Server {
        adds,
        queues,
        by_headers,
    })
}

fn confirming() -> (Client, ChannelId) {
    let mut client = Client::open_with(Config {
        checks: Checks::Standard,
        ..Config::default()
    });
    let id = client.confirm_channel();
    (client, id)
}

/// The client's events of publishes.
#[derive(Default)]
struct Told {
    returned: BTreeMap<u64, Returned>,
    settled: BTreeMap<u64, Outcome>,
}

impl Told {
    fn take(&mut self, events: Vec<Event>) -> Vec<Returned> {
        let mut returns = Vec::new();
        for event in events {
            match event {
                Event::Returned(returned) => returns.push(returned),
                Event::Settled {
                    first,
                    last,
                    outcome,
                    ..
                } => {
                    for number in first.get()..=last.get() {
                        let before = self.settled.insert(number, outcome.clone());
                        assert_eq!(before, None, "{number} is settled twice");
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        returns
    }
}

proptest! {
    #![proptest_config(amqp_test_support::cases(400))]

    /// A message that was lost is never confirmed, and one that was not is never reported as
    /// returned. Where the server changes nothing but `reply-to`, nothing is left in doubt.
    #[test]
    fn a_lost_message_is_never_confirmed(
        samples in list(any_sample(), 1..40),
        server in any_server(),
        confirms in list((any::<prop::sample::Index>(), any::<bool>(), 0usize..6), 1..60),
    ) {
        let (mut client, id) = confirming();
        let mut reported = Told::default();
        for sample in &samples {
            client.on(id).publish(&sample.publish(), &sample.properties(), sample.body()).unwrap();
        }
        client.bytes();
        let (mut taken, mut lost) = (0, Vec::new());
        let rest = confirms.last().cloned().map(|(at, multiple, _)| (at, multiple, usize::MAX));
        for (at, multiple, take) in confirms.into_iter().chain(rest) {
            for sample in samples.iter().skip(taken).take(take) {
                taken += 1;
                if !sample.mandatory || server.routes(sample) {
                    continue;
                }
                lost.push(taken as u64);
                let returned = basic::Return {
                    reply_code: ReplyCode::NO_ROUTE,
                    reply_text: name("NO_ROUTE"),
                    exchange: name("ex"),
                    routing_key: sample.publish().routing_key,
                };
                let properties = server.change(sample);
                client.send_content(1, &returned, &properties, sample.body().as_bytes());
                let returns = reported.take(client.events());
                let [returned] = &returns[..] else {
                    panic!("one return");
                };
                if let Some(seq) = returned.seq {
                    prop_assert!(returned.candidates.is_empty());
                    let whose = &samples[seq.get() as usize - 1];
                    // Equal ones share their fate, and come back in their order.
                    prop_assert_eq!(whose, sample, "{} is not {}", seq.get(), taken);
                    let before = reported.returned.insert(seq.get(), returned.clone());
                    prop_assert!(before.is_none(), "{} came back twice", seq.get());
                } else {
                    let in_doubt = |seq: &PublishSeq| reported.returned.contains_key(&seq.get());
                    prop_assert!(!returned.candidates.iter().any(in_doubt));
                }
            }
            if taken > 0 {
                let number = at.index(taken) as u64 + 1;
                client.send(1, &ack(number, multiple));
                reported.take(client.events());
            }
        }
        client.send(1, &ack(taken as u64, true));
        reported.take(client.events());
        prop_assert_eq!(reported.settled.len(), samples.len());
        for (number, outcome) in &reported.settled {
            let was_lost = lost.contains(number);
            let returned = reported.returned.contains_key(number);
            match outcome {
                // Its confirm follows its return, so that it is not lost without a word.
                Outcome::Acked => prop_assert_eq!(returned, was_lost, "{} of {:?}", number, samples),
                Outcome::PossiblyReturned => prop_assert!(samples[*number as usize - 1].mandatory),
                other => panic!("{other:?}"),
            }
        }
        let plain = samples.iter().all(|sample| sample.bcc.is_none());
        if plain && matches!(server.adds, Adds::Nothing) {
            let doubt = |outcome: &Outcome| *outcome == Outcome::PossiblyReturned;
            prop_assert!(!reported.settled.values().any(doubt));
        }
    }
}

/// A window of many publishes that all come back costs each of them no more than a small one.
#[test]
fn a_large_window_that_comes_back_whole_is_not_searched_again_and_again() {
    const COUNT: u64 = 10_000;
    let mut config = Config::default();
    config.limits.unconfirmed = COUNT as usize;
    config.limits.output_high = usize::MAX;
    for distinct in [false, true] {
        let mut client = Client::open_with(config.clone());
        let id = client.confirm_channel();
        let publish = basic::Publish::default().routing_key("k").mandatory(true);
        let properties = |number: u64| {
            if distinct {
                let text = format!("{number}");
                let table = FieldTable::new().with("n", text.as_str());
                basic::Properties::default().headers(table)
            } else {
                basic::Properties::default()
            }
        };
        for number in 0..COUNT {
            client
                .on(id)
                .publish(&publish, &properties(number), "x")
                .unwrap();
        }
        client.bytes();
        let returned = basic::Return {
            reply_code: ReplyCode::NO_ROUTE,
            routing_key: name("k"),
            ..basic::Return::default()
        };
        for number in 0..COUNT {
            client.send_content(1, &returned, &properties(number), b"x");
            let Event::Returned(returned) = client.only_event() else {
                panic!("nothing came back");
            };
            assert_eq!(returned.seq, Some(seq(number + 1)));
        }
    }
}

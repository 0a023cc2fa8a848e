//! The unacked deliveries of a channel, against a plain set of numbers.

use alloc::{collections::BTreeSet, vec, vec::Vec};

use proptest::{collection::vec as list, prelude::*};

use super::script::*;
use crate::{
    ApiMisuse, ChannelId, Requeue, Tags,
    client::{Connection, Event},
    protocol::{basic, tx},
};

#[derive(Clone, Copy, Debug)]
enum Step {
    Deliver,
    DeliverNoAck,
    Get,
    /// The number, counted from about the last delivery.
    Ack(u64),
    Nack(u64),
    Reject(u64),
    AckUpTo(u64),
    NackUpTo(u64),
    AckAll,
    NackAll,
    /// A bit for each number, counted from about the last delivery.
    AckFront(u64),
    /// With so many deliveries that cross it.
    Recover(u64),
    RecoverAsync,
    Select,
    Commit,
    Rollback,
}

fn any_step() -> impl Strategy<Value = Step> {
    let number = || 0u64..40;
    prop_oneof![
        12 => Just(Step::Deliver),
        2 => Just(Step::DeliverNoAck),
        3 => Just(Step::Get),
        6 => number().prop_map(Step::Ack),
        3 => number().prop_map(Step::Nack),
        3 => number().prop_map(Step::Reject),
        2 => number().prop_map(Step::AckUpTo),
        1 => number().prop_map(Step::NackUpTo),
        1 => Just(Step::AckAll),
        1 => Just(Step::NackAll),
        3 => any::<u64>().prop_map(Step::AckFront),
        // Almost all of them.
        3 => (number(), number()).prop_map(|(a, b)| Step::AckFront(!(1 << a | 1 << b))),
        1 => (0u64..4).prop_map(Step::Recover),
        1 => Just(Step::RecoverAsync),
        1 => Just(Step::Select),
        2 => Just(Step::Commit),
        2 => Just(Step::Rollback),
    ]
}

/// A server's view of a channel, as RabbitMQ has it.
#[derive(Default)]
struct Model {
    outstanding: BTreeSet<u64>,
    /// The deliveries that the transaction has settled; `Some` within a transaction.
    settled: Option<BTreeSet<u64>>,
}

impl Model {
    /// Settles these tags; false if they are not outstanding.
    fn settle(&mut self, tags: Tags) -> bool {
        let named: Vec<u64> = match tags {
            Tags::One(tag) if self.outstanding.contains(&tag.get()) => [tag.get()].into(),
            Tags::UpTo(tag) if self.outstanding.contains(&tag.get()) => {
                self.outstanding.range(..=tag.get()).copied().collect()
            }
            Tags::All => self.outstanding.iter().copied().collect(),
            Tags::One(_) | Tags::UpTo(_) => return false,
        };
        for number in named {
            self.outstanding.remove(&number);
            if let Some(settled) = &mut self.settled {
                settled.insert(number);
            }
        }
        true
    }
}

/// A channel with a consumer that acknowledges, and one that does not.
fn consuming() -> (Script<Connection>, ChannelId) {
    let mut client = Script::open();
    let id = client.channel();
    client.consumer(id, "t", false);
    client.consumer(id, "u", true);
    (client, id)
}

proptest! {
    #![proptest_config(amqp_test_support::cases(128))]

    #[test]
    fn unacked_deliveries_are_those_of_the_server(steps in list(any_step(), 0..120)) {
        let (mut client, id) = consuming();
        let (mut model, mut last) = (Model::default(), 0u64);
        for step in steps {
            // Some of them were never made.
            let near = |back: u64| tag((last + 2).saturating_sub(back).max(1));
            let settle = match step {
                Step::Ack(back) => Some(Tags::One(near(back))),
                Step::Nack(back) => Some(Tags::One(near(back))),
                Step::Reject(back) => Some(Tags::One(near(back))),
                Step::AckUpTo(back) | Step::NackUpTo(back) => Some(Tags::UpTo(near(back))),
                Step::AckAll | Step::NackAll => Some(Tags::All),
                _ => None,
            };
            if let Some(tags) = settle {
                let nothing = model.outstanding.is_empty();
                let mut on = client.on(id);
                let result = match (step, tags) {
                    (Step::Nack(_) | Step::NackUpTo(_) | Step::NackAll, tags) => on.nack(tags, Requeue::Yes),
                    (Step::Reject(_), Tags::One(tag)) => on.reject(tag, Requeue::No),
                    (_, tags) => on.ack(tags),
                };
                let (number, _) = tags.to_wire();
                let expected = if model.settle(tags) {
                    Ok(())
                } else {
                    Err(ApiMisuse::UnknownDeliveryTag(number))
                };
                let silent = expected.is_err() || (tags == Tags::All && nothing);
                prop_assert_eq!(result, expected);
                prop_assert_eq!(client.sent().len(), usize::from(!silent));
                let unacked = client.on(id).stats().unacked;
                prop_assert_eq!(unacked, model.outstanding.len() as u64);
                continue;
            }
            match step {
                Step::Deliver => {
                    last += 1;
                    model.outstanding.insert(last);
                    client.deliver(id, "t", last);
                }
                Step::DeliverNoAck => {
                    last += 1;
                    client.deliver(id, "u", last);
                }
                Step::Get => {
                    client.on(id).get(&basic::Get::default()).unwrap();
                    client.bytes();
                    last += 1;
                    model.outstanding.insert(last);
                    let ok = basic::GetOk::default().delivery_tag(last);
                    client.send_content(1, &ok, &basic::Properties::default(), b"x");
                }
                Step::AckFront(bits) => {
                    let chosen = (0..u64::from(u64::BITS)).rev().filter(|bit| bits >> bit & 1 == 1);
                    let chosen: BTreeSet<_> = chosen.map(near).collect();
                    let is_chosen = |number: &&u64| chosen.contains(&tag(**number));
                    let front = model.outstanding.iter().take_while(is_chosen).copied();
                    let front: Vec<u64> = front.collect();
                    let result = client.on(id).ack_front(chosen.iter().copied());
                    let expected = front.last().map(|&last| (tag(last), front.len() as u64));
                    prop_assert_eq!(result, Ok(expected));
                    if let Some(&front) = front.last() {
                        let first = model.outstanding.first() == Some(&front);
                        let ack = basic::Ack { delivery_tag: front, multiple: !first };
                        prop_assert_eq!(client.sent(), [method(1, ack)]);
                        model.settle(Tags::UpTo(tag(front)));
                    }
                }
                Step::Recover(crossing) => {
                    let recover = basic::Recover { requeue: true };
                    let request = client.on(id).call(&recover).unwrap();
                    prop_assert_eq!(client.sent(), [method(1, recover)]);
                    model.outstanding.clear();
                    // The server also takes back the deliveries that it made before it knew.
                    for _ in 0..crossing {
                        last += 1;
                        client.deliver(id, "t", last);
                        client.events();
                        let late = client.on(id).ack(Tags::One(tag(last)));
                        prop_assert_eq!(late, Err(ApiMisuse::UnknownDeliveryTag(last)));
                    }
                    client.send(1, &basic::RecoverOk);
                    prop_assert_eq!(client.events(), [replied(id, request, basic::RecoverOk)]);
                }
                Step::RecoverAsync => {
                    client.on(id).recover_async(true).unwrap();
                    client.bytes();
                    model.outstanding.clear();
                }
                Step::Select => {
                    client.call(id, &tx::Select, &tx::SelectOk);
                    model.settled.get_or_insert_default();
                }
                Step::Commit if model.settled.is_some() => {
                    client.call(id, &tx::Commit, &tx::CommitOk);
                    model.settled = Some(BTreeSet::new());
                }
                Step::Rollback if model.settled.is_some() => {
                    client.call(id, &tx::Rollback, &tx::RollbackOk);
                    let settled = model.settled.replace(BTreeSet::new());
                    model.outstanding.extend(settled.unwrap());
                }
                Step::Commit => {
                    let refused = Err(ApiMisuse::NotTransactional);
                    prop_assert_eq!(client.on(id).call(&tx::Commit), refused);
                }
                _ => {
                    let refused = Err(ApiMisuse::NotTransactional);
                    prop_assert_eq!(client.on(id).call(&tx::Rollback), refused);
                }
            }
            let events = client.events();
            let came = |event: &Event| matches!(event, Event::Delivered(_) | Event::Got { .. });
            prop_assert!(events.iter().all(came));
            prop_assert_eq!(client.sent(), []);
            let unacked = client.on(id).stats().unacked;
            prop_assert_eq!(unacked, model.outstanding.len() as u64);
        }
        // Each number, one by one.
        for number in 1..=last + 1 {
            let result = client.on(id).ack(Tags::One(tag(number)));
            prop_assert_eq!(result.is_ok(), model.outstanding.contains(&number), "{}", number);
        }
    }
}

/// A withheld delivery stays outstanding: those behind it are not at the front.
#[test]
fn the_front_ends_before_a_withheld_delivery() {
    let (mut client, id) = consuming();
    for number in 1..=4 {
        client.deliver(id, "t", number);
    }
    let all = || (1..=4).map(tag);
    client.on(id).withhold(tag(3)).unwrap();
    assert_eq!(client.on(id).ack_front(all()), Ok(Some((tag(2), 2))));
    assert_eq!(client.on(id).ack_front(all()), Ok(None));
    client.on(id).requeue_withheld(tag(3)).unwrap();
    assert_eq!(client.on(id).ack_front(all()), Ok(Some((tag(4), 1))));
    assert_eq!(client.on(id).ack_front(all()), Ok(None));
    assert_eq!(client.on(id).ack_front([]), Ok(None));
}

/// A method for several deliveries leaves out the withheld ones: those before the first of them go
/// by a single method, the others by one each.
#[test]
fn several_deliveries_are_settled_around_withheld_ones() {
    let (mut client, id) = consuming();
    for number in 1..=6 {
        client.deliver(id, "t", number);
    }
    client.on(id).withhold(tag(3)).unwrap();
    client.on(id).withhold(tag(5)).unwrap();
    client.on(id).ack(Tags::UpTo(tag(4))).unwrap();
    let acks = [ack(2, true), ack(4, false)];
    assert_eq!(client.sent(), acks.map(|ack| method(id.number(), ack)));
    client.on(id).nack(Tags::UpTo(tag(6)), Requeue::No).unwrap();
    assert_eq!(client.sent(), [method(id.number(), nack(6, false))]);
    assert_eq!(client.on(id).stats().unacked, 2);
}

/// Deliveries are withheld in any order, and each stays unacked until it is requeued.
#[test]
fn deliveries_are_withheld_in_any_order() {
    // Every order of five, as numbers of five digits.
    let orders = (0..5u64.pow(5)).map(|number| [1, 5, 25, 125, 625].map(|by| number / by % 5 + 1));
    for order in orders.filter(|order| (1..=5).all(|tag| order.contains(&tag))) {
        let (mut client, id) = consuming();
        for number in 1..=6 {
            client.deliver(id, "t", number);
        }
        let mut on = client.on(id);
        for number in order {
            on.withhold(tag(number)).unwrap();
            on.withhold(tag(number)).unwrap_err();
            assert_eq!(on.stats().unacked, 6, "{order:?}");
        }
        on.ack(Tags::All).unwrap();
        for (index, number) in order.into_iter().rev().enumerate() {
            assert_eq!(on.stats().unacked, 5 - index as u64);
            on.requeue_withheld(tag(number)).unwrap();
            on.requeue_withheld(tag(number)).unwrap_err();
        }
        assert_eq!(on.stats().unacked, 0);
    }
}

#[test]
fn the_highest_number_is_taken() {
    let (mut client, id) = consuming();
    for number in [1, u64::MAX - 1, u64::MAX, u64::MAX, 1, 5] {
        client.deliver(id, "t", number);
    }
    assert_eq!(client.events().len(), 6);
    client.on(id).ack(Tags::One(tag(u64::MAX))).unwrap();
    client.on(id).ack(Tags::UpTo(tag(u64::MAX - 1))).unwrap();
    assert!(client.on(id).ack(Tags::One(tag(1))).is_err());
    assert!(client.conn.is_open());
}

/// The cost of an acknowledgement does not grow with the number of unacked deliveries, in any
/// order.
#[test]
fn acknowledgements_in_any_order_cost_about_the_same() {
    const SPAN: u64 = 256;
    let time = |count: u64| {
        let mut unacked = crate::client::unacked::Unacked::default();
        for number in 1..=count {
            unacked.add(tag(number));
        }
        // Every number once, far apart: the step is odd, and the count a power of two.
        let mut spans = Vec::new();
        for from in (0..count).step_by(SPAN as usize) {
            let start = std::time::Instant::now();
            for step in from..from + SPAN {
                let number = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) % count + 1;
                assert!(unacked.settle(Tags::One(tag(number))));
            }
            spans.push(start.elapsed());
        }
        assert_eq!(unacked.last(), None);
        // The median of short spans, because others use the machine as well.
        let middle = spans.len() / 2;
        let (_, median, _) = spans.select_nth_unstable(middle);
        median.as_secs_f64() / SPAN as f64
    };
    let mut ratios = Vec::new();
    for _ in 0..5 {
        let (few, many) = (time(1 << 14), time(1 << 18));
        std::println!("{:.2} and {:.2} microseconds each", few * 1e6, many * 1e6);
        if many < 6.0 * few {
            return;
        }
        ratios.push(many / few);
    }
    panic!("{ratios:?} times as long of many as of few");
}

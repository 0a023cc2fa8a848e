//! Dead letters that a chain of queues multiplies, or passes on many times.

use amqp_core::{
    ChannelId, Instant, Transmit,
    bytes::BytesMut,
    protocol::{basic, queue},
    wire::FieldValue,
};

use crate::rig::{Rig, bind, name, queue_with};

/// The queues of a chain, of which each passes all messages on to the next one.
fn chain(rig: &mut Rig, client: usize, channel: ChannelId, overflow: &str, count: usize) {
    for number in 0..count {
        let arguments = [
            ("x-max-length", 0.into()),
            ("x-overflow", FieldValue::from(overflow)),
            ("x-dead-letter-exchange", "".into()),
            (
                "x-dead-letter-routing-key",
                format!("c{}", number + 1).into(),
            ),
        ];
        rig.declare(
            client,
            channel,
            &queue_with(&format!("c{number}"), arguments),
        );
    }
    let last = queue::Declare {
        queue: name(&format!("c{count}")),
        ..queue::Declare::default()
    };
    rig.declare(client, channel, &last);
}

/// A stack of the size that a thread of tokio has.
fn in_small_stack(run: fn()) {
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    thread.spawn(run).unwrap().join().unwrap();
}

fn chains_need_no_stack(overflow: &str) {
    let (mut rig, client, channel) = Rig::open();
    chain(&mut rig, client, channel, overflow, 300);
    rig.publish(client, channel, "c0", "passed on");
    assert_eq!(rig.inspect("c300").ready, 1);
}

#[test]
fn a_chain_of_queues_that_reject_needs_no_stack() {
    in_small_stack(|| chains_need_no_stack("reject-publish-dlx"));
}

#[test]
fn a_chain_of_queues_that_drop_needs_no_stack() {
    in_small_stack(|| chains_need_no_stack("drop-head"));
}

/// Two queues per step double a message, 18 times: no call of the broker does all of it.
#[test]
fn dead_letters_that_multiply_let_other_connections_run() {
    for overflow in ["drop-head", "reject-publish-dlx"] {
        let (mut rig, client, channel) = Rig::open();
        for step in 0..18 {
            let fanout = amqp_core::protocol::exchange::Declare {
                exchange: name(&format!("f{step}")),
                kind: name("fanout"),
                ..amqp_core::protocol::exchange::Declare::default()
            };
            rig.try_call(client, &fanout).unwrap();
            for side in ["a", "b"] {
                let text = format!("{side}{step}");
                let arguments = [
                    ("x-max-length", 0.into()),
                    ("x-overflow", FieldValue::from(overflow)),
                    ("x-dead-letter-exchange", format!("f{}", step + 1).into()),
                ];
                rig.declare(client, channel, &queue_with(&text, arguments));
                rig.try_call(client, &bind(&text, &format!("f{step}"), ""))
                    .unwrap();
            }
        }
        let publish = basic::Publish::default().exchange("f0");
        let mut flooded = rig.client(client).channel(channel).unwrap();
        flooded
            .publish(&publish, &basic::Properties::default(), "x")
            .unwrap();
        // Each further frame of the same input is served as well.
        for _ in 0..300 {
            let mut flooded = rig.client(client).channel(channel).unwrap();
            let nowhere = basic::Publish::default().routing_key("nowhere");
            flooded
                .publish(&nowhere, &basic::Properties::default(), "x")
                .unwrap();
        }
        let mut out = Transmit::new();
        while rig.client(client).poll_transmit(Instant::ORIGIN, &mut out) {}
        let mut input = BytesMut::new();
        for segment in out.take_segments() {
            input.extend_from_slice(&segment);
        }
        let key = rig.key(client);
        rig.broker.handle_input(key, rig.now, &mut input);
        assert!(input.is_empty());
        assert!(
            rig.broker.poll_timeout().is_some_and(|at| at <= rig.now),
            "the rest is due"
        );
    }
}

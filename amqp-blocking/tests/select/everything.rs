//! Random commands in any order, interrupted at any point: every promise ends, once.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use amqp_blocking::{
    Config,
    core::Limits,
    protocol::basic,
    select::{Answer, Client, Error, Message, Promise},
};
use bytes::Bytes;
use proptest::prelude::*;

use crate::tools::*;

/// A step of the program. A number selects one of its promises, if there are any.
#[derive(Clone, Debug)]
enum Step {
    Declare(usize),
    Delete(usize),
    Get(usize),
    /// To a queue, or a missing exchange; so many bytes.
    Publish(Option<usize>, usize),
    /// From that queue, so many times, with that prefetch.
    Consume(usize, usize, u16),
    Cancel(usize),
    Qos(usize),
    Ignore(usize),
    /// Acknowledges all that it has, or drops it.
    Settle(bool),
    /// Lets so much be done, and takes so many results.
    Turn(u64, usize),
}

const QUEUES: [&str; 3] = ["q0", "q1", "q2"];

fn any_step() -> impl Strategy<Value = Step> {
    let queue = 0..QUEUES.len();
    prop_oneof![
        2 => queue.clone().prop_map(Step::Declare),
        1 => queue.clone().prop_map(Step::Delete),
        1 => queue.clone().prop_map(Step::Get),
        4 => (proptest::option::weighted(0.95, queue.clone()), 0_usize..200_000)
            .prop_map(|(to, size)| Step::Publish(to, size)),
        1 => (queue, 0_usize..3, 0_u16..3)
            .prop_map(|(from, times, prefetch)| Step::Consume(from, times, prefetch)),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => any::<usize>().prop_map(Step::Qos),
        1 => any::<usize>().prop_map(Step::Ignore),
        1 => any::<bool>().prop_map(Step::Settle),
        6 => (0_u64..3, 0_usize..5).prop_map(|(millis, results)| Step::Turn(millis, results)),
    ]
}

/// How it ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Close,
    /// By the server.
    Cut,
}

/// The state of the program.
#[derive(Default)]
struct Program {
    /// The promises that are not over.
    open: BTreeSet<Promise>,
    consumers: Vec<Promise>,
    messages: Vec<Message>,
}

impl Program {
    fn begun(&mut self, promise: Option<Promise>) {
        self.open.extend(promise);
    }

    fn consumer(&self, number: usize) -> Option<Promise> {
        let at = number.checked_rem(self.consumers.len())?;
        self.consumers.get(at).copied()
    }

    fn run(&mut self, client: &mut Client, step: &Step) {
        match *step {
            Step::Declare(queue) => self.begun(client.call(declaration(QUEUES[queue])).ok()),
            Step::Delete(queue) => self.begun(client.call(deletion(QUEUES[queue])).ok()),
            Step::Get(queue) => {
                let get = basic::Get::default().queue(QUEUES[queue]);
                self.begun(client.get(get).ok());
            }
            Step::Publish(to, size) => {
                let exchange = if to.is_some() { "" } else { "missing" };
                let publish = basic::Publish::default().exchange(exchange);
                let key = QUEUES[to.unwrap_or_default()];
                let publish = publish.routing_key(key).mandatory(size % 2 == 0);
                let body = Bytes::from(vec![0; size]);
                let published = client.publish(publish, basic::Properties::default(), body);
                self.begun(published.ok());
            }
            Step::Consume(queue, times, prefetch) => {
                let consumes = vec![consume(QUEUES[queue]); times];
                let consuming = client.consume_multi(consumes, prefetch).ok();
                self.consumers.extend(consuming);
                self.begun(consuming);
            }
            Step::Cancel(number) => {
                let consumer = self.consumer(number);
                self.begun(consumer.and_then(|it| client.cancel(it).ok()));
            }
            Step::Qos(number) => {
                let consumer = self.consumer(number);
                self.begun(consumer.and_then(|it| client.qos(it, 5).ok()));
            }
            Step::Ignore(number) => {
                let at = number.checked_rem(self.open.len());
                if let Some(promise) = at.and_then(|at| self.open.iter().nth(at).copied()) {
                    client.ignore(promise);
                    self.open.remove(&promise);
                }
            }
            Step::Settle(true) => {
                for message in self.messages.drain(..) {
                    // Its channel may be closed.
                    let _taken_back = message.ack();
                }
            }
            Step::Settle(false) => self.messages.clear(),
            Step::Turn(millis, results) => {
                let limit = Some(Duration::from_millis(millis));
                let served = client.wait_any(&[], limit);
                assert!(matches!(served, Ok(None)));
                for _ in 0..results {
                    let result = client.poll();
                    self.take(result);
                }
            }
        }
    }

    fn take(&mut self, result: Option<(Promise, Result<Answer, Error>)>) {
        let Some((promise, result)) = result else {
            return;
        };
        let is_final = result.as_ref().map_or(true, Answer::is_final);
        let known = if is_final {
            self.open.remove(&promise)
        } else {
            self.open.contains(&promise)
        };
        assert!(known, "{result:?} of a promise that is over");
        self.messages.extend(result.ok().and_then(Answer::message));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn every_promise_ends_once(
        steps in proptest::collection::vec(any_step(), 1..200),
        end in prop_oneof![Just(End::Close), Just(End::Cut)],
        channel_max in prop_oneof![Just(0), Just(3), Just(6)],
        unconfirmed in prop_oneof![Just(5), Just(1000)],
    ) {
        let server = broker();
        let limits = Limits::default().unconfirmed(unconfirmed);
        let config = Config::default().channel_max(channel_max).limits(limits);
        let (mut client, connected) = connecting(&server, config);
        let mut program = Program::default();
        program.begun(Some(connected));
        for step in &steps {
            program.run(&mut client, step);
        }
        match end {
            End::Close => program.begun(client.close().ok()),
            End::Cut => {
                while client.connection().is_none() {
                    program.run(&mut client, &Step::Turn(1, 0));
                }
                server.broker().close_connections("it is over");
            }
        }
        let begun = Instant::now();
        while !program.open.is_empty() {
            assert!(begun.elapsed() < PATIENCE, "{:?}", program.open);
            program.run(&mut client, &Step::Turn(1, 100));
        }
        assert!(client.wait_any(&[], Some(Duration::ZERO)).is_ok());
        assert!(client.poll().is_none());
    }
}

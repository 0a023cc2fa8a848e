//! The types of queues in random programs, and the steps that suit them.

use super::{
    generate::Random,
    program::{Argument, From, Step, TAGS, TRANSACTIONAL},
};

/// The type of most queues of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueType {
    Classic,
    Quorum,
    Stream,
}

impl QueueType {
    /// The type in the program of that seed: two of eight programs have other queues than classic
    /// ones.
    pub(super) const fn of(seed: u64) -> Self {
        match seed % 8 {
            3 => Self::Quorum,
            5 => Self::Stream,
            _ => Self::Classic,
        }
    }

    /// A step that suits the type better, most of the time. Draws nothing for classic queues.
    pub(super) fn adapt(self, random: &mut Random, step: Step) -> Step {
        match (self, step) {
            (Self::Classic, step) => step,
            (
                _,
                Step::Queue {
                    on,
                    queue,
                    passive,
                    durable,
                    exclusive,
                    auto_delete,
                    mut arguments,
                },
            ) if random.percent(75) => {
                let is_plain = random.percent(90);
                arguments.retain(|it| !is_plain || self.has(*it));
                self.add_arguments(random, &mut arguments);
                Step::Queue {
                    on,
                    queue,
                    passive,
                    durable: durable || is_plain,
                    exclusive: exclusive && !is_plain,
                    auto_delete: auto_delete && !is_plain,
                    arguments,
                }
            }
            // The log of a quorum queue has the messages and the requeues of a commit in any order.
            (
                Self::Quorum,
                Step::Nack {
                    on: TRANSACTIONAL,
                    pick,
                    multiple,
                    ..
                },
            ) => Step::Nack {
                on: TRANSACTIONAL,
                pick,
                multiple,
                requeue: false,
            },
            (
                Self::Quorum,
                Step::Reject {
                    on: TRANSACTIONAL,
                    pick,
                    ..
                },
            ) => Step::Reject {
                on: TRANSACTIONAL,
                pick,
                requeue: false,
            },
            // A quorum queue of RabbitMQ crashes if a consumer has the tag of a cancelled one with
            // unacknowledged deliveries (seed 20403): one tag is for consumers without
            // acknowledgements, and only these are cancelled.
            (Self::Quorum, Step::Cancel { on, .. }) => Step::Cancel { on, tag: TAGS - 1 },
            (
                Self::Quorum,
                Step::Consume {
                    on,
                    queue,
                    tag,
                    no_ack,
                    exclusive,
                    priority,
                },
            ) => Step::Consume {
                on,
                queue,
                tag: if no_ack { TAGS - 1 } else { tag % (TAGS - 1) },
                no_ack,
                exclusive,
                priority,
            },
            (
                Self::Stream,
                Step::Consume {
                    on,
                    queue,
                    tag,
                    no_ack: false,
                    ..
                },
            ) if random.percent(90) => Step::Read {
                on,
                queue,
                tag,
                from: random.pick(&[
                    From::First,
                    From::First,
                    From::Next,
                    From::Nowhere,
                    From::Offset(0),
                    From::Offset(2),
                    From::Offset(4),
                    From::Offset(-1),
                    From::Text("1h"),
                    From::Text("0s"),
                    From::Text("soon"),
                ]),
            },
            (
                Self::Stream,
                Step::Nack {
                    on, pick, multiple, ..
                },
            ) if random.percent(90) => Step::Ack { on, pick, multiple },
            (Self::Stream, Step::Reject { on, pick, .. }) if random.percent(90) => Step::Ack {
                on,
                pick,
                multiple: false,
            },
            (Self::Stream, Step::Get { on, .. } | Step::Recover { on, .. })
                if random.percent(80) =>
            {
                Step::Ack {
                    on,
                    pick: 0,
                    multiple: true,
                }
            }
            (_, step) => step,
        }
    }

    fn add_arguments(self, random: &mut Random, arguments: &mut Vec<Argument>) {
        match self {
            Self::Classic => {}
            Self::Quorum => {
                arguments.push(Argument::Type("quorum"));
                if random.percent(40) {
                    arguments.push(Argument::DeliveryLimit(random.pick(&[-1, 0, 1, 2, 9])));
                }
            }
            Self::Stream => {
                arguments.push(Argument::Type("stream"));
                if random.percent(20) {
                    arguments.push(Argument::MaxAge(
                        random.pick(&["1h", "7D", "1x", "0s", "h"]),
                    ));
                }
            }
        }
    }

    /// Whether queues of this type have an argument.
    const fn has(self, argument: Argument) -> bool {
        match (self, argument) {
            (Self::Stream, Argument::MaxBytes(_)) | (Self::Classic, _) => true,
            (Self::Stream, _) | (Self::Quorum, Argument::MaxPriority(_)) => false,
            (Self::Quorum, _) => true,
        }
    }
}

/// Whether a queue is refused for its arguments.
pub(super) fn is_mistaken(arguments: &[Argument]) -> bool {
    let has_letters = arguments
        .iter()
        .any(|it| matches!(it, Argument::DeadLetter(_)));
    arguments.iter().any(|it| match *it {
        Argument::MaxLength(limit) | Argument::MaxBytes(limit) => limit < 0,
        Argument::Overflow(what) => what == "nonsense",
        Argument::DeadLetterKey(_) => !has_letters,
        Argument::MaxPriority(limit) => limit > 255,
        Argument::Ttl(time) => time < 0,
        Argument::Expires(time) => time <= 0,
        Argument::Text(name) => name != "x-own",
        Argument::MaxAge(age) => !["1h", "7D"].contains(&age),
        Argument::DeadLetter(_)
        | Argument::SingleActive(_)
        | Argument::Type(_)
        | Argument::DeliveryLimit(_) => false,
    })
}

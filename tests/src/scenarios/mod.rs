//! The scenarios that run on a broker, written once for all runtimes.
//!
//! A scenario is an asynchronous function from a [`Ctx`] to an [`Outcome`], in the module of its subject.
//! `SCENARIOS.md` lists all of them, with the client that each comes from.

mod acknowledging;
mod bystanders;
mod cancellation;
mod channels;
mod connections;
mod consuming;
mod consuming_together;
mod exchanges;
mod flow;
mod loop_prefetch;
mod loops;
mod lost_connections;
mod messages;
mod operating;
mod pools;
mod presets;
mod processing;
mod publishers;
mod publishing;
mod queues;
mod recovering;
mod recovering_loops;
mod restarts;
mod rpc;
mod streams;
mod tls;
mod tools;
mod tutorials;

use std::{fmt, future::Future, pin::Pin};

use amqp_tokio::broker::Config;

use crate::{
    certificates::Clients,
    context::Ctx,
    embedded::Embedded,
    harness::{Outcome, Scenario},
    runtime::{AsyncStd, Blocking, Runtime, Smol, Tokio},
};

/// All of them, by subject.
#[must_use]
pub fn all() -> Vec<Case> {
    [
        connections::cases(),
        lost_connections::cases(),
        restarts::cases(),
        recovering::cases(),
        recovering_loops::cases(),
        channels::cases(),
        exchanges::cases(),
        queues::cases(),
        streams::cases(),
        publishing::cases(),
        publishers::cases(),
        messages::cases(),
        consuming::cases(),
        consuming_together::cases(),
        acknowledging::cases(),
        processing::cases(),
        flow::cases(),
        cancellation::cases(),
        pools::cases(),
        presets::cases(),
        rpc::cases(),
        loop_prefetch::cases(),
        loops::cases(),
        operating::cases(),
        tls::cases(),
        tutorials::cases(),
    ]
    .concat()
}

/// All runtimes that there is an adapter for.
pub const RUNTIMES: [&dyn Runtime; 5] = [
    &Tokio::MultiThread,
    &Tokio::CurrentThread,
    &Smol,
    &AsyncStd,
    &Blocking,
];

/// Each scenario on each broker, with each of these runtimes.
#[must_use]
pub fn on(runtimes: &[&'static dyn Runtime], cases: &[Case]) -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for case in cases {
        for kind in [Kind::RabbitMq, Kind::Embedded] {
            scenarios.extend(runtimes.iter().map(|runtime| case.on(kind, *runtime)));
        }
    }
    scenarios
}

/// A scenario, and its needs.
#[derive(Clone, Copy)]
pub struct Case {
    /// The path of its module, with the subject as its last part.
    module: &'static str,
    name: &'static str,
    run: Run,
    place: Place,
    /// Changes to the configuration of the embedded broker, which is always the scenario's own.
    embedded: fn(&mut Config),
    /// The only broker that it runs on, and why it does not on the other.
    only: Option<(Kind, &'static str)>,
}

type Run = fn(Ctx) -> Pin<Box<dyn Future<Output = Outcome>>>;

/// Which broker of its kind a scenario is on.
#[derive(Clone, Copy)]
enum Place {
    /// One where others may be, too.
    Shared,
    /// One that speaks TLS to such clients, where others may be, too.
    Tls(Clients),
    /// One of its own; if it is a RabbitMQ, with this configuration.
    Alone(&'static [&'static str]),
}

/// The brokers that a scenario may run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    RabbitMq,
    Embedded,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::RabbitMq => "rabbitmq",
            Self::Embedded => "embedded",
        }
    }
}

impl Case {
    const fn new(module: &'static str, name: &'static str, run: Run) -> Self {
        Self {
            module,
            name,
            run,
            place: Place::Shared,
            embedded: |_| (),
            only: None,
        }
    }

    /// Its subject and its name: `queues::a_new_queue_is_empty_and_unused`.
    #[must_use]
    pub fn path(&self) -> String {
        let subject = self.module.rsplit("::").next().unwrap_or_default();
        format!("{subject}::{}", self.name)
    }

    /// It needs a broker of its own, with these lines in its `rabbitmq.conf`.
    const fn alone(self, config: &'static [&'static str]) -> Self {
        Self {
            place: Place::Alone(config),
            ..self
        }
    }

    /// It needs a broker that speaks TLS to such clients.
    const fn with_tls(self, clients: Clients) -> Self {
        Self {
            place: Place::Tls(clients),
            ..self
        }
    }

    /// It needs an embedded broker that is configured like that.
    const fn embedded(self, configure: fn(&mut Config)) -> Self {
        Self {
            embedded: configure,
            ..self
        }
    }

    /// It cannot run on RabbitMQ, and why.
    const fn not_on_rabbitmq(self, reason: &'static str) -> Self {
        Self {
            only: Some((Kind::Embedded, reason)),
            ..self
        }
    }

    /// It cannot run on the embedded broker, and why.
    const fn not_on_embedded(self, reason: &'static str) -> Self {
        Self {
            only: Some((Kind::RabbitMq, reason)),
            ..self
        }
    }

    /// The scenario on that broker, with that runtime.
    fn on(self, kind: Kind, runtime: &'static dyn Runtime) -> Scenario {
        let column = format!("{}::{}", kind.name(), runtime.name());
        let row = self.path();
        let name = format!("{row}::{column}");
        let start = move |cx| runtime.block_on(Box::pin(async move { (self.run)(cx).await }));
        let on_rabbitmq = move |broker| start(Ctx::on_rabbitmq(broker, runtime));
        let scenario = match (self.only, kind, self.place) {
            (Some((only, reason)), ..) if only != kind => Scenario::ignored(name, reason),
            (_, Kind::Embedded, place) => Scenario::local(name, move || {
                let broker = match place {
                    Place::Tls(clients) => Embedded::start_with_tls(self.embedded, clients)?,
                    Place::Shared | Place::Alone(_) => Embedded::start_with(self.embedded)?,
                };
                start(Ctx::on_embedded(broker, runtime))
            }),
            (_, Kind::RabbitMq, Place::Shared) => Scenario::shared(name, on_rabbitmq),
            (_, Kind::RabbitMq, Place::Tls(clients)) => {
                Scenario::with_tls(name, clients, on_rabbitmq)
            }
            (_, Kind::RabbitMq, Place::Alone(config)) => config
                .iter()
                .fold(Scenario::alone(name, on_rabbitmq), |scenario, line| {
                    scenario.config(*line)
                }),
        };
        scenario.in_table(row, column)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Case").field(&self.path()).finish()
    }
}

/// A [`Case`] of a function, under the function's name.
macro_rules! case {
    ($scenario:ident) => {
        $crate::scenarios::Case::new(module_path!(), stringify!($scenario), |cx| {
            Box::pin($scenario(cx))
        })
    };
}

/// The [`Case`]s of functions.
macro_rules! cases {
    ($($scenario:ident),* $(,)?) => {
        vec![$($crate::scenarios::case!($scenario)),*]
    };
}

use {case, cases};

//! The scenarios that run on a broker, written once for all runtimes.
//!
//! A scenario is an asynchronous function from a [`Ctx`] to an [`Outcome`]. Its name begins with the
//! ID under which the behaviour is listed: `SER` for what Serena can do, `TRI` for trio_amqp, `PUK`
//! for puka, `APR` for amqproto, `REG` for what once broke a mature client; those over TLS begin
//! with `tls`.

mod amqproto;
mod bystanders;
mod puka_connection;
mod puka_consume;
mod puka_loop;
mod puka_publish;
mod reg_blocked;
mod reg_cancel;
mod reg_channels;
mod serena_channel;
mod serena_connection;
mod serena_exchange;
mod serena_message;
mod serena_pool;
mod serena_queue;
mod tls;
mod tools;
mod trio_ack;
mod trio_channel;
mod trio_connection;
mod trio_consume;
mod trio_cut;
mod trio_exchange;
mod trio_publish;
mod trio_queue;
mod trio_stopped;
mod trio_tutorials;

use std::{fmt, future::Future, pin::Pin};

use amqp_tokio::broker::Config;

use crate::{
    certificates::Clients,
    context::Ctx,
    embedded::Embedded,
    harness::{Outcome, Scenario},
    runtime::{AsyncStd, Blocking, Runtime, Smol, Tokio},
};

/// All of them.
#[must_use]
pub fn all() -> Vec<Case> {
    [
        serena(),
        trio(),
        puka(),
        amqproto(),
        regressions(),
        secured(),
    ]
    .concat()
}

/// What Serena's users rely on.
#[must_use]
pub fn serena() -> Vec<Case> {
    [
        serena_connection::cases(),
        serena_channel::cases(),
        serena_pool::cases(),
        serena_exchange::cases(),
        serena_message::cases(),
        serena_queue::cases(),
    ]
    .concat()
}

/// What trio_amqp's users rely on, and the tutorials that every client comes with.
#[must_use]
pub fn trio() -> Vec<Case> {
    [
        trio_connection::cases(),
        trio_cut::cases(),
        trio_stopped::cases(),
        trio_channel::cases(),
        trio_exchange::cases(),
        trio_queue::cases(),
        trio_publish::cases(),
        trio_consume::cases(),
        trio_ack::cases(),
        trio_tutorials::cases(),
    ]
    .concat()
}

/// What puka's users rely on.
#[must_use]
pub fn puka() -> Vec<Case> {
    [
        puka_connection::cases(),
        puka_consume::cases(),
        puka_loop::cases(),
        puka_publish::cases(),
    ]
    .concat()
}

/// What amqproto's users rely on.
#[must_use]
pub fn amqproto() -> Vec<Case> {
    amqproto::cases()
}

/// What once broke a mature client.
#[must_use]
pub fn regressions() -> Vec<Case> {
    [
        reg_channels::cases(),
        reg_blocked::cases(),
        reg_cancel::cases(),
    ]
    .concat()
}

/// What holds over TLS.
#[must_use]
pub fn secured() -> Vec<Case> {
    tls::cases()
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

/// A scenario, and what it needs.
#[derive(Clone, Copy)]
pub struct Case {
    name: &'static str,
    run: Run,
    place: Place,
    /// What the embedded broker, which it always has to itself, is to have otherwise.
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

/// What a scenario may run on.
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
    const fn new(name: &'static str, run: Run) -> Self {
        Self {
            name,
            run,
            place: Place::Shared,
            embedded: |_| (),
            only: None,
        }
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
        let name = format!("{}::{column}", self.name);
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
        scenario.in_table(self.name, column)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Case").field(&self.name).finish()
    }
}

/// A [`Case`] of a function, under the function's name.
macro_rules! case {
    ($scenario:ident) => {
        $crate::scenarios::Case::new(stringify!($scenario), |cx| Box::pin($scenario(cx)))
    };
}

/// The [`Case`]s of functions.
macro_rules! cases {
    ($($scenario:ident),* $(,)?) => {
        vec![$($crate::scenarios::case!($scenario)),*]
    };
}

use {case, cases};

//! The scenarios that run on a broker, written once for all runtimes.
//!
//! A scenario is an asynchronous function from a [`Ctx`] to an [`Outcome`]. Its name begins with the
//! ID under which the behaviour is listed: `SER` for what Serena can do, `TRI` for trio_amqp, `REG`
//! for what once broke a mature client.

mod bystanders;
mod reg_blocked;
mod reg_channels;
mod serena_channel;
mod serena_connection;
mod serena_exchange;
mod serena_message;
mod serena_pool;
mod serena_queue;
mod tools;
mod trio_ack;
mod trio_channel;
mod trio_connection;
mod trio_consume;
mod trio_cut;
mod trio_exchange;
mod trio_publish;
mod trio_queue;
mod trio_tutorials;

use std::{fmt, future::Future, pin::Pin};

use crate::{
    context::Ctx,
    harness::{Outcome, Scenario},
    runtime::{Runtime, Tokio},
};

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

/// What once broke a mature client.
#[must_use]
pub fn regressions() -> Vec<Case> {
    [reg_channels::cases(), reg_blocked::cases()].concat()
}

/// All runtimes that there is an adapter for.
pub const RUNTIMES: [&dyn Runtime; 2] = [&Tokio::MultiThread, &Tokio::CurrentThread];

/// Each scenario on each of these runtimes.
#[must_use]
pub fn on(runtimes: &[&'static dyn Runtime], cases: &[Case]) -> Vec<Scenario> {
    let pairs = cases
        .iter()
        .flat_map(|case| runtimes.iter().map(|runtime| case.on(*runtime)));
    pairs.collect()
}

/// A scenario, and what it needs.
#[derive(Clone, Copy)]
pub struct Case {
    name: &'static str,
    place: Place,
}

#[derive(Clone, Copy)]
enum Place {
    Shared(Run),
    /// On a node of its own, with this configuration.
    Alone(Run, &'static [&'static str]),
    Nowhere(&'static str),
}

type Run = fn(Ctx) -> Pin<Box<dyn Future<Output = Outcome>>>;

impl Case {
    const fn new(name: &'static str, run: Run) -> Self {
        Self {
            name,
            place: Place::Shared(run),
        }
    }

    /// One that cannot run, and why.
    const fn ignored(name: &'static str, reason: &'static str) -> Self {
        Self {
            name,
            place: Place::Nowhere(reason),
        }
    }

    /// It needs a node of its own, with these lines in its `rabbitmq.conf`.
    const fn alone(self, config: &'static [&'static str]) -> Self {
        let place = match self.place {
            Place::Shared(run) | Place::Alone(run, _) => Place::Alone(run, config),
            Place::Nowhere(reason) => Place::Nowhere(reason),
        };
        Self { place, ..self }
    }

    /// The scenario on that runtime.
    fn on(self, runtime: &'static dyn Runtime) -> Scenario {
        let name = format!("{}::{}", self.name, runtime.name());
        let start = move |run: Run| {
            move |broker| {
                runtime.block_on(Box::pin(
                    async move { run(Ctx::new(broker, runtime)).await },
                ))
            }
        };
        match self.place {
            Place::Shared(run) => Scenario::shared(name, start(run)),
            Place::Alone(run, config) => config
                .iter()
                .fold(Scenario::alone(name, start(run)), |scenario, line| {
                    scenario.config(*line)
                }),
            Place::Nowhere(reason) => Scenario::ignored(name, reason),
        }
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

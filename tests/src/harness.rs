//! Runs scenarios on a [RabbitMQ](crate::rabbitmq), for test files with `harness = false`.
//!
//! A scenario is a name and a function. The output and the command line are those of Rust's own
//! test harness, with one more thing: where no RabbitMQ is installed, each scenario that needs one
//! is reported by name as `ignored (no RabbitMQ installed)`; with `AMQP_REQUIRE_RABBITMQ=1` it
//! fails.
//!
//! ```no_run
//! use amqp_tests::harness::{self, Broker, Outcome, Scenario};
//! use std::net::TcpStream;
//!
//! fn accepts_connections(broker: Broker) -> Outcome {
//!     TcpStream::connect((broker.node.host(), broker.node.port()))?;
//!     Ok(())
//! }
//!
//! fn comes_back(broker: Broker) -> Outcome {
//!     broker.node.kill()?;
//!     broker.node.restart()?;
//!     accepts_connections(broker)
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     harness::run(vec![
//!         Scenario::shared("accepts_connections", accepts_connections),
//!         Scenario::alone("comes_back", comes_back).config("heartbeat = 1"),
//!     ])
//! }
//! ```
//!
//! A scenario is an ordinary function in a thread of its own; an asynchronous one starts its
//! runtime in there and blocks on it. The output of scenarios is not captured. Those that have a
//! [cell](Scenario::in_table) are summed up in one table at the end.

use std::any::Any;
use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::certificates::Clients;
use crate::rabbitmq::{self, Node};
use crate::table::{Mark, Table};

/// Why a scenario failed, if it did not panic.
pub type Failure = Box<dyn Error + Send + Sync>;

/// How a scenario ends: any error fails it, and so does a panic.
pub type Outcome = Result<(), Failure>;

/// After how long a scenario counts as hung, unless it has a [limit](Scenario::limit) of its own.
pub const LIMIT: Duration = Duration::from_secs(600);

/// The number of scenarios that run at a time, unless `--test-threads` sets it. They wait more than
/// they work, but each may have a broker of its own.
pub const THREADS: usize = 4;

/// How many lines of the broker's log a failure shows.
const LOG_LINES: usize = 15;

/// The surroundings of a scenario.
#[derive(Clone, Debug)]
pub struct Broker {
    /// Where to connect, with user, password and virtual host.
    pub uri: String,
    /// The virtual host, which this scenario has to itself.
    pub vhost: String,
    /// The broker. Only a scenario that runs [alone](Scenario::alone) may pause, kill or restart
    /// it, or change a setting of it.
    pub node: Arc<Node>,
}

impl Broker {
    /// A virtual host of its own on the shared node.
    fn shared() -> Result<Self, rabbitmq::Error> {
        let node = rabbitmq::shared()?;
        let vhost = node.fresh_vhost()?;
        Ok(Self {
            uri: node.uri_of(&vhost),
            vhost,
            node,
        })
    }

    /// A virtual host of its own on the shared node with TLS.
    fn with_tls(clients: Clients) -> Result<Self, rabbitmq::Error> {
        let node = rabbitmq::shared_with_tls(clients)?;
        let vhost = node.fresh_vhost()?;
        Ok(Self {
            uri: node.uri_of(&vhost),
            vhost,
            node,
        })
    }

    /// The default virtual host of a new node.
    fn alone(config: &[String]) -> Result<Self, rabbitmq::Error> {
        let config: Vec<&str> = config.iter().map(String::as_str).collect();
        let node = Node::start_with(&config)?;
        Ok(Self {
            uri: node.uri(),
            vhost: "/".into(),
            node: Arc::new(node),
        })
    }
}

/// One test: a name, a function, and its needs.
pub struct Scenario {
    name: String,
    limit: Duration,
    place: Place,
    /// Its row and its column in the table.
    cell: Option<(String, String)>,
}

/// Where a scenario runs.
enum Place {
    /// Here, without a broker.
    Local(Box<dyn FnOnce() -> Outcome + Send>),
    /// On the node that all share.
    Shared(Run),
    /// On the shared node with TLS for such clients.
    Tls(Run, Clients),
    /// On a node of its own, with these further lines of configuration.
    Alone(Run, Vec<String>),
    /// Not at all, for this reason.
    Nowhere(String),
}

type Run = Box<dyn FnOnce(Broker) -> Outcome + Send>;

impl Scenario {
    /// A scenario in a virtual host of its own, on the node that all scenarios of the file share.
    pub fn shared(
        name: impl Into<String>,
        run: impl FnOnce(Broker) -> Outcome + Send + 'static,
    ) -> Self {
        Self::new(name, Place::Shared(Box::new(run)))
    }

    /// A scenario in a virtual host of its own, on the node with TLS for such clients that all
    /// scenarios of the file share.
    pub fn with_tls(
        name: impl Into<String>,
        clients: Clients,
        run: impl FnOnce(Broker) -> Outcome + Send + 'static,
    ) -> Self {
        Self::new(name, Place::Tls(Box::new(run), clients))
    }

    /// A scenario on a node of its own, without restrictions. That takes five seconds more.
    pub fn alone(
        name: impl Into<String>,
        run: impl FnOnce(Broker) -> Outcome + Send + 'static,
    ) -> Self {
        Self::new(name, Place::Alone(Box::new(run), Vec::new()))
    }

    /// A scenario that needs no RabbitMQ.
    pub fn local(name: impl Into<String>, run: impl FnOnce() -> Outcome + Send + 'static) -> Self {
        Self::new(name, Place::Local(Box::new(run)))
    }

    /// A scenario that cannot run here: it is reported by name, as ignored for this reason.
    pub fn ignored(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(name, Place::Nowhere(reason.into()))
    }

    fn new(name: impl Into<String>, place: Place) -> Self {
        Self {
            name: name.into(),
            limit: LIMIT,
            place,
            cell: None,
        }
    }

    /// Adds a line to the `rabbitmq.conf` of the scenario's node, such as `channel_max = 5`.
    ///
    /// # Panics
    /// Unless the scenario runs [alone](Self::alone).
    #[must_use]
    pub fn config(mut self, line: impl Into<String>) -> Self {
        let Place::Alone(_, lines) = &mut self.place else {
            panic!("{} has no node of its own to configure", self.name);
        };
        lines.push(line.into());
        self
    }

    /// Sets after how long the scenario fails as hung. The start of its node does not count.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Gives it a place in the table that is printed at the end.
    #[must_use]
    pub fn in_table(mut self, row: impl Into<String>, column: impl Into<String>) -> Self {
        self.cell = Some((row.into(), column.into()));
        self
    }

    /// Runs it, and notes how it ended.
    fn perform(mut self, table: &Mutex<Table>) -> Result<Completion, Failed> {
        let cell = self.cell.take();
        let completion = self.run();
        if let Some((row, column)) = cell {
            let mark = match &completion {
                Ok(Completion::Completed) => Mark::Passed,
                Ok(Completion::Ignored { .. }) => Mark::Ignored,
                Err(_) => Mark::Failed,
            };
            let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
            table.note(&row, &column, mark);
        }
        completion
    }

    fn run(self) -> Result<Completion, Failed> {
        let Self {
            name, limit, place, ..
        } = self;
        let (run, broker) = match place {
            Place::Local(run) => {
                within(name, limit, run)?;
                return Ok(Completion::Completed);
            }
            Place::Shared(run) => (run, Broker::shared()),
            Place::Tls(run, clients) => (run, Broker::with_tls(clients)),
            Place::Alone(run, config) => (run, Broker::alone(&config)),
            Place::Nowhere(reason) => return Ok(Completion::ignored_with(reason)),
        };
        let broker = match broker {
            Ok(broker) => broker,
            Err(missing @ rabbitmq::Error::NotInstalled) if !rabbitmq::required() => {
                return Ok(Completion::ignored_with(missing));
            }
            Err(error) => return Err(error.into()),
        };
        let node = Arc::clone(&broker.node);
        within(name, limit, move || run(broker)).map_err(|fault| {
            let log = node.log_tail(LOG_LINES);
            format!("{fault}\nthe end of the broker's log:\n{log}")
        })?;
        Ok(Completion::Completed)
    }
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scenario")
            .field("name", &self.name)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// Runs the scenarios that the command line asks for: the whole of `main` in a test file.
///
/// # Panics
/// If two scenarios have the same name.
#[must_use]
pub fn run(scenarios: Vec<Scenario>) -> ExitCode {
    let mut names = BTreeSet::new();
    for scenario in &scenarios {
        assert!(
            names.insert(scenario.name.clone()),
            "two scenarios are called {}",
            scenario.name
        );
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let table = Arc::new(Mutex::new(Table::default()));
    let trials = scenarios.into_iter().map(|scenario| {
        let table = Arc::clone(&table);
        Trial::ignorable_test(scenario.name.clone(), move || scenario.perform(&table))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    print!("{}", table.lock().unwrap_or_else(PoisonError::into_inner));
    conclusion.exit_code()
}

/// Runs `work` in a thread of its own and returns its result. A thread that does not end in time is
/// left to itself.
fn within(
    name: String,
    limit: Duration,
    work: impl FnOnce() -> Outcome + Send + 'static,
) -> Result<(), String> {
    let (done, finished) = mpsc::channel();
    let thread = thread::Builder::new()
        .name(name)
        .spawn(move || done.send(work().map_err(|error| describe(error.as_ref()))))
        .map_err(|error| format!("no thread: {error}"))?;
    match finished.recv_timeout(limit) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => Err(format!("hung: not done after {limit:?}")),
        Err(RecvTimeoutError::Disconnected) => Err(match thread.join() {
            Ok(_) => "ended without an outcome".into(),
            Err(panic) => format!("panicked: {}", message(panic.as_ref())),
        }),
    }
}

/// An error with its causes.
fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!("\ncaused by: {error}"));
        cause = error.source();
    }
    text
}

/// The message of a panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "(no message)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(work: impl FnOnce() -> Outcome + Send + 'static) -> Result<(), String> {
        within("scenario".into(), LIMIT, work)
    }

    #[test]
    fn an_outcome_is_passed_on() {
        assert_eq!(tell(|| Ok(())), Ok(()));
        assert_eq!(tell(|| Err("broken".into())), Err("broken".into()));
    }

    #[test]
    fn a_panic_is_a_failure_with_its_message() {
        assert_eq!(
            tell(|| panic!("{} went wrong", "something")),
            Err("panicked: something went wrong".into())
        );
        assert_eq!(tell(|| panic!("plainly")), Err("panicked: plainly".into()));
    }

    #[test]
    fn a_scenario_that_does_not_end_is_hung() {
        let fault = within("scenario".into(), Duration::from_millis(200), || {
            thread::sleep(Duration::from_secs(600));
            Ok(())
        });
        assert_eq!(fault, Err("hung: not done after 200ms".into()));
    }

    #[test]
    #[should_panic(expected = "has no node of its own")]
    fn the_shared_node_takes_no_configuration() {
        let _ = Scenario::shared("name", |_| Ok(())).config("heartbeat = 1");
    }
}

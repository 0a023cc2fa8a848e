//! The runtime of a peer, and what runs on it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use amqp_driver::{
    Connection, Error,
    io::{Timer as _, Transport, pipe},
};
use amqp_embedded::{
    BrokerEndpoint, LocalBroker, ServerRuntime, SharedBroker, broker::AcceptError,
};

use super::{
    connector::{self, Connect, ConnectorId},
    endpoint::{Certificates, LinkDriver, PeerEndpoint},
    events::Events,
    inbox::{self, Inbox},
    keeper::Keeper,
    listener::{self, Listen, ListenerId},
    peer::{Handles, Peer},
    rpc_port::RpcPort,
    setup::{Setup, StartError},
    shared::Shared,
    state::State,
    storing,
};
use crate::{
    config::Clients,
    event::LinkKey,
    machine::{Client, Machine},
    rpc::Rpc,
    storage::{Stored, WallTime},
    trace::Trace,
};

/// Starts a peer on a runtime: the adapters' modules do so on theirs.
///
/// # Errors
/// [`StartError`], if a configuration contradicts itself, the storage cannot be read, or the runtime
/// does not run here.
pub fn start_on<R: ServerRuntime>(
    runtime: R,
    setup: impl Into<Setup>,
) -> Result<(Peer, Events), StartError> {
    let Setup {
        mut config,
        mut storage,
        broker,
        rpc,
    } = setup.into();
    runtime.check()?;
    config.seed = runtime.random_seed();
    let allows_clients = config.clients == Clients::Allow;
    let (broker, inbox) = match broker {
        None if !allows_clients => (None, None),
        broker => {
            let mut broker = broker.unwrap_or_else(inbox::default_broker);
            let inbox = inbox::add_user(&mut broker);
            (Some(LocalBroker::on(runtime.clone(), broker)?), inbox)
        }
    };
    let (broker, clock) = match broker {
        Some(broker) => (Some(broker.shared().clone()), broker.clock()),
        None => (None, runtime.clock()),
    };
    if let Some(broker) = &broker {
        config = config.server(broker.with(|broker| broker.server_config().clone()));
    }
    let stored = match &mut storage {
        Some(storage) => storage.load()?,
        None => Stored::default(),
    };
    let now = clock.now();
    let trace = Trace::new(&config.name);
    let machine = Machine::new(config, stored, now, wall_time())?;
    let shared = Arc::new(Shared::new(State::new(machine, now), clock.clock(), trace));
    if let Some(storage) = storage {
        storing::start(&shared, storage).map_err(|error| StartError::Thread(Arc::new(error)))?;
    }
    let runner = Arc::new(Runner {
        shared: Arc::clone(&shared),
        runtime,
        clock: Mutex::new(clock),
        broker,
    });
    if let Some(inbox) = inbox {
        let mut state = shared.lock();
        state.inbox = Inbox::Beginning;
        state.jobs.push_back(Job::Inbox(inbox));
    }
    if let Some(broker) = &runner.broker
        && let Some(timekeeper) = broker.keep_time(runner.clock())
    {
        runner.runtime.spawn(timekeeper);
    }
    let port = Arc::new(RpcPort(Arc::clone(&shared)));
    let (rpc, calls) = Rpc::new(port, rpc, runner.runtime.random_seed(), runner.clock());
    runner.runtime.spawn(calls);
    runner.runtime.spawn(Keeper::new(Arc::clone(&runner)));
    let handles = Arc::new(Handles {
        shared,
        runner,
        rpc,
    });
    handles.shared.trace.started();
    Ok((Peer::new(&handles), Events::new(handles)))
}

/// The wall time, which a storage compares with that of an earlier run.
fn wall_time() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    WallTime(since.unwrap_or(Duration::ZERO))
}

/// Something to run on the runtime. Handles do not spawn: they may be used outside of it.
pub(super) enum Job {
    Listen(ListenerId, Listen),
    Connect(ConnectorId, Box<Connect>),
    /// The inbox of plain clients, with its credentials.
    Inbox(inbox::Login),
    /// A task of calls.
    Task(Boxed<()>),
    /// Ends the broker's connections.
    Stop,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Listen(..) => "Listen",
            Self::Connect(..) => "Connect",
            Self::Inbox(_) => "Inbox",
            Self::Task(_) => "Task",
            Self::Stop => "Stop",
        })
    }
}

pub(super) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A [`Runner`] of any runtime.
pub(super) trait Run: Send + Sync {
    /// Hands a plain client to the broker.
    fn adopt(&self, client: Client) -> Result<BrokerEndpoint, AcceptError>;

    /// The broker. `Some` if there is one.
    fn broker(&self) -> Option<&SharedBroker>;

    /// Begins a connection to the broker.
    fn connect(&self, config: amqp_driver::Config) -> Result<Connection, Error>;
}

/// A peer with its runtime.
pub(super) struct Runner<R: ServerRuntime> {
    pub(super) shared: Arc<Shared>,
    pub(super) runtime: R,
    /// The clock of the peer and its broker. Behind a lock, because a clock is not used by several
    /// threads at once.
    clock: Mutex<R::Clock>,
    broker: Option<SharedBroker>,
}

impl<R: ServerRuntime> Runner<R> {
    /// The clock of the peer, with an alarm of its own.
    pub(super) fn clock(&self) -> R::Clock {
        let clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.clone()
    }

    /// Runs a job, in the context of the runtime.
    pub(super) fn run(self: &Arc<Self>, job: Job) {
        match job {
            Job::Listen(id, listen) => {
                let end = move |state: &mut State| state.end_listener(id);
                self.spawn(listener::run(Arc::clone(self), id, listen), end);
            }
            Job::Connect(id, connect) => {
                let end = move |state: &mut State| state.end_connector(id);
                self.spawn(connector::run(Arc::clone(self), id, *connect), end);
            }
            Job::Inbox(login) => {
                let end = |state: &mut State| state.open_inbox(Inbox::Open);
                self.spawn(inbox::run(Arc::clone(self), login), end);
            }
            Job::Task(task) => self.spawn(task, |_: &mut State| {}),
            Job::Stop => {
                if let Some(broker) = &self.broker {
                    let now = self.shared.now();
                    broker.with(|broker| broker.stop(now));
                }
            }
        }
    }

    /// Spawns a task that the peer's stop waits for, as for all but three: the keeper, which ends the
    /// peer; the timekeeper of the broker; and the task of calls, which ends with the first look after
    /// the stop. `end` is called when it ends, also by a panic or with the runtime.
    fn spawn(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
        end: impl FnOnce(&mut State) + Send + 'static,
    ) {
        self.shared.lock().running += 1;
        let guard = TaskGuard(Arc::clone(&self.shared), Some(end));
        self.runtime.spawn(async move {
            let _guard = guard;
            task.await;
        });
    }

    /// Drives a link for which [`State::add_link`] was called, of a listener if it is `Some`.
    pub(super) fn drive(
        self: &Arc<Self>,
        link: LinkKey,
        listener: Option<ListenerId>,
        certificates: Option<Certificates>,
        transport: impl Transport + Unpin + 'static,
    ) {
        self.shared.lock().running += 1;
        let runner = Arc::clone(self) as Arc<dyn Run>;
        let clock = self.clock();
        let endpoint = PeerEndpoint::new(&self.shared, runner, link, listener, certificates);
        let driver = LinkDriver::new(endpoint, transport, clock);
        self.runtime.spawn(driver);
    }
}

impl<R: ServerRuntime> Run for Runner<R> {
    fn adopt(&self, client: Client) -> Result<BrokerEndpoint, AcceptError> {
        let broker = self.broker.as_ref().ok_or(AcceptError::Stopped)?;
        let now = self.shared.now();
        let adopted = broker.adopt(client.machine, &client.request, now)?;
        if let Some(certificate) = client.certificates.into_iter().next() {
            broker.with(|broker| broker.handle_certificate(adopted.key(), certificate));
        }
        Ok(adopted)
    }

    fn broker(&self) -> Option<&SharedBroker> {
        self.broker.as_ref()
    }

    fn connect(&self, config: amqp_driver::Config) -> Result<Connection, Error> {
        let (ours, theirs) = pipe();
        let broker = self.broker.as_ref();
        let broker = broker.ok_or(Error::Internal("there is no broker"))?;
        let mut tasks: Vec<Boxed<()>> = Vec::new();
        // A refused connection is closed without a handshake, as by a listener.
        if let Ok(driver) = broker.accept(theirs, self.clock()) {
            tasks.push(Box::pin(driver));
        }
        let (connection, driver) = Connection::start(config, ours, self.clock())?;
        tasks.push(Box::pin(driver));
        self.shared
            .with(|state| state.jobs.extend(tasks.drain(..).map(Job::Task)));
        Ok(connection)
    }
}

impl<R: ServerRuntime> fmt::Debug for Runner<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("runtime", &self.runtime)
            .finish_non_exhaustive()
    }
}

/// Counts a task until it is dropped.
struct TaskGuard<F: FnOnce(&mut State)>(Arc<Shared>, Option<F>);

impl<F: FnOnce(&mut State)> Drop for TaskGuard<F> {
    fn drop(&mut self) {
        let end = self.1.take();
        self.0.with(|state| {
            if let Some(end) = end {
                end(state);
            }
            state.end_task();
        });
    }
}

//! Throw-away RabbitMQ nodes on loopback.
//!
//! A [`Node`] has everything to itself: ports, port mapper, cookie, data and log, in a temporary
//! directory. It needs a RabbitMQ that is installed (on Debian: `apt-get install
//! --no-install-recommends rabbitmq-server`), no privileges, and no broker that runs already.
//!
//! Every node hangs on a small shell script that waits at the other end of a pipe
//! (`rabbitmq/supervisor.sh`). When the node is dropped, or this process ends in any way, also by
//! `SIGKILL`, the pipe breaks, and the script kills the node and removes its directory.
//!
//! A start takes some five seconds, so tests share [one node](shared) and take a
//! [virtual host each](Node::fresh_vhost); only a test that pauses, kills or configures its broker
//! starts one of its own.

mod cluster;
mod process;

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub use amqp_test_support::ports::free_port;

use self::cluster::Kin;
use self::process::Process;
use crate::certificates::{Certificates, Clients};

/// How long a node may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(300);

/// How many virtual hosts are made at a time. One costs 30 ms, `rabbitmqctl` costs half a second.
const VHOST_BATCH: usize = 16;

/// Makes virtual hosts, in Erlang; `NAMES` stands for the list of their names.
const MAKE_VHOSTS: &str = r#"
    [begin
        ok = rabbit_vhost:add(Name, <<"rig">>),
        ok = rabbit_auth_backend_internal:set_permissions(
            <<"guest">>, Name, <<".*">>, <<".*">>, <<".*">>, <<"rig">>)
     end || Name <- [NAMES]]."#;

/// Where packages put RabbitMQ's own scripts. Those that a package puts into the search path are
/// other ones: they switch the user.
const INSTALLED: [&str; 4] = [
    "/usr/lib/rabbitmq/bin",
    "/opt/rabbitmq/sbin",
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
];

/// The reason for which there is no node, or for which a command of it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// No RabbitMQ is installed on this machine.
    NotInstalled,
    /// The command and its error, with the end of the node's log where it may have the cause.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInstalled => f.write_str("no RabbitMQ installed"),
            Self::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    fn failed(error: impl fmt::Display) -> Self {
        Self::Failed(format!("the RabbitMQ rig: {error}"))
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::failed(error)
    }
}

/// The node that all tests of this process share, started by the first call. It runs until the
/// process ends.
///
/// # Errors
/// [`Error::NotInstalled`], or the fault of the start; the same at every call.
pub fn shared() -> Result<Arc<Node>, Error> {
    static SHARED: OnceLock<Result<Arc<Node>, Error>> = OnceLock::new();
    SHARED.get_or_init(|| Node::start().map(Arc::new)).clone()
}

/// The node with TLS for such clients that all tests of this process share, started by the first
/// call. It runs until the process ends.
///
/// # Errors
/// As [`shared`].
pub fn shared_with_tls(clients: Clients) -> Result<Arc<Node>, Error> {
    static ANYONE: OnceLock<Result<Arc<Node>, Error>> = OnceLock::new();
    static CERTIFIED: OnceLock<Result<Arc<Node>, Error>> = OnceLock::new();
    let shared = match clients {
        Clients::Anyone => &ANYONE,
        Clients::Certified => &CERTIFIED,
    };
    shared
        .get_or_init(|| Node::start_with_tls(clients).map(Arc::new))
        .clone()
}

/// Whether a test that needs RabbitMQ must fail where none is installed, instead of being skipped:
/// `AMQP_REQUIRE_RABBITMQ=1`.
#[must_use]
pub fn required() -> bool {
    std::env::var_os("AMQP_REQUIRE_RABBITMQ").is_some_and(|value| value == "1")
}

/// A RabbitMQ node. Dropping it ends the broker and removes its files.
#[derive(Debug)]
pub struct Node {
    port: u16,
    scripts: PathBuf,
    directory: PathBuf,
    environment: Vec<(String, String)>,
    process: Mutex<Process>,
    vhosts: Mutex<Vhosts>,
    tls: Option<Tls>,
}

/// Where a node speaks TLS, and with which certificates.
#[derive(Debug)]
struct Tls {
    port: u16,
    certificates: Certificates,
}

/// Virtual hosts that were made and are not in use yet.
#[derive(Debug, Default)]
struct Vhosts {
    spare: VecDeque<String>,
    made: usize,
}

impl Node {
    /// Starts a node and waits until it speaks AMQP.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], or the fault, with the end of the node's log.
    pub fn start() -> Result<Self, Error> {
        Self::start_with(&[])
    }

    /// Starts a node with further lines for its `rabbitmq.conf`, such as `heartbeat = 1`.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], or the fault, with the end of the node's log.
    pub fn start_with(config: &[&str]) -> Result<Self, Error> {
        Self::set_up(config, None, &Kin::new()?)
    }

    /// Starts a node that speaks TLS beside plain AMQP, to such clients. Those with a certificate
    /// can log in with it (EXTERNAL), as the user of its common name.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], or the fault, with the end of the node's log.
    pub fn start_with_tls(clients: Clients) -> Result<Self, Error> {
        Self::set_up(&[], Some(clients), &Kin::new()?)
    }

    fn set_up(config: &[&str], tls: Option<Clients>, kin: &Kin) -> Result<Self, Error> {
        let scripts = scripts().ok_or(Error::NotInstalled)?;
        let port = free_port()?;
        let directory = tempfile::Builder::new()
            .prefix("amqp-rabbitmq-")
            .tempdir()?;
        let mut config: Vec<String> = config.iter().map(ToString::to_string).collect();
        let mut plugins = "";
        let tls = match tls {
            None => None,
            Some(clients) => {
                let tls = Tls {
                    port: free_port()?,
                    certificates: Certificates::make_in(directory.path()).map_err(Error::failed)?,
                };
                config.extend(tls.config(clients));
                plugins = "rabbitmq_auth_mechanism_ssl";
                Some(tls)
            }
        };
        let environment = prepare(directory.path(), port, &config, plugins, kin)?;
        let process = Process::supervised(
            directory.path(),
            &scripts.join("rabbitmq-server"),
            &environment,
        )?;
        let node = Self {
            port,
            scripts,
            directory: directory.keep(), // from here on the supervisor removes it
            environment,
            process: Mutex::new(process),
            vhosts: Mutex::default(),
            tls,
        };
        node.launch(&mut node.process())?;
        Ok(node)
    }

    /// The address that the broker listens on, without the port.
    #[must_use]
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// The port that the broker listens on. It stays the same over a [restart](Self::restart).
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address that the broker listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The address that the broker speaks TLS on, if it does.
    #[must_use]
    pub fn tls_address(&self) -> Option<SocketAddr> {
        let tls = self.tls.as_ref()?;
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, tls.port)))
    }

    /// Its certificates and those of its clients, if it speaks TLS.
    #[must_use]
    pub fn certificates(&self) -> Option<&Certificates> {
        self.tls.as_ref().map(|tls| &tls.certificates)
    }

    /// The URI of the default virtual host `/`, for the user `guest`.
    #[must_use]
    pub fn uri(&self) -> String {
        self.uri_of("/")
    }

    /// The URI of a virtual host, for the user `guest`.
    #[must_use]
    pub fn uri_of(&self, vhost: &str) -> String {
        let mut uri = format!("amqp://guest:guest@{}:{}/", self.host(), self.port);
        for byte in vhost.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                uri.push(byte.into());
            } else {
                uri.push_str(&format!("%{byte:02X}"));
            }
        }
        uri
    }

    /// The process id of the broker, `None` while it does not run.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process().running()
    }

    /// Where the node keeps its files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The environment variables with which RabbitMQ's own tools find this node.
    #[must_use]
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// The last lines of the node's log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let log = fs::read(self.directory.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Runs `rabbitmqctl --silent ARGUMENTS` on this node and gives its output. It takes half a
    /// second.
    ///
    /// # Errors
    /// When it ends with another status than 0; with all that it said.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String, Error> {
        let Output {
            status,
            stdout,
            stderr,
        } = command(self.scripts.join("rabbitmqctl"), &self.environment)
            .arg("--silent")
            .args(arguments)
            .stdin(Stdio::null())
            .output()?;
        let stdout = String::from_utf8_lossy(&stdout);
        if status.success() {
            return Ok(stdout.into_owned());
        }
        let stderr = String::from_utf8_lossy(&stderr);
        Err(Error::Failed(format!(
            "rabbitmqctl {}: {status}\n{stdout}{stderr}",
            arguments.join(" ")
        )))
    }

    /// Makes a virtual host of this name, in which `guest` may do everything.
    ///
    /// # Errors
    /// When there is one already, or the node does not run.
    pub fn add_vhost(&self, name: &str) -> Result<(), Error> {
        self.ctl(&["add_vhost", name])?;
        self.ctl(&[
            "set_permissions",
            "--vhost",
            name,
            "guest",
            ".*",
            ".*",
            ".*",
        ])?;
        Ok(())
    }

    /// Deletes a virtual host. The broker closes the connections to it.
    ///
    /// # Errors
    /// When there is none of this name, or the node does not run.
    pub fn delete_vhost(&self, name: &str) -> Result<(), Error> {
        self.ctl(&["delete_vhost", name]).map(drop)
    }

    /// The name of an unused virtual host, in which `guest` may do everything.
    ///
    /// # Errors
    /// When the node does not run.
    pub fn fresh_vhost(&self) -> Result<String, Error> {
        let mut vhosts = lock(&self.vhosts);
        if vhosts.spare.is_empty() {
            let names: Vec<String> = (1..=VHOST_BATCH)
                .map(|n| format!("fresh-{}", vhosts.made + n))
                .collect();
            let list = names
                .iter()
                .map(|name| format!("<<\"{name}\">>"))
                .collect::<Vec<_>>()
                .join(", ");
            self.ctl(&["eval", &MAKE_VHOSTS.replace("NAMES", &list)])?;
            vhosts.made += names.len();
            vhosts.spare.extend(names);
        }
        vhosts
            .spare
            .pop_front()
            .ok_or_else(|| Error::Failed("no virtual host was made".into()))
    }

    /// Stops the broker's process where it is (`SIGSTOP`), as if the machine stood still: its
    /// connections stay open, and are not served.
    ///
    /// # Errors
    /// When the broker does not run.
    pub fn pause(&self) -> Result<(), Error> {
        self.process().pause()
    }

    /// Lets the broker go on after [`pause`](Self::pause).
    ///
    /// # Errors
    /// When the broker does not run.
    pub fn resume(&self) -> Result<(), Error> {
        self.process().resume()
    }

    /// Kills the broker, as a crash does, and waits for its end. [`restart`](Self::restart) brings
    /// it back. Does nothing when none runs.
    ///
    /// # Errors
    /// When the supervisor is gone.
    pub fn kill(&self) -> Result<(), Error> {
        self.process().kill()
    }

    /// Stops the broker in an orderly way, also when it is paused: it closes its connections. Does
    /// nothing when none runs.
    ///
    /// # Errors
    /// When the supervisor is gone.
    pub fn stop(&self) -> Result<(), Error> {
        self.process().stop()
    }

    /// Stops the broker in an orderly way if it runs, and starts it again, with the same files and
    /// ports.
    ///
    /// # Errors
    /// When it does not come back, with the end of its log.
    pub fn restart(&self) -> Result<(), Error> {
        let mut process = self.process();
        process.stop()?;
        self.launch(&mut process)
    }

    /// Whether it answers wherever it should.
    fn is_up(&self) -> bool {
        let listens = |address| TcpStream::connect(address).is_ok();
        speaks_amqp(self.port) && self.tls_address().is_none_or(listens)
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        lock(&self.process)
    }

    /// Starts the broker and waits until it answers.
    fn launch(&self, process: &mut Process) -> Result<(), Error> {
        process.start()?;
        let deadline = Instant::now() + START_LIMIT;
        while !self.is_up() {
            let fault = if process.running().is_none() {
                "RabbitMQ ended while it started"
            } else if Instant::now() > deadline {
                process.kill()?;
                "RabbitMQ did not start in time"
            } else {
                thread::sleep(Duration::from_millis(50));
                continue;
            };
            return Err(Error::Failed(format!(
                "{fault}; the end of its log:\n{}",
                self.log_tail(100)
            )));
        }
        Ok(())
    }
}

impl Tls {
    /// The lines of `rabbitmq.conf`.
    fn config(&self, clients: Clients) -> Vec<String> {
        let path = |name| self.certificates.path(name);
        vec![
            format!("listeners.ssl.1 = 127.0.0.1:{}", self.port),
            format!("ssl_options.cacertfile = {}", path("ca.pem")),
            format!("ssl_options.certfile = {}", path("server.pem")),
            format!("ssl_options.keyfile = {}", path("server.key")),
            "ssl_options.verify = verify_peer".into(),
            format!(
                "ssl_options.fail_if_no_peer_cert = {}",
                clients == Clients::Certified
            ),
            "ssl_cert_login_from = common_name".into(),
            "auth_mechanisms.1 = PLAIN".into(),
            "auth_mechanisms.2 = EXTERNAL".into(),
        ]
    }
}

/// The directory of RabbitMQ's own scripts: that of `AMQP_RABBITMQ_BIN`, or else where packages put
/// them.
fn scripts() -> Option<PathBuf> {
    let candidates = match std::env::var_os("AMQP_RABBITMQ_BIN") {
        Some(given) => vec![PathBuf::from(given)],
        None => INSTALLED.map(PathBuf::from).to_vec(),
    };
    candidates
        .into_iter()
        .find(|directory| directory.join("rabbitmq-server").is_file())
}

/// Writes the files of a node's start, and returns its environment.
fn prepare(
    directory: &Path,
    port: u16,
    config: &[String],
    plugins: &str,
    kin: &Kin,
) -> io::Result<Vec<(String, String)>> {
    for name in ["home", "mnesia", "generated", "schema"] {
        fs::create_dir(directory.join(name))?;
    }
    let mut cookie = OpenOptions::new();
    cookie.write(true).create_new(true).mode(0o400); // Erlang refuses one that others may read
    cookie
        .open(directory.join("home/.erlang.cookie"))?
        .write_all(kin.cookie.as_bytes())?;
    let mut lines = vec![
        format!("listeners.tcp.1 = 127.0.0.1:{port}"),
        "loopback_users = none".into(),
        "log.console = true".into(),
        "log.console.level = info".into(),
        "log.file = false".into(),
        // A disk that is nearly full must not block publishers, unless a test wants that.
        "disk_free_limit.absolute = 1MB".into(),
    ];
    lines.extend_from_slice(config);
    fs::write(directory.join("rabbitmq.conf"), lines.join("\n") + "\n")?;
    let plugins = format!("[{plugins}].\n");
    fs::write(directory.join("enabled_plugins"), plugins)?;

    let path = |name: &str| directory.join(name).to_string_lossy().into_owned();
    Ok([
        ("HOME", path("home")),
        ("RABBITMQ_NODENAME", format!("amqp-{port}@localhost")),
        ("RABBITMQ_MNESIA_BASE", path("mnesia")),
        ("RABBITMQ_LOG_BASE", path("")),
        ("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins")),
        ("RABBITMQ_GENERATED_CONFIG_DIR", path("generated")),
        ("RABBITMQ_SCHEMA_DIR", path("schema")),
        ("RABBITMQ_FEATURE_FLAGS_FILE", path("feature_flags")),
        ("RABBITMQ_PID_FILE", path("pid")),
        // Nothing of a broker that the machine has for other uses.
        ("RABBITMQ_CONF_ENV_FILE", "/dev/null".into()),
        ("RABBITMQ_DIST_PORT", free_port()?.to_string()),
        ("ERL_EPMD_PORT", kin.port_mapper.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1}".into(),
        ),
        ("ERL_CRASH_DUMP_SECONDS", "0".into()), // no dump of a tool's memory into the sources
        // A tool takes the first free one; the default of ten ports is little for tests in
        // parallel.
        ("RABBITMQ_CTL_DIST_PORT_MIN", "19000".into()),
        ("RABBITMQ_CTL_DIST_PORT_MAX", "19999".into()),
        // With this, and `-noinput`, the script becomes the Erlang machine: its process is the
        // broker's, to be paused and killed.
        ("RABBITMQ_ALLOW_INPUT", "1".into()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec())
}

/// A program that shall find this node, and no other that the surroundings of the tests may name.
fn command(program: impl AsRef<OsStr>, environment: &[(String, String)]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name_bytes = name.as_encoded_bytes();
        if name_bytes.starts_with(b"RABBITMQ_") || name_bytes.starts_with(b"ERL_") {
            command.env_remove(name);
        }
    }
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command
}

/// Whether a broker answers a protocol header with a frame. It accepts connections before it can do
/// so.
fn speaks_amqp(port: u16) -> bool {
    let patience = Duration::from_secs(1);
    let answer = || -> io::Result<u8> {
        let mut stream =
            TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok(first[0])
    };
    answer().is_ok_and(|first| first == 1)
}

/// A number that differs from process to process and from call to call.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// A test that panicked leaves the rig as good as it was.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Clients of other people, unmodified, on RabbitMQ, on the embedded broker, and with a peer.
//!
//! The scripts are in `tests/foreign`: each makes one round of declaring, publishing, consuming and
//! closing, with a client of a version that is pinned there. Their packages are installed below the
//! target directory, once. Where that is not possible they are ignored by name; with
//! `AMQP_REQUIRE_FOREIGN=1` they fail.

use std::{
    env,
    error::Error,
    fmt, fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use amqp_peer::{Clients, Config, Event, Listen, Sender};
use amqp_tests::{
    Embedded,
    harness::{self, Broker, Failure, Outcome, Scenario},
};
use amqp_tokio::{
    io::in_thread,
    protocol::{basic, queue},
};

/// How long one round may take.
const LIMIT: Duration = Duration::from_secs(600);

/// How often an installation is tried, and the pause between two attempts.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_secs(10);

/// One of the clients, and the interpreter of its script.
#[derive(Clone, Copy, Debug)]
enum Client {
    Python(&'static str),
    Node(&'static str),
    Tools(&'static str),
}

const CLIENTS: [(&str, Client); 5] = [
    ("pika", Client::Python("round_pika.py")),
    ("aio_pika", Client::Python("round_aio_pika.py")),
    ("py_amqp_and_kombu", Client::Python("round_kombu.py")),
    ("amqplib", Client::Node("round_amqplib.mjs")),
    ("amqp_tools", Client::Tools("round_amqp_tools.sh")),
];

fn main() -> ExitCode {
    let mut scenarios = Vec::new();
    for (name, client) in CLIENTS {
        let installed = install(client);
        for (broker, add) in [("rabbitmq", on_rabbitmq as Add), ("embedded", on_embedded)] {
            let name = format!("{name}::{broker}");
            scenarios.push(match &installed {
                Ok(tools) => add(name, client, tools.clone()),
                Err(missing) if !required() => Scenario::ignored(name, missing.to_string()),
                Err(missing) => {
                    let missing = missing.to_string();
                    Scenario::local(name, move || Err(missing.into()))
                }
            });
        }
    }
    let client = Client::Python("peer_pika.py");
    scenarios.push(match install(client) {
        Ok(tools) => Scenario::local("pika::peer", move || with_peer(client, tools)).limit(LIMIT),
        Err(missing) if !required() => Scenario::ignored("pika::peer", missing.to_string()),
        Err(missing) => Scenario::local("pika::peer", move || Err(missing.to_string().into())),
    });
    harness::run(scenarios)
}

/// How a round becomes a scenario.
type Add = fn(String, Client, Tools) -> Scenario;

fn on_rabbitmq(name: String, client: Client, tools: Tools) -> Scenario {
    let run = move |broker: Broker| round(client, &tools, &broker.uri);
    Scenario::shared(name, run).limit(LIMIT)
}

fn on_embedded(name: String, client: Client, tools: Tools) -> Scenario {
    let run = move || round(client, &tools, &Embedded::start()?.uri());
    Scenario::local(name, run).limit(LIMIT)
}

/// The number of messages that a client publishes to the inbox of a peer.
const TO_INBOX: usize = 100;

/// A client publishes to the inbox of a peer, and consumes what the peer has published.
fn with_peer(client: Client, tools: Tools) -> Outcome {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let config = Config::new("bob")?
            .clients(Clients::Allow)
            .broker(amqp_peer::broker::Config::default());
        let (peer, mut events) = amqp_peer::tokio::start(config)?;
        let listening = peer.add_listener(Listen::tcp("127.0.0.1:0")).await?;
        let broker = peer.broker().ok_or("no broker")?;
        let own = broker.connect(amqp_tokio::Config::default()).await?;
        let channel = own.open_channel().await?;
        channel
            .call(queue::Declare::default().queue("news"))
            .await?;
        let publish = basic::Publish::default().routing_key("news");
        let properties = basic::Properties::default();
        channel
            .publish(&publish, &properties, "from the peer")
            .await?;

        let uri = format!("amqp://guest:guest@{}", listening.address);
        let script = in_thread("client", move || {
            round(client, &tools, &uri).map_err(|failure| failure.to_string())
        })?;
        let receiving = async {
            for number in 0..TO_INBOX {
                let received = match events.next().await {
                    Some(Event::Received(received)) => received,
                    other => return Err(Failure::from(format!("{other:?}"))),
                };
                let user = "guest".to_owned();
                assert_eq!(received.from, Sender::Client { user });
                let message = received.accept();
                assert_eq!(message.properties().kind.as_str(), "greeting");
                assert_eq!(message.body, *format!("from pika {number}").as_bytes());
            }
            Ok(())
        };
        let script = async { script.await.map_err(Failure::from) };
        // A script that fails sends no more messages.
        tokio::try_join!(script, receiving)?;
        peer.stop().await;
        Ok(())
    })
}

/// Whether a client that cannot be installed is a failure.
fn required() -> bool {
    env::var_os("AMQP_REQUIRE_FOREIGN").is_some_and(|value| value == "1")
}

/// Runs a script to its end.
fn round(client: Client, tools: &Tools, uri: &str) -> Outcome {
    let (program, script) = match client {
        Client::Python(script) => (tools.directory.join("bin/python"), script),
        Client::Node(script) => (PathBuf::from("node"), script),
        Client::Tools(script) => (PathBuf::from("sh"), script),
    };
    let mut command = Command::new(program);
    command
        .arg(scripts().join(script))
        .arg(uri)
        .env("AMQP_NODE_MODULES", &tools.directory)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    run(&mut command)?;
    Ok(())
}

/// Where the scripts are.
fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign")
}

/// The form in which a client was installed.
#[derive(Clone, Debug)]
struct Tools {
    directory: PathBuf,
}

/// Why a client could not be installed.
#[derive(Debug)]
struct NotInstalled(String);

impl fmt::Display for NotInstalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not installed: {}", self.0)
    }
}

impl Error for NotInstalled {}

impl From<Failure> for NotInstalled {
    fn from(failure: Failure) -> Self {
        Self(failure.to_string())
    }
}

impl From<io::Error> for NotInstalled {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// Installs the needs of a script, unless they are there already.
fn install(client: Client) -> Result<Tools, NotInstalled> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.iter().any(|it| it == "--list") {
        return Ok(Tools {
            directory: PathBuf::new(),
        });
    }
    match client {
        Client::Python(_) => cached("python", "requirements.txt", |directory, pinned| {
            run(Command::new("python3").args(["-m", "venv"]).arg(directory))?;
            run(Command::new(directory.join("bin/python"))
                .args(["-m", "pip", "install", "--quiet", "--no-deps", "-r"])
                .arg(pinned))
        }),
        Client::Node(_) => cached("node", "package.json", |directory, pinned| {
            fs::copy(pinned, directory.join("package.json"))?;
            run(Command::new("npm")
                .args(["install", "--no-audit", "--no-fund", "--prefix"])
                .arg(directory))
        }),
        Client::Tools(_) => {
            if run(Command::new("amqp-publish").arg("--help")).is_err() {
                apt("amqp-tools")?;
            }
            Ok(Tools {
                directory: PathBuf::new(),
            })
        }
    }
}

/// Installs into a directory that is named by its contents, so that another version gets another
/// one.
fn cached(
    name: &str,
    pinned: &str,
    install: impl Fn(&Path, &Path) -> Result<String, Failure>,
) -> Result<Tools, NotInstalled> {
    // One after another: several clients may want the same directory.
    static LOCK: Mutex<()> = Mutex::new(());
    let _locked = LOCK.lock().unwrap_or_else(PoisonError::into_inner);

    let pinned = scripts().join(pinned);
    let mut hasher = DefaultHasher::new();
    fs::read(&pinned)?.hash(&mut hasher);
    let directory = target()?.join(format!("foreign/{name}-{:016x}", hasher.finish()));
    let done = directory.join("installed");
    let mut attempts = 0;
    while !done.exists() {
        // The remains of a run that was interrupted.
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory)?;
        attempts += 1;
        match install(&directory, &pinned) {
            Ok(_) => fs::write(&done, "")?,
            // A network may fail for a while.
            Err(_) if attempts < ATTEMPTS => thread::sleep(PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Tools { directory })
}

/// The target directory, which this program is in.
fn target() -> io::Result<PathBuf> {
    let program = env::current_exe()?;
    // target/PROFILE/deps/foreign-HASH
    let target = program.ancestors().nth(3);
    target
        .map(Path::to_owned)
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Installs a package of Debian's, with the permission to do so.
fn apt(package: &str) -> Result<(), NotInstalled> {
    if run(Command::new("id").arg("-u"))?.trim() != "0" {
        return Err(NotInstalled(format!(
            "apt-get install {package} needs root"
        )));
    }
    run(Command::new("apt-get")
        .args(["install", "--yes", "--no-install-recommends", package])
        .env("DEBIAN_FRONTEND", "noninteractive"))?;
    Ok(())
}

/// Runs a program, and returns its output.
fn run(command: &mut Command) -> Result<String, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    let stdout = String::from_utf8_lossy(&stdout);
    if status.success() {
        return Ok(stdout.into_owned());
    }
    let stderr = String::from_utf8_lossy(&stderr);
    Err(format!("{name}: {status}\n{stdout}{stderr}").into())
}

//! `amqp proxy`.

use std::{
    fmt::{Display, Write as _},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use amqp_tokio::{Options, Socket, Tokio, core::dial::Address, io::Runtime as _};
use clap::Args;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    connection::{ConnectionArgs, Recovery},
    failure::{Code, Failure, Outcome},
    frames::{Decoder, Detail},
    note,
    signals::Stop,
    terminal::{Printer, Styles, print},
};

/// The time in which the output must take what was shown before a signal.
const DRAIN: Duration = Duration::from_millis(500);

/// The bytes of one read.
const READ: usize = 64 << 10;

/// Sits between clients and the broker, and prints every frame in words.
///
/// Clients connect to the address of --listen, by plain TCP, and log in with their own credentials; the
/// broker is that of --url, by TLS if it says so. Bytes are handed on as they are. Credentials are never
/// shown; bodies and the values of properties only if so asked.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ProxyArgs {
    /// The address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5673")]
    listen: String,
    /// Shows the values of properties and headers.
    #[arg(long)]
    properties: bool,
    /// Shows so many bytes of each body frame.
    #[arg(long, value_name = "N", default_value_t = 0, num_args = 0..=1, default_missing_value = "256", require_equals = true)]
    bodies: usize,
    /// Leaves heartbeats out.
    #[arg(long)]
    no_heartbeats: bool,
    /// Ends with the first connection.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

const EXAMPLES: &str = "Examples:
  amqp proxy
  amqp proxy --listen 127.0.0.1:5673 -u amqps://broker.example.com --properties --bodies=80
  amqp proxy --no-heartbeats > frames.log &
  amqp publish -u amqp://127.0.0.1:5673 -r jobs -b hello";

impl ProxyArgs {
    pub(crate) async fn run(self) -> Outcome {
        let options = self.connection.options("proxy", Recovery::Off)?;
        let mut stop = Stop::install().map_err(Failure::failed)?;
        let listener = TcpListener::bind(&self.listen).await.map_err(|error| {
            Failure::failed(format_args!("cannot listen on {}: {error}", self.listen))
        })?;
        let at = listener.local_addr().map_err(Failure::failed)?;
        let addresses: Vec<String> = options.addresses.iter().map(ToString::to_string).collect();
        print(format_args!(
            "listening on amqp://{at}, for {}",
            addresses.join(", ")
        ))?;
        let (printer, mut printed) = Printer::start().map_err(Failure::failed)?;
        let shared = Arc::new(Shared {
            options,
            printer,
            detail: Detail {
                properties: self.properties,
                body: self.bodies,
            },
            no_heartbeats: self.no_heartbeats,
            styles: Styles::of_output(),
            began: Instant::now(),
        });
        let mut links = JoinSet::new();
        let mut number = 0;
        let ended = loop {
            let accepted = tokio::select! {
                () = stop.requested() => break Ok(()),
                result = &mut printed => return Ok(result?),
                Some(_) = links.join_next() => {
                    if self.once {
                        break Ok(());
                    }
                    continue;
                }
                accepted = listener.accept(), if !self.once || number == 0 => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Such as too many open files: it may pass.
                    note!("cannot accept: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            number += 1;
            let link = Link {
                shared: Arc::clone(&shared),
                number,
            };
            links.spawn(async move { link.relay(stream, peer).await });
        };
        // The output ends with the last of them.
        links.shutdown().await;
        drop(shared);
        match tokio::time::timeout(DRAIN, printed).await {
            Ok(result) => Ok(result?),
            Err(_) => ended,
        }
    }
}

/// The settings of all connections.
struct Shared {
    options: Options,
    printer: Printer,
    detail: Detail,
    no_heartbeats: bool,
    styles: Styles,
    began: Instant,
}

/// A client and its connection to the broker.
struct Link {
    shared: Arc<Shared>,
    number: u64,
}

/// The direction of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    ToBroker,
    ToClient,
}

impl Link {
    /// Hands bytes on until both sides have ended, as fast as the output is read.
    async fn relay(&self, client: TcpStream, peer: std::net::SocketAddr) {
        let _slower = client.set_nodelay(true);
        let text = format!("connected from {peer}");
        self.say(Direction::ToBroker, text).await;
        let broker = match dial(&self.shared.options).await {
            Ok(broker) => broker,
            Err(failure) => {
                let text = format!("no broker: {failure}");
                return self.say(Direction::ToClient, text).await;
            }
        };
        let (from_client, to_client) = client.into_split();
        let (from_broker, to_broker) = tokio::io::split(broker);
        tokio::join!(
            self.pump(Direction::ToBroker, from_client, to_broker),
            self.pump(Direction::ToClient, from_broker, to_client),
        );
    }

    /// Hands on the bytes of one direction, until it ends.
    async fn pump(
        &self,
        direction: Direction,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) {
        let mut decoder = Decoder::new(self.shared.detail);
        let mut buffer = vec![0; READ];
        let mut receives = true;
        loop {
            let read = match from.read(&mut buffer).await {
                Ok(0) => {
                    self.say(direction, "end").await;
                    break;
                }
                Ok(read) => read,
                Err(error) => {
                    self.say(direction, format!("ended: {error}")).await;
                    break;
                }
            };
            let bytes = &buffer[..read];
            self.show(direction, &mut decoder, bytes).await;
            if receives && let Err(error) = to.write_all(bytes).await {
                self.say(direction, format!("not received: {error}")).await;
                receives = false;
            }
        }
        let _gone = to.shutdown().await;
    }

    /// Prints the frames that bytes complete.
    async fn show(&self, direction: Direction, decoder: &mut Decoder, bytes: &[u8]) {
        decoder.handle(bytes);
        let mut lines = String::new();
        while let Some(words) = decoder.poll() {
            if self.shared.no_heartbeats && words.text == "heartbeat" {
                continue;
            }
            self.put_head(&mut lines, direction);
            let dim = self.shared.styles.dim;
            if words.channel > 0 {
                let _infallible = write!(lines, "{dim}channel {}:{dim:#} ", words.channel);
            }
            lines.push_str(&words.text);
            lines.push('\n');
        }
        self.shared.printer.print(lines).await;
    }

    async fn say(&self, direction: Direction, text: impl Display) {
        let mut line = String::new();
        self.put_head(&mut line, direction);
        let _infallible = writeln!(line, "({text})");
        self.shared.printer.print(line).await;
    }

    /// The time, the number of the connection and the direction.
    fn put_head(&self, line: &mut String, direction: Direction) {
        let Styles { dim, name, key, .. } = self.shared.styles;
        let seconds = self.shared.began.elapsed().as_secs_f64();
        let _infallible = write!(line, "{dim}{seconds:11.6}{dim:#} {} ", self.number);
        let _infallible = match direction {
            Direction::ToBroker => write!(line, "{name}client ->{name:#} "),
            Direction::ToClient => write!(line, "{key}broker ->{key:#} "),
        };
    }
}

/// Connects to the first address that answers.
async fn dial(options: &Options) -> Outcome<Box<dyn Socket>> {
    let mut failure = Failure::new(Code::NoConnection, "there is no address");
    for address in &options.addresses {
        match tokio::time::timeout(options.tcp_timeout, dial_one(options, address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = Failure::new(Code::NoConnection, error),
            Err(_) => failure = Failure::new(Code::NoConnection, "no answer in time"),
        }
        failure = failure.while_doing(address);
    }
    Err(failure)
}

async fn dial_one(options: &Options, address: &Address) -> io::Result<Box<dyn Socket>> {
    let mut stream = Err(io::ErrorKind::AddrNotAvailable.into());
    match address {
        Address::Tcp { host, port } => {
            for socket in Tokio.resolve(host, *port).await? {
                stream = Tokio.connect_tcp(socket, options.tcp_keepalive).await;
                if stream.is_ok() {
                    break;
                }
            }
        }
        #[cfg(unix)]
        Address::Unix(path) => {
            stream = Tokio.connect_unix(std::path::Path::new(path)).await;
        }
        _ => {}
    }
    let mut stream = stream?;
    if let Some(tls) = &options.tls {
        let tls = tls.for_host(address).map_err(io::Error::other)?;
        stream = Tokio.secure(stream, &tls).await?.stream;
    }
    Ok(stream.into_inner())
}

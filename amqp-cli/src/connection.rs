//! The connection: its options, those of Debian's amqp-tools included, and opening it.

use std::{
    env::{self, VarError},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use amqp_tokio::{
    Channel, Config, Connection, ConnectionState, Error, Options, TlsOptions,
    core::{
        Limits,
        dial::Address,
        recovery::RecoveryEvent,
        uri::{Scheme, Uri},
    },
    wire::{LongStr, Secret},
};
use clap::Args;

use crate::{
    config, duration,
    failure::{Code, Failure, Outcome},
    message::input::MESSAGE_MAX,
    note,
    signals::Stop,
};

/// The time in which the broker must answer at the end: that a consumer or a queue is gone, and that
/// the connection is closed.
pub(crate) const CLOSE: Duration = Duration::from_secs(5);

/// The options of a connection.
///
/// An option precedes its part of the URL. The URL is that of `--url`, or else of the profile, or else
/// of `AMQP_URL`, or else of the table `default` of the configuration file.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    /// The URL of the broker: amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps:// for TLS [env:
    /// AMQP_URL].
    #[arg(short, long, value_name = "URL", conflicts_with = "profile")]
    url: Option<String>,
    /// The host, HOST:PORT, or unix:PATH.
    #[arg(short, long, value_name = "HOST")]
    server: Option<String>,
    /// The port.
    #[arg(long)]
    port: Option<u16>,
    /// The virtual host.
    #[arg(long)]
    vhost: Option<String>,
    /// The user.
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// The password. Other users of the machine see it: better in --authfile or AMQP_URL.
    #[arg(long)]
    password: Option<String>,
    /// A file of two lines: "username:NAME" and "password:PASSWORD", or with a blank in place of the
    /// colon.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["username", "password"])]
    authfile: Option<PathBuf>,
    /// The heartbeat interval in seconds; 0 turns heartbeats off.
    #[arg(long, value_name = "SECONDS")]
    heartbeat: Option<u16>,
    /// Connects by TLS.
    #[arg(long)]
    ssl: bool,
    /// The certificates of the authorities to trust, in PEM form. Default: those of the platform.
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// The certificate of the client, in PEM form.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key, in PEM form.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The time for TCP to connect to a host.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    connect_timeout: Option<Duration>,
    /// The table of the configuration file to use, in place of AMQP_URL [env: AMQP_PROFILE].
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Prints the last N frames with an error of the connection.
    #[arg(long, value_name = "N", default_value_t = 0)]
    frame_log: usize,
}

/// The most unconfirmed messages of a channel. The window of a publisher is less.
pub(crate) const UNCONFIRMED_MAX: usize = 1_000_000;

/// The limits of connections: those of the broker are narrower.
fn limits() -> Limits {
    let mut limits = Limits::default().body(MESSAGE_MAX as u64);
    limits.unconfirmed = UNCONFIRMED_MAX;
    limits
}

/// Whether a lost connection is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recovery {
    On,
    Off,
}

impl ConnectionArgs {
    /// The options of the connection of a command.
    pub(crate) fn options(&self, command: &str, recovery: Recovery) -> Outcome<Options> {
        let mut uri = self.uri()?;
        if self.heartbeat.is_some() {
            uri.heartbeat = self.heartbeat;
        }
        let files = [
            (&self.cacert, &mut uri.tls.cacertfile),
            (&self.cert, &mut uri.tls.certfile),
            (&self.key, &mut uri.tls.keyfile),
        ];
        for (option, parameter) in files {
            if let Some(file) = option {
                *parameter = Some(text_of(file)?);
            }
        }
        if let Some(time) = self.connect_timeout {
            uri.connection_timeout = Some(time);
        }
        let has_tls_files = uri.tls.cacertfile.is_some() || uri.tls.certfile.is_some();
        if uri.scheme == Scheme::Amqp && has_tls_files {
            return Err(Failure::usage(
                "certificates are for TLS: give --ssl, or a URL that begins with amqps://",
            ));
        }
        let config = Config::from_uri(&uri)
            .map_err(Failure::usage)?
            .connection_name(format!("amqp {command}"))
            .frame_log(self.frame_log)
            .limits(limits());
        let tls = TlsOptions::default().parameters(uri.tls);
        let mut options = Options::default()
            .addresses(uri.addresses)
            .tls((uri.scheme == Scheme::Amqps).then_some(tls))
            .config(config);
        if let Some(time) = uri.connection_timeout {
            options = options.tcp_timeout(time);
        }
        Ok(match recovery {
            Recovery::On => options.recovering(),
            Recovery::Off => options,
        })
    }

    /// The URL of a setting, without the options.
    fn base(&self) -> Outcome<Uri> {
        let parse = |url: &str, source: &str| {
            url.parse()
                .map_err(|error| Failure::usage(format_args!("the URL of {source}: {error}")))
        };
        if let Some(url) = &self.url {
            return parse(url, "--url");
        }
        let profile = match &self.profile {
            Some(profile) => Some(profile.clone()),
            None => variable("AMQP_PROFILE")?,
        };
        if profile.is_none()
            && let Some(url) = variable("AMQP_URL")?
        {
            return parse(&url, "AMQP_URL");
        }
        let settings = config::read(profile.as_deref())?;
        let mut uri = match &settings.url {
            Some(url) => parse(url, "the configuration file")?,
            None => Uri::default(),
        };
        if let Some(vhost) = settings.vhost {
            uri.vhost = vhost.try_into()?;
        }
        if let Some(file) = settings.authfile {
            let (username, password) = read_authfile(&file)?;
            (uri.username, uri.password) = (Some(username), Some(password));
        }
        uri.heartbeat = settings.heartbeat.or(uri.heartbeat);
        uri.tls.cacertfile = settings.cacert.or(uri.tls.cacertfile);
        uri.tls.certfile = settings.cert.or(uri.tls.certfile);
        uri.tls.keyfile = settings.key.or(uri.tls.keyfile);
        Ok(uri)
    }

    /// The parts of the URL, with those of the options in place.
    fn uri(&self) -> Outcome<Uri> {
        let mut uri = self.base()?;
        if self.ssl && uri.scheme == Scheme::Amqp {
            uri.scheme = Scheme::Amqps;
            for address in &mut uri.addresses {
                if let Address::Tcp { port, .. } = address
                    && *port == Scheme::Amqp.default_port()
                {
                    *port = Scheme::Amqps.default_port();
                }
            }
        }
        if let Some(server) = &self.server {
            uri.addresses = vec![address(server, uri.scheme)?];
        }
        if let Some(chosen) = self.port {
            for address in &mut uri.addresses {
                if let Address::Tcp { port, .. } = address {
                    *port = chosen;
                }
            }
        }
        if let Some(vhost) = &self.vhost {
            uri.vhost = vhost.as_str().try_into()?;
        }
        if let Some(file) = &self.authfile {
            let (username, password) = read_authfile(file)?;
            (uri.username, uri.password) = (Some(username), Some(password));
        }
        if let Some(username) = &self.username {
            uri.username = Some(username.clone());
        }
        if let Some(password) = &self.password {
            uri.password = Some(Secret::from(LongStr::from(password.clone())));
        }
        Ok(uri)
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self, command: &str) -> Outcome<Connection> {
        let options = self.options(command, Recovery::Off)?;
        Ok(amqp_tokio::connect_with(&options).await?)
    }

    /// Opens a connection that is opened again when it is lost, if so asked.
    pub(crate) async fn connect_recovering(
        &self,
        command: &str,
        recovery: Recovery,
    ) -> Outcome<Connection> {
        let options = self.options(command, recovery)?;
        Ok(amqp_tokio::connect_with(&options).await?)
    }

    /// Opens a connection and a channel.
    pub(crate) async fn open(&self, command: &str) -> Outcome<(Connection, Channel)> {
        let connection = self.connect(command).await?;
        let channel = connection.open_channel().await?;
        Ok((connection, channel))
    }
}

/// Prints the losses of a connection from now on. What fails before, the command reports.
pub(crate) fn note_losses(connection: &Connection) {
    let mut events = connection.recovery_events();
    while events.try_next().is_some() {}
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            match event.event {
                RecoveryEvent::Connected
                | RecoveryEvent::Recovering { .. }
                | RecoveryEvent::GaveUp(_) => {}
                other => note!("{other}"),
            }
        }
    });
}

/// Ends a connection that is lost, or is lost later, once a signal has come: nothing waits for its
/// recovery then.
pub(crate) fn abort_if_lost(connection: &Connection, stop: &Stop) {
    let (connection, mut stop) = (connection.clone(), stop.clone());
    tokio::spawn(async move {
        stop.requested().await;
        let mut states = connection.states();
        while let Some(state) = states.next().await {
            if matches!(state, ConnectionState::Recovering) {
                connection.abort();
            }
        }
    });
}

/// Closes a connection, of which all that matters was answered before.
pub(crate) async fn close(connection: &Connection) -> Outcome {
    match tokio::time::timeout(CLOSE, connection.close()).await {
        Ok(closed) => closed.or_else(|error| match error {
            // It was lost before; so was nothing.
            Error::ConnectionClosed(_) => Ok(()),
            other => Err(other.into()),
        }),
        Err(_) => {
            connection.abort();
            Ok(())
        }
    }
}

/// Closes the connection of a command that has ended. A broker that gave no answer in time is not asked
/// again.
pub(crate) async fn close_after(ended: Outcome, connection: &Connection) -> Outcome {
    if ended.as_ref().is_err_and(|it| it.code == Code::TimedOut) {
        connection.abort();
    }
    let closed = close(connection).await;
    ended.and(closed)
}

/// The address of `HOST`, `HOST:PORT`, `[IPV6]`, `[IPV6]:PORT` or `unix:PATH`.
fn address(text: &str, scheme: Scheme) -> Outcome<Address> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Address::unix(path));
    }
    let malformed = || Failure::usage(format_args!("--server {text}: not a host, or HOST:PORT"));
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(malformed)?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(malformed()),
            }
        }
        None => match text.split_once(':') {
            // An IPv6 address without brackets.
            Some((_, rest)) if rest.contains(':') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().map_err(|_| malformed())?,
        None => scheme.default_port(),
    };
    if host.is_empty() {
        return Err(malformed());
    }
    Ok(Address::tcp(host, port))
}

/// The value of a variable that is set and not empty.
fn variable(name: &str) -> Outcome<Option<String>> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|it| !it.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Failure::usage(format_args!("{name} is not UTF-8"))),
    }
}

/// Reads a file of `username:NAME` and `password:PASSWORD`, the form of amqp-tools, which takes blanks
/// after the colon as a part of the value. A blank in its place is accepted as well.
fn read_authfile(path: &Path) -> Outcome<(String, Secret)> {
    let shown = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::usage(format_args!("cannot read {shown}: {error}")))?;
    let mut lines = text.lines();
    let mut line = |key: &str| {
        let line = lines.next().unwrap_or_default();
        let value = line.strip_prefix(key);
        let value = value.and_then(|it| it.strip_prefix([':', ' ']));
        value
            .map(str::to_owned)
            .ok_or_else(|| Failure::usage(format_args!("{shown}: there is no line \"{key}:...\"")))
    };
    let username = line("username")?;
    let password = line("password")?;
    Ok((username, Secret::from(LongStr::from(password))))
}

fn text_of(path: &Path) -> Outcome<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Failure::usage(format_args!("{}: not UTF-8", path.display())))
}

//! The command line.

use std::{
    ffi::OsString,
    fmt::Display,
    hash::{BuildHasher as _, RandomState},
    path::PathBuf,
    str::FromStr,
};

use amqp_tokio::{
    LoginFrom,
    broker::{Config, Permissions},
};
use lexopt::{Arg, Parser, ValueExt};

use crate::{
    accounts::Accounts,
    addresses::{HostPort, Listen},
    log::Verbosity,
    tls::{Clients, TlsOptions},
};

const HELP: &str = "\
An AMQP 0-9-1 broker that behaves as RabbitMQ does. Nothing outlives it without --data.

Usage: amqp-broker [OPTION...]

Listening; each as often as wanted
  --listen [HOST:]PORT      for AMQP (127.0.0.1:5672, unless another place is given);
                            port 0 is any free one
  --listen unix:PATH        for AMQP, on a Unix socket
  --listen-tls [HOST:]PORT  for AMQP with TLS; needs --cert and --key

TLS; all files in PEM form
  --cert FILE               the certificate chain
  --key FILE                its private key
  --ca FILE                 the authorities of client certificates, with which a client may
                            log in by EXTERNAL
  --verify-peer             refuse clients without a certificate; needs --ca
  --login-from FIELD        of a certificate, which names the user: distinguished-name (the
                            default) or common-name

Users; without --user there is guest with the password guest
  --user NAME:PASSWORD      a user, as often as wanted. An empty password is for EXTERNAL only
  --vhost NAME              a virtual host beside /, as often as wanted
  --permissions USER VHOST CONFIGURE WRITE READ
                            three regular expressions, as often as wanted. A user without any
                            may do everything in all virtual hosts
  --definitions FILE        RabbitMQ's definitions, as of rabbitmqctl export_definitions. There is
                            no guest then, and no virtual host /, unless they are among them

Behaviour
  --data FOLDER             keep durable queues and exchanges, their bindings and persistent
                            messages there, for the next start, with the users, virtual
                            hosts and policies of definitions
  --rules 3|4               as RabbitMQ 3.10 (the default), or as 4
  --memory BYTES            the memory of messages above which publishers are blocked (1GiB);
                            KiB, MiB and GiB are understood
  --max-connections NUMBER  further ones are refused (65536)

Watching
  --http [HOST:]PORT        a read-only page that shows queues, connections and rates to a
                            browser, and JSON under /api/. It asks for no login
  -q, --quiet               log warnings only
  -v, --verbose             log each accepted connection, too

  -h, --help                print this
  -V, --version             print the version

SIGTERM and SIGINT close all connections in good order, a second one ends at once.
Exit codes: 0 after a stop, 1 for a failed start or disk, 2 for wrong options.
";

/// The order of the command line.
pub(crate) enum Command {
    Run(Box<Options>),
    /// Prints a text, and ends.
    Print(&'static str),
}

/// The settings of a run.
pub(crate) struct Options {
    pub(crate) listen: Vec<Listen>,
    pub(crate) tls: Option<TlsOptions>,
    pub(crate) http: Option<HostPort>,
    pub(crate) verbosity: Verbosity,
    pub(crate) config: Config,
    /// The file with definitions: `Some` if there are any, on which the accounts depend.
    pub(crate) definitions: Option<(PathBuf, Accounts)>,
    /// The folder of the durable state: `Some` if it is kept.
    pub(crate) data: Option<PathBuf>,
}

/// The values of the options, as they are given.
#[derive(Default)]
struct Given {
    listen: Vec<Listen>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
    verify_peer: bool,
    login_from: Option<LoginFrom>,
    accounts: Accounts,
    definitions: Option<PathBuf>,
    data: Option<PathBuf>,
    rules: Rules,
    memory: Option<usize>,
    max_connections: Option<usize>,
    http: Option<HostPort>,
    verbosity: Verbosity,
}

#[derive(Default)]
enum Rules {
    #[default]
    RabbitMq3,
    RabbitMq4,
}

/// Parses the arguments of the program, without its name. Returns an error of one line.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut given = Given::default();
    let mut parser = Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(line)? {
        let option = match argument {
            Arg::Long(name) => format!("--{name}"),
            Arg::Short(letter) => format!("-{letter}"),
            Arg::Value(_) => return Err(line(argument.unexpected())),
        };
        match option.as_str() {
            "--help" | "-h" => return Ok(Command::Print(HELP)),
            "--version" | "-V" => {
                return Ok(Command::Print(concat!(
                    "amqp-broker ",
                    env!("CARGO_PKG_VERSION"),
                    "\n"
                )));
            }
            "--quiet" | "-q" => given.verbosity = Verbosity::Quiet,
            "--verbose" | "-v" => given.verbosity = Verbosity::Verbose,
            "--verify-peer" => given.verify_peer = true,
            "--cert" => given.cert = Some(parser.value().map_err(line)?.into()),
            "--key" => given.key = Some(parser.value().map_err(line)?.into()),
            "--definitions" => given.definitions = Some(parser.value().map_err(line)?.into()),
            "--data" => given.data = Some(parser.value().map_err(line)?.into()),
            "--ca" => given.ca = Some(parser.value().map_err(line)?.into()),
            "--listen" => {
                let value = parser.value().map_err(line)?;
                given.listen.push(listen(&option, value)?);
            }
            "--permissions" => {
                let mut next = || parser.value().and_then(ValueExt::string);
                let user_and_vhost = (next().map_err(line)?, next().map_err(line)?);
                let patterns = [next(), next(), next()];
                let [configure, write, read] = patterns.map(|it| it.map_err(line));
                let permissions = Permissions::new(&configure?, &write?, &read?);
                let permissions = permissions.map_err(|error| format!("{option}: {error}"))?;
                given
                    .accounts
                    .permissions
                    .insert(user_and_vhost, permissions);
            }
            _ => {
                if !WITH_TEXT.contains(&option.as_str()) {
                    return Err(format!("there is no option {option}"));
                }
                let value = parser.value().and_then(ValueExt::string).map_err(line)?;
                given.set(&option, &value)?;
            }
        }
    }
    given.check().map(|options| Command::Run(Box::new(options)))
}

/// The options with a text as their value.
const WITH_TEXT: [&str; 8] = [
    "--listen-tls",
    "--login-from",
    "--user",
    "--vhost",
    "--rules",
    "--memory",
    "--max-connections",
    "--http",
];

impl Given {
    /// Sets one of the options in [`WITH_TEXT`].
    fn set(&mut self, option: &str, value: &str) -> Result<(), String> {
        let address = || HostPort::parse(value).map_err(|error| format!("{option}: {error}"));
        match option {
            "--listen-tls" => self.listen.push(Listen::Tls(address()?)),
            "--http" => self.http = Some(address()?),
            "--vhost" => self.accounts.vhosts.push(value.into()),
            "--memory" => self.memory = Some(bytes(option, value)?),
            "--max-connections" => self.max_connections = Some(number(option, value)?),
            "--user" => {
                let (name, password) = value
                    .split_once(':')
                    .ok_or_else(|| format!("{option} {value}: not NAME:PASSWORD"))?;
                self.accounts.users.push((name.into(), password.into()));
            }
            "--rules" => {
                self.rules = match value {
                    "3" => Rules::RabbitMq3,
                    "4" => Rules::RabbitMq4,
                    _ => return Err(format!("{option} {value}: not 3 or 4")),
                }
            }
            _ => {
                self.login_from = Some(match value {
                    "distinguished-name" => LoginFrom::DistinguishedName,
                    "common-name" => LoginFrom::CommonName,
                    _ => {
                        let fields = "distinguished-name or common-name";
                        return Err(format!("{option} {value}: not {fields}"));
                    }
                });
            }
        }
        Ok(())
    }

    /// Checks the options against each other.
    fn check(mut self) -> Result<Options, String> {
        let tls = self.tls()?;
        if self.listen.is_empty() {
            self.listen.push(Listen::Tcp(HostPort {
                host: "127.0.0.1".into(),
                port: 5672,
            }));
        }
        let mut config = match self.rules {
            Rules::RabbitMq3 => Config::default(),
            Rules::RabbitMq4 => Config::rabbitmq_4(),
        };
        config.limits.memory = self.memory.unwrap_or(config.limits.memory);
        config.limits.connections = self.max_connections.unwrap_or(config.limits.connections);
        config.seed = RandomState::new().hash_one(0);
        config.notices = true;
        let definitions = match self.definitions {
            Some(path) => Some((path, self.accounts)),
            None => {
                self.accounts.configure(&mut config, None)?;
                None
            }
        };
        Ok(Options {
            listen: self.listen,
            tls,
            http: self.http,
            verbosity: self.verbosity,
            config,
            definitions,
            data: self.data,
        })
    }

    fn tls(&mut self) -> Result<Option<TlsOptions>, String> {
        let is_wanted = self.listen.iter().any(|it| matches!(it, Listen::Tls(_)));
        let (cert, key, ca) = (self.cert.take(), self.key.take(), self.ca.take());
        if !is_wanted {
            let given = cert.is_some() || key.is_some() || ca.is_some() || self.verify_peer;
            if given || self.login_from.is_some() {
                return Err("options of TLS need --listen-tls".into());
            }
            return Ok(None);
        }
        let (Some(cert), Some(key)) = (cert, key) else {
            return Err("--listen-tls needs --cert and --key".into());
        };
        if self.verify_peer && ca.is_none() {
            return Err("--verify-peer needs --ca".into());
        }
        Ok(Some(TlsOptions {
            cert,
            key,
            ca,
            clients: if self.verify_peer {
                Clients::Certified
            } else {
                Clients::All
            },
            login_from: self.login_from.take().unwrap_or_default(),
        }))
    }
}

/// Parses the value of `--listen`.
fn listen(option: &str, value: OsString) -> Result<Listen, String> {
    let text = value.string().map_err(line)?;
    match text.strip_prefix("unix:") {
        Some("") => Err(format!("{option} {text}: no path")),
        #[cfg(unix)]
        Some(path) => Ok(Listen::Unix(path.into())),
        #[cfg(not(unix))]
        Some(_) => Err(format!("{option} {text}: there are no Unix sockets here")),
        None => {
            let address = HostPort::parse(&text);
            Ok(Listen::Tcp(
                address.map_err(|error| format!("{option}: {error}"))?,
            ))
        }
    }
}

fn number<T: FromStr>(option: &str, value: &str) -> Result<T, String> {
    let number = value.parse();
    number.map_err(|_| format!("{option} {value}: not a number, or one too large"))
}

/// Parses a number of bytes.
fn bytes(option: &str, value: &str) -> Result<usize, String> {
    let units = [("KiB", 1_usize << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let unit = units
        .iter()
        .find_map(|(name, factor)| Some((value.strip_suffix(name)?, *factor)));
    let (digits, factor) = unit.unwrap_or((value, 1));
    let bytes: usize = number(option, digits.trim_end())?;
    let bytes = bytes.checked_mul(factor);
    bytes.ok_or_else(|| format!("{option} {value}: too large"))
}

/// An error of the parser.
fn line(error: impl Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use amqp_tokio::broker::Broker;

    use super::*;
    use crate::accounts;

    fn parsed(line: &str) -> Result<Options, String> {
        let arguments = line.split_whitespace().map(OsString::from);
        match parse(arguments)? {
            Command::Run(options) => Ok(*options),
            Command::Print(text) => Err(text.into()),
        }
    }

    fn has_guest(options: &Options) -> bool {
        let broker = Broker::new(options.config.clone()).unwrap();
        accounts::has_guest(&broker)
    }

    fn error(line: &str) -> String {
        parsed(line)
            .err()
            .unwrap_or_else(|| panic!("{line} is accepted"))
    }

    #[test]
    fn the_default_is_rabbitmq_s_port_at_localhost_with_guest() {
        let options = parsed("").unwrap();
        let [Listen::Tcp(address)] = &options.listen[..] else {
            panic!("{:?}", options.listen);
        };
        assert_eq!(address.to_string(), "127.0.0.1:5672");
        assert!(has_guest(&options) && options.tls.is_none() && options.http.is_none());
        assert_ne!(options.config.seed, parsed("").unwrap().config.seed);
    }

    #[test]
    fn several_places_are_listened_on() {
        let line = "--listen 1 --listen=unix:/x --listen-tls ::1:2 --cert c --key k";
        assert_eq!(error(line), "--listen-tls: \"::1:2\" is not HOST:PORT");
        let options = parsed("--listen 1 --listen=unix:/x --listen-tls h:2 --cert c --key k");
        let listen = options.unwrap().listen;
        let [Listen::Tcp(one), Listen::Unix(path), Listen::Tls(two)] = &listen[..] else {
            panic!("{listen:?}");
        };
        assert_eq!((one.port, two.port), (1, 2));
        assert_eq!(path, &PathBuf::from("/x"));
    }

    #[test]
    fn users_replace_guest_and_have_permissions() {
        let options = parsed("--user a:b:c --user d: --vhost v --permissions a v ^x .* y");
        let options = options.unwrap();
        assert!(!has_guest(&options));
        let users = format!("{:?}", options.config.users);
        assert!(
            users.contains("\"a\"") && users.contains("\"d\""),
            "{users}"
        );
        assert!(has_guest(&parsed("--user guest:guest").unwrap()));
        assert!(!has_guest(&parsed("--user guest:other").unwrap()));
        let expected = "--permissions: there is no user \"x\"";
        assert_eq!(error("--permissions x / a b c"), expected);
        let expected = "--permissions: there is no virtual host \"v\"";
        assert_eq!(error("--permissions guest v a b c"), expected);
        assert!(error("--permissions guest / ( b c").starts_with("--permissions: the pattern `(`"));
    }

    #[test]
    fn sizes_have_units() {
        let memory =
            |text: &str| parsed(&format!("--memory={text}")).map(|it| it.config.limits.memory);
        assert_eq!(memory("12"), Ok(12));
        assert_eq!(memory("12KiB"), Ok(12 << 10));
        assert_eq!(memory("3MiB"), Ok(3 << 20));
        assert_eq!(memory("2GiB"), Ok(2 << 30));
        for text in ["", "x", "1MB", "-1", "99999999999GiB"] {
            assert!(memory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn wrong_options_are_one_line() {
        for (line, expected) in [
            ("--what", "there is no option --what"),
            ("-x", "there is no option -x"),
            ("stray", "unexpected argument \"stray\""),
            ("--listen", "missing argument for option '--listen'"),
            ("--listen unix:", "--listen unix:: no path"),
            ("--user guest", "--user guest: not NAME:PASSWORD"),
            ("--rules 5", "--rules 5: not 3 or 4"),
            (
                "--max-connections many",
                "--max-connections many: not a number, or one too large",
            ),
            ("--listen-tls 1", "--listen-tls needs --cert and --key"),
            ("--cert x", "options of TLS need --listen-tls"),
            ("--verify-peer", "options of TLS need --listen-tls"),
            (
                "--listen-tls 1 --cert c --key k --verify-peer",
                "--verify-peer needs --ca",
            ),
        ] {
            assert_eq!(error(line), expected, "{line}");
        }
    }

    #[test]
    fn help_names_each_option() {
        for option in WITH_TEXT {
            assert!(HELP.contains(option), "{option}");
        }
        assert!(HELP.lines().all(|line| line.len() <= 100));
    }
}

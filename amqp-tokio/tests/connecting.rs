//! Where connections are made to, with which credentials, and when: on a network in memory, under
//! virtual time.

use std::{
    collections::BTreeMap,
    error::Error,
    future::{Future, pending, poll_fn},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    task::{Poll, ready},
    time::Duration,
};

use amqp_tokio::io::Transport as _;
use amqp_tokio::{
    Config, ConnectError, Connection, CredentialsError, CredentialsProvider, LocalBroker, Login,
    LoginFuture, Options, TokioClock,
    amqp_driver::connect as connect_on,
    connect_over,
    core::{
        CloseCause, Instant, Transmit,
        dial::{ATTEMPT_DELAY, Address, Order},
        server,
    },
    io::{Pipe, Runtime, pipe},
    wire::{FieldTable, ShortStr},
};
use bytes::BytesMut;
use tokio::time;

type Outcome = Result<(), Box<dyn Error>>;

/// The result of a connect to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    /// The broker listens.
    Alive,
    /// No listener.
    Refusing,
    /// Nothing comes back.
    Dead,
    /// It takes the connection and says nothing.
    Mute,
    /// It hangs up when the credentials come, although it would say so if it refused them.
    Dying,
}

/// A network in memory, with names and hosts, that records the dialled addresses.
#[derive(Clone, Debug, Default)]
struct Network {
    broker: LocalBroker,
    names: BTreeMap<String, Vec<SocketAddr>>,
    hosts: BTreeMap<SocketAddr, Host>,
    dialled: Arc<Mutex<Vec<SocketAddr>>>,
    /// With which keepalive the last one was.
    keepalive: Arc<Mutex<Option<Duration>>>,
}

impl Network {
    fn host(mut self, address: &str, host: Host) -> Self {
        self.hosts
            .insert(address.parse().expect("an address"), host);
        self
    }

    fn name(mut self, name: &str, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|it| it.parse().expect("an address"));
        self.names.insert(name.to_owned(), addresses.collect());
        self
    }

    /// Takes the record of dialled addresses, in order.
    fn dialled(&self) -> Vec<String> {
        let mut dialled = self.dialled.lock().unwrap_or_else(PoisonError::into_inner);
        dialled.drain(..).map(|it| it.to_string()).collect()
    }

    fn keepalive(&self) -> Option<Duration> {
        *self
            .keepalive
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self, options: &Options) -> Result<Connection, ConnectError> {
        connect_on(self, options).await
    }
}

impl Runtime for Network {
    type Clock = TokioClock;
    type Stream = Pipe;

    fn clock(&self) -> TokioClock {
        TokioClock::new()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    async fn resolve(&self, host: &str, _port: u16) -> io::Result<Vec<SocketAddr>> {
        let found = self.names.get(host).cloned();
        found.ok_or_else(|| io::Error::other("no such name"))
    }

    async fn connect_tcp(&self, to: SocketAddr, keepalive: Option<Duration>) -> io::Result<Pipe> {
        *self
            .keepalive
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = keepalive;
        self.dialled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(to);
        match self.hosts.get(&to) {
            Some(Host::Alive) => {
                let (ours, theirs) = pipe();
                let driver = self.broker.accept(theirs).map_err(io::Error::other)?;
                tokio::spawn(driver);
                Ok(ours)
            }
            Some(Host::Mute) => {
                let (ours, theirs) = pipe();
                tokio::spawn(async move {
                    let _held = theirs;
                    pending::<()>().await;
                });
                Ok(ours)
            }
            Some(Host::Dying) => {
                let (ours, theirs) = pipe();
                tokio::spawn(die_at_the_login(theirs));
                Ok(ours)
            }
            Some(Host::Dead) => pending().await,
            Some(Host::Refusing) | None => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    async fn connect_other(&self, address: &str) -> io::Result<Pipe> {
        if address != "ws://broker.example.com/amqp" {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (ours, theirs) = pipe();
        let driver = self.broker.accept(theirs).map_err(io::Error::other)?;
        tokio::spawn(driver);
        Ok(ours)
    }
}

/// A server that is gone when the credentials have come.
async fn die_at_the_login(mut transport: Pipe) {
    let now = Instant::ORIGIN;
    let mut config = server::Config::default();
    let capabilities = FieldTable::new().with("authentication_failure_close", true);
    config.properties = FieldTable::new().with("capabilities", capabilities);
    let mut machine = server::Connection::new(config, now).expect("the defaults are good");
    let (mut input, mut output) = (BytesMut::new(), Transmit::new());
    poll_fn(|cx| {
        loop {
            machine.handle_input(now, &mut input);
            if let Some(server::Event::Authenticate(_)) = machine.poll_event() {
                return Poll::Ready(());
            }
            machine.poll_transmit(now, &mut output);
            while !output.is_empty() {
                let written = ready!(transport.poll_write(cx, &mut output));
                written.expect("the client listens");
            }
            input.reserve(1000);
            let read = ready!(transport.poll_read(cx, &mut input));
            assert_ne!(read.expect("the client talks"), 0);
        }
    })
    .await;
}

fn to(hosts: &[&str]) -> Options {
    Options::default().addresses(hosts.iter().map(|host| Address::tcp(*host, 5672)))
}

#[tokio::test(start_paused = true)]
async fn the_first_host_that_answers_is_taken() -> Outcome {
    let network = Network::default()
        .host("10.0.0.1:5672", Host::Refusing)
        .host("10.0.0.2:5672", Host::Dead)
        .host("10.0.0.3:5672", Host::Mute)
        .host("10.0.0.4:5672", Host::Alive)
        .host("10.0.0.5:5672", Host::Alive);
    let options = to(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]);
    let begun = time::Instant::now();
    let connection = network.connect(&options).await?;
    let patience = options.tcp_timeout + options.config.timeouts.handshake;
    let took = begun.elapsed();
    assert!(took >= patience && took < patience + Duration::from_secs(1));
    let dialled = network.dialled();
    assert_eq!(dialled.len(), 4);
    assert_eq!(dialled.last().map(String::as_str), Some("10.0.0.4:5672"));
    Ok(connection.close().await?)
}

#[tokio::test(start_paused = true)]
async fn a_dead_address_family_costs_a_quarter_of_a_second() -> Outcome {
    let network = Network::default()
        .name("broker", &["[2001:db8::1]:5672", "10.0.0.1:5672"])
        .host("[2001:db8::1]:5672", Host::Dead)
        .host("10.0.0.1:5672", Host::Alive);
    let begun = time::Instant::now();
    let connection = network.connect(&to(&["broker"])).await?;
    assert_eq!(begun.elapsed().as_millis(), ATTEMPT_DELAY.as_millis());
    assert_eq!(network.dialled(), ["[2001:db8::1]:5672", "10.0.0.1:5672"]);
    Ok(connection.close().await?)
}

/// Over a transport of the runtime's own, such as a WebSocket, with other hosts tried before it.
#[tokio::test(start_paused = true)]
async fn another_transport_needs_no_other_dialer() -> Outcome {
    let network = Network::default().host("10.0.0.1:5672", Host::Refusing);
    let mut options = to(&["10.0.0.1"]);
    options.addresses.push(Address::other("ftp://nowhere"));
    let websocket = Address::other("ws://broker.example.com/amqp");
    options.addresses.push(websocket);
    let connection = network.connect(&options).await?;
    connection.open_channel().await?;
    Ok(connection.close().await?)
}

/// Such as when the nodes of a cluster stand behind one name, and one of them does not start.
#[tokio::test(start_paused = true)]
async fn the_next_host_may_be_one_of_the_same_name() -> Outcome {
    let network = Network::default()
        .name("cluster", &["10.0.0.1:5672", "10.0.0.2:5672"])
        .host("10.0.0.1:5672", Host::Mute)
        .host("10.0.0.2:5672", Host::Alive);
    let connection = network.connect(&to(&["cluster"])).await?;
    assert_eq!(network.dialled(), ["10.0.0.1:5672", "10.0.0.2:5672"]);
    Ok(connection.close().await?)
}

/// Such as when a node is restarted while its clients log in: nothing was refused.
#[tokio::test(start_paused = true)]
async fn the_next_host_is_tried_when_one_hangs_up_during_the_login() -> Outcome {
    let network = Network::default()
        .host("10.0.0.1:5672", Host::Dying)
        .host("10.0.0.2:5672", Host::Alive);
    let connection = network.connect(&to(&["10.0.0.1", "10.0.0.2"])).await?;
    assert_eq!(network.dialled(), ["10.0.0.1:5672", "10.0.0.2:5672"]);
    assert_eq!(connection.mechanism().as_deref(), Some("PLAIN"));
    connection.close().await?;
    // Alone, the error is returned as it is.
    let error = network.connect(&to(&["10.0.0.1"])).await;
    let reported = error.expect_err("it hangs up").to_string();
    assert!(
        reported.contains("the transport ended during authentication"),
        "{reported}"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn each_failure_is_reported_with_its_address() {
    let network = Network::default()
        .name("a", &["10.0.0.1:5672"])
        .host("10.0.0.2:5672", Host::Dead);
    let error = network.connect(&to(&["a", "b", "10.0.0.2"])).await;
    let reported = error.expect_err("nobody is alive").to_string();
    for part in [
        "could not reach a:5672 at 10.0.0.1:5672: connection refused",
        "b:5672: no such name",
        "10.0.0.2:5672",
    ] {
        assert!(reported.contains(part), "{part} is not in {reported}");
    }
}

/// The nodes of one name differ in the error.
#[tokio::test(start_paused = true)]
async fn the_refusal_of_each_address_of_a_name_is_reported() {
    let network = Network::default()
        .name(
            "cluster",
            &["10.0.0.1:5672", "10.0.0.2:5672", "10.0.0.3:5672"],
        )
        .host("10.0.0.1:5672", Host::Mute)
        .host("10.0.0.3:5672", Host::Mute);
    let error = network.connect(&to(&["cluster"])).await;
    let reported = error.expect_err("nobody speaks").to_string();
    for part in [
        "cluster:5672 at 10.0.0.1:5672: ",
        "cluster:5672 at 10.0.0.2:5672: connection refused",
        "cluster:5672 at 10.0.0.3:5672: ",
    ] {
        assert!(reported.contains(part), "{part} is not in {reported}");
    }
}

/// Also when some of them answered.
#[tokio::test(start_paused = true)]
async fn each_refusal_is_reported_with_its_address() -> Outcome {
    let network = Network::default()
        .host("10.0.0.2:5672", Host::Alive)
        .host("10.0.0.3:5672", Host::Alive);
    let mut options = to(&["10.0.0.1", "10.0.0.2"]);
    options.config.virtual_host = ShortStr::try_from("missing")?;
    let error = network.connect(&options).await.expect_err("it is missing");
    let reported = error.to_string();
    for part in [
        "no connection was opened: 10.0.0.1:5672: connection refused",
        "10.0.0.2:5672: ",
        "missing",
    ] {
        assert!(reported.contains(part), "{part} is not in {reported}");
    }
    let ConnectError::Refused { last, .. } = error else {
        return Err(error.into());
    };
    assert!(matches!(*last, ConnectError::NotOpened { .. }), "{last}");

    // One alone is returned as it is, with its address.
    options.addresses.remove(0);
    let error = network.connect(&options).await.expect_err("it is missing");
    let reported = error.to_string();
    assert!(
        reported.starts_with("no connection with 10.0.0.2:5672: "),
        "{reported}"
    );
    assert!(matches!(error, ConnectError::NotOpened { .. }));
    Ok(())
}

/// With the options' credentials, and the addresses of those.
#[tokio::test]
async fn a_keepalive_reaches_the_runtime_and_is_a_second_at_least() -> Outcome {
    let (network, options) = alive();
    let second = Duration::from_secs(1);
    let connection = network
        .connect(&options.clone().tcp_keepalive(second))
        .await?;
    assert_eq!(network.keepalive(), Some(second));
    connection.close().await?;
    network.connect(&options).await?.close().await?;
    assert_eq!(network.keepalive(), None);

    let less = options.tcp_keepalive(second - Duration::from_nanos(1));
    let refused = network.connect(&less).await.expect_err("it is too short");
    assert_eq!(refused.to_string(), "tcp_keepalive: must be at least 1 s");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_opened_over_a_stream_that_was_made_elsewhere() -> Outcome {
    let (network, mut options) = alive();
    let vault = Vault::new(vec![Ok(Login::new("guest", "guest"))]);
    options.credentials = Some(vault.clone());
    options.addresses.clear();
    let stream = network.connect_tcp("10.0.0.1:5672".parse()?, None).await?;
    let address = Address::tcp("broker.internal", 5672);
    let connection = connect_over(&network, &options, &address, stream).await?;
    assert_eq!(vault.asked(), 1);
    connection.close().await?;

    // There is no way to dial again.
    let stream = network.connect_tcp("10.0.0.1:5672".parse()?, None).await?;
    let refused = connect_over(&network, &options.recovering(), &address, stream).await;
    let refused = refused.expect_err("it would dial its addresses");
    assert!(matches!(refused, ConnectError::Misuse(_)), "{refused}");
    assert_eq!(vault.asked(), 1);
    Ok(())
}

#[tokio::test]
async fn the_lack_of_an_address_is_reported() {
    let error = Network::default().connect(&to(&[])).await;
    assert_eq!(
        error.expect_err("there is nobody").to_string(),
        "could not reach any address: none was tried"
    );
}

#[tokio::test(start_paused = true)]
async fn the_order_follows_from_the_seed() {
    let network = Network::default();
    let mut orders = Vec::new();
    for seed in [1, 2, 3, 1] {
        let mut options = to(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]);
        options.order = Order::Shuffled { seed };
        network
            .connect(&options)
            .await
            .expect_err("nobody is alive");
        orders.push(network.dialled());
    }
    assert_eq!(orders[0], orders[3]);
    assert!(orders[0] != orders[1] || orders[0] != orders[2]);
}

/// Gives passwords in turn, and knows how often it was asked. It begins anew after the last.
#[derive(Debug)]
struct Vault {
    logins: Vec<Result<Login, CredentialsError>>,
    asked: Mutex<usize>,
}

impl Vault {
    fn new(logins: Vec<Result<Login, CredentialsError>>) -> Arc<Self> {
        Arc::new(Self {
            logins,
            asked: Mutex::new(0),
        })
    }

    fn asked(&self) -> usize {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CredentialsProvider for Vault {
    fn login(&self) -> LoginFuture<'_> {
        Box::pin(async {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            *asked += 1;
            self.logins[(*asked - 1) % self.logins.len()].clone()
        })
    }
}

fn alive() -> (Network, Options) {
    let network = Network::default()
        .host("10.0.0.1:5672", Host::Alive)
        .host("10.0.0.2:5672", Host::Alive);
    (network, to(&["10.0.0.1", "10.0.0.2"]))
}

#[tokio::test(start_paused = true)]
async fn each_connect_asks_for_credentials() -> Outcome {
    let (network, mut options) = alive();
    let vault = Vault::new(vec![
        Ok(Login::new("guest", "guest")),
        Ok(Login::new("guest", "wrong")),
        Err(CredentialsError("the vault is locked".into())),
    ]);
    options.credentials = Some(vault.clone());
    network.connect(&options).await?.close().await?;

    // A refusal by one is a refusal by all.
    network.dialled();
    let error = network.connect(&options).await.expect_err("it is wrong");
    let ConnectError::NotOpened {
        error: amqp_tokio::Error::ConnectionClosed(reason),
        ..
    } = &error
    else {
        return Err(error.into());
    };
    assert!(matches!(
        reason.cause(),
        CloseCause::AuthenticationFailed { .. }
    ));
    assert_eq!(network.dialled(), ["10.0.0.1:5672"]);

    let error = network.connect(&options).await.expect_err("there is none");
    assert_eq!(error.to_string(), "no credentials: the vault is locked");
    assert_eq!(vault.asked(), 3);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_secret_is_renewed_before_it_expires() -> Outcome {
    const HOUR: Duration = Duration::from_secs(3600);
    let (network, mut options) = alive();
    let vault = Vault::new(vec![Ok(Login::new("guest", "guest").for_time(HOUR))]);
    options.credentials = Some(vault.clone());
    let connection = network.connect(&options).await?;
    assert_eq!(vault.asked(), 1);
    time::sleep(HOUR * 79 / 100).await;
    assert_eq!(vault.asked(), 1);
    time::sleep(HOUR * 2 / 100).await;
    assert_eq!(vault.asked(), 2);
    time::sleep(HOUR * 8).await;
    assert_eq!(vault.asked(), 12);
    assert!(connection.is_open());

    // It does not keep a connection without handles.
    drop(connection);
    time::sleep(HOUR).await;
    assert_eq!(network.broker.inspect().connections.len(), 0);
    assert_eq!(vault.asked(), 12);
    assert_eq!(Arc::strong_count(&vault), 2); // here, and in the options
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_fails_is_asked_again() -> Outcome {
    const MINUTE: Duration = Duration::from_secs(60);
    let (network, mut options) = alive();
    let login = Ok(Login::new("guest", "guest").for_time(MINUTE));
    let locked = Err(CredentialsError("the vault is locked".into()));
    let vault = Vault::new(vec![login, locked.clone(), locked]);
    options.credentials = Some(vault.clone());
    let connection = network.connect(&options).await?;
    // 48 s, and each time four fifths of the rest.
    time::sleep(MINUTE).await;
    assert_eq!(vault.asked(), 4);
    assert!(connection.is_open());
    Ok(connection.close().await?)
}

/// Gives credentials for a minute, and then takes for ever.
#[derive(Default)]
struct Stuck(Mutex<usize>);

impl Stuck {
    fn asked(&self) -> usize {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CredentialsProvider for Stuck {
    fn login(&self) -> LoginFuture<'_> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        if self.asked() > 1 {
            return Box::pin(pending());
        }
        let login = Login::new("guest", "guest").for_time(Duration::from_secs(60));
        Box::pin(async { Ok(login) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_takes_for_ever_is_asked_again_and_keeps_nothing() -> Outcome {
    let (network, mut options) = alive();
    let stuck = Arc::new(Stuck::default());
    options.credentials = Some(stuck.clone());
    options.config.timeouts.handshake = Duration::from_secs(2);
    let connection = network.connect(&options).await?;
    time::sleep(Duration::from_secs(49)).await;
    assert_eq!(stuck.asked(), 2);
    // Two seconds later it is given up, and asked again when four fifths of the rest are over.
    time::sleep(Duration::from_secs(10)).await;
    assert_eq!(stuck.asked(), 3);
    assert!(connection.is_open());
    connection.close().await?;
    time::sleep(Duration::from_millis(1)).await;
    assert_eq!(Arc::strong_count(&stuck), 2); // here, and in the options
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn credentials_are_shown_nowhere() -> Outcome {
    let (network, mut options) = alive();
    let login = Login::new("guest", "guest");
    options.credentials = Some(Vault::new(vec![
        Ok(login),
        Err(CredentialsError("Tr0ub4dor".into())),
    ]));
    options.config = Config::from_uri(&"amqp://tom:Tr0ub4dor@h".parse()?)?;
    let connection = network.connect(&options).await?;
    let secret = Login::new("tom", "Tr0ub4dor").for_time(Duration::from_secs(1));
    for shown in [
        format!("{options:?}"),
        format!("{connection:?}"),
        format!("{secret:?}"),
    ] {
        assert!(!shown.contains("Tr0ub4dor"), "{shown}");
    }
    Ok(connection.close().await?)
}

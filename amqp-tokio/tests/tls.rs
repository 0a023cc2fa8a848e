//! TLS, against the embedded broker behind it.

#![cfg(all(feature = "broker", feature = "tls", feature = "ring"))]

use std::{
    error::Error as _,
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use amqp_tokio::{
    CertificateFault, Certificates, ClientCertificateFault, ConnectError, Connection, Identity,
    Key, LocalBroker, Options, Server, TlsError, TlsOptions, TlsSetupError, connect, connect_with,
    core::{
        CloseCause, NotAmqp,
        dial::Address,
        uri::{ServerNameIndication, Verify},
    },
    protocol::{basic, queue},
    rustls::{
        self, ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
        pki_types::{CertificateDer, PrivateKeyDer},
        server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
        sign::CertifiedKey,
        version::{TLS12, TLS13},
    },
    serve, serve_tls,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, date_time_ymd,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    task, time,
};

type Failure = Box<dyn std::error::Error>;
type Outcome = Result<(), Failure>;

/// How long what should happen at once may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// An authority that issues certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

/// A certificate and its key.
struct Card {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

fn named(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// What a certificate for these names begins with.
fn for_names(names: &[&str]) -> Result<CertificateParams, Failure> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = named("a server");
    Ok(params)
}

impl Authority {
    fn new(name: &str) -> Result<Self, Failure> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    fn issue(&self, params: &CertificateParams) -> Result<Card, Failure> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Card { certificate, key })
    }

    /// A certificate for `localhost` and `127.0.0.1`.
    fn local(&self) -> Result<Card, Failure> {
        self.issue(&for_names(&["localhost", "127.0.0.1", "::1"])?)
    }

    fn trusted(&self) -> Certificates {
        Certificates::pem(self.certificate.pem())
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, Failure> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone())?;
        Ok(Arc::new(roots))
    }
}

impl Card {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.der().clone()]
    }

    fn secret(&self) -> Result<PrivateKeyDer<'static>, Failure> {
        Ok(PrivateKeyDer::try_from(self.key.serialize_der())?)
    }

    fn identity(&self) -> Identity {
        Identity::new(
            Certificates::der([self.certificate.der().to_vec()]),
            Key::der(self.key.serialize_der()),
        )
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What a server is configured with: it shows this certificate, and wants one of that authority.
fn server_config(
    card: &Card,
    clients: Option<&Authority>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ServerConfig, Failure> {
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions)?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(authority.roots()?, provider()).build()?,
        ),
    };
    Ok(builder.with_single_cert(card.chain(), card.secret()?)?)
}

async fn serving(config: ServerConfig) -> Result<Server, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    Ok(serve_tls(
        listener,
        Arc::new(config),
        LocalBroker::default(),
    )?)
}

/// A broker that shows that certificate.
async fn showing(card: &Card) -> Result<Server, Failure> {
    serving(server_config(card, None, rustls::ALL_VERSIONS)?).await
}

/// How to connect to that server by a name.
fn to(host: &str, server: &Server, configure: impl FnOnce(&mut TlsOptions)) -> Options {
    let mut tls = TlsOptions::default();
    configure(&mut tls);
    Options::default()
        .addresses([Address::tcp(host, server.local_addr().port())])
        .tls(tls)
}

/// How to connect to that server, trusting that authority.
fn trusting(authority: &Authority, server: &Server) -> Options {
    to("localhost", server, |tls| {
        tls.authorities = Some(authority.trusted());
    })
}

/// That a connection does what connections do.
async fn works(connection: &Connection) -> Outcome {
    let channel = connection.open_channel().await?.confirm_select().await?;
    let declared = channel
        .call(queue::Declare::default().exclusive(true))
        .await?;
    let publish = basic::Publish::default().routing_key(&declared.queue)?;
    let body: Vec<u8> = (0..800_000_u32).map(|it| it as u8).collect();
    let properties = basic::Properties::default();
    channel
        .publish(&publish, &properties, body.clone())
        .await?
        .await?;
    let got = channel
        .get(basic::Get::default().queue(&declared.queue)?)
        .await?;
    assert!(got.is_some_and(|got| got.body.to_vec() == body));
    Ok(())
}

/// Connects, and does something with it.
async fn accepted(options: &Options) -> Outcome {
    let connection = time::timeout(PATIENCE, connect_with(options)).await??;
    works(&connection).await?;
    Ok(connection.close().await?)
}

/// What is wrong with TLS as these options have it.
async fn refused(options: &Options) -> Result<TlsError, Failure> {
    match time::timeout(PATIENCE, connect_with(options)).await? {
        Err(ConnectError::Tls { error, .. }) => Ok(error),
        Err(other) => Err(other.into()),
        Ok(_) => Err("it was connected".into()),
    }
}

/// Waits until a broker has as many connections as that.
async fn until_connected(broker: &LocalBroker, count: usize) -> Outcome {
    let counted = async {
        while broker.inspect().connections.len() != count {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    Ok(time::timeout(PATIENCE, counted).await?)
}

#[tokio::test]
async fn a_large_message_passes_with_each_version() -> Outcome {
    let authority = Authority::new("right")?;
    let card = authority.local()?;
    for version in [&TLS12, &TLS13] {
        let server = serving(server_config(&card, None, &[version])?).await?;
        accepted(&trusting(&authority, &server)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn who_shows_a_certificate_gets_in_and_sees_the_servers() -> Outcome {
    let authority = Authority::new("servers")?;
    let clients = Authority::new("clients")?;
    let card = authority.local()?;
    let server = serving(server_config(&card, Some(&clients), rustls::ALL_VERSIONS)?).await?;
    let mut options = trusting(&authority, &server);
    if let Some(tls) = &mut options.tls {
        tls.identity = Some(clients.issue(&for_names(&["somebody"])?)?.identity());
    }
    let connection = connect_with(&options).await?;
    assert_eq!(
        *connection.peer_certificates(),
        [card.certificate.der().to_vec()]
    );
    works(&connection).await
}

#[tokio::test]
async fn a_client_without_a_certificate_is_told_that_it_needs_one() -> Outcome {
    let authority = Authority::new("right")?;
    let card = authority.local()?;
    for version in [&TLS12, &TLS13] {
        let server = serving(server_config(&card, Some(&authority), &[version])?).await?;
        let error = refused(&trusting(&authority, &server)).await?;
        assert!(
            matches!(
                error,
                TlsError::ClientCertificate(ClientCertificateFault::Required)
            ),
            "{error:?}"
        );
        assert_eq!(
            error.to_string(),
            "the server requires a client certificate (`certfile` and `keyfile`)"
        );
        until_connected(server.broker(), 0).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_of_another_authority_is_told_so() -> Outcome {
    let authority = Authority::new("right")?;
    let wrong = Authority::new("wrong")?;
    let card = authority.local()?;
    for version in [&TLS12, &TLS13] {
        let server = serving(server_config(&card, Some(&authority), &[version])?).await?;
        let mut options = trusting(&authority, &server);
        if let Some(tls) = &mut options.tls {
            tls.identity = Some(wrong.issue(&for_names(&["somebody"])?)?.identity());
        }
        let error = refused(&options).await?;
        assert_eq!(
            error.to_string(),
            "the server refused the client certificate: it was issued by an unknown authority"
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_authority_is_refused() -> Outcome {
    let server = showing(&Authority::new("wrong")?.local()?).await?;
    let error = refused(&trusting(&Authority::new("right")?, &server)).await?;
    assert!(matches!(
        error,
        TlsError::Certificate(CertificateFault::UnknownIssuer)
    ));
    assert_eq!(
        error.to_string(),
        "the server's certificate was issued by an unknown authority (`cacertfile` names one)"
    );
    until_connected(server.broker(), 0).await?;

    // Nor does the platform know it.
    let error = refused(&to("localhost", &server, |_| ())).await?;
    assert!(
        matches!(
            error,
            TlsError::Certificate(CertificateFault::UnknownIssuer)
                | TlsError::Setup(TlsSetupError::NoAuthorities(_))
        ),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn an_authority_that_only_has_the_name_of_the_right_one_is_refused() -> Outcome {
    let server = showing(&Authority::new("right")?.local()?).await?;
    let error = refused(&trusting(&Authority::new("right")?, &server)).await?;
    assert!(
        matches!(error, TlsError::Certificate(CertificateFault::BadSignature)),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_wrong_name_is_refused_and_the_right_ones_are_named() -> Outcome {
    let authority = Authority::new("right")?;
    let names = ["broker.example.com", "*.example.org", "10.1.2.3"];
    let server = showing(&authority.issue(&for_names(&names)?)?).await?;
    let error = refused(&trusting(&authority, &server)).await?;
    assert_eq!(
        error.to_string(),
        "the server's certificate is not for `localhost` but for `broker.example.com`, \
         `*.example.org`, `10.1.2.3`"
    );
    let mut by_address = trusting(&authority, &server);
    by_address.addresses = vec![Address::tcp("127.0.0.1", server.local_addr().port())];
    let error = refused(&by_address).await?;
    assert!(error.to_string().contains("is not for `127.0.0.1`"));
    Ok(())
}

#[tokio::test]
async fn an_expired_certificate_is_refused() -> Outcome {
    let authority = Authority::new("right")?;
    let mut params = for_names(&["localhost"])?;
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
    let server = showing(&authority.issue(&params)?).await?;
    let error = refused(&trusting(&authority, &server)).await?;
    let text = error.to_string();
    assert!(
        text.starts_with("the server's certificate has expired ") && text.ends_with(" days ago"),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_is_not_yet_valid_is_refused() -> Outcome {
    let authority = Authority::new("right")?;
    let mut params = for_names(&["localhost"])?;
    params.not_before = date_time_ymd(4000, 1, 1);
    params.not_after = date_time_ymd(4001, 1, 1);
    let server = showing(&authority.issue(&params)?).await?;
    let error = refused(&trusting(&authority, &server)).await?;
    let text = error.to_string();
    assert!(
        text.starts_with("the server's certificate is not yet valid, but will be in "),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn a_self_signed_certificate_is_refused_unless_it_is_the_one_that_is_trusted() -> Outcome {
    let key = KeyPair::generate()?;
    let certificate = for_names(&["localhost"])?.self_signed(&key)?;
    let card = Card { certificate, key };
    let server = showing(&card).await?;
    let error = refused(&trusting(&Authority::new("right")?, &server)).await?;
    assert_eq!(
        error.to_string(),
        "the server's certificate is self-signed, and not trusted"
    );
    accepted(&to("localhost", &server, |tls| {
        tls.authorities = Some(Certificates::pem(card.certificate.pem()));
    }))
    .await
}

#[tokio::test]
async fn an_authority_cannot_be_a_server() -> Outcome {
    let mut params = for_names(&["localhost"])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let card = Card { certificate, key };
    let server = showing(&card).await?;
    let error = refused(&trusting(&Authority::new("right")?, &server)).await?;
    assert_eq!(
        error.to_string(),
        "the server's certificate is self-signed, and not trusted"
    );
    let error = refused(&to("localhost", &server, |tls| {
        tls.authorities = Some(Certificates::pem(card.certificate.pem()));
    }))
    .await?;
    assert_eq!(
        error.to_string(),
        "the server's certificate is that of an authority (CA:TRUE), which cannot be a server's"
    );
    Ok(())
}

#[tokio::test]
async fn a_certificate_for_clients_cannot_be_a_servers() -> Outcome {
    let authority = Authority::new("right")?;
    let mut params = for_names(&["localhost"])?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let server = showing(&authority.issue(&params)?).await?;
    let error = refused(&trusting(&authority, &server)).await?;
    assert_eq!(
        error.to_string(),
        "the server's certificate was not issued to be a server's"
    );
    Ok(())
}

#[tokio::test]
async fn with_verify_none_any_certificate_will_do() -> Outcome {
    let authority = Authority::new("nobody knows it")?;
    let mut params = for_names(&["elsewhere"])?;
    params.not_after = date_time_ymd(2021, 1, 1);
    let card = authority.issue(&params)?;
    for version in [&TLS12, &TLS13] {
        let server = serving(server_config(&card, None, &[version])?).await?;
        accepted(&to("localhost", &server, |tls| {
            tls.parameters.verify = Some(Verify::None);
        }))
        .await?;
    }
    Ok(())
}

/// Shows a certificate, and keeps which names it was asked for.
#[derive(Debug)]
struct Asked {
    shown: Arc<CertifiedKey>,
    names: Mutex<Vec<Option<String>>>,
}

impl ResolvesServerCert for Asked {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_owned);
        self.names.lock().unwrap().push(name);
        Some(Arc::clone(&self.shown))
    }
}

/// A broker for which its certificate names these hosts, and what it was asked for.
async fn asked(authority: &Authority, names: &[&str]) -> Result<(Server, Arc<Asked>), Failure> {
    let card = authority.issue(&for_names(names)?)?;
    let asked = Arc::new(Asked {
        shown: Arc::new(CertifiedKey::from_der(
            card.chain(),
            card.secret()?,
            &provider(),
        )?),
        names: Mutex::default(),
    });
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::<Asked>::clone(&asked));
    Ok((serving(config).await?, asked))
}

#[tokio::test]
async fn the_host_is_asked_for_by_its_name_and_never_by_its_address() -> Outcome {
    let authority = Authority::new("right")?;
    let (server, asked) = asked(&authority, &["localhost", "127.0.0.1"]).await?;
    let mut options = trusting(&authority, &server);
    accepted(&options).await?;
    options.addresses = vec![Address::tcp("127.0.0.1", server.local_addr().port())];
    accepted(&options).await?;
    assert_eq!(
        *asked.names.lock().unwrap(),
        [Some("localhost".to_owned()), None]
    );
    Ok(())
}

#[tokio::test]
async fn another_name_is_asked_for_and_verified_in_place_of_the_host() -> Outcome {
    let authority = Authority::new("right")?;
    let (server, asked) = asked(&authority, &["broker.example.com"]).await?;
    let mut options = trusting(&authority, &server);
    let mut call_it = |name: &str| {
        if let Some(tls) = &mut options.tls {
            tls.parameters.server_name_indication = Some(ServerNameIndication::Name(name.into()));
        }
        options.clone()
    };
    accepted(&call_it("broker.example.com")).await?;
    let error = refused(&call_it("other.example.com")).await?;
    assert!(matches!(
        error,
        TlsError::Certificate(CertificateFault::WrongName { expected, .. })
            if expected == "other.example.com"
    ));
    let error = refused(&call_it("no name")).await?;
    assert!(matches!(
        error,
        TlsError::Setup(TlsSetupError::InvalidName(_))
    ));
    let names = asked.names.lock().unwrap().clone();
    assert_eq!(
        names,
        ["broker.example.com", "other.example.com"].map(|name| Some(name.to_owned()))
    );
    Ok(())
}

#[tokio::test]
async fn without_server_name_indication_the_host_is_verified_all_the_same() -> Outcome {
    let authority = Authority::new("right")?;
    let (server, asked) = asked(&authority, &["localhost"]).await?;
    let mut options = trusting(&authority, &server);
    if let Some(tls) = &mut options.tls {
        tls.parameters.server_name_indication = Some(ServerNameIndication::Disabled);
    }
    accepted(&options).await?;
    options.addresses = vec![Address::tcp("127.0.0.1", server.local_addr().port())];
    let error = refused(&options).await?;
    assert!(matches!(
        error,
        TlsError::Certificate(CertificateFault::WrongName { .. })
    ));
    assert_eq!(*asked.names.lock().unwrap(), [None, None]);
    Ok(())
}

#[tokio::test]
async fn the_uri_names_files_which_are_read_at_each_connect() -> Outcome {
    let authority = Authority::new("right")?;
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name).display().to_string();
    let card = authority.local()?;
    let server = serving(server_config(
        &card,
        Some(&authority),
        rustls::ALL_VERSIONS,
    )?)
    .await?;
    let client = authority.issue(&for_names(&["somebody"])?)?;
    let uri = format!(
        "amqps://{}?cacertfile={}&certfile={}&keyfile={}",
        server.local_addr(),
        path("ca.pem"),
        path("client.pem"),
        path("client.key"),
    );
    let options = Options::from_uri(&uri)?;
    let error = refused(&options).await?;
    assert_eq!(
        error.to_string(),
        format!(
            "`cacertfile` {}: it cannot be read: No such file or directory (os error 2)",
            path("ca.pem")
        )
    );

    fs::write(path("ca.pem"), authority.certificate.pem())?;
    fs::write(path("client.pem"), client.certificate.pem())?;
    fs::write(path("client.key"), client.key.serialize_pem())?;
    accepted(&options).await?;
    let connection = connect(&uri).await?;
    assert_eq!(connection.peer_certificates().len(), 1);

    // Anything is taken of a server that nobody verifies.
    let uri = uri.replace(
        &format!("cacertfile={}", path("ca.pem")),
        "verify=verify_none",
    );
    connect(&uri).await?;
    Ok(())
}

#[tokio::test]
async fn a_configuration_of_ones_own_is_used_as_it_is() -> Outcome {
    let authority = Authority::new("right")?;
    let server = showing(&authority.local()?).await?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(authority.roots()?)
        .with_no_client_auth();
    let config = Arc::new(config);
    let mut options = to("elsewhere.example.com", &server, |tls| {
        tls.config = Some(Arc::clone(&config));
        tls.parameters.server_name_indication =
            Some(ServerNameIndication::Name("localhost".into()));
    });
    options.addresses = vec![Address::tcp("127.0.0.1", server.local_addr().port())];
    accepted(&options).await?;
    if let Some(tls) = &mut options.tls {
        tls.parameters.verify = Some(Verify::Peer);
    }
    let error = refused(&options).await?;
    assert_eq!(
        error.to_string(),
        "TLS is configured with `config`, which leaves nothing to say to `verify`"
    );
    Ok(())
}

#[tokio::test]
async fn a_plain_port_that_is_dialled_with_tls_is_told_from_others() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = serve(listener, LocalBroker::default())?;
    let error = refused(&to("127.0.0.1", &server, |tls| {
        tls.parameters.verify = Some(Verify::None);
    }))
    .await?;
    assert!(matches!(error, TlsError::NotTls), "{error:?}");
    assert_eq!(
        error.to_string(),
        "the server does not speak TLS on this port"
    );
    until_connected(server.broker(), 0).await
}

#[tokio::test]
async fn a_tls_port_that_is_dialled_without_is_told_from_others() -> Outcome {
    let server = showing(&Authority::new("right")?.local()?).await?;
    let refused = connect(&format!("amqp://{}", server.local_addr())).await;
    let Err(ConnectError::NotOpened {
        error: amqp_tokio::Error::ConnectionClosed(reason),
        ..
    }) = refused
    else {
        return Err("it was not refused as it should be".into());
    };
    assert!(
        matches!(reason.cause(), CloseCause::NotAmqp(NotAmqp::Tls)),
        "{reason}"
    );
    until_connected(server.broker(), 0).await
}

#[tokio::test]
async fn who_stands_still_in_the_handshake_keeps_nobody_waiting() -> Outcome {
    let authority = Authority::new("right")?;
    let server = showing(&authority.local()?).await?;
    let mut silent = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(server.local_addr()).await?;
        stream.write_all(b"\x16\x03\x01\x02\x00").await?; // the head of a record that never comes
        silent.push(stream);
    }
    until_connected(server.broker(), 3).await?;
    accepted(&trusting(&authority, &server)).await?;

    // Those who vanish leave nothing behind.
    drop(silent);
    until_connected(server.broker(), 0).await?;
    accepted(&trusting(&authority, &server)).await
}

/// A server that hangs up when it has read something.
async fn hanging_up() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    task::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _unread = stream.readable().await;
            let mut hello = [0; 4096];
            let _read = stream.try_read(&mut hello);
        }
    });
    Ok(address)
}

#[tokio::test]
async fn a_server_that_hangs_up_in_the_handshake_is_left_for_the_next() -> Outcome {
    let authority = Authority::new("right")?;
    let server = showing(&authority.local()?).await?;
    let broken = hanging_up().await?;
    let mut options = trusting(&authority, &server);
    options
        .addresses
        .insert(0, Address::tcp("127.0.0.1", broken.port()));
    accepted(&options).await?;

    options.addresses.truncate(1);
    let error = refused(&options).await?;
    assert!(matches!(error, TlsError::HungUp), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_says_nothing_in_the_handshake_is_given_up() -> Outcome {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let mut options = Options::from_uri(&format!(
        "amqps://{}?verify=verify_none",
        listener.local_addr()?
    ))?;
    options.tls_timeout = Duration::from_millis(100);
    let refused = connect_with(&options).await;
    let Err(ConnectError::Tls { error, .. }) = refused else {
        return Err("it was not refused as it should be".into());
    };
    assert_eq!(
        error.to_string(),
        "the TLS handshake was not over within 100ms"
    );
    assert!(matches!(error, TlsError::TimedOut(limit) if limit == options.tls_timeout));
    Ok(())
}

#[tokio::test]
async fn every_fault_is_the_source_of_its_error() -> Outcome {
    let server = showing(&Authority::new("wrong")?.local()?).await?;
    let options = trusting(&Authority::new("right")?, &server);
    let error = connect_with(&options).await.err().ok_or("no error")?;
    let port = server.local_addr().port();
    assert_eq!(
        error.to_string(),
        format!(
            "no TLS with localhost:{port}: the server's certificate was issued by an unknown \
             authority (`cacertfile` names one)"
        )
    );
    let fault = error.source().and_then(|tls| tls.source());
    assert_eq!(
        fault.and_then(|fault| fault.downcast_ref()),
        Some(&CertificateFault::UnknownIssuer)
    );
    Ok(())
}

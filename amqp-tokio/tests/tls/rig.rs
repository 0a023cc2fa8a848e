//! Authorities, certificates and servers.

use std::{sync::Arc, time::Duration};

use amqp_tokio::{
    Certificates, ConnectError, Connection, Identity, Key, LocalBroker, Options, Server, TlsError,
    TlsOptions, connect_with,
    core::dial::Address,
    protocol::{basic, queue},
    rustls::{
        self, RootCertStore, ServerConfig, SupportedProtocolVersion,
        pki_types::{CertificateDer, PrivateKeyDer},
        server::WebPkiClientVerifier,
    },
    serve_tls,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use tokio::{net::TcpListener, time};

pub(crate) type Failure = Box<dyn std::error::Error>;
pub(crate) type Outcome = Result<(), Failure>;

/// The time limit of steps that end at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// An authority that issues certificates.
pub(crate) struct Authority {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: rcgen::Certificate,
}

/// A certificate and its key.
pub(crate) struct Card {
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) key: KeyPair,
}

fn named(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// The parameters of a certificate for these names.
pub(crate) fn for_names(names: &[&str]) -> Result<CertificateParams, Failure> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = named("a server");
    Ok(params)
}

impl Authority {
    pub(crate) fn new(name: &str) -> Result<Self, Failure> {
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

    pub(crate) fn issue(&self, params: &CertificateParams) -> Result<Card, Failure> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Card { certificate, key })
    }

    /// A certificate for `localhost` and `127.0.0.1`.
    pub(crate) fn local(&self) -> Result<Card, Failure> {
        self.issue(&for_names(&["localhost", "127.0.0.1", "::1"])?)
    }

    pub(crate) fn trusted(&self) -> Certificates {
        Certificates::pem(self.certificate.pem())
    }

    pub(crate) fn roots(&self) -> Result<Arc<RootCertStore>, Failure> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone())?;
        Ok(Arc::new(roots))
    }
}

impl Card {
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.der().clone()]
    }

    pub(crate) fn secret(&self) -> Result<PrivateKeyDer<'static>, Failure> {
        Ok(PrivateKeyDer::try_from(self.key.serialize_der())?)
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity::new(
            Certificates::der([self.certificate.der().to_vec()]),
            Key::der(self.key.serialize_der()),
        )
    }
}

pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The configuration of a server with this certificate, which wants one of that authority if there
/// is one.
pub(crate) fn server_config(
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

pub(crate) async fn serving(config: ServerConfig) -> Result<Server, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    Ok(serve_tls(
        listener,
        Arc::new(config),
        LocalBroker::default(),
    )?)
}

/// A broker that shows that certificate.
pub(crate) async fn showing(card: &Card) -> Result<Server, Failure> {
    serving(server_config(card, None, rustls::ALL_VERSIONS)?).await
}

/// How to connect to that server by a name.
pub(crate) fn to(host: &str, server: &Server, configure: impl FnOnce(&mut TlsOptions)) -> Options {
    let mut tls = TlsOptions::default();
    configure(&mut tls);
    Options::default()
        .addresses([Address::tcp(host, server.local_addr().port())])
        .tls(tls)
}

/// How to connect to that server, trusting that authority.
pub(crate) fn trusting(authority: &Authority, server: &Server) -> Options {
    to("localhost", server, |tls| {
        tls.authorities = Some(authority.trusted());
    })
}

/// Publishes and fetches a large message.
pub(crate) async fn works(connection: &Connection) -> Outcome {
    let channel = connection.open_channel().await?.confirm_select().await?;
    let declared = channel
        .call(queue::Declare::default().exclusive(true))
        .await?;
    let publish = basic::Publish::default().routing_key(&declared.queue);
    let body: Vec<u8> = (0..800_000_u32).map(|it| it as u8).collect();
    let properties = basic::Properties::default();
    channel
        .publish(&publish, &properties, body.clone())
        .await?
        .await?;
    let got = channel
        .get(basic::Get::default().queue(&declared.queue))
        .await?;
    assert!(got.is_some_and(|got| got.body.to_vec() == body));
    Ok(())
}

/// Connects, and does something with it.
pub(crate) async fn accepted(options: &Options) -> Outcome {
    let connection = time::timeout(PATIENCE, connect_with(options)).await??;
    works(&connection).await?;
    Ok(connection.close().await?)
}

/// The error of TLS with these options.
pub(crate) async fn refused(options: &Options) -> Result<TlsError, Failure> {
    match time::timeout(PATIENCE, connect_with(options)).await? {
        Err(ConnectError::Tls { error, .. }) => Ok(error),
        Err(other) => Err(other.into()),
        Ok(_) => Err("it was connected".into()),
    }
}

/// Waits until a broker has as many connections as that.
pub(crate) async fn until_connected(broker: &LocalBroker, count: usize) -> Outcome {
    let counted = async {
        while broker.inspect().connections.len() != count {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    Ok(time::timeout(PATIENCE, counted).await?)
}

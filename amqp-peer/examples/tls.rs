//! Links with TLS: certificates that are made on the spot, required on both sides, with the names of the
//! peers in them.
//!
//! ```text
//! cargo run -q -p amqp-peer --example tls
//! ```

use std::{error::Error, sync::Arc};

use amqp_peer::{
    CertificateRule, Config, Connect, Event, Listen, Message,
    amqp_driver::{
        Certificates, Identity, Key, TlsOptions,
        rustls::{
            RootCertStore, ServerConfig, crypto::ring, pki_types::PrivateKeyDer,
            server::WebPkiClientVerifier,
        },
    },
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

#[tokio::main]
pub(crate) async fn main() -> Result {
    let authority = Authority::new()?;

    // A peer is believed its name only if that is in its certificate.
    let named = |name| {
        Ok::<_, Box<dyn Error>>(Config::new(name)?.certificate_rule(CertificateRule::name()))
    };
    let (bob, mut bobs_events) = amqp_peer::tokio::start(named("bob")?)?;
    let (alice, mut events) = amqp_peer::tokio::start(named("alice")?)?;
    let (mallory, mut mallorys_events) = amqp_peer::tokio::start(Config::new("alice")?)?;

    let listen = Listen::tcp("127.0.0.1:0").tls(authority.listener("bob")?);
    let port = bob.add_listener(listen).await?.port().ok_or("no port")?;
    let connect = Connect::tcp("127.0.0.1", port);

    // Mallory says that she is Alice; her certificate says otherwise.
    mallory.add_connector(connect.clone().tls(authority.connector("mallory")?));
    while let Some(event) = mallorys_events.next().await {
        if let Event::Refused(refused) = event {
            println!("mallory is refused: {}", refused.cause);
            break;
        }
    }
    mallory.stop().await;

    alice.add_connector(connect.tls(authority.connector("alice")?));
    alice
        .send(&"bob".parse()?, Message::new("a secret"))
        .await?;
    while let Some(event) = events.next().await {
        if let Event::Up(up) = event {
            println!(
                "alice sees {} certificate of {}",
                up.certificates.len(),
                up.name
            );
            break;
        }
    }
    while let Some(event) = bobs_events.next().await {
        match event {
            Event::Up(up) => println!(
                "bob sees {} certificate of {}",
                up.certificates.len(),
                up.name
            ),
            Event::Received(received) => {
                println!("bob: {:?}", received.accept().body);
                break;
            }
            _ => {}
        }
    }
    alice.stop().await;
    bob.stop().await;
    Ok(())
}

/// An authority that issues the certificates of peers.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        Ok(Self {
            certificate: params.self_signed(&key)?,
            issuer: Issuer::new(params, key),
        })
    }

    /// A certificate for a peer at 127.0.0.1, and its key, in DER.
    fn issue(&self, name: &str) -> Result<(Vec<u8>, Vec<u8>)> {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.der().to_vec(), key.serialize_der()))
    }

    /// The settings of a listener, which takes certificates of this authority only.
    fn listener(&self, name: &str) -> Result<ServerConfig> {
        let (certificate, key) = self.issue(name)?;
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone())?;
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()?;
        let key = PrivateKeyDer::try_from(key)?;
        Ok(ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.into()], key)?)
    }

    /// The settings of a connector: its certificate, and the authority that it trusts.
    fn connector(&self, name: &str) -> Result<TlsOptions> {
        let (certificate, key) = self.issue(name)?;
        let own = Identity::new(Certificates::der([certificate]), Key::der(key));
        let authority = Certificates::der([self.certificate.der().to_vec()]);
        Ok(TlsOptions::default()
            .authorities(authority)
            .identity(own)
            .provider(ring::default_provider()))
    }
}

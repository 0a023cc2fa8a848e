//! TLS with every adapter: the verdicts of rustls through its runtime's own glue. The other reasons
//! of refusals do not depend on the adapter.

use std::{error::Error, io, sync::Arc};

use amqp_driver::{
    CertificateFault, Certificates, ClientCertificateFault, ConnectError, Connection, Identity,
    Key, Options, TlsError, TlsOptions, connect,
    core::{CloseCause, NotAmqp, dial::Address, sasl::External},
    io::Runtime,
    protocol::ReplyCode,
    rustls::{
        ALL_VERSIONS, RootCertStore, ServerConfig, SupportedProtocolVersion,
        crypto::ring::default_provider,
        pki_types::PrivateKeyDer,
        server::{ClientCertVerifierBuilder, WebPkiClientVerifier},
        version::{TLS12, TLS13},
    },
};
use amqp_embedded::{LoginFrom, Server, ServerTls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::adapter::{Outcome, large_message};

type Failure = Box<dyn Error + Send + Sync>;

/// An authority, and the certificate and key that it has issued for `localhost`, which does for a
/// client too.
struct Authority {
    root: rcgen::Certificate,
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    fn new() -> Result<Self, Failure> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let signing = KeyPair::generate()?;
        let root = params.self_signed(&signing)?;
        let issuer = Issuer::new(params, signing);
        let key = KeyPair::generate()?;
        let certificate =
            CertificateParams::new(["localhost".to_owned()])?.signed_by(&key, &issuer)?;
        Ok(Self {
            root,
            certificate,
            key,
        })
    }

    /// The configuration of a server with its certificate; it wants one of these clients.
    fn server(
        &self,
        clients: Option<&Self>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<ServerTls, Failure> {
        self.server_with(versions, clients, |verifier| verifier)
    }

    /// The same, for clients with a certificate of its own and for those without any.
    fn open_server(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<ServerTls, Failure> {
        self.server_with(
            versions,
            Some(self),
            ClientCertVerifierBuilder::allow_unauthenticated,
        )
    }

    fn server_with(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        clients: Option<&Self>,
        letting_in: fn(ClientCertVerifierBuilder) -> ClientCertVerifierBuilder,
    ) -> Result<ServerTls, Failure> {
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.root.der().clone())?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(letting_in(verifier).build()?)
            }
        };
        let key = PrivateKeyDer::try_from(self.key.serialize_der())?;
        let chain = vec![self.certificate.der().clone()];
        Ok(builder.with_single_cert(chain, key)?.into())
    }

    /// How to connect to a server that it vouches for.
    fn trusting<R: Runtime>(&self, server: &Server<R>) -> Options {
        let mut tls = TlsOptions::default();
        tls.authorities = Some(Certificates::pem(self.root.pem()));
        Options::default()
            .addresses([Address::tcp("localhost", server.local_addr().port())])
            .tls(tls)
    }

    /// The same, showing its certificate.
    fn showing<R: Runtime>(&self, server: &Server<R>) -> Options {
        let mut options = self.trusting(server);
        if let Some(tls) = &mut options.tls {
            tls.identity = Some(Identity::new(
                Certificates::der([self.certificate.der().to_vec()]),
                Key::der(self.key.serialize_der()),
            ));
        }
        options
    }
}

/// The error of TLS with these options.
async fn refused<R: Runtime>(runtime: &R, options: &Options) -> Result<TlsError, Failure> {
    match connect(runtime, options).await {
        Err(ConnectError::Tls { error, .. }) => Ok(error),
        Err(other) => Err(other.into()),
        Ok(_) => Err("it was connected".into()),
    }
}

/// Both sides show certificates, and large messages pass, with each version of TLS.
pub async fn mutual<R: Runtime + Default>(
    serve: impl AsyncFn(ServerTls) -> io::Result<Server<R>>,
) -> Outcome {
    let runtime = R::default();
    let authority = Authority::new()?;
    for version in [&TLS12, &TLS13] {
        let server = serve(authority.server(Some(&authority), &[version])?).await?;
        let connection = connect(&runtime, &authority.showing(&server)).await?;
        assert_eq!(
            *connection.peer_certificates(),
            [authority.certificate.der().to_vec()]
        );
        large_message(&connection).await?;
        connection.close().await?;

        let error = refused(&runtime, &authority.trusting(&server)).await?;
        assert!(
            matches!(
                error,
                TlsError::ClientCertificate(ClientCertificateFault::Required)
            ),
            "{error:?}"
        );
        server.shutdown().await;
    }
    Ok(())
}

/// A client with a certificate logs in with it, as the user that it names, with each version of
/// TLS. A client without one, or with an unknown name, is refused.
pub async fn external<R: Runtime + Default>(
    serve: impl AsyncFn(ServerTls) -> io::Result<Server<R>>,
) -> Outcome {
    let runtime = R::default();
    let authority = Authority::new()?;
    for version in [&TLS12, &TLS13] {
        let tls = authority.open_server(&[version])?;
        // The certificate is for `localhost`.
        let own = authority.certificate.der().clone();
        let guest = LoginFrom::by(move |shown| (*shown == own).then(|| "guest".into()));
        for (login_from, known) in [
            (guest, true),
            (LoginFrom::DnsName(0), false),
            (LoginFrom::Uri(0), false),
        ] {
            let server = serve(tls.clone().login_from(login_from)).await?;
            let connected = connect(&runtime, &by_certificate(authority.showing(&server))).await;
            if known {
                let connection = connected?;
                assert_eq!(server.broker().inspect().connections[0].user, "guest");
                large_message(&connection).await?;
                connection.close().await?;
            } else {
                not_let_in(connected)?;
            }
            let connected = connect(&runtime, &by_certificate(authority.trusting(&server))).await;
            not_let_in(connected)?;
            server.shutdown().await;
        }
    }
    Ok(())
}

/// The same, to log in with EXTERNAL.
fn by_certificate(mut options: Options) -> Options {
    options.config.mechanisms = vec![Box::new(External::new())];
    options
}

fn not_let_in(connected: Result<Connection, ConnectError>) -> Outcome {
    let Err(ConnectError::NotOpened {
        error: amqp_driver::Error::ConnectionClosed(reason),
        ..
    }) = connected
    else {
        return Err("it was not refused as it should be".into());
    };
    assert!(
        matches!(reason.cause(), CloseCause::AuthenticationFailed { .. }),
        "{reason}"
    );
    assert_eq!(reason.code(), Some(ReplyCode::ACCESS_REFUSED));
    Ok(())
}

/// The server's certificate is of another authority, or names another host.
pub async fn strangers<R: Runtime + Default>(
    serve: impl AsyncFn(ServerTls) -> io::Result<Server<R>>,
) -> Outcome {
    let runtime = R::default();
    let (authority, other) = (Authority::new()?, Authority::new()?);
    let server = serve(authority.server(None, ALL_VERSIONS)?).await?;
    let error = refused(&runtime, &other.trusting(&server)).await?;
    assert!(
        matches!(
            error,
            TlsError::Certificate(CertificateFault::UnknownIssuer | CertificateFault::BadSignature)
        ),
        "{error:?}"
    );
    let mut elsewhere = authority.trusting(&server);
    elsewhere.addresses = vec![Address::tcp("127.0.0.1", server.local_addr().port())];
    let error = refused(&runtime, &elsewhere).await?;
    assert!(
        error.to_string().contains("is not for `127.0.0.1`"),
        "{error}"
    );
    Ok(())
}

/// One side speaks TLS, and the other does not.
pub async fn one_sided<R: Runtime + Default>(
    plain: Server<R>,
    serve: impl AsyncFn(ServerTls) -> io::Result<Server<R>>,
) -> Outcome {
    let runtime = R::default();
    let authority = Authority::new()?;
    let error = refused(&runtime, &authority.trusting(&plain)).await?;
    assert!(matches!(error, TlsError::NotTls), "{error:?}");

    let server = serve(authority.server(None, ALL_VERSIONS)?).await?;
    let options = Options::from_uri(&format!("amqp://{}", server.local_addr()))?;
    let Err(ConnectError::NotOpened {
        error: amqp_driver::Error::ConnectionClosed(reason),
        ..
    }) = connect(&runtime, &options).await
    else {
        return Err("it was not refused as it should be".into());
    };
    assert!(
        matches!(reason.cause(), CloseCause::NotAmqp(NotAmqp::Tls)),
        "{reason}"
    );
    Ok(())
}

/// The tests of an adapter, by the functions that run a future, that serve a broker without TLS,
/// and that serve one with it.
#[macro_export]
macro_rules! secured_tests {
    ($run:expr, $plain:expr, $serving:expr) => {
        #[test]
        fn both_sides_show_certificates() -> $crate::adapter::Outcome {
            $run($crate::secured::mutual($serving))
        }

        #[test]
        fn a_certificate_is_logged_in_with() -> $crate::adapter::Outcome {
            $run($crate::secured::external($serving))
        }

        #[test]
        fn a_certificate_that_is_not_trusted_is_refused() -> $crate::adapter::Outcome {
            $run($crate::secured::strangers($serving))
        }

        #[test]
        fn a_port_with_tls_differs_from_one_without() -> $crate::adapter::Outcome {
            $run(async { $crate::secured::one_sided($plain().await?, $serving).await })
        }
    };
}
pub use crate::secured_tests as tests;

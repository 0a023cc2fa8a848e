//! The TLS setup of listeners, from files.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use amqp_tokio::{
    LoginFrom, ServerTls,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
        server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    },
};

/// The files and rules of listeners with TLS.
#[derive(Clone, Debug)]
pub(crate) struct TlsOptions {
    /// The certificate chain, in PEM form.
    pub(crate) cert: PathBuf,
    /// Its private key, in PEM form.
    pub(crate) key: PathBuf,
    /// The authorities of client certificates, in PEM form: `Some` to ask for one.
    pub(crate) ca: Option<PathBuf>,
    /// Whether a client needs a certificate.
    pub(crate) clients: Clients,
    /// The source of the user of a client certificate.
    pub(crate) login_from: LoginFrom,
}

/// The clients that are accepted: RabbitMQ's `fail_if_no_peer_cert`
/// (<https://www.rabbitmq.com/docs/ssl>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clients {
    All,
    Certified,
}

/// Reads the files. Returns an error that names the file.
pub(crate) fn load(options: &TlsOptions) -> Result<ServerTls, String> {
    let chain = certificates(&options.cert)?;
    let key = PrivateKeyDer::from_pem_file(&options.key).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            format!("{}: no private key in PEM form", options.key.display())
        }
        other => unreadable(&options.key, &other),
    })?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match &options.ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let invalid = |error| format!("{}: {error}", ca.display());
            let mut roots = RootCertStore::empty();
            for certificate in certificates(ca)? {
                roots
                    .add(certificate)
                    .map_err(|error| invalid(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            let verifier = match options.clients {
                Clients::All => verifier.allow_unauthenticated(),
                Clients::Certified => verifier,
            };
            let verifier: Arc<dyn ClientCertVerifier> = verifier
                .build()
                .map_err(|error| invalid(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(chain, key).map_err(|error| {
        let (cert, key) = (options.cert.display(), options.key.display());
        format!("the certificate {cert} with the key {key}: {error}")
    })?;
    Ok(ServerTls::from(config).login_from(options.login_from.clone()))
}

/// Reads at least one certificate.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(path, &error))?;
    if certificates.is_empty() {
        return Err(format!("{}: no certificate in PEM form", path.display()));
    }
    Ok(certificates)
}

fn unreadable(path: &Path, error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => format!("cannot read {}: {error}", path.display()),
        other => format!("{}: not in PEM form: {other}", path.display()),
    }
}

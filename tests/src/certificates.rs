//! Certificates for a broker and its clients.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use amqp_tokio::rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};

use crate::harness::Failure;

/// The clients that a broker with TLS accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Those with a certificate of its authority, and those without any.
    Anyone,
    /// Those with a certificate of its authority.
    Certified,
}

/// Certificates and keys in a directory, in PEM form:
///
/// - `ca.pem`: an authority;
/// - `server.pem`, `server.key`: a broker at 127.0.0.1 and `localhost`;
/// - `client.pem`, `client.key`: a client with the name of the user `guest`;
/// - `no-user.pem`, `no-user.key`: a client with a name that no user has;
/// - `other-ca.pem`, `other.pem`, `other.key`: an authority that is not trusted, and a client with a
///   certificate of it.
#[derive(Clone, Debug)]
pub struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    /// Makes them.
    ///
    /// # Errors
    /// When they cannot be made, or not be written.
    pub fn make_in(directory: &Path) -> Result<Self, Failure> {
        let made = Self {
            directory: directory.to_owned(),
        };
        let authority = made.authority("ca.pem", "the authority")?;
        let server = ["localhost".into(), "127.0.0.1".into()].to_vec();
        made.issue("server", &authority, "broker", server)?;
        made.issue("client", &authority, "guest", Vec::new())?;
        made.issue("no-user", &authority, "no-user", Vec::new())?;
        let other = made.authority("other-ca.pem", "another authority")?;
        made.issue("other", &other, "guest", Vec::new())?;
        Ok(made)
    }

    /// The path of one of them.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.directory.join(name).to_string_lossy().into_owned()
    }

    /// The broker's certificate, as DER.
    ///
    /// # Errors
    /// When it is not there any more.
    pub fn of_broker(&self) -> Result<Vec<u8>, Failure> {
        self.der("server")
    }

    /// A certificate, as DER.
    ///
    /// # Errors
    /// When it is not there any more.
    pub fn der(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let path = self.path(&format!("{name}.pem"));
        Ok(CertificateDer::from_pem_file(path)?.to_vec())
    }

    /// The configuration of a broker.
    ///
    /// # Errors
    /// When they are not there any more.
    pub fn server_config(&self, clients: Clients) -> Result<ServerConfig, Failure> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem"))?)?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
        let verifier = match clients {
            Clients::Anyone => verifier.allow_unauthenticated(),
            Clients::Certified => verifier,
        };
        Ok(ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier.build()?)
            .with_single_cert(
                vec![CertificateDer::from_pem_file(self.path("server.pem"))?],
                PrivateKeyDer::from_pem_file(self.path("server.key"))?,
            )?)
    }

    fn authority(&self, file: &str, name: &str) -> Result<Issuer<'static, KeyPair>, Failure> {
        let mut params = CertificateParams::default();
        params.distinguished_name = called(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        fs::write(self.path(file), params.self_signed(&key)?.pem())?;
        Ok(Issuer::new(params, key))
    }

    fn issue(
        &self,
        file: &str,
        authority: &Issuer<'_, KeyPair>,
        name: &str,
        hosts: Vec<String>,
    ) -> Result<(), Failure> {
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name = called(name);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, authority)?;
        fs::write(self.path(&format!("{file}.pem")), certificate.pem())?;
        fs::write(self.path(&format!("{file}.key")), key.serialize_pem())?;
        Ok(())
    }
}

fn called(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

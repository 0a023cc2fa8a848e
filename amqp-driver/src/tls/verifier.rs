//! Verification of the server's certificate.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        VerifierBuilderError, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use webpki::EndEntityCert;

use super::CertificateFault;

/// Verifies as rustls does, and distinguishes a self-signed certificate from one of an unknown
/// authority. The proof that the server owns its key is verified in any case.
#[derive(Debug)]
pub(super) struct Verifier {
    provider: Arc<CryptoProvider>,
    /// `None` accepts any certificate (`verify_none`).
    judge: Option<Judge>,
}

#[derive(Debug)]
struct Judge {
    roots: Arc<RootCertStore>,
    inner: Arc<WebPkiServerVerifier>,
}

impl Verifier {
    /// Accepts certificates issued by these authorities.
    pub(super) fn trusting(
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let builder =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let inner = builder.build()?;
        let judge = Some(Judge { roots, inner });
        Ok(Self { provider, judge })
    }

    /// Accepts any certificate.
    pub(super) const fn of_anything(provider: Arc<CryptoProvider>) -> Self {
        let judge = None;
        Self { provider, judge }
    }
}

impl Judge {
    /// Whether the certificate is self-signed, and not a trusted one itself.
    fn stands_alone(&self, certificate: &CertificateDer<'_>) -> bool {
        EndEntityCert::try_from(certificate).is_ok_and(|certificate| {
            let subject = certificate.subject();
            let trusted = |root: &rustls::pki_types::TrustAnchor<'_>| *root.subject == *subject;
            certificate.issuer() == subject && !self.roots.roots.iter().any(trusted)
        })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(judge) = &self.judge else {
            return Ok(ServerCertVerified::assertion());
        };
        judge
            .inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| match &error {
                Error::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::Other(_),
                ) if judge.stands_alone(end_entity) => {
                    let fault = OtherError(Arc::new(CertificateFault::SelfSigned));
                    Error::InvalidCertificate(CertificateError::Other(fault))
                }
                _ => error,
            })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

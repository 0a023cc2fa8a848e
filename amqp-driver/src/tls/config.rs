//! The rustls configuration for the options.

use std::{
    net::Ipv6Addr,
    sync::{Arc, OnceLock},
};

use amqp_core::{
    dial::Address,
    uri::{ServerNameIndication, Verify},
};
use rustls::{
    ClientConfig, RootCertStore, client::danger::ServerCertVerifier, crypto::CryptoProvider,
    pki_types::ServerName,
};

use super::{
    Certificates, Key, MaterialFault, TlsOptions, TlsSetupError, material::Source,
    verifier::Verifier,
};

/// The name that the server's certificate must contain.
pub(super) fn server_name(
    options: &TlsOptions,
    address: &Address,
) -> Result<ServerName<'static>, TlsSetupError> {
    let name = match &options.parameters.server_name_indication {
        Some(ServerNameIndication::Name(name)) => name,
        Some(ServerNameIndication::Disabled) | None => {
            address.host().ok_or(TlsSetupError::NoName)?
        }
    };
    // The zone of an IPv6 address has a meaning on this machine only.
    let name = match name.split_once('%') {
        Some((ip, _zone)) if ip.parse::<Ipv6Addr>().is_ok() => ip,
        _ => name,
    };
    ServerName::try_from(name.to_owned()).map_err(|_| TlsSetupError::InvalidName(name.to_owned()))
}

/// The configuration for the options. Reads the files anew.
pub(super) fn config(options: &TlsOptions) -> Result<Arc<ClientConfig>, TlsSetupError> {
    if let Some(config) = &options.config {
        return match beside_config(options) {
            Some(other) => Err(TlsSetupError::Conflict {
                one: "config",
                other,
            }),
            None => Ok(Arc::clone(config)),
        };
    }
    let provider = provider(options)?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unable)?
        .dangerous()
        .with_custom_certificate_verifier(verifier(options, provider)?);
    let parameters = &options.parameters;
    let certificates = Source::of(
        (
            "identity",
            options.identity.as_ref().map(|id| &id.certificates),
        ),
        ("certfile", parameters.certfile.as_ref()),
    )?;
    let key = Source::of(
        ("identity", options.identity.as_ref().map(|id| &id.key)),
        ("keyfile", parameters.keyfile.as_ref()),
    )?;
    let mut config = match (certificates, key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificates), Some(key)) => builder
            .with_client_auth_cert(certificates.certificates()?, key.key()?)
            .map_err(|error| identity_fault(&error, &certificates, &key))?,
        (Some(Source { setting, .. }), None) => return Err(alone(setting, "keyfile")),
        (None, Some(Source { setting, .. })) => return Err(alone(setting, "certfile")),
    };
    config.enable_sni = parameters.server_name_indication != Some(ServerNameIndication::Disabled);
    Ok(Arc::new(config))
}

/// The first setting that conflicts with a ready-made `config`, which would ignore it.
fn beside_config(options: &TlsOptions) -> Option<&'static str> {
    let parameters = &options.parameters;
    [
        ("authorities", options.authorities.is_some()),
        ("identity", options.identity.is_some()),
        ("provider", options.provider.is_some()),
        ("cacertfile", parameters.cacertfile.is_some()),
        ("certfile", parameters.certfile.is_some()),
        ("keyfile", parameters.keyfile.is_some()),
        ("verify", parameters.verify.is_some()),
        (
            "server_name_indication",
            parameters.server_name_indication == Some(ServerNameIndication::Disabled),
        ),
    ]
    .into_iter()
    .find_map(|(name, given)| given.then_some(name))
}

/// The provider of cryptography: that of the options, otherwise the process default, otherwise the only
/// one that is built in. With both built in, none is preferred silently: features add up over a build.
fn provider(options: &TlsOptions) -> Result<Arc<CryptoProvider>, TlsSetupError> {
    if let Some(provider) = &options.provider {
        return Ok(Arc::clone(provider));
    }
    if let Some(installed) = CryptoProvider::get_default() {
        return Ok(Arc::clone(installed));
    }
    #[cfg(all(feature = "aws-lc-rs", not(feature = "ring")))]
    return Ok(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    return Ok(Arc::new(rustls::crypto::ring::default_provider()));
    #[cfg(all(feature = "ring", feature = "aws-lc-rs"))]
    return Err(TlsSetupError::TwoProviders);
    #[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
    Err(TlsSetupError::NoProvider)
}

fn verifier(
    options: &TlsOptions,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsSetupError> {
    let given = Source::of(
        ("authorities", options.authorities.as_ref()),
        ("cacertfile", options.parameters.cacertfile.as_ref()),
    )?;
    let roots = match given {
        // Also read with `verify_none`, so that a fault in a file does not stay hidden until
        // verification is enabled.
        Some(source) => Arc::new(roots_of(&source)?),
        None if options.parameters.verify == Some(Verify::None) => RootCertStore::empty().into(),
        None => platform_roots()?,
    };
    Ok(if options.parameters.verify == Some(Verify::None) {
        Arc::new(Verifier::of_anything(provider))
    } else {
        Arc::new(Verifier::trusting(roots, provider).map_err(unable)?)
    })
}

fn roots_of(source: &Source<'_, Certificates>) -> Result<RootCertStore, TlsSetupError> {
    let mut roots = RootCertStore::empty();
    for certificate in source.certificates()? {
        roots
            .add(certificate)
            .map_err(|error| source.failed(MaterialFault::Malformed(error.to_string())))?;
    }
    Ok(roots)
}

/// The authorities that the platform trusts. Some may be unreadable; at least one is required. Read
/// once per process: a read takes long enough to delay other tasks.
fn platform_roots() -> Result<Arc<RootCertStore>, TlsSetupError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(Arc::clone(roots));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if !roots.is_empty() {
        return Ok(Arc::clone(ROOTS.get_or_init(|| Arc::new(roots))));
    }
    let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
    Err(TlsSetupError::NoAuthorities(if errors.is_empty() {
        "none was found".into()
    } else {
        errors.join(", ")
    }))
}

/// The setup error for a certificate and key that rustls refuses.
fn identity_fault(
    error: &rustls::Error,
    certificates: &Source<'_, Certificates>,
    key: &Source<'_, Key>,
) -> TlsSetupError {
    match error {
        rustls::Error::InconsistentKeys(_) => key.failed(MaterialFault::OtherKey),
        rustls::Error::InvalidCertificate(_) => {
            certificates.failed(MaterialFault::Malformed(error.to_string()))
        }
        error => key.failed(MaterialFault::Unusable(error.to_string())),
    }
}

const fn alone(given: &'static str, missing: &'static str) -> TlsSetupError {
    TlsSetupError::Alone { given, missing }
}

fn unable(error: impl ToString) -> TlsSetupError {
    TlsSetupError::Provider(error.to_string())
}

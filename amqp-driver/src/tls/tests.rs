//! Setup of TLS from options, before a connection is made.

use std::error::Error;

use amqp_core::uri::Verify;
use rcgen::generate_simple_self_signed;

use super::*;
use crate::connect::options::Options;

type Outcome = Result<(), Box<dyn Error>>;

/// Options with an authority of their own, so that the platform's are not read.
fn options() -> Result<TlsOptions, rcgen::Error> {
    let certificate = generate_simple_self_signed(["localhost".to_owned()])?.cert;
    Ok(TlsOptions {
        authorities: Some(Certificates::der([certificate.der().to_vec()])),
        ..TlsOptions::default()
    })
}

/// The TLS setup for a host.
fn made(options: &TlsOptions, host: &str) -> Result<Tls, TlsError> {
    options.for_host(&Address::tcp(host, 5671))
}

#[cfg(any(feature = "ring", feature = "aws-lc-rs"))]
mod with_a_provider {
    use std::fs;

    use amqp_core::uri::ServerNameIndication;
    use rcgen::{CertifiedKey, KeyPair};

    use super::*;

    /// The text of the error for these options.
    fn fault(options: &TlsOptions) -> String {
        match made(options, "localhost") {
            Ok(_) => "nothing".into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_provider_of_the_options_is_taken() -> Outcome {
        #[cfg(feature = "ring")]
        let mut provider = rustls::crypto::ring::default_provider();
        #[cfg(not(feature = "ring"))]
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.truncate(1);
        let tls = made(&options()?.provider(provider), "localhost")?;
        assert_eq!(tls.config().crypto_provider().cipher_suites.len(), 1);
        Ok(())
    }

    #[test]
    fn a_server_name_is_the_host_or_the_name_in_its_place() -> Outcome {
        let mut options = options()?;
        let name = |options: &TlsOptions, host: &str| {
            let made = made(options, host).map_err(|error| error.to_string());
            made.map(|tls| format!("{:?} {}", tls.server_name(), tls.config().enable_sni))
        };
        let named = |text: &str| Ok(text.to_owned());
        assert_eq!(
            name(&options, "b.example.com"),
            named("DnsName(\"b.example.com\") true")
        );
        assert_eq!(
            name(&options, "10.0.0.1"),
            named("IpAddress(V4(Ipv4Addr([10, 0, 0, 1]))) true")
        );
        assert_eq!(name(&options, "fe80::1%eth0"), name(&options, "fe80::1"));
        assert!(name(&options, "no host").is_err_and(|text| text.contains("`no host`")));
        assert!(name(&options, "a%b").is_err_and(|text| text.contains("`a%b`")));

        options.parameters.server_name_indication = Some(ServerNameIndication::Disabled);
        assert_eq!(
            name(&options, "b.example.com"),
            named("DnsName(\"b.example.com\") false")
        );

        let socket = Address::unix("/run/broker.sock");
        let error = options.for_host(&socket).err().ok_or("made")?;
        assert!(matches!(error, TlsError::Setup(TlsSetupError::NoName)));
        options.parameters.server_name_indication =
            Some(ServerNameIndication::Name("b.example.com".into()));
        assert!(options.for_host(&socket).is_ok());
        Ok(())
    }

    #[test]
    fn contradicting_options_are_named() -> Outcome {
        let mut contradiction = options()?;
        contradiction.parameters.cacertfile = Some("/etc/ca.pem".into());
        assert_eq!(
            fault(&contradiction),
            "TLS is configured with `authorities`, which leaves nothing to say to `cacertfile`"
        );
        let mut alone = options()?;
        alone.parameters.certfile = Some("/etc/client.pem".into());
        assert_eq!(fault(&alone), "`certfile` needs `keyfile` beside it");
        let mut alone = options()?;
        alone.parameters.keyfile = Some("/etc/client.key".into());
        assert_eq!(fault(&alone), "`keyfile` needs `certfile` beside it");
        Ok(())
    }

    #[test]
    fn a_bad_file_is_named_with_its_fault() -> Outcome {
        let directory = tempfile::tempdir()?;
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).map(|()| path.display().to_string())
        };
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()])?;
        let key = signing_key.serialize_pem();
        let broken = cert.pem().replace("MII", "M!!");
        let hollow = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

        for (text, wrong) in [
            ("", "there is no certificate in PEM form in it"),
            (&key, "there is no certificate in PEM form in it"),
            (&broken, "it is not well-formed: "),
            (hollow, "it is not well-formed: "),
        ] {
            let mut options = TlsOptions::default();
            let path = file("ca.pem", text)?;
            options.parameters.cacertfile = Some(path.clone());
            let text = fault(&options);
            assert!(
                text.starts_with(&format!("`cacertfile` {path}: {wrong}")),
                "{text}"
            );
            // The file is checked even if nothing is verified against it.
            options.parameters.verify = Some(Verify::None);
            assert_eq!(fault(&options), text);
        }

        let other = KeyPair::generate()?.serialize_pem();
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        for (text, wrong) in [
            ("", "there is no private key in it"),
            (&cert.pem(), "there is no private key in it"),
            (
                &encrypted,
                "the private key in it is encrypted: decrypt it first",
            ),
            (&other, "the private key does not belong to the certificate"),
            (&key.replace("MIG", "AAA"), "it cannot be used: "),
            (&key, "nothing"),
        ] {
            let mut options = options()?;
            let path = file("client.key", text)?;
            options.parameters.keyfile = Some(path.clone());
            options.parameters.certfile = Some(file("client.pem", &cert.pem())?);
            let fault = fault(&options);
            let wrong = match wrong {
                "nothing" => wrong.to_owned(),
                wrong => format!("`keyfile` {path}: {wrong}"),
            };
            assert!(fault.starts_with(&wrong), "{fault}");
        }

        let mut options = options()?;
        options.identity = Some(Identity {
            certificates: Certificates::Der(Vec::new()),
            key: Key::pem(key),
        });
        assert!(fault(&options).starts_with("`identity`: there is no certificate"));
        Ok(())
    }

    #[test]
    fn a_key_is_not_shown() -> Outcome {
        let key = KeyPair::generate()?.serialize_pem();
        let identity = Identity {
            certificates: Certificates::pem(""),
            key: Key::pem(key),
        };
        assert_eq!(
            format!("{identity:?}"),
            "Identity { certificates: Pem(0 bytes), key: Pem(Secret(..)) }"
        );
        Ok(())
    }
}

#[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
#[test]
fn without_a_provider_it_says_how_to_get_one() -> Outcome {
    let error = made(&options()?, "localhost").err().ok_or("made")?;
    assert!(matches!(error, TlsError::Setup(TlsSetupError::NoProvider)));
    assert!(error.to_string().contains("`ring` or `aws-lc-rs`"));
    Ok(())
}

#[test]
fn the_uri_says_whether_and_how() -> Outcome {
    assert!(Options::from_uri("amqp://localhost")?.tls.is_none());
    let tls = Options::from_uri("amqps://localhost?verify=verify_none")?.tls;
    let verify = tls.and_then(|tls| tls.parameters.verify);
    assert_eq!(verify, Some(Verify::None));
    Ok(())
}

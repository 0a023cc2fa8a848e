//! The name that a client indicates, and verifies.

use std::sync::{Arc, Mutex};

use amqp_tokio::{
    CertificateFault, Server, TlsError, TlsSetupError,
    core::{dial::Address, uri::ServerNameIndication},
    rustls::{
        ServerConfig,
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};

use crate::rig::*;

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

/// A broker with a certificate for these names, and the record of the names that it was asked for.
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

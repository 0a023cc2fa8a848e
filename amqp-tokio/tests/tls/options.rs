//! Options of a URI, and a configuration of rustls in their place.

use std::{fs, sync::Arc};

use amqp_tokio::{
    Options, connect,
    core::{
        dial::Address,
        uri::{ServerNameIndication, Verify},
    },
    rustls::{self, ClientConfig, version::TLS13},
};

use crate::rig::*;

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

    // A server that is not verified may show any certificate.
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

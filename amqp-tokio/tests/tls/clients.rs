//! Certificates of clients.

use amqp_tokio::{
    ClientCertificateFault, TlsError, connect_with,
    rustls::{
        self,
        version::{TLS12, TLS13},
    },
};

use crate::rig::*;

#[tokio::test]
async fn a_client_with_a_certificate_gets_in_and_sees_the_servers() -> Outcome {
    let authority = Authority::new("servers")?;
    let clients = Authority::new("clients")?;
    let card = authority.local()?;
    let server = serving(server_config(&card, Some(&clients), rustls::ALL_VERSIONS)?).await?;
    let mut options = trusting(&authority, &server);
    if let Some(tls) = &mut options.tls {
        tls.identity = Some(clients.issue(&for_names(&["somebody"])?)?.identity());
    }
    let connection = connect_with(&options).await?;
    assert_eq!(
        *connection.peer_certificates(),
        [card.certificate.der().to_vec()]
    );
    works(&connection).await
}

#[tokio::test]
async fn a_client_without_a_certificate_fails_with_the_need_of_one() -> Outcome {
    let authority = Authority::new("right")?;
    let card = authority.local()?;
    for version in [&TLS12, &TLS13] {
        let server = serving(server_config(&card, Some(&authority), &[version])?).await?;
        let error = refused(&trusting(&authority, &server)).await?;
        assert!(
            matches!(
                error,
                TlsError::ClientCertificate(ClientCertificateFault::Required)
            ),
            "{error:?}"
        );
        assert_eq!(
            error.to_string(),
            "the server requires a client certificate (`certfile` and `keyfile`)"
        );
        until_connected(server.broker(), 0).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused_with_that_reason() -> Outcome {
    let authority = Authority::new("right")?;
    let wrong = Authority::new("wrong")?;
    let card = authority.local()?;
    for version in [&TLS12, &TLS13] {
        let server = serving(server_config(&card, Some(&authority), &[version])?).await?;
        let mut options = trusting(&authority, &server);
        if let Some(tls) = &mut options.tls {
            tls.identity = Some(wrong.issue(&for_names(&["somebody"])?)?.identity());
        }
        let error = refused(&options).await?;
        assert_eq!(
            error.to_string(),
            "the server refused the client certificate: it was issued by an unknown authority"
        );
    }
    Ok(())
}

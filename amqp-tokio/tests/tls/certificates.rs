//! Certificates of servers, and the reasons to refuse them.

use std::error::Error as _;

use amqp_tokio::{
    CertificateFault, Certificates, TlsError, TlsSetupError, connect_with,
    core::{dial::Address, uri::Verify},
    rustls::version::{TLS12, TLS13},
};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd};

use crate::rig::*;

#[tokio::test]
async fn an_unknown_authority_is_refused() -> Outcome {
    let server = showing(&Authority::new("wrong")?.local()?).await?;
    let error = refused(&trusting(&Authority::new("right")?, &server)).await?;
    assert!(matches!(
        error,
        TlsError::Certificate(CertificateFault::UnknownIssuer)
    ));
    assert_eq!(
        error.to_string(),
        "the server's certificate was issued by an unknown authority (`cacertfile` names one)"
    );
    until_connected(server.broker(), 0).await?;

    // Nor does the platform know it.
    let error = refused(&to("localhost", &server, |_| ())).await?;
    assert!(
        matches!(
            error,
            TlsError::Certificate(CertificateFault::UnknownIssuer)
                | TlsError::Setup(TlsSetupError::NoAuthorities(_))
        ),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn an_authority_that_only_has_the_name_of_the_right_one_is_refused() -> Outcome {
    let server = showing(&Authority::new("right")?.local()?).await?;
    let error = refused(&trusting(&Authority::new("right")?, &server)).await?;
    assert!(
        matches!(error, TlsError::Certificate(CertificateFault::BadSignature)),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_wrong_name_is_refused_and_the_right_ones_are_named() -> Outcome {
    let authority = Authority::new("right")?;
    let names = ["broker.example.com", "*.example.org", "10.1.2.3"];
    let server = showing(&authority.issue(&for_names(&names)?)?).await?;
    let error = refused(&trusting(&authority, &server)).await?;
    assert_eq!(
        error.to_string(),
        "the server's certificate is not for `localhost` but for `broker.example.com`, \
         `*.example.org`, `10.1.2.3`"
    );
    let mut by_address = trusting(&authority, &server);
    by_address.addresses = vec![Address::tcp("127.0.0.1", server.local_addr().port())];
    let error = refused(&by_address).await?;
    assert!(error.to_string().contains("is not for `127.0.0.1`"));
    Ok(())
}

/// The error for a server with a certificate that is valid from the first year to the second.
async fn refused_by_date(from: i32, to: i32) -> Result<String, Failure> {
    let authority = Authority::new("right")?;
    let mut params = for_names(&["localhost"])?;
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
    let server = showing(&authority.issue(&params)?).await?;
    let error = refused(&trusting(&authority, &server)).await?;
    Ok(error.to_string())
}

#[tokio::test]
async fn an_expired_certificate_is_refused() -> Outcome {
    let text = refused_by_date(2020, 2021).await?;
    assert!(
        text.starts_with("the server's certificate has expired ") && text.ends_with(" days ago"),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_is_not_yet_valid_is_refused() -> Outcome {
    let text = refused_by_date(4000, 4001).await?;
    assert!(
        text.starts_with("the server's certificate is not yet valid, but will be in "),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn a_self_signed_certificate_is_refused_unless_it_is_the_one_that_is_trusted() -> Outcome {
    let key = KeyPair::generate()?;
    let certificate = for_names(&["localhost"])?.self_signed(&key)?;
    let card = Card { certificate, key };
    let server = showing(&card).await?;
    let error = refused(&trusting(&Authority::new("right")?, &server)).await?;
    assert_eq!(
        error.to_string(),
        "the server's certificate is self-signed, and not trusted"
    );
    accepted(&to("localhost", &server, |tls| {
        tls.authorities = Some(Certificates::pem(card.certificate.pem()));
    }))
    .await
}

#[tokio::test]
async fn an_authority_cannot_be_a_server() -> Outcome {
    let mut params = for_names(&["localhost"])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let card = Card { certificate, key };
    let server = showing(&card).await?;
    let error = refused(&trusting(&Authority::new("right")?, &server)).await?;
    assert_eq!(
        error.to_string(),
        "the server's certificate is self-signed, and not trusted"
    );
    let error = refused(&to("localhost", &server, |tls| {
        tls.authorities = Some(Certificates::pem(card.certificate.pem()));
    }))
    .await?;
    assert_eq!(
        error.to_string(),
        "the server's certificate is that of an authority (CA:TRUE), which cannot be a server's"
    );
    Ok(())
}

#[tokio::test]
async fn a_certificate_for_clients_cannot_be_a_servers() -> Outcome {
    let authority = Authority::new("right")?;
    let mut params = for_names(&["localhost"])?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let server = showing(&authority.issue(&params)?).await?;
    let error = refused(&trusting(&authority, &server)).await?;
    assert_eq!(
        error.to_string(),
        "the server's certificate was not issued to be a server's"
    );
    Ok(())
}

#[tokio::test]
async fn with_verify_none_any_certificate_will_do() -> Outcome {
    let authority = Authority::new("nobody knows it")?;
    let mut params = for_names(&["elsewhere"])?;
    params.not_after = date_time_ymd(2021, 1, 1);
    let card = authority.issue(&params)?;
    for version in [&TLS12, &TLS13] {
        let server = serving(server_config(&card, None, &[version])?).await?;
        accepted(&to("localhost", &server, |tls| {
            tls.parameters.verify = Some(Verify::None);
        }))
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn every_fault_is_the_source_of_its_error() -> Outcome {
    let server = showing(&Authority::new("wrong")?.local()?).await?;
    let options = trusting(&Authority::new("right")?, &server);
    let error = connect_with(&options).await.err().ok_or("no error")?;
    let port = server.local_addr().port();
    assert_eq!(
        error.to_string(),
        format!(
            "no TLS with localhost:{port}: the server's certificate was issued by an unknown \
             authority (`cacertfile` names one)"
        )
    );
    let fault = error.source().and_then(|tls| tls.source());
    assert_eq!(
        fault.and_then(|fault| fault.downcast_ref()),
        Some(&CertificateFault::UnknownIssuer)
    );
    Ok(())
}

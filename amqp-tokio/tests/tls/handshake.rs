//! Handshakes that succeed, fail, or stand still.

use std::{net::SocketAddr, time::Duration};

use amqp_tokio::{
    ConnectError, LocalBroker, Options, TlsError, connect, connect_with,
    core::{CloseCause, NotAmqp, dial::Address, uri::Verify},
    rustls::version::{TLS12, TLS13},
    serve,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    task,
};

use crate::rig::*;

#[tokio::test]
async fn a_large_message_passes_with_each_version() -> Outcome {
    let authority = Authority::new("right")?;
    let card = authority.local()?;
    for version in [&TLS12, &TLS13] {
        let server = serving(server_config(&card, None, &[version])?).await?;
        accepted(&trusting(&authority, &server)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_plain_port_that_is_dialled_with_tls_is_recognised() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = serve(listener, LocalBroker::default())?;
    let error = refused(&to("127.0.0.1", &server, |tls| {
        tls.parameters.verify = Some(Verify::None);
    }))
    .await?;
    assert!(matches!(error, TlsError::NotTls), "{error:?}");
    assert_eq!(
        error.to_string(),
        "the server does not speak TLS on this port"
    );
    until_connected(server.broker(), 0).await
}

#[tokio::test]
async fn a_tls_port_that_is_dialled_without_is_recognised() -> Outcome {
    let server = showing(&Authority::new("right")?.local()?).await?;
    let refused = connect(&format!("amqp://{}", server.local_addr())).await;
    let Err(ConnectError::NotOpened {
        error: amqp_tokio::Error::ConnectionClosed(reason),
        ..
    }) = refused
    else {
        return Err("it was not refused as it should be".into());
    };
    assert!(
        matches!(reason.cause(), CloseCause::NotAmqp(NotAmqp::Tls)),
        "{reason}"
    );
    until_connected(server.broker(), 0).await
}

#[tokio::test]
async fn a_client_that_stands_still_in_the_handshake_delays_no_other() -> Outcome {
    let authority = Authority::new("right")?;
    let server = showing(&authority.local()?).await?;
    let mut silent = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(server.local_addr()).await?;
        stream.write_all(b"\x16\x03\x01\x02\x00").await?; // the head of a record that never comes
        silent.push(stream);
    }
    until_connected(server.broker(), 3).await?;
    accepted(&trusting(&authority, &server)).await?;

    // Cut connections leave nothing behind.
    drop(silent);
    until_connected(server.broker(), 0).await?;
    accepted(&trusting(&authority, &server)).await
}

/// A server that hangs up when it has read something.
async fn hanging_up() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    task::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _unread = stream.readable().await;
            let mut hello = [0; 4096];
            let _read = stream.try_read(&mut hello);
        }
    });
    Ok(address)
}

#[tokio::test]
async fn a_server_that_hangs_up_in_the_handshake_is_left_for_the_next() -> Outcome {
    let authority = Authority::new("right")?;
    let server = showing(&authority.local()?).await?;
    let broken = hanging_up().await?;
    let mut options = trusting(&authority, &server);
    options
        .addresses
        .insert(0, Address::tcp("127.0.0.1", broken.port()));
    accepted(&options).await?;

    options.addresses.truncate(1);
    let error = refused(&options).await?;
    assert!(matches!(error, TlsError::HungUp), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_says_nothing_in_the_handshake_is_given_up() -> Outcome {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let mut options = Options::from_uri(&format!(
        "amqps://{}?verify=verify_none",
        listener.local_addr()?
    ))?;
    options.tls_timeout = Duration::from_millis(100);
    let refused = connect_with(&options).await;
    let Err(ConnectError::Tls { error, .. }) = refused else {
        return Err("it was not refused as it should be".into());
    };
    assert_eq!(
        error.to_string(),
        "the TLS handshake was not over within 100ms"
    );
    assert!(matches!(error, TlsError::TimedOut(limit) if limit == options.tls_timeout));
    Ok(())
}

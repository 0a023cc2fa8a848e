//! Connections over TLS: those that snakeMQ's users rely on, and the reasons of refusals.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use amqp_tokio::{
    CertificateFault, ClientCertificateFault, ConnectError, Error, TlsError,
    core::{
        CloseCause, NotAmqp,
        protocol::{ReplyCode, basic},
    },
};

use super::{
    Case, case,
    tools::{assert_connection_closed, consume, get, open_confirming, own_queue, put, text, to},
};
use crate::{
    certificates::Clients,
    context::Ctx,
    harness::{Failure, Outcome},
    operator::Operator,
};

pub(super) fn cases() -> Vec<Case> {
    let anyone = [
        case!(a_message_of_800_kb_is_whole),
        case!(small_messages_keep_their_order),
        case!(a_close_between_deliveries_ends_both_sides_once),
        case!(a_client_that_vanishes_in_the_handshake_harms_no_other),
        case!(a_peer_that_vanishes_in_the_handshake_is_left_for_the_next),
        case!(a_broker_of_another_authority_is_refused),
        case!(a_client_of_another_authority_is_refused),
        case!(tls_a_broker_of_another_name_is_refused),
        case!(tls_an_unknown_broker_is_taken_without_verification),
        case!(tls_a_wrong_password_is_refused_in_words),
        case!(tls_a_port_that_is_dialled_without_tls_says_so),
        case!(tls_external_logs_in_the_user_of_the_certificate),
        case!(tls_external_refuses_a_client_without_a_certificate),
        case!(tls_external_refuses_an_unknown_user),
    ];
    let certified = [
        case!(certificates_on_both_sides),
        case!(without_a_certificate_there_is_no_connection),
    ];
    let anyone = anyone.map(|case| case.with_tls(Clients::Anyone));
    let certified = certified.map(|case| case.with_tls(Clients::Certified));
    let plain = [case!(tls_a_plain_port_that_is_dialled_with_tls_says_so)];
    [&anyone[..], &certified, &plain].concat()
}

/// The error of TLS at that URI.
async fn fault(cx: &Ctx, uri: &str) -> Result<TlsError, Failure> {
    match cx.soon(cx.connect_to(uri, |_| ())).await? {
        Ok(_) => Err("the connection was opened".into()),
        Err(failure) => match *failure.downcast::<ConnectError>()? {
            ConnectError::Tls { error, .. } => Ok(error),
            other => Err(other.into()),
        },
    }
}

/// The query parameters for a client that shows a certificate.
fn showing(cx: &Ctx, name: &str) -> Result<String, Failure> {
    let path = |kind| Ok::<_, Failure>(cx.certificates()?.path(&format!("{name}.{kind}")));
    Ok(format!(
        "certfile={}&keyfile={}",
        path("pem")?,
        path("key")?
    ))
}

/// Given SNK-03 and SNK-10 over TLS: 800 kB in one message, then received whole.
async fn a_message_of_800_kb_is_whole(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    let body: Vec<u8> = (0..800_000_u32).map(|it| (it % 251) as u8).collect();
    put(&channel, "", &queue, body.clone()).await?;
    let got = channel.get(get(&queue)).await?.ok_or("no message")?;
    assert!(got.body.to_vec() == body, "another one came");
    Ok(connection.close().await?)
}

/// Given SNK-09 over TLS: small messages sent back to back, then received as the same, in order.
async fn small_messages_keep_their_order(cx: Ctx) -> Outcome {
    const COUNT: usize = 1_000;
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    let mut confirms = Vec::new();
    for number in 0..COUNT {
        let body = number.to_string();
        let properties = basic::Properties::default();
        confirms.push(channel.publish(&to("", &queue), &properties, body).await?);
    }
    let mut consumer = channel.consume_no_ack(consume(&queue)).await?;
    for number in 0..COUNT {
        let message = cx.soon(consumer.next()).await?.ok_or("it ended")??;
        assert_eq!(text(&message.body), number.to_string());
    }
    for confirm in confirms {
        confirm.await?;
    }
    Ok(connection.close().await?)
}

/// Given SNK-04 over TLS: a close while deliveries come in, then each side closes once.
async fn a_close_between_deliveries_ends_both_sides_once(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let mark = cx.mark(&connection).await?;
    let queue = own_queue(&channel).await?;
    for number in 0..20 {
        put(&channel, "", &queue, number.to_string()).await?;
    }
    let mut consumer = channel.consume(consume(&queue)).await?;
    let _first = cx.soon(consumer.next()).await?.ok_or("it ended")??;
    connection.close().await?;
    let reason = connection.close_reason().ok_or("closed without a reason")?;
    assert!(reason.is_clean(), "{reason}");
    assert_eq!(connection.close().await, Ok(()), "closed again");
    cx.gone(&mark).await
}

/// Given clients that say nothing, something else, or half of a hello, and vanish, then others
/// connect all the same, and the broker has none of them any more.
async fn a_client_that_vanishes_in_the_handshake_harms_no_other(cx: Ctx) -> Outcome {
    let mut scanners = Vec::new();
    for words in [
        &b""[..],
        b"GET / HTTP/1.0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ] {
        let mut scanner = TcpStream::connect(cx.address)?;
        scanner.write_all(words)?;
        scanners.push(scanner);
    }
    let connection = cx.soon(cx.connect()).await??;
    drop(scanners);
    cx.soon(cx.connect()).await??.close().await?;
    connection.open_channel().await?;
    connection.close().await?;
    if let Operator::Embedded(embedded) = cx.operator() {
        let broker = embedded.broker();
        cx.until("nobody is left", || broker.inspect().connections.is_empty())
            .await?;
    }
    Ok(())
}

/// A server that hangs up after the first bytes.
fn hanging_up() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for client in listener.incoming() {
            // However much it says: all of it fits.
            let _said = client.and_then(|mut client| client.read(&mut [0; 16 << 10]));
        }
    });
    Ok(address)
}

/// Given a peer that vanishes in the handshake, then the client says so, and goes on to the next.
async fn a_peer_that_vanishes_in_the_handshake_is_left_for_the_next(cx: Ctx) -> Outcome {
    let address = hanging_up()?;
    let error = fault(&cx, &cx.uri_at(address)).await?;
    assert!(matches!(error, TlsError::HungUp), "{error:?}");
    let both = format!("{address},{}", cx.address);
    let uri = cx.uri.replace(&cx.address.to_string(), &both);
    let connection = cx.soon(cx.connect_to(&uri, |_| ())).await??;
    Ok(connection.close().await?)
}

/// Given required client certificates, then both sides see the other's.
async fn certificates_on_both_sides(cx: Ctx) -> Outcome {
    let connection = cx.connect_asking(&showing(&cx, "client")?).await?;
    assert_eq!(
        connection.peer_certificates().first(),
        Some(&cx.certificates()?.of_broker()?)
    );
    if let Operator::RabbitMq(node) = cx.operator() {
        let listed = cx
            .ctl(node, &["list_connections", "vhost", "peer_cert_subject"])
            .await?;
        let line = format!("{}\tCN=guest", cx.vhost);
        assert!(listed.lines().any(|it| it == line), "{listed}");
    }
    Ok(connection.close().await?)
}

/// Given required client certificates and a client without one, then no connection, and the error
/// has the reason.
async fn without_a_certificate_there_is_no_connection(cx: Ctx) -> Outcome {
    let error = fault(&cx, &cx.uri).await?;
    assert!(
        matches!(
            error,
            TlsError::ClientCertificate(ClientCertificateFault::Required)
        ),
        "{error:?}"
    );
    Ok(())
}

/// Given a client of an authority that the broker does not know, then no connection, and the error has
/// the reason.
async fn a_client_of_another_authority_is_refused(cx: Ctx) -> Outcome {
    let error = fault(&cx, &cx.uri_asking(&showing(&cx, "other")?)).await?;
    assert_eq!(
        error.to_string(),
        "the server refused the client certificate: it was issued by an unknown authority"
    );
    Ok(())
}

/// Given a broker of an authority that the client does not know, then no connection.
async fn a_broker_of_another_authority_is_refused(cx: Ctx) -> Outcome {
    let error = fault(&cx, &cx.uri.replace("/ca.pem", "/other-ca.pem")).await?;
    assert!(
        matches!(
            error,
            TlsError::Certificate(CertificateFault::UnknownIssuer)
        ),
        "{error:?}"
    );
    Ok(())
}

/// Given a name that the broker's certificate does not have, then no connection; the name counts
/// in place of the host.
async fn tls_a_broker_of_another_name_is_refused(cx: Ctx) -> Outcome {
    let named = |name| cx.uri_asking(&format!("server_name_indication={name}"));
    let error = fault(&cx, &named("broker.example.com")).await?;
    assert_eq!(
        error.to_string(),
        "the server's certificate is not for `broker.example.com` but for `localhost`, \
         `127.0.0.1`"
    );
    for name in ["localhost", "disable"] {
        cx.connect_to(&named(name), |_| ()).await?.close().await?;
    }
    Ok(())
}

/// Given `verify_none`, then nothing is asked of the broker's certificate.
async fn tls_an_unknown_broker_is_taken_without_verification(cx: Ctx) -> Outcome {
    let (uri, _) = cx.uri.split_once('?').ok_or("no query")?;
    let uri = format!("{uri}?verify=verify_none&server_name_indication=broker.example.com");
    Ok(cx.connect_to(&uri, |_| ()).await?.close().await?)
}

/// Given a wrong password, then 403 access_refused, as without TLS.
async fn tls_a_wrong_password_is_refused_in_words(cx: Ctx) -> Outcome {
    let uri = cx.uri.replace("guest:guest", "guest:wrong");
    let error = cx.refusal(&uri).await?;
    assert_connection_closed(&error, ReplyCode::ACCESS_REFUSED);
    Ok(())
}

/// Given a port for TLS that is dialled without, then the error names TLS.
async fn tls_a_port_that_is_dialled_without_tls_says_so(cx: Ctx) -> Outcome {
    let (uri, _) = cx.uri.split_once('?').ok_or("no query")?;
    let error = cx.refusal(&uri.replace("amqps://", "amqp://")).await?;
    let Error::ConnectionClosed(reason) = &error else {
        return Err(error.into());
    };
    assert!(
        matches!(reason.cause(), CloseCause::NotAmqp(NotAmqp::Tls)),
        "{reason}"
    );
    Ok(())
}

/// Given a plain port that is dialled with TLS, then the error says that it is none for TLS.
async fn tls_a_plain_port_that_is_dialled_with_tls_says_so(cx: Ctx) -> Outcome {
    let uri = cx.uri.replace("amqp://", "amqps://");
    let error = fault(&cx, &format!("{uri}?verify=verify_none")).await?;
    assert!(matches!(error, TlsError::NotTls), "{error:?}");
    Ok(())
}

/// The URI to log in with EXTERNAL, for a user and a password that do not matter.
fn external(cx: &Ctx) -> String {
    cx.uri_asking("auth_mechanism=external")
        .replace("guest:guest", "nobody:wrong")
}

/// That EXTERNAL is refused at that URI.
async fn assert_not_let_in(cx: &Ctx, uri: &str) -> Outcome {
    let error = cx.refusal(uri).await?;
    let Error::ConnectionClosed(reason) = &error else {
        return Err(error.into());
    };
    assert!(
        matches!(reason.cause(), CloseCause::AuthenticationFailed { .. }),
        "{reason}"
    );
    let text = "Login was refused using authentication mechanism EXTERNAL.";
    assert!(reason.to_string().contains(text), "{reason}");
    assert_connection_closed(&error, ReplyCode::ACCESS_REFUSED);
    Ok(())
}

/// Given EXTERNAL and a client certificate, then the user is that of the certificate, with any user
/// in the URI.
async fn tls_external_logs_in_the_user_of_the_certificate(cx: Ctx) -> Outcome {
    let shown = format!("{}&{}", external(&cx), showing(&cx, "client")?);
    let connection = cx.connect_to(&shown, |_| ()).await?;
    connection.open_channel().await?;
    match cx.operator() {
        Operator::RabbitMq(node) => {
            let columns = ["vhost", "user", "auth_mechanism"];
            let listed = [&["list_connections"][..], &columns].concat();
            let listed = cx.ctl(node, &listed).await?;
            let line = format!("{}\tguest\tEXTERNAL", cx.vhost);
            assert!(listed.lines().any(|it| it == line), "{listed}");
        }
        Operator::Embedded(embedded) => {
            let connections = embedded.broker().inspect().connections;
            let users: Vec<&str> = connections.iter().map(|it| it.user.as_str()).collect();
            assert_eq!(users, ["guest"]);
            let shown = connections[0].certificate.as_deref();
            assert_eq!(shown, Some(&*cx.certificates()?.der("client")?));
        }
    }
    Ok(connection.close().await?)
}

/// Given EXTERNAL and no client certificate, then 403 access_refused.
async fn tls_external_refuses_a_client_without_a_certificate(cx: Ctx) -> Outcome {
    assert_not_let_in(&cx, &external(&cx)).await
}

/// Given EXTERNAL and a certificate of a user that the broker does not know, then 403
/// access_refused.
async fn tls_external_refuses_an_unknown_user(cx: Ctx) -> Outcome {
    let uri = format!("{}&{}", external(&cx), showing(&cx, "no-user")?);
    assert_not_let_in(&cx, &uri).await
}

//! Links with TLS, and their certificates.

use std::{
    io::Write as _,
    net::{Ipv4Addr, TcpStream},
    sync::Arc,
};

use amqp_peer::{
    CertificateRule, Config, DownCause, Event, Listen,
    amqp_driver::{
        Certificates, Identity, Key, TlsOptions,
        rustls::{
            RootCertStore, ServerConfig, crypto::ring, pki_types::PrivateKeyDer,
            server::WebPkiClientVerifier,
        },
    },
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::{
    links, messages,
    rig::{Adapter, Failure, Outcome, World, name, on_every_runtime},
};

on_every_runtime!(
    a_large_message_arrives_whole,
    messages_arrive_in_order,
    a_disconnect_while_a_message_is_handled_ends_the_link_once,
    both_sides_see_the_certificate_of_the_other,
    a_peer_of_another_authority_gets_no_link,
    a_peer_without_a_certificate_gets_no_link,
    a_stranger_in_the_tls_handshake_is_forgotten,
    a_name_that_is_not_in_the_certificate_is_refused,
);

/// An authority, which issues certificates for peers at 127.0.0.1.
#[derive(Clone)]
pub(crate) struct Authority(Arc<Inner>);

struct Inner {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Result<Self, Failure> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let issuer = Issuer::new(params, key);
        Ok(Self(Arc::new(Inner {
            certificate,
            issuer,
        })))
    }

    /// The certificate and the key of a peer, in DER.
    fn issue(&self, name: &str) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        let mut params = CertificateParams::new(["127.0.0.1".into(), format!("{name}.peers")])?;
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0.issuer)?;
        Ok((certificate.der().to_vec(), key.serialize_der()))
    }

    /// The configuration of a listener, which requires certificates of this authority.
    pub(crate) fn server(&self, name: &str) -> Result<ServerConfig, Failure> {
        let (certificate, key) = self.issue(name)?;
        let key = PrivateKeyDer::try_from(key)?;
        let mut roots = RootCertStore::empty();
        roots.add(self.0.certificate.der().clone())?;
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.into()], key)?;
        Ok(config)
    }

    /// The settings of a connector with a certificate of this authority.
    pub(crate) fn client(&self, name: &str) -> TlsOptions {
        let (certificate, key) = self.issue(name).expect("a certificate");
        let identity = Identity::new(Certificates::der([certificate]), Key::der(key));
        self.anonymous().identity(identity)
    }

    /// The settings of a connector without a certificate.
    fn anonymous(&self) -> TlsOptions {
        let own = self.0.certificate.der().to_vec();
        TlsOptions::default()
            .authorities(Certificates::der([own]))
            .provider(ring::default_provider())
    }
}

/// SNK-06.
async fn a_large_message_arrives_whole<R: Adapter>(world: World<R>) -> Outcome {
    messages::a_large_message_arrives_whole(world.secured()?).await
}

/// SNK-06.
async fn messages_arrive_in_order<R: Adapter>(world: World<R>) -> Outcome {
    messages::messages_arrive_in_order(world.secured()?).await
}

/// SNK-06.
async fn a_disconnect_while_a_message_is_handled_ends_the_link_once<R: Adapter>(
    world: World<R>,
) -> Outcome {
    let world = world.secured()?;
    links::a_disconnect_while_a_message_is_handled_ends_the_link_once(world).await
}

/// SNK-36.
async fn both_sides_see_the_certificate_of_the_other<R: Adapter>(world: World<R>) -> Outcome {
    let world = world.secured()?;
    let (mut alice, mut bob) = (world.start("alice")?, world.start("bob")?);
    world.join(&alice, &bob).await?;
    for (node, other) in [(&mut alice, "bob"), (&mut bob, "alice")] {
        let up = node.up().await?;
        assert_eq!(up.name, name(other));
        let own = up.certificates.first().ok_or("no certificate")?;
        let text = format!("{other}.peers");
        assert!(own.windows(text.len()).any(|it| it == text.as_bytes()));
    }
    Ok(())
}

/// SNK-36 and SNK-07.
async fn a_peer_of_another_authority_gets_no_link<R: Adapter>(world: World<R>) -> Outcome {
    let (ours, theirs) = (world.clone().secured()?, world.secured()?);
    let (mut alice, mut bob) = (ours.start("alice")?, ours.start("bob")?);
    let listening = alice.listen(&ours).await?;
    // It does not trust the listener, and the listener would not trust it.
    let connector = bob.dial(&theirs, &listening);
    assert!(matches!(bob.next().await?, Event::Unreachable(_)));
    assert_eq!(alice.refused().await?.cause, DownCause::Transport);
    // It tries again.
    assert!(matches!(bob.next().await?, Event::Unreachable(_)));
    assert_eq!(alice.refused().await?.cause, DownCause::Transport);
    bob.peer.remove_connector(connector);
    bob.dial(&ours, &listening);
    loop {
        match alice.next().await? {
            Event::Up(up) => break assert_eq!(up.name, name("bob")),
            Event::Refused(_) => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(())
}

async fn a_peer_without_a_certificate_gets_no_link<R: Adapter>(world: World<R>) -> Outcome {
    let world = world.secured()?;
    let (mut alice, mut bob) = (world.start("alice")?, world.start("bob")?);
    let listening = alice.listen(&world).await?;
    let port = listening.port().ok_or("no port")?;
    let authority = world.authority.clone().ok_or("no authority")?;
    let connect = amqp_peer::Connect::tcp("127.0.0.1", port).tls(authority.anonymous());
    bob.peer.add_connector(connect);
    assert_eq!(alice.refused().await?.cause, DownCause::Transport);
    // TLS 1.3 tells the client after its handshake, TLS 1.2 in it.
    match bob.next().await? {
        Event::Refused(refused) => assert_eq!(refused.cause, DownCause::Transport),
        Event::Unreachable(_) => {}
        other => return Err(format!("{other:?}").into()),
    }
    Ok(())
}

/// SNK-07.
async fn a_stranger_in_the_tls_handshake_is_forgotten<R: Adapter>(world: World<R>) -> Outcome {
    let world = world.secured()?;
    let mut bob = world.start("bob")?;
    let listening = bob.listen(&world).await?;
    let port = listening.port().ok_or("no port")?;
    for scan in [
        &b""[..],
        b"\x16\x03\x01",
        b"GET / HTTP/1.1\r\n\r\n",
        b"AMQP\0\0\x09\x01",
    ] {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.write_all(scan)?;
        drop(stream);
        assert_eq!(bob.refused().await?.cause, DownCause::Transport);
    }
    assert!(bob.peer.links().iter().all(|link| !link.is_up));
    let mut alice = world.start("alice")?;
    alice.dial(&world, &listening);
    assert_eq!(bob.up().await?.name, name("alice"));
    alice.up().await?;
    Ok(())
}

async fn a_name_that_is_not_in_the_certificate_is_refused<R: Adapter>(world: World<R>) -> Outcome {
    let world = world.secured()?;
    let named =
        |name| Ok::<_, Failure>(Config::new(name)?.certificate_rule(CertificateRule::name()));
    let authority = world.authority.clone().ok_or("no authority")?;
    let (mut alice, mut bob) = (
        world.start_with(named("alice")?)?,
        world.start_with(named("bob")?)?,
    );
    // One of them shows the certificate of another peer.
    let listen = Listen::tcp("127.0.0.1:0").tls(authority.server("bob")?);
    let listening = bob.peer.add_listener(listen).await?;
    let port = listening.port().ok_or("no port")?;
    let connect = amqp_peer::Connect::tcp("127.0.0.1", port);
    let wrong = alice
        .peer
        .add_connector(connect.clone().tls(authority.client("jack")));
    assert_eq!(bob.refused().await?.cause, DownCause::Certificate);
    assert_eq!(alice.refused().await?.cause, DownCause::Certificate);
    alice.peer.remove_connector(wrong);
    alice
        .peer
        .add_connector(connect.tls(authority.client("alice")));
    loop {
        match bob.next().await? {
            Event::Up(up) => break assert_eq!(up.name, name("alice")),
            Event::Refused(_) => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(())
}

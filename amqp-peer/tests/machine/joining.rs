//! The handshake of two peers, and what refuses it.

use amqp_core::{client, wire::FieldTable};
use amqp_peer::{CertificateRule, Clients, DownCause, Limits, LinkError};
use bytes::{Bytes, BytesMut};

use crate::rig::{ROLES, World, config, name, seconds};

/// The causes that both sides report.
fn causes(world: &World) -> [Vec<DownCause>; 2] {
    [world.nodes[0].refusals(), world.nodes[1].refusals()]
}

#[test]
fn a_wrong_secret_is_refused_and_told() {
    for (from, to) in ROLES {
        for secret in ["", "sesame?", "sesam"] {
            let mut world = World::new([
                config("alice").secret("sesame"),
                config("bob").secret(secret),
            ]);
            world.connect(from, to);
            world.run();
            let expected = vec![DownCause::Secret];
            assert_eq!(causes(&world), [expected.clone(), expected]);
            assert_eq!(world.links_up(0) + world.links_up(1), 0);
        }
        let mut world = World::new([
            config("alice").secret("sesame"),
            config("bob").secret("sesame"),
        ]);
        world.connect(from, to);
        world.run();
        assert_eq!(world.links_up(0), 1);
    }
}

#[test]
fn a_peer_that_dials_itself_is_refused_and_told() {
    let mut world = World::named(&["alice", "alice"]);
    world.connect(0, 0);
    world.run();
    assert_eq!(
        world.nodes[0].refusals(),
        [DownCause::OwnName, DownCause::OwnName]
    );
    world.connect(0, 1);
    world.run();
    assert_eq!(world.nodes[1].refusals(), [DownCause::OwnName]);
}

#[test]
fn a_certificate_that_does_not_allow_the_name_is_refused() {
    let rule = CertificateRule::new(|name, certificates| {
        certificates.first().is_some_and(|it| it == name.as_str())
    });
    for (from, to) in ROLES {
        for (certificate, is_right) in [("alice", true), ("jack", false)] {
            let strict = config("bob").certificate_rule(rule.clone());
            let mut world = World::new([config("alice"), strict]);
            let pipe = world.connect(from, to);
            let end = world.pipes[pipe].iter().find(|end| end.node == 1).unwrap();
            let certificates = vec![Bytes::from_static(certificate.as_bytes())];
            let link = end.link;
            world.nodes[1]
                .machine
                .handle_certificates(link, certificates.clone());
            world.run();
            if is_right {
                assert_eq!(world.nodes[1].ups()[0].certificates, certificates);
                assert_eq!(world.links_up(0), 1);
            } else {
                let expected = vec![DownCause::Certificate];
                assert_eq!(causes(&world), [expected.clone(), expected]);
            }
        }
    }
}

#[test]
fn a_link_that_is_not_up_in_time_ends() {
    for (from, to) in ROLES {
        let mut world = World::named(&["alice", "bob"]);
        let pipe = world.connect(from, to);
        world.stalled.push(pipe);
        world.advance(seconds(9));
        assert_eq!(causes(&world), [vec![], vec![]]);
        world.advance(seconds(1));
        let expected = vec![DownCause::Handshake];
        assert_eq!(causes(&world), [expected.clone(), expected]);
        assert_eq!(world.nodes[1].machine.links().count(), 1);
    }
}

#[test]
fn a_transport_that_ends_during_the_handshake_is_one_refusal() {
    for (from, to) in ROLES {
        let mut world = World::named(&["alice", "bob"]);
        let pipe = world.connect(from, to);
        world.step(pipe, 1);
        world.cut(pipe);
        world.run();
        let expected = vec![DownCause::Transport];
        assert_eq!(causes(&world), [expected.clone(), expected]);
    }
}

#[test]
fn accepted_links_before_the_login_are_bounded() {
    let limits = Limits::default().pending_links(3);
    let mut world = World::new([config("alice"), config("bob").limits(limits)]);
    let now = world.now;
    let machine = &mut world.nodes[1].machine;
    let links: Vec<_> = (0..3).map(|_| machine.accept(now).unwrap()).collect();
    let limit = 3;
    assert_eq!(
        machine.accept(now),
        Err(LinkError::TooManyPending { limit })
    );
    machine.remove(links[0], now);
    // One that is up does not count.
    world.connect(0, 1);
    world.run();
    assert_eq!(world.links_up(1), 1);
    assert!(world.nodes[1].machine.accept(now).is_ok());
    assert!(world.nodes[1].machine.accept(now).is_err());
}

#[test]
fn links_that_are_up_are_bounded() {
    let limits = Limits::default().links(1);
    let mut world = World::new([
        config("alice").limits(limits),
        config("bob"),
        config("jack"),
    ]);
    world.connect(1, 0);
    world.connect(2, 0);
    world.run();
    assert_eq!(world.links_up(0), 1);
    assert_eq!(world.nodes[2].refusals(), [DownCause::TooManyLinks]);
    let limit = 1;
    let now = world.now;
    let refused = world.nodes[0].machine.accept(now);
    assert_eq!(refused, Err(LinkError::TooManyLinks { limit }));
}

#[test]
fn events_of_links_that_are_not_taken_stop_further_links() {
    let limits = Limits::default().link_events(5);
    let mut world = World::new([config("alice").limits(limits)]);
    let now = world.now;
    let machine = &mut world.nodes[0].machine;
    for _ in 0..5 {
        let link = machine.accept(now).unwrap();
        machine.remove(link, now);
    }
    let limit = 5;
    assert_eq!(machine.accept(now), Err(LinkError::TooManyEvents { limit }));
    assert!(machine.poll_event().is_some());
    assert!(machine.accept(now).is_ok());
}

/// A plain AMQP client, and its bytes.
struct Plain {
    machine: client::Connection,
    input: BytesMut,
}

impl Plain {
    fn new(world: &World) -> Self {
        let config = client::Config::default();
        Self {
            machine: client::Connection::new(config, world.now).unwrap(),
            input: BytesMut::new(),
        }
    }

    /// Exchanges bytes with a link of peer 0.
    fn exchange(&mut self, world: &mut World, link: amqp_peer::LinkKey) {
        let now = world.now;
        let mut wire = BytesMut::new();
        for _ in 0..20 {
            let mut out = amqp_core::Transmit::new();
            self.machine.poll_transmit(now, &mut out);
            wire.extend(out.take_segments());
            let peer = &mut world.nodes[0].machine;
            if !wire.is_empty() {
                peer.handle_input(link, now, &mut wire);
            }
            peer.poll_transmit(link, now, &mut out);
            self.input.extend(out.take_segments());
            self.machine.handle_input(now, &mut self.input);
        }
        world.run();
    }
}

#[test]
fn a_plain_client_is_refused_and_told() {
    let mut world = World::named(&["alice"]);
    let now = world.now;
    let link = world.nodes[0].machine.accept(now).unwrap();
    let mut client = Plain::new(&world);
    client.exchange(&mut world, link);
    assert!(world.nodes[0].machine.take_client(link).is_none());
    assert_eq!(world.nodes[0].refusals(), [DownCause::NotAPeer]);
    let reason = client.machine.close_reason().unwrap();
    assert!(reason.to_string().contains("peers only"), "{reason}");
}

#[test]
fn a_plain_client_that_is_allowed_is_handed_over() {
    let mut world = World::new([config("alice").clients(Clients::Allow)]);
    let now = world.now;
    let link = world.nodes[0].machine.accept(now).unwrap();
    let mut client = Plain::new(&world);
    client.exchange(&mut world, link);
    let mut taken = world.nodes[0].machine.take_client(link).unwrap();
    assert_eq!(taken.request.mechanism, "PLAIN");
    assert!(taken.machine.accept().is_ok());
    assert!(world.nodes[0].machine.is_finished(link));
    assert_eq!(world.nodes[0].refusals(), []);
    // Its place among the links before the login is free again.
    for _ in 0..100 {
        world.nodes[0].machine.accept(now).unwrap();
    }
}

#[test]
fn a_server_that_is_no_peer_is_told_apart() {
    let mut world = World::named(&["alice"]);
    let now = world.now;
    let link = world.nodes[0].machine.dial(now).unwrap();
    let config = amqp_core::server::Config::default().properties(FieldTable::new());
    let mut server = amqp_core::server::Connection::new(config, now).unwrap();
    let (mut to_server, mut to_peer) = (BytesMut::new(), BytesMut::new());
    for _ in 0..20 {
        let mut out = amqp_core::Transmit::new();
        world.nodes[0].machine.poll_transmit(link, now, &mut out);
        to_server.extend(out.take_segments());
        server.handle_input(now, &mut to_server);
        while let Some(event) = server.poll_event() {
            match event {
                amqp_core::server::Event::Authenticate(_) => server.accept().unwrap(),
                amqp_core::server::Event::Open { .. } => server.open().unwrap(),
                _ => {}
            }
        }
        server.poll_transmit(now, &mut out);
        to_peer.extend(out.take_segments());
        if !to_peer.is_empty() {
            world.nodes[0].machine.handle_input(link, now, &mut to_peer);
        }
    }
    world.run();
    assert_eq!(world.nodes[0].refusals(), [DownCause::NotAPeer]);
}

#[test]
fn names_are_checked() {
    use amqp_peer::{PeerName, PeerNameError};
    assert_eq!(PeerName::new(""), Err(PeerNameError::Empty));
    let long = "x".repeat(129);
    assert_eq!(
        PeerName::new(&long),
        Err(PeerNameError::TooLong { len: 129 })
    );
    assert_eq!(PeerName::new("a\0b"), Err(PeerNameError::ControlCharacter));
    assert_eq!(PeerName::new("a\nb"), Err(PeerNameError::ControlCharacter));
    assert_eq!(name(&"x".repeat(128)).as_str().len(), 128);
}

#[test]
fn the_longest_name_and_secret_fit_into_the_handshake() {
    for (from, to) in ROLES {
        let secret = "s".repeat(1024);
        let mut world = World::new([
            config(&"ä".repeat(64)).secret(secret.as_str()),
            config(&"ö".repeat(64)).secret(secret.as_str()),
        ]);
        world.connect(from, to);
        world.run();
        assert_eq!(world.links_up(0), 1);
    }
}

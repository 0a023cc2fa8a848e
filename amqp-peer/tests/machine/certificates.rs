//! The rules of names and certificates.

use std::sync::{Arc, Mutex};

use amqp_peer::{CertificateRule, DownCause, PeerName};
use bytes::Bytes;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};

use crate::rig::{ROLES, World, config, name};

/// Links `alice`, which shows certificates, to a peer with a rule. Returns the number of links, and
/// the causes of the refusal at either end.
fn link(
    rule: &CertificateRule,
    (from, to): (usize, usize),
    shown: &[Bytes],
) -> (usize, [Vec<DownCause>; 2]) {
    let mut world = World::new([
        config("alice"),
        config("bob").certificate_rule(rule.clone()),
    ]);
    let pipe = world.connect(from, to);
    let ends = &world.pipes[pipe];
    let end = ends.iter().find(|end| end.node == 1).unwrap();
    let link = end.link;
    world.nodes[1]
        .machine
        .handle_certificates(link, shown.to_vec());
    world.run();
    let refusals = [0, 1].map(|node| world.nodes[node].refusals());
    (world.links_up(1), refusals)
}

fn is_let_in(rule: &CertificateRule, shown: &[Bytes]) -> bool {
    let mut results = ROLES.map(|roles| match link(rule, roles, shown) {
        (1, [alice, bob]) if alice.is_empty() && bob.is_empty() => true,
        (0, refusals) => {
            let refused = || vec![DownCause::Certificate];
            assert_eq!(refusals, [refused(), refused()]);
            false
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(results[0], results[1]);
    std::mem::take(&mut results[0])
}

#[test]
fn a_rule_gets_the_name_and_the_certificates_in_their_order() {
    let asked = Arc::<Mutex<Vec<(PeerName, Vec<Bytes>)>>>::default();
    let noted = Arc::clone(&asked);
    let rule = CertificateRule::new(move |name, certificates| {
        noted
            .lock()
            .unwrap()
            .push((name.clone(), certificates.to_vec()));
        certificates.len() == 2
    });
    let shown = [Bytes::from("own"), Bytes::from("authority")];
    assert!(is_let_in(&rule, &shown));
    assert!(!is_let_in(&rule, &[]));
    let alice = || name("alice");
    let expected = [
        (alice(), shown.to_vec()),
        (alice(), shown.to_vec()),
        (alice(), vec![]),
        (alice(), vec![]),
    ];
    assert_eq!(*asked.lock().unwrap(), expected);
    assert_eq!(format!("{rule:?}"), "CertificateRule(..)");
}

#[test]
fn a_rule_that_panics_refuses() {
    let rule = CertificateRule::new(|_, _| panic!("for a test"));
    assert!(!is_let_in(&rule, &[Bytes::from("own")]));
}

fn certificate(common_name: Option<&str>, alternatives: Vec<SanType>) -> Bytes {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = alternatives;
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(common_name) = common_name {
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Bytes::from(certificate.der().to_vec())
}

#[test]
fn a_name_is_looked_for_in_the_own_certificate_of_the_peer() {
    let rule = CertificateRule::name();
    let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let of_alice = || certificate(Some("alice"), vec![]);
    assert!(is_let_in(&rule, &[of_alice()]));
    assert!(is_let_in(&rule, &[certificate(None, vec![dns("alice")])]));
    assert!(is_let_in(&rule, &[certificate(None, vec![uri("alice")])]));
    let among_others = vec![dns("other"), dns("alice")];
    assert!(is_let_in(&rule, &[certificate(Some("jack"), among_others)]));

    assert!(!is_let_in(&rule, &[]), "without a certificate");
    let others = vec![dns("alice.example"), uri("peer:alice")];
    assert!(!is_let_in(&rule, &[certificate(Some("Alice"), others)]));
    // That of its authority is of no account.
    assert!(!is_let_in(
        &rule,
        &[certificate(Some("jack"), vec![]), of_alice()]
    ));
    assert!(!is_let_in(&rule, &[Bytes::from("no certificate")]));
}

//! Brokers that are found by SRV records, at a name server of the test.

#![cfg(feature = "broker")]

use std::{error::Error, net::SocketAddr, time::Duration};

use amqp_test_support::{
    name_server::{Answer, NameServer},
    ports::free_port,
};
use amqp_tokio::{
    ConnectError, Connection, LocalBroker, Options, Server, TlsOptions, connect_with,
    core::{
        dial::{Address, SrvError},
        uri::{ServerNameIndication, TlsParameters},
    },
    recovery::{Backoff, Policy},
    serve,
};
use tokio::net::TcpListener;

type Outcome = Result<(), Box<dyn Error>>;

const SERVICE: &str = "_amqp._tcp.example.com";

async fn broker() -> std::io::Result<Server> {
    serve(
        TcpListener::bind("127.0.0.1:0").await?,
        LocalBroker::default(),
    )
}

fn options(servers: impl IntoIterator<Item = SocketAddr>) -> Options {
    Options::default()
        .addresses([Address::srv(SERVICE)])
        .name_servers(servers)
        .tcp_timeout(Duration::from_secs(120))
}

async fn connect(names: &NameServer) -> Result<Connection, ConnectError> {
    connect_with(&options([names.address()])).await
}

fn record(priority: u16, port: u16) -> (u16, u16, u16, String) {
    (priority, 10, port, "localhost".into())
}

/// The error of the lookup.
fn srv_error(refused: Result<Connection, ConnectError>) -> Result<SrvError, Box<dyn Error>> {
    match refused {
        Err(ConnectError::Unreachable(failures)) => {
            assert!(failures.to_string().contains(SERVICE), "{failures}");
            let failure = failures.as_slice().first().ok_or("no failure")?;
            Ok(failure.srv.clone().ok_or("it is not that of a lookup")?)
        }
        other => Err(format!("{other:?}").into()),
    }
}

#[tokio::test]
async fn the_next_target_is_tried_if_the_first_is_down() -> Outcome {
    let (names, server) = (NameServer::start()?, broker().await?);
    let (alive, dead) = (server.local_addr().port(), free_port()?);
    let records = vec![record(2, alive), record(1, dead)];
    names.set(SERVICE, Answer::Records(records));
    connect(&names).await?.close().await?;

    names.set_record(SERVICE, "localhost", dead);
    let Err(ConnectError::Unreachable(failures)) = connect(&names).await else {
        panic!("nothing listens");
    };
    assert!(
        failures.to_string().contains(&dead.to_string()),
        "{failures}"
    );
    Ok(())
}

#[tokio::test]
async fn an_answer_may_be_long_or_an_alias_or_come_after_noise() -> Outcome {
    let (names, server) = (NameServer::start()?, broker().await?);
    let one = || vec![record(0, server.local_addr().port())];
    let many = (0..50).flat_map(|_| one()).collect();
    let answers = [
        Answer::Records(many),
        Answer::Alias("_amqp._tcp.real.example.com".into(), one()),
        Answer::Noise(one()),
    ];
    for answer in answers {
        names.set(SERVICE, answer);
        connect(&names).await?.close().await?;
    }
    assert_eq!(names.asked(), (3, 1));
    Ok(())
}

#[tokio::test]
async fn a_lookup_may_take_any_time() -> Outcome {
    let (names, server) = (NameServer::start()?, broker().await?);
    names.set_record(SERVICE, "localhost", server.local_addr().port());
    let patient = options([names.address()]).tcp_timeout(Duration::MAX);
    connect_with(&patient).await?.close().await?;
    Ok(())
}

#[tokio::test]
async fn a_truncated_answer_may_end_within_a_record() -> Outcome {
    let (names, server) = (NameServer::start()?, broker().await?);
    let record = record(0, server.local_addr().port());
    names.set(SERVICE, Answer::Truncated(vec![record]));
    connect(&names).await?.close().await?;
    assert_eq!(names.asked(), (1, 1));
    Ok(())
}

#[tokio::test]
async fn the_target_of_a_record_is_printed_without_control_characters() -> Outcome {
    let names = NameServer::start()?;
    names.set_record(SERVICE, "a\n\x1b[2J.invalid", 1);
    for options in [
        options([names.address()]),
        options([names.address()]).tls(TlsOptions::default()),
    ] {
        let refused = connect_with(&options).await.expect_err("it is no host");
        let text = refused.to_string();
        assert!(text.contains(r"a\n\u{1b}[2J.invalid"), "{text}");
        assert!(!text.chars().any(char::is_control), "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn the_reason_without_an_address_is_typed() -> Outcome {
    let names = NameServer::start()?;
    assert_eq!(srv_error(connect(&names).await)?, SrvError::NotFound);
    names.set(SERVICE, Answer::Records(Vec::new()));
    assert_eq!(srv_error(connect(&names).await)?, SrvError::NotFound);
    names.set_record(SERVICE, ".", 0);
    assert_eq!(srv_error(connect(&names).await)?, SrvError::NoService);
    names.set(SERVICE, Answer::Code(2));
    let SrvError::Unanswered { why } = srv_error(connect(&names).await)? else {
        panic!("it has failed");
    };
    assert_eq!(why, format!("{}: ServerFailure", names.address()));
    let nameless = options([names.address()])
        .addresses([Address::srv(format!("{}.{SERVICE}", "x".repeat(64)))]);
    let invalid = srv_error(connect_with(&nameless).await)?;
    assert_eq!(invalid, SrvError::InvalidName);
    Ok(())
}

#[tokio::test]
async fn another_name_server_is_asked_if_one_is_down_and_a_silent_one_costs_the_timeout() -> Outcome
{
    let (names, server) = (NameServer::start()?, broker().await?);
    names.set_record(SERVICE, "localhost", server.local_addr().port());
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let both = options([nobody, names.address()]);
    connect_with(&both).await?.close().await?;

    names.set(SERVICE, Answer::Silence);
    let short = options([names.address()]).tcp_timeout(Duration::from_millis(50));
    let refused = connect_with(&short).await;
    assert!(
        matches!(refused, Err(ConnectError::Unreachable(_))),
        "{refused:?}"
    );
    Ok(())
}

#[tokio::test]
async fn the_records_are_looked_up_anew_at_each_attempt_of_a_recovery() -> Outcome {
    let (names, first) = (NameServer::start()?, broker().await?);
    names.set_record(SERVICE, "localhost", first.local_addr().port());
    let backoff = Backoff::default().first(Duration::from_millis(1));
    let policy = Policy::new(1).backoff(backoff.max(Duration::from_millis(10)));
    let options = options([names.address()]).recovery(policy);
    let connection = connect_with(&options).await?;
    first.shutdown().await;
    // The service is gone for a while, and then elsewhere.
    names.set_record(SERVICE, ".", 0);
    let asked = names.asked().0;
    while names.asked().0 < asked + 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let second = broker().await?;
    names.set_record(SERVICE, "localhost", second.local_addr().port());
    connection.open_channel().await?;
    assert_eq!(second.broker().inspect().connections.len(), 1);
    connection.close().await?;
    Ok(())
}

#[tokio::test]
async fn with_tls_a_target_elsewhere_needs_a_name_for_the_certificate() -> Outcome {
    let (names, server) = (NameServer::start()?, broker().await?);
    names.set_record(SERVICE, "localhost", server.local_addr().port());
    let secured = options([names.address()]).tls(TlsOptions::default());
    let target = "localhost".to_owned();
    let refused = srv_error(connect_with(&secured).await)?;
    assert_eq!(refused, SrvError::ForeignTarget { target });

    let name = ServerNameIndication::Name("example.com".into());
    let parameters = TlsParameters::default().server_name_indication(name);
    let named = TlsOptions::default().parameters(parameters);
    let refused = connect_with(&secured.tls(named)).await;
    // It was dialled, and speaks no TLS.
    assert!(
        matches!(refused, Err(ConnectError::Refused { .. })),
        "{refused:?}"
    );
    Ok(())
}

//! The tests of every adapter with sockets, on its runtime.

use std::{
    future::Future,
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    path::Path,
};

use amqp_driver::{
    Config, ConnectError, Connection, Options, connect,
    core::{CloseCause, dial::Address},
    io::{Runtime, Transport},
    protocol::{ReplyCode, basic, queue},
};
use amqp_embedded::{LocalBroker, Server};

use crate::name_server::NameServer;

pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Publishes a message that fits into no buffer of a socket, and fetches it.
pub async fn large_message(connection: &Connection) -> Outcome {
    let channel = connection.open_channel().await?.confirm_select().await?;
    let declare = queue::Declare::default().exclusive(true);
    let queue = channel.call(declare).await?.queue;
    let body: Vec<u8> = (0..10_000_000_u32).map(|it| (it >> 8) as u8).collect();
    let publish = basic::Publish::default().routing_key(&queue);
    let properties = basic::Properties::default();
    let confirm = channel.publish(&publish, &properties, body.clone()).await?;
    confirm.await?;
    let get = basic::Get::default().queue(&queue);
    let message = channel.get(get).await?.ok_or("no message")?;
    if message.body.to_vec() != body {
        return Err("another message".into());
    }
    Ok(())
}

/// A served broker is connected to by the name of its host, and its clients learn of its shutdown.
pub async fn over_tcp<R: Runtime>(runtime: R, server: Server<R>) -> Outcome {
    let port = server.local_addr().port();
    // The name has an address without a listener, where it has one for IPv6.
    let options = Options::from_uri(&format!("amqp://localhost:{port}"))?;
    let connection = connect(&runtime, &options).await?;
    large_message(&connection).await?;

    server.shutdown().await;
    let reason = connection.closed().await;
    assert_eq!(reason.code(), Some(ReplyCode::CONNECTION_FORCED));
    let refused = connect(&runtime, &options).await;
    assert!(matches!(refused, Err(ConnectError::Unreachable(_))));
    Ok(())
}

/// A served broker is connected to by the SRV records of its service.
pub async fn by_service<R: Runtime>(runtime: R, server: Server<R>) -> Outcome {
    let names = NameServer::start()?;
    let service = "_amqp._tcp.example.com";
    names.set_record(service, "localhost", server.local_addr().port());
    let options = Options::default().addresses([Address::srv(service)]);
    let options = options.name_servers([names.address()]);
    let connection = connect(&runtime, &options).await?;
    large_message(&connection).await?;
    connection.close().await?;
    assert_eq!(names.asked(), (1, 0));
    Ok(())
}

/// A broker is connected to over a Unix socket, where `accept` gives the one connection that comes.
pub async fn over_unix<R: Runtime + Default, T: Transport + Unpin + 'static>(
    path: &Path,
    accept: impl Future<Output = io::Result<T>> + Send + 'static,
) -> Outcome {
    let runtime = R::default();
    let broker = LocalBroker::<R>::default();
    let (serving, accepting) = (runtime.clone(), broker.clone());
    runtime.spawn(async move {
        if let Ok(stream) = accept.await
            && let Ok(driver) = accepting.accept(stream)
        {
            serving.spawn(driver);
        }
    });
    let path = path.to_str().ok_or("a path that is no text")?;
    let options = Options::default().addresses([Address::unix(path)]);
    let connection = connect(&runtime, &options).await?;
    large_message(&connection).await?;
    connection.close().await?;

    let nowhere = Options::default().addresses([Address::unix(format!("{path}.not"))]);
    let refused = connect(&runtime, &nowhere).await;
    assert!(matches!(refused, Err(ConnectError::Unreachable(_))));
    Ok(())
}

/// A name is resolved, and the error of another one is the system's.
pub async fn resolving<R: Runtime + Default>() -> Outcome {
    let runtime = R::default();
    let addresses = runtime.resolve("localhost", 7).await?;
    assert!(!addresses.is_empty());
    let is_local = |it: &SocketAddr| it.ip().is_loopback() && it.port() == 7;
    assert!(addresses.iter().all(is_local), "{addresses:?}");

    // Too long for a name: no name server is asked, of which each answer might be another.
    let nobody = &"nobody.".repeat(40)[..];
    let said = (nobody, 7).to_socket_addrs().err().ok_or("it has one")?;
    let reported = runtime.resolve(nobody, 7).await.err().ok_or("it has one")?;
    assert_eq!(reported.to_string(), said.to_string());
    Ok(())
}

/// A broker that stalls is noticed by the clock.
pub async fn silent_peer<R: Runtime + Default>() -> Outcome {
    use amqp_embedded::broker::{ByteFaults, Impairment};

    let broker = LocalBroker::<R>::default();
    let config = Config::default().heartbeat(1);
    let connection = broker.connect(config).await?;
    let key = broker.inspect().connections[0].key;
    let stall = ByteFaults::new().to_client(Impairment::new().stall_after(0));
    broker.with(|broker| broker.faults().bytes(key, stall));
    let reason = connection.closed().await;
    assert!(
        matches!(reason.cause(), CloseCause::TimedOut(_)),
        "{reason}"
    );
    Ok(())
}

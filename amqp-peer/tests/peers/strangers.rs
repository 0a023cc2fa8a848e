//! Strangers that speak AMQP, and call themselves peers.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
};

use amqp_core::{
    Instant, Transmit,
    server::{self, Event},
    wire::FieldTable,
};
use amqp_peer::{
    Connect, DownCause,
    amqp_driver::{self, Options, io::in_thread},
};
use bytes::{Buf as _, BytesMut};

use crate::rig::{Adapter, Failure, Outcome, World, on_every_runtime};

on_every_runtime!(a_peer_of_another_version_is_refused);

/// What a peer of another version says of itself.
fn identity() -> FieldTable {
    FieldTable::new()
        .with("peer.name", "stranger")
        .with("peer.version", 2)
}

/// SNK-14: the stranger connects, or is connected to.
async fn a_peer_of_another_version_is_refused<R: Adapter>(world: World<R>) -> Outcome {
    let mut bob = world.start("bob")?;
    if world.first_listens {
        let port = bob.listen(&world).await?.port().ok_or("no port")?;
        let mut options = Options::from_uri(&format!("amqp://stranger:@127.0.0.1:{port}"))?;
        options.config = options.config.properties(identity());
        let refused = amqp_driver::connect(&R::default(), &options).await;
        let error = refused.err().ok_or("it is let in")?.to_string();
        assert!(
            error.contains("the version of the peers' protocol is 1"),
            "{error}"
        );
    } else {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let properties = identity();
        let serving = in_thread("stranger", move || serve(&listener, properties))?;
        let id = bob.peer.add_connector(Connect::tcp("127.0.0.1", port));
        serving.await?;
        assert!(bob.peer.remove_connector(id));
    }
    let refused = bob.refused().await?;
    assert_eq!(refused.cause, DownCause::Version);
    assert_eq!(refused.is_listener, world.first_listens);
    assert!(bob.peer.links().iter().all(|link| !link.is_up));
    Ok(())
}

/// Serves one connection until its end: lets anyone in.
fn serve(listener: &TcpListener, properties: FieldTable) -> Result<(), Failure> {
    let mut config = server::Config::default();
    config.properties = properties;
    let mut machine = server::Connection::new(config, Instant::ORIGIN)?;
    let (mut stream, _) = listener.accept()?;
    let (mut input, mut output) = (BytesMut::new(), Transmit::new());
    loop {
        while machine.poll_transmit(Instant::ORIGIN, &mut output) {
            write(&mut stream, &mut output)?;
        }
        let mut part = [0; 4096];
        let read = stream.read(&mut part)?;
        if read == 0 || machine.is_finished() {
            return Ok(());
        }
        input.extend_from_slice(&part[..read]);
        machine.handle_input(Instant::ORIGIN, &mut input);
        while let Some(event) = machine.poll_event() {
            match event {
                Event::Authenticate(_) => machine.accept()?,
                Event::Open { .. } => machine.open()?,
                _ => {}
            }
        }
    }
}

fn write(stream: &mut TcpStream, output: &mut Transmit) -> std::io::Result<()> {
    let bytes = output.copy_to_bytes(output.remaining());
    stream.write_all(&bytes)
}

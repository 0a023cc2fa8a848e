//! An open machine, for the tests of its session.

use amqp_core::{
    Endpoint, Instant, Transmit,
    client::{self, Config},
    server::{self, Event},
};
use bytes::{Buf as _, BytesMut};

const NOW: Instant = Instant::ORIGIN;

/// A client whose connection is open.
pub(super) fn open() -> client::Connection {
    let mut client = client::Connection::new(Config::default(), NOW).unwrap();
    let mut server = server::Connection::new(server::Config::default(), NOW).unwrap();
    while !client.is_open() {
        carry(&mut client, &mut server);
        while let Some(event) = server.poll_event() {
            match event {
                Event::Authenticate(_) => server.accept().unwrap(),
                Event::Open { .. } => server.open().unwrap(),
                _ => {}
            }
        }
        carry(&mut server, &mut client);
    }
    client
}

fn carry(from: &mut impl Endpoint, to: &mut impl Endpoint) {
    let mut out = Transmit::new();
    while from.poll_transmit(NOW, &mut out) {}
    let bytes = out.copy_to_bytes(out.remaining());
    to.handle_input(NOW, &mut BytesMut::from(&bytes[..]));
}

//! An endpoint that limits its reads, as one with a throttle does.

use std::{
    future::Future as _,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use amqp_driver::{
    Config,
    core::{Endpoint, Instant, TimeoutReason, Transmit, client},
    io::{Clock, DrivenEndpoint, Driver, Timer, Transport as _, pipe},
};
use bytes::BytesMut;

/// A clock that stands.
struct Standing;

impl Timer for Standing {
    fn now(&self) -> Instant {
        Instant::ORIGIN
    }

    fn clock(&self) -> Clock {
        Arc::new(|| Instant::ORIGIN)
    }

    fn poll_deadline(&mut self, _cx: &mut Context<'_>, _at: Option<Instant>) -> Poll<()> {
        Poll::Pending
    }
}

/// An endpoint with a budget of bytes, of which it reads three at most at a time.
#[derive(Default)]
struct Budgeted {
    budget: usize,
    received: Vec<u8>,
    reads: Vec<usize>,
}

impl Endpoint for Budgeted {
    fn handle_input(&mut self, _now: Instant, input: &mut BytesMut) {
        self.budget -= input.len();
        self.reads.push(input.len());
        self.received.extend_from_slice(&input.split());
    }

    fn handle_eof(&mut self, _now: Instant) {}

    fn handle_transport_error(&mut self, _now: Instant, message: &str) {
        panic!("{message}");
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_transmit(&mut self, _now: Instant, _out: &mut Transmit) -> bool {
        false
    }

    fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        None
    }

    fn read_hint(&self) -> usize {
        0
    }

    fn is_finished(&self) -> bool {
        false
    }
}

impl DrivenEndpoint for Budgeted {
    fn wants_input(&mut self, _now: Instant) -> bool {
        self.budget > 0
    }

    fn read_limit(&mut self, _now: Instant) -> usize {
        self.budget.min(3)
    }

    fn register_waker(&mut self, _waker: &Waker, _output: bool, _alarm: Option<Instant>) -> bool {
        true
    }

    fn flush_on_close(&self) -> bool {
        false
    }

    fn abandon(&mut self) {}
}

#[test]
fn no_read_exceeds_the_limit() {
    let (mut ours, theirs) = pipe();
    let mut cx = Context::from_waker(Waker::noop());
    let mut out = Transmit::new();
    // The protocol header, of eight bytes.
    let mut client = client::Connection::new(Config::default(), Instant::ORIGIN).unwrap();
    client.poll_transmit(Instant::ORIGIN, &mut out);
    assert!(ours.poll_write(&mut cx, &mut out).is_ready());
    let endpoint = Budgeted {
        budget: 7,
        ..Budgeted::default()
    };
    let mut driver = Driver::new(endpoint, theirs, Standing);
    assert!(pin!(&mut driver).poll(&mut cx).is_pending());
    assert_eq!(driver.endpoint().reads, [3, 3, 1]);
    assert_eq!(driver.endpoint().received, b"AMQP\0\0\x09");
}

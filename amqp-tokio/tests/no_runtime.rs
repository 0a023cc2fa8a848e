//! Outside of a runtime every call that needs one is an error.

#![cfg(feature = "broker")]

use std::fmt::Display;

use amqp_blocking::block_on;
use amqp_tokio::{
    Config, LocalBroker, Options, TokioStream, broker::AcceptError, connect, connect_over,
    connect_with, core::dial::Address, from_stream, io::pipe, serve,
};
use tokio::{io::duplex, net::TcpListener, runtime::Runtime};

#[track_caller]
fn assert_named<T, E: Display>(result: Result<T, E>) {
    let error = result.err().expect("there is no runtime");
    let text =
        "runtime: there is no tokio runtime here, call this within one that has I/O and timers";
    assert_eq!(error.to_string(), text);
}

#[test]
fn connecting_outside_of_a_runtime_is_an_error() {
    let options = Options::default();
    assert_named(block_on(connect("amqp://127.0.0.1")));
    assert_named(block_on(connect_with(&options)));
    assert_named(block_on(from_stream(duplex(1).0, Config::default())));
    let stream = TokioStream::new(Box::new(duplex(1).0) as Box<dyn amqp_tokio::Socket>);
    let address = Address::tcp("localhost", 5672);
    let over = connect_over(&amqp_tokio::Tokio, &options, &address, stream);
    assert_named(block_on(over));
}

#[test]
fn an_embedded_broker_outside_of_a_runtime_is_an_error() {
    let broker = LocalBroker::default();
    assert_named(block_on(broker.connect(Config::default())));
    let refused = broker.accept(pipe().0);
    assert!(matches!(refused, Err(AcceptError::Misuse(_))));

    let runtime = Runtime::new().expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
    assert_named(serve(listener.expect("a listener"), broker));
}

/// It need not be polled by the runtime, as long as it is entered.
#[test]
fn a_runtime_that_is_entered_will_do() {
    let runtime = Runtime::new().expect("a runtime");
    let broker = LocalBroker::default();
    let _entered = runtime.enter();
    let connection = block_on(broker.connect(Config::default())).expect("it is open");
    block_on(connection.close()).expect("it closes");
}

//! Threads end. Alone in its program, because it counts them.

#![cfg(all(feature = "broker", target_os = "linux"))]

mod counting;

use std::{error::Error, fs, io, net::TcpListener, thread, time::Duration};

use amqp_blocking::{
    Config, ConnectionState, LocalBroker, Options, connect, connect_pair, connect_with,
    protocol::{basic, queue},
    serve, within,
};

use self::counting::{threads, until};

fn files() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}

#[test]
fn dropping_the_handles_ends_the_threads() -> Result<(), Box<dyn Error>> {
    let files_before = files()?;
    let broker = LocalBroker::default();
    let server = serve(TcpListener::bind("127.0.0.1:0")?, broker.clone())?;
    let uri = format!("amqp://{}", server.local_addr());
    let over_tcp = connect(&uri)?;
    let in_memory = broker.connect(Config::default())?;
    // The listener, the timekeeper, and both ends of two connections. A thread sets its name itself.
    until("all threads run", || Ok(threads()? == 6))?;

    let channel = over_tcp.open_channel()?;
    channel.call(queue::Declare::default().queue("tasks"))?;
    let consumer = channel.consume(basic::Consume::default().queue("tasks"))?;
    drop(over_tcp);
    drop(channel);
    // A consumer keeps its channel, and that its connection.
    thread::sleep(Duration::from_millis(50));
    assert_eq!(threads()?, 6);
    drop(consumer);
    drop(in_memory);
    until(
        "the connections' threads have ended",
        || Ok(threads()? == 2),
    )?;

    // One that is given up while it is made leaves nothing either.
    let (silent, _backlog) = (TcpListener::bind("127.0.0.1:0")?, ());
    let nobody = format!("amqp://{}", silent.local_addr()?);
    assert!(within(Duration::from_millis(20), || connect(&nobody)).is_err());
    drop(silent);
    until("nothing is left of it", || Ok(threads()? == 2))?;

    // One that recovers has a thread, in its second life too, and none once it is dropped: not while
    // it is connected, nor while it is lost and no attempt is due.
    let options = Options::from_uri(&uri)?.recovering();
    let recovering = connect_with(&options)?;
    let events = recovering.as_async().recovery_events();
    broker.restart();
    // The first one may have been sent before the loss.
    while recovering.open_channel().is_err() {}
    until("the ended life has left nothing", || Ok(threads()? == 4))?;
    drop((recovering, events));
    until(
        "the connection's threads have ended",
        || Ok(threads()? == 2),
    )?;
    let lost = connect_with(&options)?;
    broker.stop();
    let state = || lost.as_async().state();
    until("it is lost", || Ok(state() == ConnectionState::Recovering))?;
    drop(lost);
    until("its thread has ended", || Ok(threads()? == 2))?;
    broker.start();
    let pair = connect_pair(&options)?;
    until("those of the pair run", || Ok(threads()? == 6))?;
    pair.close()?;
    drop(pair);
    until("nothing is left of the pair", || Ok(threads()? == 2))?;

    let last = connect(&uri)?;
    drop(server);
    drop(broker);
    drop(last);
    until("no thread is left", || Ok(threads()? == 0))?;
    until("no file is left", || Ok(files()? <= files_before))
}

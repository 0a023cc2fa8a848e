//! Threads end. Alone in its program, because it counts them.

#![cfg(all(feature = "broker", target_os = "linux"))]

use std::{
    error::Error,
    fs, io,
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use amqp_blocking::{
    Config, LocalBroker, connect,
    protocol::{basic, queue},
    serve, within,
};

/// The time limit of steps that end at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many threads of this program are called `amqp`.
fn threads() -> io::Result<usize> {
    let mut count = 0;
    for task in fs::read_dir("/proc/self/task")? {
        // A thread that has ended meanwhile has no name any more.
        let name = fs::read_to_string(task?.path().join("comm")).unwrap_or_default();
        count += usize::from(name.starts_with("amqp"));
    }
    Ok(count)
}

fn files() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}

fn until(what: &str, holds: impl Fn() -> io::Result<bool>) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    while !holds()? {
        if begun.elapsed() > PATIENCE {
            return Err(format!("it does not come true that {what}").into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

#[test]
fn dropping_the_handles_ends_the_threads() -> Result<(), Box<dyn Error>> {
    let files_before = files()?;
    let broker = LocalBroker::default();
    let server = serve(TcpListener::bind("127.0.0.1:0")?, broker.clone())?;
    let uri = format!("amqp://{}", server.local_addr());
    let over_tcp = connect(&uri)?;
    let in_memory = broker.connect(Config::default())?;
    // The listener, the timekeeper, and both ends of two connections.
    assert_eq!(threads()?, 6);

    let channel = over_tcp.open_channel()?;
    channel.call(queue::Declare::default().queue("tasks")?)?;
    let consumer = channel.consume(basic::Consume::default().queue("tasks")?)?;
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

    let last = connect(&uri)?;
    drop(server);
    drop(broker);
    drop(last);
    until("no thread is left", || Ok(threads()? == 0))?;
    until("no file is left", || Ok(files()? <= files_before))
}

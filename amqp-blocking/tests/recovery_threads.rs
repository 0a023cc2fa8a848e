//! The threads of a connection that recovers. Alone in its program, because it counts them.

#![cfg(all(feature = "broker", target_os = "linux"))]

use std::{
    error::Error,
    fs, io,
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use amqp_blocking::{
    LocalBroker, Options, connect_with,
    protocol::{basic, queue},
    serve,
};

/// The time limit of steps that end at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// The number of threads of this program that are called `amqp`.
fn threads() -> io::Result<usize> {
    let mut count = 0;
    for task in fs::read_dir("/proc/self/task")? {
        // A thread that has ended meanwhile has no name any more.
        let name = fs::read_to_string(task?.path().join("comm")).unwrap_or_default();
        count += usize::from(name.starts_with("amqp"));
    }
    Ok(count)
}

fn until(text: &str, holds: impl Fn() -> io::Result<bool>) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    while !holds()? {
        if begun.elapsed() > PATIENCE {
            return Err(format!("it does not come true that {text}").into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

#[test]
fn a_lost_connection_leaves_no_thread() -> Result<(), Box<dyn Error>> {
    for closes in [true, false] {
        let broker = LocalBroker::default();
        let server = serve(TcpListener::bind("127.0.0.1:0")?, broker.clone())?;
        let uri = format!("amqp://{}", server.local_addr());
        let connection = connect_with(&Options::from_uri(&uri)?.recovering())?;
        let channel = connection.open_channel()?;
        channel.call(queue::Declare::default().queue("tasks")?)?;
        let consumer = channel.consume(basic::Consume::default().queue("tasks")?)?;
        for _ in 0..5 {
            broker.restart();
            // In flight, or waiting for the recovery.
            while channel.call(basic::Qos::default()).is_err() {}
        }
        broker.stop();
        let waiting = thread::spawn({
            let channel = channel.clone();
            move || while channel.call(basic::Qos::default()).is_ok() {}
        });
        thread::sleep(Duration::from_millis(300));
        if closes {
            assert!(connection.close().is_err());
            waiting.join().map_err(|_| "panicked")?;
        } else {
            broker.start();
            while channel.call(basic::Qos::default()).is_err() {}
            broker.stop();
            connection.close().ok();
            waiting.join().map_err(|_| "panicked")?;
        }
        drop((consumer, channel, connection));
        drop(server);
        drop(broker);
        until("no thread is left", || Ok(threads()? == 0))?;
    }
    Ok(())
}

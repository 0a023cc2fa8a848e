//! The threads of a connection that recovers. Alone in its program, because it counts them.

#![cfg(all(feature = "broker", target_os = "linux"))]

mod counting;

use std::{error::Error, net::TcpListener, thread};

use amqp_blocking::{
    ConnectionState, LocalBroker, Options, connect_with,
    protocol::{basic, queue},
    serve,
};

use self::counting::{threads, until};

#[test]
fn a_lost_connection_leaves_no_thread() -> Result<(), Box<dyn Error>> {
    for closes in [true, false] {
        let broker = LocalBroker::default();
        let server = serve(TcpListener::bind("127.0.0.1:0")?, broker.clone())?;
        let uri = format!("amqp://{}", server.local_addr());
        let connection = connect_with(&Options::from_uri(&uri)?.recovering())?;
        let channel = connection.open_channel()?;
        channel.call(queue::Declare::default().queue("tasks"))?;
        let consumer = channel.consume(basic::Consume::default().queue("tasks"))?;
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
        until("the connection is lost", || {
            Ok(connection.as_async().state() == ConnectionState::Recovering)
        })?;
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

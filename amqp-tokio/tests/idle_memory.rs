//! The memory of channels at rest, with all that drives them: new ones, and ones that were used. The
//! broker runs on another thread, and its memory does not count.

#![cfg(feature = "broker")]

use std::{error::Error, net::SocketAddr, sync::mpsc, thread, time::Duration};

use amqp_test_support::meter::{Counting, held};
use amqp_tokio::{
    Connection, LocalBroker, Options, connect_with,
    protocol::{basic, queue},
    serve,
};
use tokio::{net::TcpListener, runtime::Builder, sync::oneshot, time::sleep};

#[global_allocator]
static COUNTING: Counting = Counting;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// With the first one, they fill the tables of channels, which grow by doubling.
const CHANNELS: usize = 510;

/// The most bytes of a channel that was never used.
const NEW: usize = 410;

/// The most bytes of a channel that was used, and is at rest: it keeps room for the next hundred
/// confirms, in the machine and beside it, so that small batches allocate nothing.
const USED: usize = 6400;

/// Longer than a connection takes to release its buffers.
const REST: Duration = Duration::from_millis(1500);

/// A broker on a thread of its own, which ends when it is dropped.
struct Broker {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Broker {
    fn start() -> Outcome<Self> {
        let (started, address) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::spawn(move || -> Outcome {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                let server = serve(listener, LocalBroker::default())?;
                started.send(server.local_addr())?;
                let _dropped = stopped.await;
                Ok(())
            })
        });
        Ok(Self {
            address: address.recv()?,
            _stop: stop,
        })
    }

    async fn connect(&self) -> Outcome<Connection> {
        let options = Options::from_uri(&format!("amqp://{}", self.address))?;
        Ok(connect_with(&options).await?)
    }
}

/// The bytes of one of so many channels, of which `before` were held without them.
fn each(before: usize) -> usize {
    (held() - before) / CHANNELS
}

#[tokio::test]
async fn a_channel_that_is_not_used_takes_little_memory() -> Outcome {
    let broker = Broker::start()?;
    let connection = broker.connect().await?;
    let mut channels = Vec::with_capacity(CHANNELS);
    let first = connection.open_channel().await?;
    sleep(REST).await;
    let before = held();
    for _ in 0..CHANNELS {
        channels.push(connection.open_channel().await?);
    }
    sleep(REST).await;
    let bytes = each(before);
    println!("{bytes} bytes for a new channel");
    assert!(bytes <= NEW, "{bytes} bytes");
    drop((first, channels));
    Ok(())
}

#[tokio::test]
async fn a_channel_at_rest_gives_back_what_its_use_took() -> Outcome {
    let broker = Broker::start()?;
    let connection = broker.connect().await?;
    let first = connection.open_channel().await?;
    let declare = queue::Declare::default().exclusive(true);
    let name = first.call(declare).await?.queue;
    let publish = basic::Publish::default().routing_key(&name);
    let properties = basic::Properties::default();
    let mut channels = Vec::with_capacity(CHANNELS);
    sleep(REST).await;
    let before = held();
    for _ in 0..CHANNELS {
        channels.push(connection.open_channel().await?.confirm_select().await?);
    }
    for channel in &channels {
        let mut last = None;
        for _ in 0..200 {
            last = Some(channel.publish(&publish, &properties, "small").await?);
        }
        last.ok_or("nothing was published")?.await?;
        // In several frames, so that they pass through the backlog.
        let large = vec![b'x'; 300 << 10];
        channel.publish(&publish, &properties, large).await?.await?;
        let consume = basic::Consume::default().queue(&name);
        let mut consumer = channel.consume(consume).await?;
        for _ in 0..190 {
            let delivery = consumer.next().await.transpose()?.ok_or("it has ended")?;
            delivery.acker.ack()?;
        }
        consumer.cancel().await?;
        while let Some(delivery) = consumer.next().await.transpose()? {
            delivery.acker.ack()?;
        }
        drop(consumer);
        let get = basic::Get::default().queue(&name);
        while let Some(message) = channel.get(get.clone()).await? {
            message.ack()?;
        }
        channel
            .call(basic::Qos::default().prefetch_count(3))
            .await?;
    }
    sleep(REST).await;
    let bytes = each(before);
    println!("{bytes} bytes for a channel that was used");
    assert!(bytes <= USED, "{bytes} bytes");
    drop((first, channels));
    Ok(())
}

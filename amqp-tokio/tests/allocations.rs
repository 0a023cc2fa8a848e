//! The blocks of memory that a client allocates for each message, with and without recovery. The
//! broker runs on another thread, and its memory does not count.

#![cfg(feature = "broker")]

use std::{error::Error, net::SocketAddr, sync::mpsc, thread};

use amqp_test_support::meter::{Counting, blocks};
use amqp_tokio::{
    Connection, LocalBroker, Options, connect_with,
    protocol::{basic, queue},
    serve,
};
use tokio::{net::TcpListener, runtime::Builder, sync::oneshot};

#[global_allocator]
static COUNTING: Counting = Counting;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

const WARM_UP: usize = 10_000;
const MESSAGES: usize = 40_000;

/// Messages wait for one another in batches of this number, so that no buffer grows all the time.
const BATCH: usize = 100;

/// The messages that a consumer holds at most. The connection reuses up to half a megabyte of their memory.
const PREFETCH: u16 = 2 * BATCH as u16;

/// The most blocks per message: those of read buffers and of the memory that small bodies share.
const SHARED: f64 = 0.05;

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

    async fn connect(&self, recovering: bool) -> Outcome<Connection> {
        let options = Options::from_uri(&format!("amqp://{}", self.address))?;
        let options = if recovering {
            options.recovering()
        } else {
            options
        };
        Ok(connect_with(&options).await?)
    }
}

/// The blocks per message of some work on messages, after it has warmed up.
async fn per_message(mut work: impl AsyncFnMut(usize) -> Outcome) -> Outcome<f64> {
    work(WARM_UP).await?;
    let before = blocks();
    work(MESSAGES).await?;
    Ok((blocks() - before) as f64 / MESSAGES as f64)
}

async fn publishing(broker: &Broker, recovering: bool, size: usize) -> Outcome<f64> {
    let connection = broker.connect(recovering).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let body = bytes::Bytes::from(vec![b'x'; size]);
    // No queue is bound: the broker confirms and drops them.
    let publish = basic::Publish::default().exchange("amq.direct");
    let properties = basic::Properties::default();
    let blocks = per_message(async |count| {
        for _ in 0..count / BATCH {
            let mut last = None;
            for _ in 0..BATCH {
                last = Some(channel.publish(&publish, &properties, body.clone()).await?);
            }
            last.ok_or("nothing was published")?.await?;
        }
        Ok(())
    });
    let blocks = blocks.await?;
    connection.close().await?;
    Ok(blocks)
}

async fn consuming(broker: &Broker, recovering: bool, size: usize) -> Outcome<f64> {
    let connection = broker.connect(recovering).await?;
    let channel = connection.open_channel().await?;
    let declare = queue::Declare::default().exclusive(true);
    let name = channel.call(declare).await?.queue;
    let publish = basic::Publish::default().routing_key(&name);
    let body = bytes::Bytes::from(vec![b'x'; size]);
    for _ in 0..WARM_UP + MESSAGES {
        let properties = basic::Properties::default();
        channel.publish(&publish, &properties, body.clone()).await?;
    }
    channel
        .call(basic::Qos::default().prefetch_count(PREFETCH))
        .await?;
    let consume = basic::Consume::default().queue(&name);
    let mut consumer = channel.consume(consume).await?;
    let blocks = per_message(async |count| {
        for number in 1..=count {
            let delivery = consumer.next().await.transpose()?.ok_or("it has ended")?;
            if number % BATCH == 0 {
                delivery.acker.ack_up_to()?;
            }
        }
        Ok(())
    });
    let blocks = blocks.await?;
    connection.close().await?;
    Ok(blocks)
}

#[tokio::test]
async fn small_messages_need_no_block_of_their_own_with_and_without_recovery() -> Outcome {
    let broker = Broker::start()?;
    for recovering in [false, true] {
        let published = publishing(&broker, recovering, 16).await?;
        let consumed = consuming(&broker, recovering, 16).await?;
        println!("recovering: {recovering}, publish: {published:.4}, consume: {consumed:.4}");
        assert!(published < SHARED, "{published} blocks per publish");
        assert!(consumed < SHARED, "{consumed} blocks per delivery");
    }
    Ok(())
}

#[tokio::test]
async fn deliveries_of_up_to_1_kib_need_no_block_of_their_own() -> Outcome {
    let broker = Broker::start()?;
    for size in [256, 1024] {
        let consumed = consuming(&broker, false, size).await?;
        println!("{size} bytes, consume: {consumed:.4}");
        assert!(consumed < SHARED, "{consumed} blocks per delivery");
    }
    Ok(())
}

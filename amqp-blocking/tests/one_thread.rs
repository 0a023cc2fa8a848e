//! A runtime of one thread: the `block_on` of the application polls its tasks, the driver among them.

use std::{
    error::Error,
    fmt,
    future::{Future, poll_fn},
    io,
    net::{SocketAddr, TcpListener},
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use amqp_blocking::{
    Blocking, BlockingClock, BlockingStream, ConfirmChannel, LocalBroker, Options, amqp_driver,
    block_on,
    io::Runtime,
    protocol::{basic, queue},
    serve, within,
};

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The most that a call takes. None waits for it.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone, Default)]
struct OneThread(Arc<Mutex<Vec<Task>>>);

impl fmt::Debug for OneThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneThread").finish_non_exhaustive()
    }
}

impl Runtime for OneThread {
    type Clock = BlockingClock;
    type Stream = BlockingStream;

    fn clock(&self) -> BlockingClock {
        Blocking.clock()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().expect("nothing panics");
        tasks.push(Box::pin(task));
    }

    fn resolve(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send {
        let host = host.to_owned();
        async move { Blocking.resolve(&host, port).await }
    }

    fn connect_tcp(
        &self,
        to: SocketAddr,
        keepalive: Option<Duration>,
    ) -> impl Future<Output = io::Result<BlockingStream>> + Send {
        Blocking.connect_tcp(to, keepalive)
    }
}

/// Runs `work` beside the tasks of `runtime`.
fn run<T>(runtime: &OneThread, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let mut tasks: Vec<Task> = Vec::new();
    block_on(poll_fn(|cx| {
        let polled = work.as_mut().poll(cx);
        tasks.append(&mut runtime.0.lock().expect("nothing panics"));
        tasks.retain_mut(|task| task.as_mut().poll(cx).is_pending());
        polled
    }))
}

/// Lets the tasks run until they wait.
async fn pause() {
    let mut turns = 0;
    poll_fn(|cx| {
        turns += 1;
        if turns == 20 {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A thread that waits drives the connection itself, though its task is polled by an executor that
/// runs on the same thread, and waits as well.
#[test]
fn a_blocking_call_in_a_task_drives_the_connection_of_that_thread() -> Outcome {
    let server = serve(TcpListener::bind("127.0.0.1:0")?, LocalBroker::default())?;
    let options = Options::from_uri(&format!("amqp://{}", server.local_addr()))?;
    let runtime = OneThread::default();
    run(&runtime, async {
        let connection = amqp_driver::connect(&runtime, &options).await?;
        let channel = connection.open_channel().await?;
        let declare = queue::Declare::default().queue("q").exclusive(true);
        channel.call(declare.clone()).await?;
        let channel = ConfirmChannel::from(channel.confirm_select().await?);
        let publish = basic::Publish::default().routing_key("q");
        for count in 1..=3 {
            pause().await;
            within(LIMIT, || {
                channel
                    .publish(&publish, &basic::Properties::default(), "x")?
                    .wait()?;
                Ok::<_, Box<dyn Error + Send + Sync>>(())
            })?;
            pause().await;
            let answer = within(LIMIT, || channel.call(declare.clone()))?;
            assert_eq!(answer.message_count, count);
        }
        Ok(())
    })
}

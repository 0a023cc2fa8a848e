//! The smol runtime.

use std::{fmt, future::Future, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use amqp_driver::io::{FuturesStream, Runtime, SleepClock, Socket};
#[cfg(feature = "tls")]
use amqp_driver::io::{Secured, Tls};
use smol::{
    Timer,
    net::{TcpStream, resolve},
};
use socket2::{SockRef, TcpKeepalive};

/// The system's monotonic clock, with a smol timer as the alarm.
pub type SmolClock = SleepClock<Timer>;

/// A byte stream of [`Smol`].
pub type SmolStream = FuturesStream<Box<dyn Socket>>;

/// Smol's sockets and timers, and an executor: by default the global one, of [`smol::spawn`].
#[derive(Clone, Default)]
pub struct Smol {
    /// `Some` for an executor other than that of [`smol::spawn`].
    spawner: Option<Arc<Spawner>>,
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
type Spawner = dyn Fn(Task) + Send + Sync;

impl Smol {
    /// Uses another executor: tasks are passed to `spawner`.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use amqp_smol::{Config, LocalBroker, Smol, broker};
    /// use smol::Executor;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let executor = Arc::new(Executor::new());
    /// let tasks = Arc::downgrade(&executor); // or it would keep itself alive
    /// let here = Smol::spawning(move |task| {
    ///     if let Some(executor) = tasks.upgrade() {
    ///         executor.spawn(task).detach();
    ///     }
    /// });
    ///
    /// smol::block_on(executor.run(async {
    ///     let broker = LocalBroker::on(here, broker::Config::default())?;
    ///     let connection = broker.connect(Config::default()).await?;
    ///     connection.close().await?;
    ///     Ok(())
    /// }))
    /// # }
    /// ```
    #[must_use]
    pub fn spawning(
        spawner: impl Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            spawner: Some(Arc::new(spawner)),
        }
    }
}

impl fmt::Debug for Smol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smol")
            .field("global", &self.spawner.is_none())
            .finish()
    }
}

impl Runtime for Smol {
    type Clock = SmolClock;
    type Stream = SmolStream;

    fn clock(&self) -> SmolClock {
        SleepClock::new(Timer::after)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match &self.spawner {
            Some(spawner) => spawner(Box::pin(task)),
            None => smol::spawn(task).detach(),
        }
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        resolve((host, port)).await
    }

    async fn connect_tcp(
        &self,
        to: SocketAddr,
        keepalive: Option<Duration>,
    ) -> io::Result<SmolStream> {
        let stream = connect_tcp(to, keepalive).await?;
        Ok(FuturesStream::boxed(stream).inline(true))
    }

    #[cfg(unix)]
    async fn connect_unix(&self, path: &std::path::Path) -> io::Result<SmolStream> {
        let stream = smol::net::unix::UnixStream::connect(path).await?;
        Ok(FuturesStream::boxed(stream).inline(true))
    }

    #[cfg(feature = "tls")]
    async fn secure(&self, stream: SmolStream, tls: &Tls) -> io::Result<Secured<SmolStream>> {
        stream.secure(tls).await
    }
}

async fn connect_tcp(to: SocketAddr, keepalive: Option<Duration>) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    if let Some(idle) = keepalive {
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use smol::net::TcpListener;
    use socket2::SockRef;

    #[test]
    fn tcp_nodelay_is_on() -> std::io::Result<()> {
        smol::block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let stream = super::connect_tcp(listener.local_addr()?, None).await?;
            assert!(stream.nodelay()?);
            Ok(())
        })
    }

    #[test]
    fn tcp_keepalive_is_as_the_options_say() -> std::io::Result<()> {
        smol::block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let to = listener.local_addr()?;
            let idle = Duration::from_secs(77);
            let stream = super::connect_tcp(to, Some(idle)).await?;
            assert!(SockRef::from(&stream).keepalive()?);
            #[cfg(target_os = "linux")]
            assert_eq!(SockRef::from(&stream).tcp_keepalive_time()?, idle);
            let stream = super::connect_tcp(to, None).await?;
            assert!(!SockRef::from(&stream).keepalive()?);
            Ok(())
        })
    }
}

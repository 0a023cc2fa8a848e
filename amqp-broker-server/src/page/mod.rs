//! The page: a read-only view of the broker over HTTP, on a thread of its own. It takes the lock of
//! the broker for short, bounded times only.

mod answer;
mod history;
mod json;
mod request;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, thread, time::Duration};

use amqp_tokio::LocalBroker;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time,
};

use self::{answer::Answers, request::Hosts};
use crate::{
    addresses::{HostPort, is_local},
    clients::Registry,
    listeners,
};

/// The maximum number of connections of browsers; a further one waits.
const CONNECTIONS: usize = 32;

/// The maximum time for the head of a request, and between two requests. Short, because silent
/// connections keep others waiting for as long.
const REQUEST: Duration = Duration::from_secs(2);

/// The maximum time of a connection. A browser then makes another one.
const CONNECTION: Duration = Duration::from_secs(60);

/// The delay after a failed accept, in which resources may become free.
const RETRY: Duration = Duration::from_millis(50);

/// The bound socket of the page.
pub(crate) struct Page {
    socket: TcpListener,
    address: SocketAddr,
    hosts: Hosts,
}

impl Page {
    /// Binds the socket. Returns an error that names the address.
    pub(crate) async fn bind(at: &HostPort) -> Result<Self, String> {
        let (socket, address) = listeners::bind_tcp(at).await?;
        Ok(Self {
            socket,
            address,
            hosts: Hosts::named(&at.host),
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Returns whether other machines may reach it.
    pub(crate) fn is_exposed(&self) -> bool {
        !is_local(self.address.ip())
    }

    /// Serves the page on a thread, until the process ends.
    pub(crate) fn serve(
        self,
        broker: LocalBroker,
        registry: Registry,
        listening: Vec<String>,
    ) -> Result<(), String> {
        let failed = |error| format!("cannot serve the page: {error}");
        let socket = self.socket.into_std().map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let context = runtime.enter();
        let socket = TcpListener::from_std(socket).map_err(failed)?;
        drop(context);
        let answers = Arc::new(Answers::new(broker, registry, listening));
        let hosts = self.hosts;
        let run = move || {
            runtime.block_on(async {
                tokio::join!(answers.keep_history(), accept(socket, &answers, &hosts));
            });
        };
        let thread = thread::Builder::new().name("page".into());
        thread.spawn(run).map(drop).map_err(failed)
    }
}

/// Accepts connections, a bounded number at a time.
async fn accept(socket: TcpListener, answers: &Arc<Answers>, hosts: &Hosts) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let Ok((stream, _)) = socket.accept().await else {
            time::sleep(RETRY).await;
            continue;
        };
        let (answers, hosts) = (Arc::clone(answers), hosts.clone());
        tokio::spawn(async move {
            let _place = place;
            // The time bounds a client that reads its response slowly.
            let _late = time::timeout(CONNECTION, connection(stream, answers, hosts)).await;
        });
    }
}

/// Serves one connection.
async fn connection(stream: TcpStream, answers: Arc<Answers>, hosts: Hosts) {
    let service = service_fn(|request: Request<Incoming>| {
        let response =
            match request::parse(request.method(), request.uri(), request.headers(), &hosts) {
                Ok(wanted) => answers.answer(&wanted),
                Err(refused) => answer::refusal(refused),
            };
        async move { Ok::<_, Infallible>(response) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    // An error is the browser's: a malformed request, or a lost connection.
    let _failed = serving.await;
}

//! The sockets for AMQP connections.

use std::{fmt, io, net::SocketAddr};
#[cfg(unix)]
use std::{
    fs,
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

use crate::addresses::{HostPort, Listen, is_local};

/// The protocol below AMQP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    Plain,
    Tls,
}

/// A bound socket. Its path is removed with a Unix socket.
pub(crate) enum Listener {
    Tcp {
        socket: TcpListener,
        address: SocketAddr,
        security: Security,
    },
    #[cfg(unix)]
    Unix { socket: UnixListener, path: PathBuf },
}

/// An accepted connection.
pub(crate) enum Accepted {
    Tcp(TcpStream, SocketAddr, Security),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// Binds all sockets, or none. Returns an error that names the address.
pub(crate) async fn bind(places: &[Listen]) -> Result<Vec<Listener>, String> {
    let mut listeners = Vec::new();
    for place in places {
        listeners.push(match place {
            Listen::Tcp(at) => tcp(at, Security::Plain).await?,
            Listen::Tls(at) => tcp(at, Security::Tls).await?,
            #[cfg(unix)]
            Listen::Unix(path) => {
                let failed = |error| format!("cannot listen on {}: {error}", path.display());
                let socket = bind_unix(path).await.map_err(failed)?;
                Listener::Unix {
                    socket,
                    path: path.clone(),
                }
            }
            #[cfg(not(unix))]
            Listen::Unix(path) => return Err(format!("no Unix sockets: {}", path.display())),
        });
    }
    Ok(listeners)
}

/// Binds a TCP socket, and returns it with its address.
pub(crate) async fn bind_tcp(at: &HostPort) -> Result<(TcpListener, SocketAddr), String> {
    let failed = |error: io::Error| format!("cannot listen on {at}: {}", system_text(&error));
    let socket = TcpListener::bind((at.host.as_str(), at.port));
    let socket = socket.await.map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    Ok((socket, address))
}

async fn tcp(at: &HostPort, security: Security) -> Result<Listener, String> {
    let (socket, address) = bind_tcp(at).await?;
    Ok(Listener::Tcp {
        socket,
        address,
        security,
    })
}

/// Binds a Unix socket, in place of one that its process has left behind.
#[cfg(unix)]
async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let in_use = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
        bound => return bound,
    };
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        Ok(_) | Err(_) => Err(in_use),
    }
}

/// The text of an error without the number of the system.
fn system_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

impl Listener {
    /// Accepts the next connection. Cancel safe.
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp {
                socket, security, ..
            } => {
                let (stream, peer) = socket.accept().await?;
                // The error is ignored: without `TCP_NODELAY`, replies are only delayed.
                let _unsupported = stream.set_nodelay(true);
                Ok(Accepted::Tcp(stream, peer, *security))
            }
            #[cfg(unix)]
            Self::Unix { socket, .. } => Ok(Accepted::Unix(socket.accept().await?.0)),
        }
    }

    /// Returns whether other machines may reach it.
    pub(crate) fn is_exposed(&self) -> bool {
        match self {
            Self::Tcp { address, .. } => !is_local(address.ip()),
            #[cfg(unix)]
            Self::Unix { .. } => false,
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp {
                address, security, ..
            } => match security {
                Security::Plain => write!(f, "amqp://{address}"),
                Security::Tls => write!(f, "amqps://{address}"),
            },
            #[cfg(unix)]
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(unix)]
impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix { path, .. } = self {
            // Fails only if something else has removed it.
            let _removed = fs::remove_file(path);
        }
    }
}

//! The sockets for AMQP connections.

use std::{fmt, io, net::SocketAddr};
#[cfg(unix)]
use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use amqp_tokio::set_accepted_options;
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

/// A bound socket. A Unix socket is removed from its path when it is dropped.
pub(crate) enum Listener {
    Tcp {
        socket: TcpListener,
        address: SocketAddr,
        security: Security,
    },
    #[cfg(unix)]
    Unix {
        socket: UnixListener,
        path: PathBuf,
        file: SocketFile,
    },
}

/// The device and the inode of a socket, which no other file has as long as it is bound.
#[cfg(unix)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketFile(u64, u64);

#[cfg(unix)]
impl SocketFile {
    /// The socket at a path. `Ok(None)` for a file of another kind, which a link is too.
    fn at(path: &Path) -> io::Result<Option<Self>> {
        let found = fs::symlink_metadata(path)?;
        let is_socket = found.file_type().is_socket();
        Ok(is_socket.then(|| Self(found.dev(), found.ino())))
    }
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
                bind_unix(path).await.map_err(failed)?
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

/// Binds a Unix socket, in place of one that its process has left behind. Files of other kinds are
/// not replaced.
#[cfg(unix)]
async fn bind_unix(path: &Path) -> io::Result<Listener> {
    let socket = match UnixListener::bind(path) {
        Err(in_use) if in_use.kind() == io::ErrorKind::AddrInUse => {
            if !is_left_behind(path).await? {
                return Err(in_use);
            }
            fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    let file = SocketFile::at(path)?.ok_or(io::ErrorKind::NotFound)?;
    Ok(Listener::Unix {
        socket,
        path: path.into(),
        file,
    })
}

/// Returns whether a path is a socket that nothing listens on.
#[cfg(unix)]
async fn is_left_behind(path: &Path) -> io::Result<bool> {
    // A connection to a file of another kind is refused too.
    if SocketFile::at(path)?.is_none() {
        return Ok(false);
    }
    let connected = UnixStream::connect(path).await;
    Ok(connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
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
                set_accepted_options(&stream);
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
        if let Self::Unix { path, file, .. } = self
            && let Ok(Some(found)) = SocketFile::at(path)
            && found == *file
        {
            // Fails only if something else has removed it.
            let _removed = fs::remove_file(path);
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::{error::Error, os::unix};

    use super::*;

    type Outcome = Result<(), Box<dyn Error>>;

    fn bind_all(paths: &[&Path]) -> Result<Vec<Listener>, String> {
        let places = paths.iter().map(|path| Listen::Unix((*path).into()));
        let places: Vec<_> = places.collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(bind(&places))
    }

    /// Leaves a socket behind, as a process that was killed.
    fn leave_behind(path: &Path) -> io::Result<()> {
        unix::net::UnixListener::bind(path).map(drop)
    }

    #[test]
    fn only_a_socket_without_a_listener_is_replaced() -> Outcome {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "kept")?;
        fs::create_dir(at("folder"))?;
        leave_behind(&at("left"))?;
        unix::fs::symlink(at("file"), at("to file"))?;
        unix::fs::symlink(at("left"), at("to left"))?;
        unix::fs::symlink(at("none"), at("to none"))?;
        for name in ["file", "folder", "to file", "to left", "to none"] {
            let before = fs::symlink_metadata(at(name))?;
            let refused = bind_all(&[&at(name)]).err().ok_or(name)?;
            assert!(refused.contains("Address already in use"), "{refused}");
            let after = fs::symlink_metadata(at(name))?;
            assert_eq!((before.ino(), before.mode()), (after.ino(), after.mode()));
            // Also if another address is bound before it.
            assert!(bind_all(&[&at("first"), &at(name)]).is_err(), "{name}");
            assert!(!at("first").exists(), "{name}");
            assert!(fs::symlink_metadata(at(name)).is_ok(), "{name}");
        }
        assert_eq!(fs::read_to_string(at("file"))?, "kept");
        let bound = bind_all(&[&at("left")])?;
        assert!(bind_all(&[&at("left")]).is_err());
        drop(bound);
        assert!(!at("left").exists());
        Ok(())
    }

    #[test]
    fn a_file_in_place_of_the_socket_is_not_removed_with_it() -> Outcome {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("amqp.sock");
        let write = |path: &Path| fs::write(path, "kept");
        for other in [write, leave_behind as fn(&Path) -> io::Result<()>] {
            let bound = bind_all(&[&path])?;
            fs::remove_file(&path)?;
            other(&path)?;
            drop(bound);
            assert!(path.exists());
            fs::remove_file(&path)?;
        }
        Ok(())
    }
}

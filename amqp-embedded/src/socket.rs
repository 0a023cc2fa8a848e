//! The options of an accepted TCP socket.

#[cfg(unix)]
use std::os::fd::AsFd as AsHandle;
#[cfg(windows)]
use std::os::windows::io::AsSocket as AsHandle;

use socket2::SockRef;

/// The bytes that the kernel holds unsent before a socket is not writable any more.
///
/// Without it, Linux takes megabytes of deliveries for a client that reads slowly
/// (`net.ipv4.tcp_wmem`), and a message of another queue is sent behind all of them. The bound
/// does not count bytes in flight, so that it does not limit the throughput of a long path:
/// <https://man7.org/linux/man-pages/man7/tcp.7.html>, `TCP_NOTSENT_LOWAT`.
#[cfg(any(target_os = "android", target_os = "linux"))]
const UNSENT: u32 = 64 << 10;

/// Sets the options of an accepted socket: `TCP_NODELAY`, and on Linux and Android a bound of the
/// bytes that the kernel holds unsent, so that messages are sent in the order in which the broker
/// serves its queues.
///
/// Errors are ignored: without the options, messages are only delayed.
pub fn set_accepted_options(stream: &impl AsHandle) {
    let socket = SockRef::from(stream);
    let _unsupported = socket.set_tcp_nodelay(true);
    #[cfg(any(target_os = "android", target_os = "linux"))]
    let _unsupported = socket.set_tcp_notsent_lowat(UNSENT);
}

#[cfg(all(test, any(target_os = "android", target_os = "linux")))]
mod tests {
    use std::{
        io::{self, Write as _},
        net::{TcpListener, TcpStream},
    };

    use super::set_accepted_options;

    /// The bytes that a socket takes for a peer that does not read.
    fn taken(mut stream: TcpStream) -> io::Result<usize> {
        stream.set_nonblocking(true)?;
        let mut taken = 0;
        loop {
            match stream.write(&[0; 16 << 10]) {
                Ok(count) => taken += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(taken),
                Err(error) => return Err(error),
            }
        }
    }

    #[test]
    fn an_accepted_socket_holds_few_unsent_bytes() -> io::Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let mut sums = Vec::new();
        for has_options in [false, true] {
            let client = TcpStream::connect(address)?;
            let (stream, _) = listener.accept()?;
            if has_options {
                set_accepted_options(&stream);
                assert!(stream.nodelay()?);
            }
            sums.push(taken(stream)?);
            drop(client);
        }
        assert!(sums[1] * 2 < sums[0], "{sums:?}");
        Ok(())
    }
}

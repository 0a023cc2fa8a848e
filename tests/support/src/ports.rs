//! Ports of the loopback interface.

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    net::{Ipv4Addr, TcpListener},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
};

/// A port of the loopback interface without a listener. A process gets a different one at each
/// call.
///
/// It lies below the range that systems hand out to outgoing connections and to listeners without a
/// port of their own, so that none of these can take it before it is used, or between two uses.
///
/// # Errors
/// When none is free.
pub fn free_port() -> io::Result<u16> {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    // Other processes search too: each begins at a place of its own.
    let next = NEXT.get_or_init(|| AtomicU16::new(RandomState::new().hash_one(0) as u16));
    for _ in 0..COUNT {
        let port = FIRST + next.fetch_add(1, Ordering::Relaxed) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port"))
}

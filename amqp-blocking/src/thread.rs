//! Work on a thread of its own.

use std::{future::Future, io};

/// Runs `work`, which may block, on a new thread with that name. The thread ends with the work. The
/// future returns its result, on any runtime, and panics if the work does.
///
/// ```
/// use amqp_blocking::{block_on, in_thread};
/// use std::net::ToSocketAddrs;
///
/// # fn main() -> std::io::Result<()> {
/// let addresses = in_thread("resolver", || ("127.0.0.1", 5672).to_socket_addrs())?;
/// assert_eq!(block_on(addresses)?.count(), 1);
/// # Ok(()) }
/// ```
///
/// # Cancel safety
/// The work runs whether the future is polled, dropped, or neither.
///
/// # Errors
/// If the system cannot create a thread. The work is dropped.
pub fn in_thread<T, W>(name: &str, work: W) -> io::Result<impl Future<Output = T> + use<T, W>>
where
    T: Send + 'static,
    W: FnOnce() -> T + Send + 'static,
{
    let work = || {
        crate::linger::mark_worker_thread();
        work()
    };
    amqp_driver::io::in_thread(name, work)
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;
    use crate::executor::block_on;

    #[test]
    fn what_comes_of_the_work_wakes_who_waits() -> io::Result<()> {
        let slow = in_thread("slow", || {
            thread::sleep(Duration::from_millis(20));
            thread::current().name().map(String::from)
        })?;
        assert_eq!(block_on(slow).as_deref(), Some("slow"));
        Ok(())
    }

    #[test]
    fn the_work_is_done_though_nobody_waits() -> io::Result<()> {
        let (sender, receiver) = mpsc::channel();
        drop(in_thread("alone", move || sender.send(7))?);
        assert_eq!(receiver.recv(), Ok(7));
        Ok(())
    }

    #[test]
    #[should_panic(expected = "the work fails")]
    fn who_waits_for_work_that_panics_does_not_wait_for_ever() {
        let failing = in_thread("failing", || panic!("the work fails"));
        block_on(failing.expect("there is a thread"));
    }
}

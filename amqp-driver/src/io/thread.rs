//! Work on a thread of its own.

use std::{
    future::{Future, poll_fn},
    io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, PoisonError},
    task::Waker,
    thread,
};

use super::locked::poll_locked;
use crate::sync::Mutex;

/// Runs `work`, which may block, on a new thread with that name. The thread ends with the work. The
/// future returns its result, on any runtime, and panics if the work does.
///
/// ```
/// use amqp_driver::io::in_thread;
/// use std::net::ToSocketAddrs;
///
/// # async fn example() -> std::io::Result<()> {
/// let addresses = in_thread("resolver", || ("127.0.0.1", 5672).to_socket_addrs())?;
/// assert_eq!(addresses.await?.count(), 1);
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
    let completion = Arc::new(Mutex::new(Completion::default()));
    let shared = Arc::clone(&completion);
    let work = move || {
        // Unwind safe: nothing of the work is used after a panic, which resumes in the future.
        let result = catch_unwind(AssertUnwindSafe(work));
        let mut completion = shared.lock().unwrap_or_else(PoisonError::into_inner);
        completion.result = Some(result);
        let waker = completion.waker.take();
        drop(completion);
        waker.into_iter().for_each(Waker::wake);
    };
    thread::Builder::new().name(name.into()).spawn(work)?;
    Ok(poll_fn(move |cx| {
        let result = |completion: &mut Completion<T>| completion.result.take();
        let result = poll_locked(&completion, cx.waker(), result, |completion| {
            &mut completion.waker
        });
        result.map(|result| result.unwrap_or_else(|panic| resume_unwind(panic)))
    }))
}

/// The state shared by the thread and the future.
struct Completion<T> {
    result: Option<thread::Result<T>>,
    waker: Option<Waker>,
}

impl<T> Default for Completion<T> {
    fn default() -> Self {
        Self {
            result: None,
            waker: None,
        }
    }
}

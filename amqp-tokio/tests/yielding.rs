//! A driver that always has work, and tasks that wait for sockets.

use std::{
    future::poll_fn,
    io::Write,
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use amqp_tokio::{TokioClock, io::Timer};
use tokio::io::AsyncReadExt;

/// Tokio polls up to 61 tasks before it looks for events of sockets.
const POLLS_MAX: u32 = 3;

#[tokio::test(flavor = "current_thread")]
async fn a_task_that_yields_lets_one_that_waits_for_a_socket_run_before_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (receiver, _) = listener.accept().unwrap();
    receiver.set_nonblocking(true).unwrap();
    let probe = receiver.try_clone().unwrap();
    let mut receiver = tokio::net::TcpStream::from_std(receiver).unwrap();
    let received = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&received);
    let waiting = tokio::spawn(async move {
        receiver.read_u8().await.unwrap();
        flag.store(true, Ordering::Relaxed);
    });
    tokio::task::yield_now().await;
    sender.write_all(b"x").unwrap();
    // A busy system delivers it later.
    while probe.peek(&mut [0]).is_err() {
        std::thread::yield_now();
    }

    let busy = tokio::spawn(async move {
        let mut clock = TokioClock::new();
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            if received.load(Ordering::Relaxed) {
                return Poll::Ready(polls);
            }
            clock.yield_now(cx);
            Poll::Pending
        })
        .await
    });
    let polls = busy.await.unwrap();
    assert!(polls <= POLLS_MAX, "{polls} polls");
    waiting.await.unwrap();
}

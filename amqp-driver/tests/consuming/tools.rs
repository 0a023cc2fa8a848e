//! Bodies that a test lets end, and the deliveries for them.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{Arc, Mutex},
    task::{Poll, Waker},
};

use amqp_driver::{Channel, Connection, Consumer, ManualAck, Message, protocol::basic};
use amqp_test_support::Rig;

/// The end of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Ok,
    Err,
    Panic,
}

/// Bodies that wait for the test, by the text of their message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bodies(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// All that were called, in order.
    called: Vec<String>,
    waiting: BTreeMap<String, Waker>,
    ends: BTreeMap<String, End>,
}

impl Bodies {
    /// The body.
    pub(crate) async fn handle(self, message: Message) -> Result<(), String> {
        let text = String::from_utf8(message.body.to_vec()).unwrap();
        self.0.lock().unwrap().called.push(text.clone());
        let end = poll_fn(|cx| {
            let mut state = self.0.lock().unwrap();
            if let Some(end) = state.ends.remove(&text) {
                state.waiting.remove(&text);
                return Poll::Ready(end);
            }
            state.waiting.insert(text.clone(), cx.waker().clone());
            Poll::Pending
        })
        .await;
        match end {
            End::Ok => Ok(()),
            End::Err => Err(text),
            End::Panic => panic!("{text} is too much"),
        }
    }

    /// Lets a body end, now or when it is called.
    pub(crate) fn end(&self, text: &str, end: End) {
        let waker = {
            let mut state = self.0.lock().unwrap();
            state.ends.insert(text.to_owned(), end);
            state.waiting.remove(text)
        };
        waker.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn called(&self) -> Vec<String> {
        self.0.lock().unwrap().called.clone()
    }
}

/// A channel with a consumer that got these messages.
pub(crate) fn with(bodies: &[&'static str]) -> (Rig, Connection, Channel, Consumer<ManualAck>) {
    let (mut rig, connection, channel) = Rig::with_channel();
    let consumer = rig
        .wait(channel.consume(basic::Consume::default()))
        .unwrap();
    for &body in bodies {
        assert!(rig.peer().deliver(1, consumer.tag(), body));
    }
    rig.run();
    (rig, connection, channel, consumer)
}

/// The texts of settled messages, sorted.
pub(crate) fn texts(bodies: &[bytes::Bytes]) -> Vec<&str> {
    let mut texts: Vec<&str> = bodies
        .iter()
        .map(|it| str::from_utf8(it).unwrap())
        .collect();
    texts.sort_unstable();
    texts
}

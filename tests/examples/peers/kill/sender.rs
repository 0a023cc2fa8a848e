//! The sender: as many persistent messages as it can.

use std::{collections::VecDeque, future::poll_fn, pin::Pin, task::Poll};

use amqp_peer::{
    Config, Event, Message, MessageId, Peer, PeerName, Receipts, SendError, storage::SqliteStorage,
};

use super::record::Number;
use crate::{
    Result,
    process::{Role, argument, block_on, end_of_input},
};

/// The sends that wait for the storage together.
const TOGETHER: usize = 64;

pub(crate) fn run(arguments: &[String]) -> Result {
    block_on(1, send(arguments))?
}

/// Prints `sent PROCESS NUMBER ID` for each message that is stored, and `delivered ID` for each that
/// was accepted, also for those of earlier processes.
async fn send(arguments: &[String]) -> Result {
    let folder: String = argument(arguments, 0)?;
    let role = Role::of(&arguments[1])?;
    let port = argument(arguments, 2)?;
    let process = argument(arguments, 3)?;
    let mut config = Config::new("sender")?.receipts(Receipts::Delivered);
    config.limits.outbox_messages = 2000;
    let storage = SqliteStorage::open(format!("{folder}/sender.db"))?;
    let (peer, mut events) = amqp_peer::tokio::start(config.storage(storage))?;
    let receiver = "receiver".parse()?;
    role.play(&peer, port).await?;
    let mut input = end_of_input();

    let mut sends = Sends {
        peer: &peer,
        receiver: &receiver,
        next: Number { process, number: 0 },
        waiting: VecDeque::new(),
    };
    let mut is_ending = false;
    while !(is_ending && sends.waiting.is_empty() && peer.outbox(&receiver).messages == 0) {
        tokio::select! {
            sent = sends.next(!is_ending), if !is_ending || !sends.waiting.is_empty() => {
                let (Number { process, number }, id) = sent?;
                println!("sent {process} {number} {id}");
            }
            event = events.next() => match event.ok_or("the peer has stopped")? {
                Event::Delivered { id, .. } => println!("delivered {id}"),
                Event::Dropped(dropped) => return Err(format!("{dropped:?}").into()),
                _ => {}
            },
            _ = &mut input, if !is_ending => is_ending = true,
        }
    }
    println!("done");
    peer.stop().await;
    Ok(())
}

type Sending<'a> = Pin<Box<dyn Future<Output = Result<MessageId, SendError>> + 'a>>;

/// Sends that wait, in their order.
struct Sends<'a> {
    peer: &'a Peer,
    receiver: &'a PeerName,
    next: Number,
    waiting: VecDeque<(Number, Sending<'a>)>,
}

impl Sends<'_> {
    /// Waits for the next message to be stored. `begins` further sends if there are few.
    async fn next(&mut self, begins: bool) -> Result<(Number, MessageId)> {
        poll_fn(|cx| {
            while begins && self.waiting.len() < TOGETHER {
                let message = Message::new(self.next.to_body()).persistent();
                let mut sending: Sending<'_> = Box::pin(self.peer.send(self.receiver, message));
                // The first poll takes its place.
                if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
                    sending = Box::pin(std::future::ready(sent));
                }
                self.waiting.push_back((self.next, sending));
                self.next.number += 1;
            }
            let Some((number, sending)) = self.waiting.front_mut() else {
                return Poll::Pending;
            };
            let number = *number;
            match sending.as_mut().poll(cx) {
                Poll::Ready(sent) => {
                    self.waiting.pop_front();
                    Poll::Ready(Ok((number, sent?)))
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

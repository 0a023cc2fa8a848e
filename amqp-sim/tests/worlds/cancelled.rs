//! Requests that are cancelled at any point: what they leave behind, and what became of them.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use amqp_sim::{
    Cancellation, Check, Sim,
    amqp_driver::{
        Channel, Connection, Connector, ConsumeOptions, Error, Requeue,
        arguments::Queue,
        core::client::Prefetch,
        protocol::basic::{Consume, Get, Properties, Publish},
    },
    oracle::{Ledger, MessageId, Requests, Settlement},
};

use super::{
    FAULTS_END, PATIENCE, node,
    programs::{Losses, Result},
    recovering, secs, some_faults,
};

/// The longest wait of a request: the timeouts of a recovery and of the request itself, and what
/// suspensions and jumps of the time add.
const LIMIT: Duration = secs(900);

/// What is known of a queue that was declared.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Declared {
    Yes,
    No,
    Unknown,
}

#[derive(Clone)]
struct Program {
    connector: Connector,
    requests: Requests,
    cancellation: Cancellation,
    impatience: Cancellation,
    queues: Rc<RefCell<BTreeMap<String, Declared>>>,
}

impl Program {
    /// Runs a request to its end, or cancels it.
    async fn try_to<T>(&self, name: &str, request: impl Future<Output = T>) -> Option<T> {
        let tracked = self.requests.track(name, request);
        self.cancellation.run(tracked).await
    }

    /// Opens a channel, and makes requests on it. All that it opens is dropped.
    async fn round(&self, connection: &Connection, number: usize) {
        let Some(Ok(channel)) = self.try_to("channel.open", connection.open_channel()).await else {
            return;
        };
        let queue = format!("queue{number}");
        let Ok(declare) = Queue::classic(&queue).declare() else {
            return;
        };
        let declared = match self.try_to("queue.declare", channel.call(declare)).await {
            Some(Ok(_)) => Declared::Yes,
            // Nothing was sent.
            Some(Err(Error::Misuse(_) | Error::Recovering)) => Declared::No,
            _ => Declared::Unknown,
        };
        self.queues.borrow_mut().insert(queue.clone(), declared);
        self.consume(&channel, &queue).await;
        if number.is_multiple_of(3) {
            let _closed = self.try_to("channel.close", channel.close()).await;
        }
    }

    async fn consume(&self, channel: &Channel, queue: &str) {
        let consume = Consume::default().queue(queue);
        let consumer = self.try_to("basic.consume", channel.consume(consume)).await;
        let get = Get::default().queue(queue);
        let _got = self.try_to("basic.get", channel.get(get)).await;
        if let Some(Ok(mut consumer)) = consumer {
            // There are no messages.
            let _next = self.impatience.run(consumer.next()).await;
            let _ended = self.try_to("basic.cancel", consumer.cancel()).await;
        }
    }

    async fn run(self, connection: Rc<RefCell<Option<Connection>>>, rounds: usize) -> Result {
        let opened = self.connector.connect().await?;
        *connection.borrow_mut() = Some(opened.clone());
        for number in 0..rounds {
            self.round(&opened, number).await;
            self.connector.sleep(Duration::from_millis(300)).await;
        }
        Ok(())
    }
}

/// Requests of one connection, a third of them cancelled.
fn requests(sim: &Sim) {
    let node = sim.node("rabbit");
    let requests = Requests::new(sim, LIMIT);
    let checked = requests.clone();
    sim.always("requests", move || checked.check());
    let program = Program {
        connector: recovering(sim, "amqp://rabbit"),
        requests: requests.clone(),
        cancellation: sim.cancellation(35),
        impatience: sim.cancellation(100),
        queues: Rc::default(),
    };
    let (queues, connection) = (Rc::clone(&program.queues), Rc::default());
    let rounds = 3 + sim.random().index(10);
    sim.spawn("program", program.run(Rc::clone(&connection), rounds));
    sim.faults(some_faults(sim));
    sim.run();
    sim.advance(FAULTS_END.saturating_sub(sim.now()));
    // The connection lives, and nothing of the channels and consumers that were dropped.
    let held = connection
        .borrow()
        .clone()
        .expect("the program has connected");
    sim.wait_until(PATIENCE, || {
        let state = node.inspect();
        let rests = |channels: &[_]| channels.is_empty() || !held.is_open();
        state.connections.iter().all(|it| rests(&it.channels))
    });
    let state = node.inspect();
    for (queue, declared) in &*queues.borrow() {
        let exists = state.queue(queue).is_some();
        assert!(
            *declared == Declared::Unknown || exists == (*declared == Declared::Yes),
            "{queue} is {declared:?}, and exists: {exists}"
        );
    }
    assert_eq!(requests.finish(), Ok(()));
}

#[test]
fn cancelled_requests_leave_nothing_behind() {
    Check::new().seeds(800).run(requests);
}

/// A publisher and a consumer that cancel their waits: no message is lost by that.
fn messages(sim: &Sim) {
    let node = node(sim, "rabbit");
    let ledger = Ledger::new();
    let checked = ledger.clone();
    sim.always("the account of messages", move || checked.check());
    let cancellation = sim.cancellation(30);
    let (connector, account) = (recovering(sim, "amqp://rabbit"), ledger.clone());
    sim.spawn("publisher", publish(connector, account, cancellation));
    let cancellation = sim.cancellation(60);
    let (connector, account) = (recovering(sim, "amqp://rabbit"), ledger.clone());
    sim.service("consumer", move || {
        consume(connector.clone(), account.clone(), cancellation.clone())
    });
    sim.faults(some_faults(sim));
    sim.run();
    sim.advance(FAULTS_END.saturating_sub(sim.now()));
    sim.wait_until(PATIENCE, || node.messages("q") == 0);
    sim.advance(secs(1));
    if let Err(violation) = ledger.finish(&[&node]) {
        panic!("{violation}");
    }
}

/// Publishes, and cancels some publishes and some waits for confirms.
async fn publish(connector: Connector, ledger: Ledger, cancellation: Cancellation) -> Result {
    let connection = connector.connect().await?;
    let mut losses = Losses::of(&connection);
    let left = Cell::new(20);
    let mut lives = 0;
    while left.get() > 0 {
        let channel = super::programs::open_confirming(&connector, &connection, "q").await?;
        lives += 1;
        while left.get() > 0 && channel.close_reason().is_none() {
            left.set(left.get() - 1);
            let message = ledger.publish(&format!("publisher/{lives}"), "q");
            let publish = Publish::default().routing_key("q");
            let persistent = Properties::default().persistent();
            let publishing = channel.publish(&publish, &persistent, message.to_string());
            let settlement = match cancellation.run(publishing).await {
                Some(Ok(confirm)) => {
                    ledger.accepted(message, losses.count());
                    match cancellation.run(confirm).await {
                        Some(confirmed) => Settlement::from(&confirmed),
                        None => Settlement::Unknown,
                    }
                }
                Some(Err(_)) => Settlement::NotSent,
                // A publish is sent whole or not at all.
                None => Settlement::Unknown,
            };
            ledger.settle(message, settlement);
            connector.sleep(Duration::from_millis(300)).await;
        }
    }
    let _closed = connection.close().await;
    Ok(())
}

/// Consumes, with waits that are cancelled and begun again.
async fn consume(connector: Connector, ledger: Ledger, cancellation: Cancellation) -> Result {
    let connection = connector.connect().await?;
    let mut lives = 0;
    loop {
        let channel = super::programs::open(&connector, &connection, "q").await?;
        let options = ConsumeOptions::default().prefetch(Prefetch::Count(3));
        let consume = Consume::default().queue("q");
        let Some(Ok(mut consumer)) = cancellation
            .run(channel.consume_with(consume, options))
            .await
        else {
            connector.sleep(Duration::from_millis(100)).await;
            continue;
        };
        lives += 1;
        let label = format!("consumer/{lives}");
        loop {
            match cancellation.run(consumer.next()).await {
                None => {}
                Some(Some(Ok(delivery))) => {
                    let message = MessageId::of(&delivery.body)?;
                    ledger.deliver(&label, "q", message, delivery.method.redelivered);
                    if delivery.method.delivery_tag % 5 == 0 {
                        let _stale = delivery.nack(Requeue::Yes);
                    } else if delivery.ack().is_ok() {
                        ledger.done(message);
                    }
                }
                Some(_) => break,
            }
        }
        if let Some(reason) = connection.close_reason() {
            return Err(reason.to_string().into());
        }
    }
}

#[test]
fn cancelled_waits_lose_no_message() {
    Check::new().seeds(700).run(messages);
}

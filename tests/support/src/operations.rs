//! Everything that can be awaited, as one list.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use amqp_driver::{
    BaseChannel, Channel, ConfirmChannel, Connection, ConsumerGroup, EndReason, Error,
    ForEachOptions, OnFailure, Requeue, TxChannel, Unconfirmed,
    core::{
        ClientSent, CloseCause, Request,
        wire::{Secret, ShortStr},
    },
    protocol::{basic, channel, exchange, queue},
};
use bytes::Bytes;

use super::{Peer, Rig};

/// The handles that the operations use.
#[derive(Clone)]
pub struct Handles {
    pub connection: Connection,
    pub plain: Rc<Channel>,
    pub confirm: Rc<ConfirmChannel>,
    pub tx: Rc<TxChannel>,
    /// Distinguishes the operations of one test.
    pub number: u32,
}

pub type Operation = fn(Handles) -> Operating;
type Operating = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

impl Handles {
    pub fn new(rig: &mut Rig, connection: Connection) -> Self {
        Self {
            plain: Rc::new(rig.channel(&connection)),
            confirm: Rc::new(rig.confirm_channel(&connection)),
            tx: Rc::new(rig.tx_channel(&connection)),
            connection,
            number: 1,
        }
    }
}

/// Prepares the server for the operations.
pub fn stock(peer: &mut Peer) {
    peer.unroutable = true;
    peer.gettable = ["m1", "m2", "m3"].map(Bytes::from).into();
    peer.at_once = ["d1", "d2", "d3"].map(Bytes::from).into();
}

/// Everything that can be awaited and leaves connection and channels as they were.
pub const OPERATIONS: [(&str, Operation); 24] = [
    ("open_channel", |on| {
        Box::pin(async move {
            on.connection.open_channel().await?;
            Ok(())
        })
    }),
    ("confirm_select", |on| {
        Box::pin(async move {
            let channel = on.connection.open_channel().await?;
            channel.confirm_select().await?;
            Ok(())
        })
    }),
    ("tx_select", |on| {
        Box::pin(async move {
            let channel = on.connection.open_channel().await?;
            channel.tx_select().await?.commit().await
        })
    }),
    ("channel_pool", |on| {
        Box::pin(async move {
            on.connection.channel_pool(3).await?;
            Ok(())
        })
    }),
    ("checkout", |on| {
        Box::pin(async move {
            let pool = on.connection.channel_pool(1).await?;
            let first = pool.checkout().await?;
            // The channel does not come back whole: the pool opens another one.
            first.close().await?;
            drop(first);
            let channel = pool.checkout().await?;
            call(&channel, on.number).await
        })
    }),
    ("scope", |on| {
        Box::pin(async move { on.connection.scope(call(&on.plain, on.number)).await? })
    }),
    ("update_secret", |on| {
        Box::pin(async move {
            let secret = Secret::from("token");
            on.connection
                .update_secret(secret, ShortStr::default())
                .await
        })
    }),
    ("call", |on| {
        Box::pin(async move { call(&on.plain, on.number).await })
    }),
    ("calls", |on| {
        Box::pin(async move {
            // The deliveries of others are not to be taken back.
            let channel = on.connection.open_channel().await?;
            channel.call(basic::Qos::default()).await?;
            call(&channel, on.number).await?;
            channel
                .call(basic::Recover::default().requeue(true))
                .await?;
            Ok(())
        })
    }),
    ("requests", |on| Box::pin(requests(on.plain))),
    ("publish", |on| {
        Box::pin(async move {
            let to = basic::Publish::default();
            let none = basic::Properties::default();
            on.plain.publish(&to, &none, vec![0; 20_000]).await?;
            on.plain.publish(&to, &none, "small").await
        })
    }),
    ("confirm", |on| {
        Box::pin(async move {
            let to = basic::Publish::default();
            let none = basic::Properties::default();
            let first = on.confirm.publish(&to, &none, "first").await?;
            let second = on.confirm.publish(&to, &none, "second").await?;
            second.await.map_err(ended)?;
            first.await.map_err(ended)
        })
    }),
    ("returns", |on| {
        Box::pin(async move {
            let mut returns = on.plain.returns();
            let to = basic::Publish::default().mandatory(true);
            let none = basic::Properties::default();
            on.plain.publish(&to, &none, "nowhere").await?;
            match returns.next().await {
                Some(message) => assert_eq!(message.body, "nowhere"),
                None => return Err(returns.error().unwrap()),
            }
            Ok(())
        })
    }),
    ("consume", |on| {
        Box::pin(async move {
            let mut consumer = on.plain.consume(basic::Consume::default()).await?;
            consumer.next().await.unwrap()?.ack()?;
            consumer.next().await.unwrap()?.nack(Requeue::Yes)
        })
    }),
    ("consume_no_ack", |on| {
        Box::pin(async move {
            let mut consumer = on.plain.consume_no_ack(basic::Consume::default()).await?;
            consumer.next().await.unwrap()?;
            consumer.next().await.unwrap()?;
            Ok(())
        })
    }),
    ("cancel", |on| {
        Box::pin(async move {
            let mut consumer = on.plain.consume(basic::Consume::default()).await?;
            consumer.cancel().await?;
            while let Some(delivery) = consumer.next().await {
                delivery?.ack()?;
            }
            Ok(())
        })
    }),
    ("cancel_at_once", |on| {
        Box::pin(async move {
            let mut consumer = on.plain.consume(basic::Consume::default()).await?;
            consumer.next().await.unwrap()?.ack()?;
            consumer.cancel().await
        })
    }),
    ("for_each_concurrent", |on| {
        Box::pin(async move {
            let consumer = on.plain.consume(basic::Consume::default()).await?;
            let options = ForEachOptions::new(OnFailure::End(Requeue::Yes))
                .batch_acks(2, Duration::from_millis(5));
            let ended = consumer.for_each_concurrent(2, options, async |message| {
                if message.body == "d3" {
                    Err(())
                } else {
                    Ok(())
                }
            });
            match ended.await.reason {
                EndReason::Failed(_) => Ok(()),
                EndReason::ChannelClosed(reason) => Err(Error::ChannelClosed(reason)),
                EndReason::ConnectionClosed(reason) => Err(Error::ConnectionClosed(reason)),
                other => panic!("{other:?}"),
            }
        })
    }),
    ("consumer_group", |on| {
        Box::pin(async move {
            let consumes = [basic::Consume::default(), basic::Consume::default()];
            let mut group = ConsumerGroup::start(&on.plain, consumes, 2).await?;
            group.next().await.unwrap()?.ack()?;
            group.prefetch().set(3);
            // More than both consumers get before they are started again.
            for _ in 0..8 {
                group.next().await.unwrap()?.ack()?;
            }
            group.cancel().await;
            while let Some(delivery) = group.next().await {
                delivery?.nack(Requeue::Yes)?;
            }
            Ok(())
        })
    }),
    ("get", |on| {
        Box::pin(async move {
            match on.plain.get(basic::Get::default()).await? {
                Some(fetched) => fetched.ack(),
                None => Ok(()),
            }
        })
    }),
    ("get_no_ack", |on| {
        Box::pin(async move {
            let get = basic::Get::default().no_ack(true);
            let _fetched = on.plain.get(get).await?;
            Ok(())
        })
    }),
    ("commit", |on| {
        Box::pin(async move {
            let to = basic::Publish::default();
            let none = basic::Properties::default();
            on.tx.publish(&to, &none, vec![0; 10_000]).await?;
            on.tx.commit().await?;
            call(&on.tx, on.number).await
        })
    }),
    ("rollback", |on| {
        Box::pin(async move {
            let to = basic::Publish::default();
            on.tx
                .publish(&to, &basic::Properties::default(), "x")
                .await?;
            on.tx.rollback().await
        })
    }),
    ("close", |on| {
        Box::pin(async move {
            let channel = on.connection.open_channel().await?;
            channel.close().await
        })
    }),
];

/// Why a publish was not confirmed, when the connection or the channel is to blame.
fn ended(unconfirmed: Unconfirmed) -> Error {
    let (Unconfirmed::NotSent(reason) | Unconfirmed::Unknown(reason)) = unconfirmed else {
        panic!("{unconfirmed:?}");
    };
    match reason.cause() {
        CloseCause::Connection(reason) => Error::ConnectionClosed(reason.clone()),
        _ => Error::ChannelClosed(reason),
    }
}

/// The requests that no other operation makes; all at once, so that they take few steps.
async fn requests(channel: Rc<Channel>) -> Result<(), Error> {
    fn call<R: Request + ClientSent + 'static>(channel: &Rc<Channel>, request: R) -> Operating {
        let channel = Rc::clone(channel);
        Box::pin(async move { channel.call(request).await.map(drop) })
    }
    let declare = exchange::Declare::default().exchange("e1").kind("fanout");
    let bind = exchange::Bind::default().source("e1").destination("e2");
    let unbind = exchange::Unbind::default().source("e1").destination("e2");
    let mut running = vec![
        call(&channel, channel::Flow { active: true }),
        call(&channel, declare),
        call(&channel, bind),
        call(&channel, unbind),
        call(&channel, exchange::Delete::default().exchange("e1")),
        call(&channel, queue::Bind::default().exchange("e1")),
        call(&channel, queue::Unbind::default().exchange("e1")),
        call(&channel, queue::Purge::default()),
        call(&channel, queue::Delete::default()),
    ];
    poll_fn(|cx| {
        let mut result = Ok(());
        running.retain_mut(|request| match request.as_mut().poll(cx) {
            Poll::Ready(done) => {
                if done.is_err() {
                    result = done;
                }
                false
            }
            Poll::Pending => true,
        });
        if result.is_ok() && !running.is_empty() {
            return Poll::Pending;
        }
        Poll::Ready(result)
    })
    .await
}

/// A request with a reply that identifies it.
pub async fn call(channel: &BaseChannel, number: u32) -> Result<(), Error> {
    let name = format!("q{number}");
    let declare = queue::Declare::default().queue(&name);
    let declared = channel.call(declare).await?;
    assert_eq!(declared.queue, name);
    Ok(())
}

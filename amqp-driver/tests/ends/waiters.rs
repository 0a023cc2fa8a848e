//! Everything that can be pending on a connection, and every cause that ends it.

use std::{future::Future, pin::Pin, rc::Rc, time::Duration};

use amqp_driver::{
    Channel, ChannelPool, CloseReason, ConfirmChannel, Connection, Error, TxChannel, Unconfirmed,
    core::{
        CloseCause,
        wire::{Secret, ShortStr},
    },
    protocol::{basic, confirm, exchange, queue, tx},
};
use amqp_test_support::{Confirming, Cut, Rig, Setup, Task};

use super::{frame, reason};

/// The handles of one connection: a channel of each kind, and a pool of one channel.
#[derive(Clone)]
pub(super) struct Handles {
    pub(super) connection: Connection,
    pub(super) plain: Rc<Channel>,
    pub(super) confirm: Rc<ConfirmChannel>,
    pub(super) tx: Rc<TxChannel>,
    pub(super) pool: ChannelPool,
}

impl Handles {
    pub(super) fn open(rig: &mut Rig, connection: Connection) -> Self {
        let pool = rig.wait(connection.channel_pool(1)).unwrap();
        Self {
            plain: Rc::new(rig.channel(&connection)),
            confirm: Rc::new(rig.confirm_channel(&connection)),
            tx: Rc::new(rig.tx_channel(&connection)),
            pool,
            connection,
        }
    }
}

/// A call that fails when the connection ends.
pub(super) type Pending = Pin<Box<dyn Future<Output = Error>>>;

/// Every call that can be pending, and the error that it ends with.
pub(super) const WAITERS: [(&str, fn(Handles) -> Pending); 24] = [
    ("open_channel", |on| {
        Box::pin(async move { on.connection.open_channel().await.unwrap_err() })
    }),
    ("update_secret", |on| {
        Box::pin(async move {
            let secret = Secret::from("token");
            let updating = on.connection.update_secret(secret, ShortStr::default());
            updating.await.unwrap_err()
        })
    }),
    ("closed", |on| {
        Box::pin(async move { Error::ConnectionClosed(on.connection.closed().await) })
    }),
    ("scope", |on| {
        Box::pin(async move {
            let nothing = std::future::pending::<()>();
            on.connection.scope(nothing).await.unwrap_err()
        })
    }),
    ("channel_pool", |on| {
        Box::pin(async move { on.connection.channel_pool(2).await.unwrap_err() })
    }),
    ("checkout", |on| {
        Box::pin(async move { on.pool.checkout().await.unwrap_err() })
    }),
    ("checkout too", |on| {
        Box::pin(async move { on.pool.checkout().await.unwrap_err() })
    }),
    ("call", |on| {
        Box::pin(async move {
            let declare = queue::Declare::default();
            on.plain.call(declare).await.unwrap_err()
        })
    }),
    ("get", |on| {
        Box::pin(async move { on.plain.get(basic::Get::default()).await.unwrap_err() })
    }),
    ("consume", |on| {
        Box::pin(async move {
            let consume = basic::Consume::default();
            on.plain.consume(consume).await.unwrap_err()
        })
    }),
    ("publish", |on| {
        Box::pin(async move {
            let (to, none) = (basic::Publish::default(), basic::Properties::default());
            on.plain.publish(&to, &none, "held").await.unwrap_err()
        })
    }),
    ("publish with confirm", |on| {
        Box::pin(async move {
            let (to, none) = (basic::Publish::default(), basic::Properties::default());
            on.confirm.publish(&to, &none, "held").await.unwrap_err()
        })
    }),
    ("returns", |on| {
        Box::pin(async move {
            let mut returns = on.plain.returns();
            assert_eq!(returns.next().await, None);
            returns.error().unwrap()
        })
    }),
    ("returns too", |on| {
        Box::pin(async move {
            let mut returns = on.plain.returns();
            assert_eq!(returns.next().await, None);
            returns.error().unwrap()
        })
    }),
    ("confirm_select", |on| {
        Box::pin(async move {
            let select = confirm::Select::default();
            on.plain.call(select).await.unwrap_err()
        })
    }),
    ("qos", |on| {
        Box::pin(async move { on.plain.call(basic::Qos::default()).await.unwrap_err() })
    }),
    ("exchange", |on| {
        Box::pin(async move {
            let declare = exchange::Declare::default().exchange("x");
            let declare = declare.kind("direct");
            on.plain.call(declare).await.unwrap_err()
        })
    }),
    ("recover", |on| {
        Box::pin(async move {
            let recover = basic::Recover::default().requeue(true);
            on.confirm.call(recover).await.unwrap_err()
        })
    }),
    ("tx select", |on| {
        Box::pin(async move { on.tx.call(tx::Select).await.unwrap_err() })
    }),
    ("rollback", |on| {
        Box::pin(async move { on.tx.rollback().await.unwrap_err() })
    }),
    ("commit", |on| {
        Box::pin(async move { on.tx.commit().await.unwrap_err() })
    }),
    ("call behind commit", |on| {
        Box::pin(async move {
            let purge = queue::Purge::default();
            on.tx.call(purge).await.unwrap_err()
        })
    }),
    ("closed too", |on| {
        Box::pin(async move { Error::ConnectionClosed(on.connection.closed().await) })
    }),
    ("no_ack", |on| {
        Box::pin(async move {
            let consume = basic::Consume::default();
            on.confirm.consume_no_ack(consume).await.unwrap_err()
        })
    }),
];

/// The ways in which a connection can end.
pub(super) const CAUSES: [(&str, fn(&mut Rig, &Handles)); 10] = [
    ("eof", |rig, _| rig.world().cut(Cut::Eof)),
    ("read error", |rig, _| rig.world().cut(Cut::ReadError)),
    ("reset", |rig, _| rig.world().cut(Cut::Reset)),
    ("write error", |rig, on| {
        rig.world().cut(Cut::WriteError);
        on.plain
            .send(&queue::Declare::default().queue("q"))
            .unwrap();
    }),
    ("closed by the server", |rig, _| {
        let close = frame(10, 50, b"\x01\x40\x08shutdown\0\0\0\0");
        rig.world().inject(&close);
    }),
    ("the server breaks the protocol", |rig, _| {
        rig.world().inject(&[1, 0, 0, 0, 0, 0, 0, 0])
    }),
    ("an answer to nothing", |rig, _| {
        rig.world().inject(&frame(10, 41, &[0]))
    }),
    ("the server is silent", |rig, _| {
        rig.advance(Duration::from_secs(25))
    }),
    ("the driver is dropped", |rig, _| rig.drop_driver()),
    ("abort", |_, on| on.connection.abort()),
];

/// Opens a connection on which every call is pending, with a server that answers nothing. The only
/// channel of the pool is taken.
pub(super) fn start(stalled: bool) -> (Rig, Handles, Vec<(&'static str, Task<CloseReason>)>) {
    let mut setup = Setup::default();
    setup.server.heartbeat = 10;
    let (mut rig, connection) = Rig::open_with(setup);
    let on = Handles::open(&mut rig, connection);
    let taken = rig.wait(on.pool.checkout()).unwrap();
    let mut tasks = Vec::new();

    rig.peer().confirming = Confirming::ByHand;
    let (to, none) = (basic::Publish::default(), basic::Properties::default());
    let sent = rig.wait(on.confirm.publish(&to, &none, "sent")).unwrap();
    let mut consumer = rig
        .wait(on.plain.consume(basic::Consume::default()))
        .unwrap();
    let mut cancelled = rig
        .wait(on.plain.consume(basic::Consume::default()))
        .unwrap();
    let closing = rig.channel(&on.connection);
    rig.peer().machine.block(ShortStr::default()).unwrap();
    rig.run();
    rig.peer().mute = true;
    if stalled {
        rig.world().set_capacity(0);
    }

    tasks.push((
        "confirm",
        rig.spawn(async move {
            match sent.await.unwrap_err() {
                Unconfirmed::Unknown(reason) => of_connection(&reason),
                other => panic!("{other:?}"),
            }
        }),
    ));
    tasks.push((
        "next",
        rig.spawn(async move {
            let error = consumer.next().await.unwrap().unwrap_err();
            assert!(consumer.next().await.is_none());
            reason(error)
        }),
    ));
    tasks.push((
        "cancel",
        rig.spawn(async move {
            let error = reason(cancelled.cancel().await.unwrap_err());
            // The consumer ends with the same reason.
            assert_eq!(reason(cancelled.next().await.unwrap().unwrap_err()), error);
            error
        }),
    ));
    tasks.push((
        "channel.close",
        rig.spawn(async move { reason(closing.close().await.unwrap_err()) }),
    ));
    for (name, waiter) in WAITERS {
        let pending = waiter(on.clone());
        tasks.push((name, rig.spawn(async move { reason(pending.await) })));
    }
    // The pool's channel stays taken.
    std::mem::forget(taken);
    rig.run();
    for (name, task) in &tasks {
        assert!(!task.is_done(), "{name} does not wait");
    }
    (rig, on, tasks)
}

/// The reason of the connection, from the reason of a channel that ended with it.
fn of_connection(reason: &CloseReason) -> CloseReason {
    match reason.cause() {
        CloseCause::Connection(reason) => reason.clone(),
        other => panic!("{other:?}"),
    }
}

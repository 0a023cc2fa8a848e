//! What a peer refuses, or makes wait, for want of room.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Condvar, Mutex, mpsc},
    task::Poll,
    time::Duration,
};

use amqp_peer::{
    Config, Limits, Message, SendError, Undelivered,
    amqp_driver::io::{in_thread, within},
    rpc::{CallError, Failure as Failed, Json, Proxy},
    storage::{Change, Storage, StorageError, StorageErrorKind, Stored},
};

use crate::rig::{Adapter, Failure, Outcome, World, name, on_every_runtime};

on_every_runtime!(
    kinds_of_calls_are_reserved,
    a_reply_waits_for_a_place_among_the_receivers,
    a_storage_that_hangs_makes_persistent_sends_wait,
    a_storage_that_fails_after_a_hang_ends_them,
);

async fn kinds_of_calls_are_reserved<R: Adapter>(world: World<R>) -> Outcome {
    let (alice, mut bob) = world.pair().await?;
    let to = name("bob");
    for kind in [
        "rpc.call",
        "rpc.signal",
        "rpc.reply",
        "rpc.error",
        "rpc.",
        "rpc.new",
    ] {
        let message = || Message::new("x").kind(kind);
        let refused = alice.peer.send(&to, message()?).await;
        assert_eq!(refused, Err(SendError::ReservedKind), "{kind}");
        assert_eq!(
            alice.peer.try_send(&to, message()?),
            Err(SendError::ReservedKind)
        );
        let refused = alice.peer.deliver(&to, message()?).await;
        let expected = Undelivered::NotSent(SendError::ReservedKind);
        assert_eq!(refused, Err(expected));
    }
    assert_eq!(alice.peer.outbox(&to).messages, 0);
    for kind in ["rpc", "RPC.call", "my.rpc.call", ""] {
        alice.peer.send(&to, Message::new("x").kind(kind)?).await?;
        let message = bob.accept().await?;
        assert_eq!(message.properties().kind.as_str(), kind);
    }
    // Calls have these kinds.
    bob.peer
        .rpc()
        .object("echo")
        .method("echo", async |text: String| Ok::<_, Failed>(text));
    let echo: Proxy<Json> = alice.peer.rpc().proxy(to, "echo");
    let text: String = echo.call("echo", "x").await?;
    assert_eq!(text, "x");
    Ok(())
}

async fn a_reply_waits_for_a_place_among_the_receivers<R: Adapter>(world: World<R>) -> Outcome {
    let limits = Limits::default().receivers(1);
    let mut alice = world.start("alice")?;
    let mut bob = world.start_with(Config::new("bob")?.limits(limits))?;
    world.link(&mut alice, &mut bob).await?;
    let (note, ran) = in_thread_until_noted()?;
    bob.peer
        .rpc()
        .object("echo")
        .method("echo", move |text: String| {
            let _closed = note.send(());
            async move { Ok::<_, Failed>(text) }
        });
    bob.peer.send(&name("absent"), Message::new("x")).await?;
    let refused = bob.peer.try_send(&name("alice"), Message::new("x"));
    assert_eq!(refused, Err(SendError::TooManyReceivers { limit: 1 }));

    let echo: Proxy<Json> = alice.peer.rpc().proxy(name("bob"), "echo");
    let echo = echo.timeout(None);
    let mut called = Box::pin(echo.call::<_, String>("echo", "x"));
    let mut refused = Box::pin(echo.call::<_, String>("missing", "x"));
    poll_fn(|cx| {
        assert!(called.as_mut().poll(cx).is_pending());
        assert!(refused.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    // The method has run, and its reply waits.
    ran.await?;
    bob.peer.forget(&name("absent"));
    assert_eq!(called.await?, "x");
    let refused = refused.await;
    assert!(
        matches!(refused, Err(CallError::NoMethod { .. })),
        "{refused:?}"
    );
    Ok(())
}

/// A sender, and a future that ends when something was sent.
fn in_thread_until_noted() -> Result<
    (
        mpsc::Sender<()>,
        impl Future<Output = Result<(), mpsc::RecvError>>,
    ),
    Failure,
> {
    let (note, noted) = mpsc::channel();
    Ok((note, in_thread("note", move || noted.recv())?))
}

/// A storage that hangs until it is told what to do.
#[derive(Clone, Default)]
struct Hanging(Arc<(Mutex<Mode>, Condvar)>);

#[derive(Clone, Copy, Default, PartialEq)]
enum Mode {
    #[default]
    Hangs,
    Works,
    Fails,
}

impl Hanging {
    fn set(&self, mode: Mode) {
        let (current, changed) = &*self.0;
        *current.lock().unwrap() = mode;
        changed.notify_all();
    }
}

impl Storage for Hanging {
    fn load(&mut self) -> Result<Stored, StorageError> {
        Ok(Stored::default())
    }

    fn apply(&mut self, _changes: &[Change]) -> Result<(), StorageError> {
        let (current, changed) = &*self.0;
        let mode = current.lock().unwrap();
        let mode = changed.wait_while(mode, |it| *it == Mode::Hangs).unwrap();
        if *mode == Mode::Fails {
            return Err(StorageError::new(StorageErrorKind::Io, "for a test"));
        }
        Ok(())
    }
}

/// Opens the storage when a scenario fails: its thread ends then.
struct Open(Hanging);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(Mode::Works);
    }
}

fn persistent() -> Message {
    Message::new(vec![0; 1000]).persistent()
}

async fn is_pending<T>(future: &mut Pin<Box<impl Future<Output = T>>>) -> bool {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

/// Sends until the storage is too far behind.
fn fill(peer: &amqp_peer::Peer) -> Result<usize, SendError> {
    let to = name("alice");
    for taken in 0..100 {
        match peer.try_send(&to, persistent()) {
            Ok(_) => peer.forget(&to),
            Err(SendError::Unstored { .. }) => return Ok(taken),
            Err(error) => return Err(error),
        }
    }
    Ok(100)
}

async fn a_storage_that_hangs_makes_persistent_sends_wait<R: Adapter>(world: World<R>) -> Outcome {
    let storage = Hanging::default();
    let _open = Open(storage.clone());
    let limits = Limits::default().unstored(10_000);
    let setup = Config::new("bob")?.limits(limits).storage(storage.clone());
    let bob = world.start_with(setup)?;
    let taken = fill(&bob.peer)?;
    assert!((5..10).contains(&taken), "{taken}");
    let store = bob.peer.store();
    assert!(
        store.unstored > 7000 && store.unstored < 15_000,
        "{store:?}"
    );
    assert_eq!(store.error, None);
    let to = name("alice");
    let mut waiting = Box::pin(bob.peer.send(&to, persistent()));
    assert!(is_pending(&mut waiting).await);
    // Transient messages of another receiver go on, and links.
    let (jack, mut at_jack) = (name("jack"), world.start("jack")?);
    world.join(&bob, &at_jack).await?;
    bob.peer.send(&jack, Message::new("x")).await?;
    at_jack.up().await?;
    at_jack.expect(b"x").await?;
    assert!(is_pending(&mut waiting).await);
    storage.set(Mode::Works);
    waiting.await?;
    assert_eq!(bob.peer.store().unstored, 0);
    bob.peer.stop().await;
    Ok(())
}

async fn a_storage_that_fails_after_a_hang_ends_them<R: Adapter>(world: World<R>) -> Outcome {
    let storage = Hanging::default();
    let _open = Open(storage.clone());
    let limits = Limits::default().unstored(10_000);
    let setup = Config::new("bob")?.limits(limits).storage(storage.clone());
    let bob = world.start_with(setup)?;
    fill(&bob.peer)?;
    let to = name("alice");
    let mut waiting = Box::pin(bob.peer.send(&to, persistent()));
    assert!(is_pending(&mut waiting).await);
    storage.set(Mode::Fails);
    let refused = waiting.await;
    assert!(
        matches!(refused, Err(SendError::Storage { .. })),
        "{refused:?}"
    );
    assert!(
        bob.peer
            .store()
            .error
            .is_some_and(|it| it.contains("for a test"))
    );
    storage.set(Mode::Works);
    // It works again after a pause.
    loop {
        match bob.peer.send(&to, persistent()).await {
            Ok(_) => break,
            Err(SendError::Storage { .. }) => {
                let pause = Duration::from_millis(10);
                let pending = std::future::pending::<()>();
                let _passed = within(&mut world.clock(), pause, pending).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

//! The end of a connection that is lost or restored.

use std::{future::pending, sync::Arc, time::Duration};

use amqp_tokio::{
    ConnectionState, CredentialsProvider, LocalBroker, LoginFuture, Options,
    broker::{ByteFaults, Impairment},
    core::CloseCause,
    recovery::{GiveUp, OnFailure, RecoveryEvent},
};
use tokio::time::{sleep, timeout};

use crate::{Outcome, PATIENCE, SECOND, durable, from, is_lost, keep_busy, options, policy, until};

/// Has credentials once, and hangs afterwards.
#[derive(Debug, Default)]
struct Once(std::sync::atomic::AtomicBool);

impl CredentialsProvider for Once {
    fn login(&self) -> LoginFuture<'_> {
        let first = !self.0.swap(true, std::sync::atomic::Ordering::SeqCst);
        Box::pin(async move {
            if !first {
                pending::<()>().await;
            }
            Ok(amqp_tokio::Login::new("guest", "guest"))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_recovery_that_is_given_up_is_the_one_end_of_all_handles() -> Outcome {
    let broker = LocalBroker::default();
    let mut policy = policy();
    policy.queues.precondition_failed = OnFailure::GiveUp;
    let connection = broker
        .connect_with(&Options::default().recovery(policy))
        .await?;
    let channel = connection.open_channel().await?;
    channel.call(durable("tasks")?.durable(false)).await?;
    let mut consumer = channel.consume(from("tasks")?).await?;
    broker.stop();
    broker.start();
    let other = broker.connect_with(&options()).await?;
    other.open_channel().await?.call(durable("tasks")?).await?;
    let first = timeout(PATIENCE, connection.closed()).await?;
    assert!(
        matches!(first.cause(), CloseCause::NotRecovered { .. }),
        "{first}"
    );
    let end = timeout(PATIENCE, consumer.next()).await?;
    assert!(matches!(end, Some(Err(_))), "{end:?}");
    sleep(PATIENCE).await;
    assert_eq!(connection.close_reason(), Some(first));
    let mut events = connection.recovery_events();
    let mut last = None;
    while let Some(change) = events.next().await {
        last = Some(change.event);
    }
    assert!(
        matches!(last, Some(RecoveryEvent::GaveUp(GiveUp::Step(_)))),
        "{last:?}"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn closing_while_lost_is_the_last_event() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    broker.stop();
    until(&connection, is_lost).await?;
    let mut events = connection.recovery_events();
    sleep(10 * SECOND).await;
    assert!(connection.close().await.is_err());
    let reason = connection.close_reason();
    sleep(10 * SECOND).await;
    assert_eq!(connection.close_reason(), reason);
    let mut last = None;
    while let Some(change) = timeout(SECOND, events.next()).await? {
        last = Some(change.event);
    }
    assert!(
        matches!(last, Some(RecoveryEvent::GaveUp(GiveUp::Stopped))),
        "{last:?}"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_is_bounded_by_the_deadline_and_by_a_close() -> Outcome {
    for closes in [false, true] {
        let broker = LocalBroker::default();
        let options = Options::default()
            .recovery(policy().deadline(600 * SECOND))
            .credentials(Arc::new(Once::default()));
        let connection = broker.connect_with(&options).await?;
        broker.close_connections("test");
        until(&connection, is_lost).await?;
        sleep(5 * SECOND).await;
        if closes {
            assert!(timeout(SECOND, connection.close()).await?.is_err());
        } else {
            let reason = timeout(700 * SECOND, connection.closed()).await?;
            assert!(
                matches!(reason.cause(), CloseCause::NotRecovered { .. }),
                "{reason}"
            );
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_dialled_again_and_a_close_meanwhile_ends_at_once() -> Outcome {
    for stalled in [0, 8, 300, 500] {
        for closes in [false, true] {
            let broker = LocalBroker::default();
            let connection = broker.connect_with(&options()).await?;
            let stall = ByteFaults::new().to_client(Impairment::new().stall_after(stalled));
            broker.with(|broker| broker.faults().bytes_of_next(1, stall));
            broker.close_connections("test");
            until(&connection, is_lost).await?;
            sleep(2 * SECOND).await;
            if closes {
                let closed = timeout(60 * SECOND, connection.close()).await?;
                println!("{stalled}: {closed:?}");
                assert!(connection.close_reason().is_some());
            } else {
                timeout(PATIENCE, connection.open_channel()).await??;
            }
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_closes_while_it_is_restored_is_closing() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let _other = keep_busy(&broker, &connection).await?;
    let mut states = connection.states();
    assert_eq!(states.next().await, Some(ConnectionState::Recovering));
    broker.pause();
    let closing = tokio::spawn({
        let connection = connection.clone();
        async move { connection.close().await }
    });
    tokio::task::yield_now().await;
    assert_eq!(
        timeout(SECOND, states.next()).await?,
        Some(ConnectionState::Closing)
    );
    broker.resume();
    timeout(PATIENCE, closing).await???;
    assert!(
        matches!(states.next().await, Some(ConnectionState::Closed(reason)) if reason.is_clean())
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_runtime_ends_a_lost_connection() -> Outcome {
    for lost in [0, 5, 10] {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()
                .unwrap();
            let connection = runtime.block_on(async {
                let broker = LocalBroker::default();
                let connection = broker.connect_with(&options()).await.unwrap();
                if lost > 0 {
                    broker.stop();
                    until(&connection, is_lost).await.unwrap();
                    sleep(Duration::from_millis(100 * lost)).await;
                }
                connection
            });
            drop(runtime);
            sender.send(connection).unwrap();
        });
        thread.join().map_err(|_| "panicked")?;
        let connection = receiver.await?;
        timeout(SECOND, connection.closed()).await?;
        assert!(connection.open_channel().await.is_err());
        assert!(connection.close().await.is_err());
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn handles_dropped_in_any_order_while_lost_end_the_connection() -> Outcome {
    for order in 0..24 {
        for restoring in [false, true] {
            let broker = LocalBroker::default();
            let connection = broker.connect_with(&options()).await?;
            let channel = connection.open_channel().await?;
            channel.call(durable("tasks")?).await?;
            let consumer = channel.consume(from("tasks")?).await?;
            let events = connection.recovery_events();
            let mut states = connection.states();
            let mut other = None;
            if restoring {
                other = Some(keep_busy(&broker, &connection).await?);
            } else {
                broker.stop();
                until(&connection, is_lost).await?;
            }
            let mut handles: Vec<Box<dyn std::any::Any>> = vec![
                Box::new(connection),
                Box::new(channel),
                Box::new(consumer),
                Box::new(events),
            ];
            let mut left = order;
            while !handles.is_empty() {
                let at = left % handles.len();
                left /= handles.len() + 1;
                drop(handles.swap_remove(at));
                tokio::task::yield_now().await;
            }
            let ended = async {
                while let Some(state) = states.next().await {
                    if matches!(state, ConnectionState::Closed(_)) {
                        break;
                    }
                }
            };
            // The consumer of the busy queue has a handle until its restoration ends.
            timeout(if restoring { 30 * SECOND } else { SECOND }, ended).await?;
            drop(other);
        }
    }
    Ok(())
}

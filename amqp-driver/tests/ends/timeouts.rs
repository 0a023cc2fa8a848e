//! Requests that are not answered.

use std::time::Duration;

use amqp_driver::Error;
use amqp_test_support::Rig;

use super::waiters::{Handles, WAITERS};

/// Waits that are no requests.
const UNTIMED: [&str; 5] = ["closed", "closed too", "scope", "returns", "returns too"];

/// Publishes, which end at once while there is room, and checkouts, which have a deadline of their own.
const OTHERS: [&str; 4] = [
    "publish",
    "publish with confirm",
    "checkout",
    "checkout too",
];

/// Without heartbeats, every request that is not answered times out, and other waits go on.
#[test]
fn requests_time_out() {
    let (mut rig, connection) = Rig::open();
    let on = Handles::open(&mut rig, connection);
    let closing = rig.channel(&on.connection);
    rig.peer().mute = true;
    let (mut requests, mut waits) = (Vec::new(), Vec::new());
    for (name, waiter) in WAITERS {
        if !OTHERS.contains(&name) {
            let untimed = UNTIMED.contains(&name);
            let group = if untimed { &mut waits } else { &mut requests };
            group.push((name, rig.spawn(waiter(on.clone()))));
        }
    }
    assert_eq!(waits.len(), UNTIMED.len());
    let close = async move { closing.close().await.unwrap_err() };
    requests.push(("close", rig.spawn(close)));
    rig.advance(Duration::from_secs(29));
    for (name, task) in &requests {
        assert!(!task.is_done(), "{name} does not wait");
    }
    rig.advance(Duration::from_secs(2));
    for (name, task) in &requests {
        let error = task.take().unwrap();
        assert!(matches!(error, Error::Unanswered { .. }), "{name}: {error}");
        assert!(error.is_timed_out() && error.request().is_some(), "{name}");
    }
    for (name, task) in &waits {
        assert!(!task.is_done(), "{name} has ended");
        rig.cancel(task);
    }
    // Late replies are undone, and the connection can be used.
    rig.peer().mute = false;
    rig.run();
    assert!(rig.peer().consumers.is_empty());
    rig.check_channel(&on.plain);
    rig.check_channel(&on.tx);
    rig.check_usable(&on.connection);
    let Handles {
        connection,
        plain,
        confirm,
        tx,
        pool,
    } = on;
    drop((plain, confirm, tx, pool));
    rig.run();
    assert_eq!(connection.channel_count(), 0);
    rig.finish(connection);
}

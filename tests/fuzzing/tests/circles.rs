//! The rig notices a task that runs in circles, and takes many small steps for none.

use std::{future::poll_fn, task::Poll};

use amqp_driver::protocol::basic::{Properties, Publish};
use amqp_test_support::Rig;

#[test]
#[should_panic(expected = "it runs in circles")]
fn a_task_that_wakes_itself_for_ever() {
    let (mut rig, _connection) = Rig::open();
    rig.spawn(poll_fn(|cx| {
        cx.waker().wake_by_ref();
        Poll::<()>::Pending
    }));
    rig.run();
}

#[test]
fn a_transport_that_takes_a_byte_at_a_time() {
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.world().set_capacity(1);
    rig.spawn(async move {
        let to_q = Publish::default();
        let body = vec![0; 160_000];
        let _ended = channel.publish(&to_q, &Properties::default(), body).await;
    });
    rig.run();
    assert!(rig.steps > 300_000, "{} steps", rig.steps);
    assert_eq!(rig.peer().messages().len(), 1);
    rig.finish(connection);
}

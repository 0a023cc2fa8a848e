//! The conditions that hold publishing back, as streams of states.

use amqp_driver::{ChannelState, ConnectionState, protocol::ReplyCode};

use amqp_test_support::Rig;

#[test]
fn the_states_of_a_connection() {
    let (mut rig, connection, channel) = Rig::with_channel();
    let mut states = connection.states();
    let mut next = |rig: &mut Rig| rig.wait(states.next());
    assert_eq!(next(&mut rig), Some(ConnectionState::Open));
    rig.peer().machine.block("memory".parse().unwrap()).unwrap();
    let reason = "memory".parse().unwrap();
    assert_eq!(next(&mut rig), Some(ConnectionState::Blocked { reason }));
    rig.peer().machine.unblock().unwrap();
    assert_eq!(next(&mut rig), Some(ConnectionState::Open));
    rig.peer().mute = true;
    let closing = {
        let connection = connection.clone();
        rig.spawn(async move { connection.close().await })
    };
    rig.run();
    assert_eq!(next(&mut rig), Some(ConnectionState::Closing));
    rig.peer().mute = false;
    let Some(ConnectionState::Closed(reason)) = next(&mut rig) else {
        panic!("it has not ended");
    };
    assert!(reason.is_clean());
    assert_eq!(next(&mut rig), None);
    rig.run();
    assert_eq!(closing.take(), Some(Ok(())));
    drop(channel);
}

/// They do not keep the connection open, and end with it.
#[test]
fn states_keep_no_connection_open() {
    let (mut rig, connection) = Rig::open();
    let mut states = connection.states();
    assert_eq!(rig.wait(states.next()), Some(ConnectionState::Open));
    drop(connection);
    rig.run();
    assert!(matches!(
        rig.wait(states.next()),
        Some(ConnectionState::Closed(_))
    ));
    assert_eq!(rig.wait(states.next()), None);
}

#[test]
fn the_states_of_a_channel() {
    let (mut rig, connection, channel) = Rig::with_channel();
    let mut states = channel.states();
    let mut next = |rig: &mut Rig| rig.wait(states.next());
    assert_eq!(next(&mut rig), Some(ChannelState::Open));
    rig.peer().flow(1, false);
    assert_eq!(next(&mut rig), Some(ChannelState::Paused));
    rig.peer().flow(1, true);
    assert_eq!(next(&mut rig), Some(ChannelState::Open));
    rig.peer()
        .close_channel(1, ReplyCode::NOT_FOUND, "no queue");
    let Some(ChannelState::Closed(reason)) = next(&mut rig) else {
        panic!("it has not ended");
    };
    assert_eq!(reason.code(), Some(ReplyCode::NOT_FOUND));
    assert_eq!(next(&mut rig), None);
    drop(channel);
    rig.finish(connection);
}

/// When the last handle of the channel is dropped they end.
#[test]
fn the_states_of_a_dropped_channel_end() {
    let (mut rig, connection, channel) = Rig::with_channel();
    let mut states = channel.states();
    assert_eq!(rig.wait(states.next()), Some(ChannelState::Open));
    let ended = rig.spawn(async move { states.next().await });
    rig.run();
    drop(channel);
    rig.run();
    assert_eq!(ended.take(), Some(None));
    rig.finish(connection);
}

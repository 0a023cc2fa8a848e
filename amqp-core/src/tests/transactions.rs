//! Transactions, and the silence that a commit asks for.

use alloc::{vec, vec::Vec};
use core::time::Duration;

use super::script::*;
use crate::{
    ApiMisuse, ChannelId, CloseCause, MethodId, RequestError, RequestId, Requeue, Tags,
    TimeoutReason,
    client::{Config, Connection, Event},
    protocol::{Method, ReplyCode, basic, channel, confirm, connection, queue, tx},
};

type Client = Script<Connection>;

/// Commits, up to the point where the server has it.
fn commit(client: &mut Client, id: ChannelId) -> RequestId {
    let request = client.on(id).call(&tx::Commit).unwrap();
    assert_eq!(client.sent(), [method(id.number(), tx::Commit)]);
    request
}

fn commit_ok(client: &mut Client, id: ChannelId, request: RequestId) {
    client.send(id.number(), &tx::CommitOk);
    assert_eq!(client.events(), [replied(id, request, tx::CommitOk)]);
}

/// The methods among the frames.
fn methods(sent: &[Sent]) -> Vec<&'static str> {
    let names = sent.iter().filter_map(|sent| match &sent.what {
        What::Method(method) => Some(method.name()),
        What::Header(..) | What::Body(_) | What::Heartbeat => None,
    });
    names.collect()
}

#[test]
fn select_commit_and_rollback_are_answered() {
    let mut client = Client::open();
    let id = client.tx_channel();
    client.publish(id, b"x");
    client.bytes();
    client.call(id, &tx::Commit, &tx::CommitOk);
    client.call(id, &tx::Rollback, &tx::RollbackOk);
    client.call(id, &tx::Select, &tx::SelectOk);
    client.call(id, &tx::Commit, &tx::CommitOk);
}

#[test]
fn commit_and_rollback_need_select() {
    let mut client = Client::open();
    let plain = client.channel();
    let confirming = client.confirm_channel();
    for id in [plain, confirming] {
        let refused = Err(ApiMisuse::NotTransactional);
        assert_eq!(client.on(id).call(&tx::Commit), refused);
        assert_eq!(client.on(id).call(&tx::Rollback), refused);
    }
    let refused = Err(ApiMisuse::ConfirmAndTransaction);
    assert_eq!(client.on(confirming).call(&tx::Select), refused);
    let transactional = client.tx_channel();
    let mut on = client.on(transactional);
    assert_eq!(on.call(&confirm::Select::default()), refused);
    let refused = Err(ApiMisuse::ConfirmAndTransaction);
    assert_eq!(on.send(&confirm::Select::default()), refused);
    assert_eq!(client.sent(), []);
    // Nothing has changed: the plain one can still become either.
    client.call(plain, &tx::Select, &tx::SelectOk);
    assert_eq!(client.publish(confirming, b"x"), Some(seq(1)));
}

#[test]
fn nothing_of_the_channel_leaves_during_a_commit() {
    let mut client = Client::roomy();
    let id = client.tx_channel();
    let other = client.channel();
    client.consumer(id, "t", false);
    client.deliver(id, "t", 1);
    client.events();
    client.publish(id, b"in the transaction");
    client.bytes();
    let request = commit(&mut client, id);

    client.publish(id, b"next");
    client.on(id).ack(Tags::One(tag(1))).unwrap();
    client.on(id).call(&queue::Declare::default()).unwrap();
    client.consume(id, consume("q", "u"));
    client.on(id).get(&basic::Get::default()).unwrap();
    let properties = basic::Properties::default();
    client
        .on(id)
        .publish(&publish("q"), &properties, vec![0; 300_000])
        .unwrap();
    client.send(id.number(), &channel::Flow { active: true });
    assert!(matches!(client.only_event(), Event::Flow { .. }));
    assert_eq!(client.sent(), []);
    assert!(!client.conn.has_transmit());
    // The other channel goes on, and input is handled.
    client.publish(other, b"free");
    assert_eq!(client.sent(), content(2, publish("queue"), b"free"));
    client.deliver(id, "t", 2);
    assert!(matches!(client.only_event(), Event::Delivered(_)));
    assert_eq!(client.sent(), []);

    commit_ok(&mut client, id, request);
    assert_eq!(
        methods(&client.sent()),
        [
            "basic.publish",
            "basic.ack",
            "queue.declare",
            "basic.consume",
            "basic.get",
            "basic.publish",
            "channel.flow-ok"
        ]
    );
    client.publish(id, b"free again");
    assert_eq!(client.sent().len(), 3);
}

#[test]
fn a_commit_behind_a_large_message_holds_later_calls() {
    let mut client = Client::roomy();
    let id = client.tx_channel();
    let properties = basic::Properties::default();
    let mut on = client.on(id);
    on.publish(&publish("q"), &properties, vec![0; 1 << 20])
        .unwrap();
    let request = on.call(&tx::Commit).unwrap();
    client.publish(id, b"next");
    let second = client.on(id).call(&tx::Commit).unwrap();
    client.publish(id, b"last");
    let sent = client.sent();
    assert_eq!(methods(&sent), ["basic.publish", "tx.commit"]);
    assert_eq!(sent.len(), 2 + 9 + 1);
    commit_ok(&mut client, id, request);
    assert_eq!(methods(&client.sent()), ["basic.publish", "tx.commit"]);
    commit_ok(&mut client, id, second);
    assert_eq!(client.sent(), content(1, publish("queue"), b"last"));
}

#[test]
fn an_answer_that_comes_before_the_hold_is_reached_releases_it() {
    // The output of one call ends just with the commit.
    let heads = {
        let mut client = Client::open();
        let id = client.channel();
        client.publish(id, b"");
        client.bytes().len()
    };
    let (budget, frame, commit) = (256 << 10, 131_072, 12);
    for short_by in 1..=commit {
        let mut client = Client::roomy();
        let id = client.tx_channel();
        let rest = budget - heads - frame - 8 - short_by;
        let properties = basic::Properties::default();
        let mut on = client.on(id);
        let body = vec![0; frame - 8 + rest];
        on.publish(&publish("queue"), &properties, body).unwrap();
        let request = on.call(&tx::Commit).unwrap();
        let sent = frames(&client.bytes_once());
        assert_eq!(methods(&sent), ["basic.publish", "tx.commit"]);
        commit_ok(&mut client, id, request);
        client.publish(id, b"next");
        assert_eq!(client.sent(), content(1, publish("queue"), b"next"));
        // And the next commit holds again.
        let request = client.on(id).call(&tx::Commit).unwrap();
        client.publish(id, b"last");
        assert_eq!(methods(&client.sent()), ["tx.commit"]);
        commit_ok(&mut client, id, request);
        assert_eq!(client.sent().len(), 3);
    }
}

#[test]
fn a_sign_of_life_is_given_during_a_commit() {
    let tune = connection::Tune {
        channel_max: 10,
        frame_max: 131_072,
        heartbeat: 2,
    };
    let mut client = Client::tuned(Config::default(), &tune);
    let id = client.tx_channel();
    commit(&mut client, id);
    client.publish(id, b"waits");
    for _ in 0..10 {
        client.advance(Duration::from_secs(1));
        let heartbeat = Sent {
            channel: 0,
            what: What::Heartbeat,
        };
        assert_eq!(client.sent(), [heartbeat]);
        client.feed(&frame(crate::frame::FrameKind::Heartbeat, 0, b""));
    }
    assert_eq!(client.events(), []);
}

#[test]
fn a_channel_is_closed_behind_its_commit() {
    let mut client = Client::open();
    let id = client.tx_channel();
    let request = commit(&mut client, id);
    client.publish(id, b"next");
    let close = client.on(id).close(ReplyCode::SUCCESS, "").unwrap();
    let [
        Event::Failed {
            request: failed, ..
        },
    ] = &client.events()[..]
    else {
        panic!("no event of it");
    };
    assert_eq!(*failed, request);
    assert_eq!(client.sent(), []);
    client.send(1, &tx::CommitOk);
    assert_eq!(client.events(), []);
    assert_eq!(methods(&client.sent()), ["basic.publish", "channel.close"]);
    client.send(1, &channel::CloseOk);
    assert_eq!(client.events(), [replied(id, close, channel::CloseOk)]);
    assert_eq!(client.conn.channel_count(), 0);
    assert_eq!(client.conn.buffered(), 0);
}

#[test]
fn a_connection_is_closed_behind_a_commit() {
    let mut client = Client::open();
    let id = client.tx_channel();
    let request = commit(&mut client, id);
    client.publish(id, b"next");
    client.conn.close(ReplyCode::SUCCESS, "");
    assert_eq!(client.sent(), []);
    commit_ok(&mut client, id, request);
    assert_eq!(
        methods(&client.sent()),
        ["basic.publish", "connection.close"]
    );

    // It does not wait for ever.
    let mut client = Client::open();
    let id = client.tx_channel();
    commit(&mut client, id);
    client.publish(id, b"next");
    client.conn.close(ReplyCode::SUCCESS, "");
    client.advance(Duration::from_secs(10));
    assert_eq!(client.sent(), []);
    let events = client.events();
    let Some(Event::Closed(reason)) = events.last() else {
        panic!("still waiting: {events:?}");
    };
    let cause = CloseCause::TimedOut(TimeoutReason::Close);
    assert_eq!(*reason.cause(), cause);
    assert!(client.conn.is_finished());
}

#[test]
fn a_server_that_refuses_a_commit_releases_the_number() {
    let mut client = Client::open();
    let id = client.tx_channel();
    let request = commit(&mut client, id);
    client.publish(id, b"next");
    client.send(
        1,
        &channel::Close {
            reply_code: ReplyCode::PRECONDITION_FAILED,
            ..channel::Close::default()
        },
    );
    let [
        Event::Failed {
            request: failed, ..
        },
        Event::ChannelClosed { .. },
    ] = client.events()[..]
    else {
        panic!("no event of it");
    };
    assert_eq!(failed, request);
    assert_eq!(client.sent(), [method(1, channel::CloseOk)]);
    assert_eq!(client.conn.buffered(), 0);
    let (again, _) = client.conn.open_channel_at(1).unwrap();
    client.send(1, &channel::OpenOk);
    client.events();
    client.bytes();
    client.publish(again, b"free");
    assert_eq!(client.sent().len(), 3);
}

#[test]
fn a_commit_that_is_not_awaited_still_holds() {
    for abandoned in [true, false] {
        let mut client = Client::open();
        let id = client.tx_channel();
        let request = commit(&mut client, id);
        client.publish(id, b"next");
        if abandoned {
            client.conn.abandon(id, request);
            assert_eq!(client.events(), []);
        } else {
            client.advance(Duration::from_secs(30));
            let cause = RequestError::TimedOut {
                request: MethodId::new(90, 20),
                channel: Some(id.number()),
            };
            assert_eq!(client.events(), [Event::Failed { request, cause }]);
        }
        assert_eq!(client.sent(), []);
        client.send(1, &tx::CommitOk);
        assert_eq!(client.events(), []);
        assert_eq!(client.sent().len(), 3);
    }
}

/// A transactional channel to which that many messages were delivered.
fn with_deliveries(count: u64) -> (Client, ChannelId) {
    let mut client = Client::open();
    let id = client.tx_channel();
    client.consumer(id, "t", false);
    for number in 1..=count {
        client.deliver(id, "t", number);
    }
    assert_eq!(client.events().len() as u64, count);
    (client, id)
}

/// Which deliveries are outstanding, up to that number.
fn outstanding(client: &mut Client, id: ChannelId, count: u64) -> Vec<u64> {
    let is_outstanding = |number: &u64| client.on(id).ack(Tags::One(tag(*number))).is_ok();
    (1..=count).filter(is_outstanding).collect()
}

#[test]
fn a_rollback_brings_acknowledgements_back() {
    let (mut client, id) = with_deliveries(5);
    client.on(id).ack(Tags::UpTo(tag(2))).unwrap();
    client.on(id).reject(tag(4), Requeue::No).unwrap();
    assert!(client.on(id).ack(Tags::One(tag(1))).is_err());
    client.bytes();
    client.call(id, &tx::Rollback, &tx::RollbackOk);
    client.deliver(id, "t", 6);
    client.events();
    assert_eq!(outstanding(&mut client, id, 6), [1, 2, 3, 4, 5, 6]);
    // And again, since a new transaction has begun.
    client.bytes();
    client.call(id, &tx::Rollback, &tx::RollbackOk);
    assert_eq!(outstanding(&mut client, id, 6), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_commit_makes_acknowledgements_final() {
    let (mut client, id) = with_deliveries(4);
    client.on(id).ack(Tags::UpTo(tag(2))).unwrap();
    client.bytes();
    client.call(id, &tx::Commit, &tx::CommitOk);
    client.on(id).ack(Tags::One(tag(3))).unwrap();
    client.bytes();
    client.call(id, &tx::Rollback, &tx::RollbackOk);
    assert_eq!(outstanding(&mut client, id, 4), [3, 4]);
}

#[test]
fn a_second_select_does_not_begin_anew() {
    // RabbitMQ answers it, and goes on with the transaction that there is.
    let (mut client, id) = with_deliveries(2);
    client.on(id).ack(Tags::One(tag(1))).unwrap();
    client.bytes();
    client.call(id, &tx::Select, &tx::SelectOk);
    client.call(id, &tx::Rollback, &tx::RollbackOk);
    assert_eq!(outstanding(&mut client, id, 2), [1, 2]);
}

#[test]
fn recovery_takes_back_deliveries_that_the_transaction_has_not_acknowledged() {
    // RabbitMQ requeues outstanding deliveries, but not those that the transaction has
    // acknowledged; a rollback brings those back.
    let (mut client, id) = with_deliveries(4);
    client.on(id).ack(Tags::One(tag(1))).unwrap();
    client.on(id).ack(Tags::One(tag(3))).unwrap();
    client.bytes();
    client.call(id, &basic::Recover { requeue: true }, &basic::RecoverOk);
    client.deliver(id, "t", 5);
    client.events();
    client.call(id, &tx::Rollback, &tx::RollbackOk);
    assert_eq!(outstanding(&mut client, id, 5), [1, 3, 5]);
}

#[test]
fn a_transaction_has_no_confirms() {
    let mut client = Client::open();
    let id = client.tx_channel();
    assert_eq!(client.publish(id, b"x"), None);
    client.bytes();
    client.send(1, &ack(1, false));
    let Event::ChannelClosed { reason, .. } = client.only_event() else {
        panic!("a confirm was taken");
    };
    assert_eq!(reason.code(), Some(ReplyCode::PRECONDITION_FAILED));
    assert!(matches!(client.only_method(), Method::ChannelClose(_)));
}

//! The texts and predicates of errors, and their reports.

use std::time::Duration;

use amqp_driver::{
    ConnectError, Error, Unconfirmed,
    core::{
        Close, CloseCause, CloseReason, MethodDef as _, MethodId, Origin, TimeoutReason,
        dial::Address, protocol::ReplyCode,
    },
    protocol::{basic, channel, exchange, queue},
};
use amqp_test_support::{Confirming, Rig, Setup};

fn logged() -> Setup {
    let mut setup = Setup::default();
    setup.client.frame_log = 5;
    setup
}

/// The lines without the times at their front.
fn lines(report: &str) -> Vec<&str> {
    report
        .lines()
        .map(|line| line.split_once(" s  ").map_or(line, |(_, frame)| frame))
        .collect()
}

/// The whole print of an error: the reply code and text, the method, the side, the channel, the
/// request, and the frames that led to it.
#[test]
fn a_report_tells_the_whole_story() {
    let (mut rig, connection) = Rig::open_with(logged());
    let channel = rig.channel(&connection);
    rig.peer().hold = true;
    let declaring = {
        let channel = channel.clone();
        rig.spawn(async move {
            let jobs = queue::Declare::default().queue("jobs");
            channel.call(jobs).await
        })
    };
    let binding = {
        let channel = channel.clone();
        rig.spawn(async move {
            let bind = queue::Bind::default().queue("jobs").exchange("events");
            channel.call(bind).await
        })
    };
    rig.run();
    let text = "inequivalent arg 'durable' for queue 'jobs' in vhost '/'";
    let method = Some(queue::Declare::ID);
    let code = ReplyCode::PRECONDITION_FAILED;
    rig.peer().close_channel_for(1, code, text, method);
    rig.run();

    let error = declaring.take().unwrap().unwrap_err();
    assert_eq!(
        lines(&error.report().to_string()),
        [
            "the channel is closed: closed by the peer: 406 (precondition-failed): inequivalent arg \
             'durable' for queue 'jobs' in vhost '/' (after queue.declare), on channel 1",
            "the last 5 of 12 frames:",
            "sent      channel 1: channel.open",
            "received  channel 1: channel.open-ok",
            "sent      channel 1: queue.declare queue=\"jobs\" durable",
            "sent      channel 1: queue.bind queue=\"jobs\" exchange=\"events\" routing-key=\"\"",
            "received  channel 1: channel.close reply-code=406 (precondition-failed) \
             reply-text=\"inequivalent arg 'durable' for queue 'jobs' in vhost '/'\" class-id=50 \
             method-id=10",
        ]
    );
    assert_eq!(error.channel(), Some(1));
    assert_eq!(error.request(), Some(queue::Declare::ID));
    assert!(error.is_precondition_failed() && !error.is_not_found());
    let reason = error.reason().unwrap();
    assert_eq!(reason.origin(), Origin::Remote);
    assert_eq!(reason.by_peer().unwrap().method, Some(queue::Declare::ID));

    let error = binding.take().unwrap().unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with(", on channel 1, during queue.bind"),
        "{error}"
    );
    assert_eq!(error.request(), Some(queue::Bind::ID));
    // A later call is refused for the same reason, without a request.
    let later = rig
        .wait(channel.call(exchange::Declare::default()))
        .unwrap_err();
    assert_eq!(later.request(), None);
    assert_eq!(later.frame_log(), error.frame_log());
    drop(channel);
    rig.finish(connection);
}

/// The frames of the handshake are in the error of a connect.
#[test]
fn a_connection_that_is_not_opened_reports_its_frames() {
    let (mut rig, connection) = Rig::start(logged());
    rig.peer().hold_open = true;
    let opening = {
        let connection = connection.clone();
        rig.spawn(async move { connection.opened().await })
    };
    rig.run();
    rig.peer()
        .close(ReplyCode::NOT_ALLOWED, "access to vhost '/' refused");
    rig.run();
    let error = opening.take().unwrap().unwrap_err();
    let error = ConnectError::NotOpened {
        address: Address::tcp("broker", 5672),
        error,
    };
    assert!(error.is_not_allowed() && !error.is_timed_out());
    let report = error.report().to_string();
    let lines = lines(&report);
    assert!(
        lines[0].starts_with("no connection with broker:5672: "),
        "{report}"
    );
    assert!(lines[0].contains("access to vhost '/' refused"), "{report}");
    assert_eq!(lines.len(), 7, "{report}");
    assert!(
        report.contains("connection.open virtual-host=\"/\""),
        "{report}"
    );
    assert!(!report.contains("guest"), "{report}");

    let refused = ConnectError::Refused {
        failures: amqp_driver::core::dial::Dialer::new(
            Vec::new(),
            amqp_driver::core::dial::Order::default(),
            Duration::ZERO,
        )
        .into_failures(),
        last: Box::new(error),
    };
    assert!(refused.is_not_allowed() && refused.frame_log().is_some());
    assert!(ConnectError::TimedOut.is_timed_out());
    assert!(ConnectError::TimedOut.frame_log().is_none());
}

#[test]
fn without_a_log_a_report_is_the_text() {
    let (mut rig, connection, channel) = Rig::with_channel();
    assert_eq!(connection.frame_log(), None);
    rig.peer()
        .close_channel(1, ReplyCode::NOT_FOUND, "no queue");
    rig.run();
    let error = rig
        .wait(channel.call(queue::Declare::default()))
        .unwrap_err();
    assert_eq!(error.report().to_string(), error.to_string());
    assert_eq!(format!("{:?}", error.report()), error.to_string());
    drop(channel);
    rig.finish(connection);
}

#[test]
fn the_log_of_a_connection_goes_on_after_an_error() {
    let (mut rig, connection) = Rig::open_with(logged());
    let channel = rig.channel(&connection);
    rig.wait(channel.call(queue::Declare::default().queue("a")))
        .unwrap();
    let log = connection.frame_log().unwrap();
    assert_eq!(log.frames().len(), 5);
    let last = log.frames().last().unwrap();
    assert!(last.text.starts_with("queue.declare-ok "), "{log}");
    drop(channel);
    rig.finish(connection);
}

#[test]
fn each_outcome_of_a_publish_names_its_method_and_channel() {
    let (mut rig, _connection, channel) = Rig::with_confirms();
    let publish = basic::Publish::default().mandatory(true);
    let none = basic::Properties::default();
    rig.peer().confirming = Confirming::ByHand;
    let nacked = rig.wait(channel.publish(&publish, &none, "x")).unwrap();
    let late = rig.wait(channel.publish(&publish, &none, "x")).unwrap();
    let lost = rig.wait(channel.publish(&publish, &none, "x")).unwrap();
    rig.run();
    rig.peer().nack(1, 1, false);
    let nacked = rig.wait(nacked).unwrap_err();
    assert_eq!(
        nacked.to_string(),
        "the server refused the message with basic.nack, on channel 1"
    );
    assert_eq!(nacked.channel(), Some(1));
    assert!(nacked.reason().is_none() && nacked.code().is_none());

    let late = rig.spawn(late.within(Duration::from_secs(1)));
    rig.run();
    rig.advance(Duration::from_secs(1));
    let late = late.take().unwrap().unwrap_err();
    assert_eq!(
        late.to_string(),
        "it is not known whether the server has the message: timed out: the publish was not \
         confirmed in time, on channel 1, during basic.publish"
    );
    assert!(late.is_timed_out());

    rig.peer()
        .close(ReplyCode::CONNECTION_FORCED, "closed by the operator");
    let lost = rig.wait(lost).unwrap_err();
    assert_eq!(
        lost.to_string(),
        "it is not known whether the server has the message: the connection ended: closed by the \
         peer: 320 (connection-forced): closed by the operator, on channel 1, during basic.publish"
    );
    assert!(lost.is_connection_forced() && !lost.is_timed_out());
    assert!(matches!(lost, Unconfirmed::Unknown(_)));
}

/// The public errors that are of a channel or a request, each with both in its text.
#[test]
fn every_text_names_its_channel_and_its_request() {
    let bind = queue::Bind::ID;
    let close = Close {
        code: ReplyCode::NOT_FOUND,
        text: "no queue".into(),
        method: Some(bind),
    };
    let reason = |cause: CloseCause| CloseReason::from(cause).on_channel(9).for_request(bind);
    let tag = amqp_driver::wire::ShortStr::try_from("t").unwrap();
    let silent = CloseCause::TimedOut(TimeoutReason::PeerSilent);
    let errors = [
        (
            Error::ChannelClosed(reason(CloseCause::ByPeer(close))),
            "queue.bind",
        ),
        (Error::ChannelClosed(reason(silent.clone())), "queue.bind"),
        (Error::ConnectionClosed(reason(silent)), "queue.bind"),
        (
            Error::Unanswered {
                request: bind,
                channel: Some(9),
            },
            "queue.bind",
        ),
        (
            Error::ConsumerCancelled { tag, channel: 9 },
            "consumer \"t\"",
        ),
        (
            Error::Overflow {
                limit: 5,
                channel: 9,
            },
            "5 bytes",
        ),
    ];
    for (error, named) in errors {
        let text = error.to_string();
        assert_eq!(text.matches("channel 9").count(), 1, "{text}");
        assert_eq!(text.matches(named).count(), 1, "{text}");
        assert_eq!(error.channel(), Some(9), "{text}");
        if named == "queue.bind" {
            assert_eq!(error.request(), Some(bind), "{text}");
        }
    }
    let secret = Error::Unanswered {
        request: MethodId::new(10, 70),
        channel: None,
    };
    assert_eq!(
        secret.to_string(),
        "no answer to connection.update-secret came in time"
    );
}

#[test]
fn a_request_that_times_out_is_named() {
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.peer().mute = true;
    let call = rig.spawn({
        let channel = channel.clone();
        async move { channel.call(queue::Declare::default()).await }
    });
    let open = rig.spawn({
        let connection = connection.clone();
        async move { connection.open_channel().await }
    });
    rig.run();
    rig.advance(Duration::from_secs(31));
    let error = call.take().unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "no answer to queue.declare came in time, on channel 1"
    );
    assert!(error.is_timed_out() && error.code().is_none());
    let error = open.take().unwrap().unwrap_err();
    assert_eq!(error.request(), Some(channel::Open::ID));
    assert_eq!(error.channel(), Some(2));
}

//! The conditions that hold at the end of every world, with any fault of the line.

use amqp_core::{
    CloseCause, MethodDef as _,
    client::{Event, Outcome},
    protocol::{channel, connection},
};

use crate::{client::Client, world::World};

/// Checks a world at its end: both sides have ended, with one final event; each request and each
/// publish has had one outcome; and no outcome is untrue. That there are no second outcomes, that no
/// message differs, and that nothing follows the end is checked as it happens.
pub(crate) fn check(world: &World, what: &str) {
    let (client, server) = (&world.client, &world.server);
    assert!(client.closed.is_some(), "{what}: the client hangs");
    assert!(server.closed.is_some(), "{what}: the server hangs");
    assert!(client.machine.is_finished(), "{what}: the client lingers");
    assert!(server.machine.is_finished(), "{what}: the server lingers");
    assert!(client.requests.is_empty(), "{what}: {:?}", client.requests);
    assert!(client.all_settled(), "{what}: {:?}", client.outcomes);
    check_outcomes(world, what);
    check_close(world, what);
}

/// Checks that a close that succeeded was answered, and that of a channel crossed no other.
fn check_close(world: &World, what: &str) {
    let reason = world.client.closed.as_ref();
    if reason.is_some_and(|it| matches!(it.cause(), CloseCause::Requested(_))) {
        let answered = world.to_client.has_received(connection::CloseOk::ID);
        assert!(answered, "{what}: a close without an answer is good");
    }
    let is_closed = |event: &Event| match event {
        Event::Reply { reply, .. } => reply.id() == channel::CloseOk::ID,
        _ => false,
    };
    if world.client.events.iter().any(is_closed) {
        let crossed = world.to_client.has_received(channel::Close::ID);
        assert!(!crossed, "{what}: the reason of the server is lost");
    }
}

/// Checks the outcomes of publishes, and the messages, against those of the server.
pub(crate) fn check_outcomes(world: &World, what: &str) {
    let (client, server) = (&world.client, &world.server);
    for (number, outcome) in &client.outcomes {
        let true_outcome = match outcome {
            Outcome::Acked => server.acked.contains(number),
            Outcome::Nacked => server.nacked.contains(number),
            Outcome::NotSent(_) => !server.published.contains(number),
            Outcome::Unknown(_) => true,
            Outcome::PossiblyReturned => false,
        };
        assert!(true_outcome, "{what}: {number} was reported {outcome:?}");
    }
    let mut delivered = client.delivered.iter();
    assert!(
        delivered.all(|number| *number <= server.deliveries),
        "{what}"
    );
}

/// Checks that neither side has seen a fault of the other.
pub(crate) fn check_faultless(world: &World, what: &str) {
    let reasons = [&world.client.closed, &world.server.closed];
    let channels = [&world.client.channel_closed];
    for reason in reasons.into_iter().chain(channels).flatten() {
        let fault = matches!(
            reason.cause(),
            CloseCause::ProtocolError(_) | CloseCause::LimitExceeded(_)
        );
        assert!(!fault, "{what}: {reason:?}");
    }
}

/// Checks that a story went as it should: nothing was lost, returned or nacked but as intended.
pub(crate) fn check_undisturbed(world: &World, what: &str) {
    check(world, what);
    check_faultless(world, what);
    let Client {
        closed, outcomes, ..
    } = &world.client;
    assert!(closed.as_ref().is_some_and(|it| it.is_clean()), "{what}");
    let closes = world.server.closed.as_ref();
    assert!(closes.is_some_and(|it| it.by_peer().is_some()), "{what}");
    if outcomes.len() == 3 {
        let [first, second, third] = [1, 2, 3].map(|number| &outcomes[&number]);
        assert_eq!(
            (first, second),
            (&Outcome::Acked, &Outcome::Acked),
            "{what}"
        );
        assert_eq!(third, &Outcome::Nacked, "{what}");
        assert!(world.client.returned.contains(&2), "{what}");
    }
}

//! Listeners of another make that break the rules.

use amqp_core::protocol::basic;
use amqp_peer::Limits;

use crate::{
    foreign::{Listener, broken, end},
    rig::{Application, World, config, name},
};

#[test]
fn a_listener_that_exceeds_the_window_ends_the_link() {
    let limits = Limits::default().window(5);
    let mut world = World::new([config("alice").limits(limits)]);
    world.nodes[0].application = Application::Keeps;
    let mut listener = Listener::up(&mut world);
    for tag in 1..=6 {
        listener.deliver(tag);
    }
    listener.exchange(&mut world);
    assert_eq!(end(&world), broken(506));
    assert_eq!(world.nodes[0].bodies().len(), 5);
}

#[test]
fn a_listener_that_skips_tags_ends_the_link() {
    let mut world = World::named(&["alice"]);
    let mut listener = Listener::up(&mut world);
    listener.deliver(1);
    listener.deliver(3);
    listener.exchange(&mut world);
    assert_eq!(end(&world), broken(503));
}

#[test]
fn a_listener_that_confirms_what_was_not_sent_does_no_harm() {
    let mut world = World::named(&["alice"]);
    let mut listener = Listener::up(&mut world);
    let now = world.now;
    world.nodes[0].send(now, "mallory", "one");
    listener.exchange(&mut world);
    for (delivery_tag, multiple) in [(7, true), (1, false), (1, false), (0, true)] {
        let ack = basic::Ack {
            delivery_tag,
            multiple,
        };
        if let Some(mut channel) = listener.machine.channel(listener.channels[0]) {
            let _ended = channel.send(&ack);
        }
        listener.exchange(&mut world);
    }
    let messages = world.nodes[0].machine.outbox(&name("mallory")).messages;
    assert!(messages <= 1);
}

#[test]
fn a_listener_that_cancels_or_closes_a_channel_ends_the_link() {
    let mut world = World::named(&["alice"]);
    let mut listener = Listener::up(&mut world);
    let mut channel = listener.machine.channel(listener.channels[0]).unwrap();
    let code = amqp_core::protocol::ReplyCode::SUCCESS;
    channel.close(code, "enough", None).unwrap();
    listener.exchange(&mut world);
    end(&world);
}

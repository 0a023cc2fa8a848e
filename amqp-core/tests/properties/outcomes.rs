//! With any operations and any answers, right or wrong, in time or too late: each request and each
//! publish has one outcome, nothing is reported of a request or a consumer that was abandoned, and
//! the connection ends once.

use core::time::Duration;

use amqp_core::{
    Instant,
    client::{Config, Connection},
    protocol::{Method, ReplyCode, ServerMethod, basic, channel, connection},
    strategies::{Application, Operation, OwnedFrame, Values},
    wire::ShortStr,
};
use amqp_test_support::cases;
use bytes::BytesMut;
use proptest::{collection::vec, prelude::*};

use crate::{open_client, output};

#[derive(Clone, Debug)]
enum Step {
    Operation(Operation),
    /// The server sends a method, with content if it has any.
    Said(u16, ServerMethod),
    /// The server has opened a channel.
    Opened(u16),
    /// The output leaves.
    Send,
    /// That many seconds pass.
    Wait(u64),
}

fn values() -> Values {
    let tag = ShortStr::from_static("a").unwrap();
    Values::default()
        .short_str(prop_oneof![5 => Just(tag), 1 => any::<ShortStr>()])
        .longlong(1_u64..8)
}

fn any_step() -> impl Strategy<Value = Step> {
    let on = || 1_u16..4;
    // A close of the connection would end most cases early.
    let said = any_with::<ServerMethod>(values()).prop_filter("no close", |method| {
        let id = Method::from(method.clone()).id();
        id.class != 10
    });
    prop_oneof![
        10 => any_with::<Operation>(values()).prop_map(Step::Operation),
        3 => on().prop_map(Step::Opened),
        2 => (on(), said).prop_map(|(on, method)| Step::Said(on, method)),
        2 => Just(Step::Send),
        1 => (0_u64..25).prop_map(Step::Wait),
    ]
}

struct World {
    client: Connection,
    application: Application,
    now: Instant,
}

impl World {
    fn feed(&mut self, frames: impl IntoIterator<Item = OwnedFrame>) {
        let mut input = BytesMut::new();
        for frame in frames {
            frame.as_frame().encode(&mut input);
        }
        self.client.handle_input(self.now, &mut input);
    }

    fn wait(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some((at, _)) = self.client.poll_timeout().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            self.client.handle_timeout(self.now);
        }
        self.now = end;
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Operation(operation) => {
                self.application.apply(&mut self.client, &operation);
            }
            Step::Said(on, method) => {
                let method = Method::from(method);
                if method.rule().content {
                    let properties = basic::Properties::default();
                    self.feed(OwnedFrame::message(on, method, &properties, b"body", 4));
                } else {
                    self.feed([OwnedFrame::method(on, method)]);
                }
            }
            Step::Opened(on) => self.feed([OwnedFrame::method(on, channel::OpenOk)]),
            Step::Send => drop(output(&mut self.client)),
            Step::Wait(seconds) => self.wait(seconds),
        }
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn each_request_and_each_publish_has_one_outcome(
        steps in vec(any_step(), 0..60),
        end in 0..3,
    ) {
        let tune = connection::Tune { channel_max: 3, frame_max: 8192, heartbeat: 0 };
        let mut world = World {
            client: open_client(Config::default(), tune),
            application: Application::default(),
            now: crate::NOW,
        };
        for step in steps {
            world.take(step);
            let events = world.application.handle_events(&mut world.client);
            prop_assert_eq!(events, []);
        }
        match end {
            0 => world.client.handle_eof(world.now),
            1 => world.feed([OwnedFrame::method(0, connection::Close::default())]),
            _ => {
                world.client.close(ReplyCode::SUCCESS, "bye");
                world.wait(3600);
            }
        }
        let events = world.application.handle_events(&mut world.client);
        prop_assert_eq!(events, []);
        prop_assert!(world.application.is_settled() && world.application.is_ended());
        output(&mut world.client);
        prop_assert!(world.client.is_finished());
        prop_assert_eq!(world.client.poll_timeout(), None);
    }
}

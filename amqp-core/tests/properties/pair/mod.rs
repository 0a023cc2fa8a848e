//! Two sides at work, against a model: channels and consumer tags are used again and again, requests
//! and consumers are abandoned at any time, and the bytes between the sides are late.
//!
//! Each message carries the channel and the consumer that it is for, so that a mix-up shows.

mod client;
mod server;

use amqp_core::{Endpoint, Instant, Transmit, client::Outcome, protocol::ReplyCode};
use amqp_test_support::cases;
use bytes::{Buf as _, BytesMut};
use proptest::{collection::vec, prelude::*, sample::Index};

use self::{client::Client, server::Server};

const NOW: Instant = Instant::ORIGIN;

/// Few tags and channels, so that they are used again.
const TAGS: [&str; 2] = ["a", "b"];
const CHANNELS: u16 = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    Open,
    Declare(Index),
    Get(Index),
    Consume {
        on: Index,
        tag: usize,
        no_ack: bool,
    },
    Cancel {
        on: Index,
        tag: usize,
        no_wait: bool,
    },
    AbandonConsumer(Index),
    AbandonRequest(Index),
    Publish {
        on: Index,
        mandatory: bool,
    },
    Acknowledge {
        delivery: Index,
        multiple: bool,
        positive: bool,
    },
    Close(Index),
    /// The server handles the oldest method that it has received.
    Serve,
    Deliver(Index),
    CancelByServer(Index),
    Confirm {
        publish: Index,
        multiple: bool,
        positive: bool,
    },
    /// The server returns a mandatory message.
    Return(Index),
    CloseByServer(Index),
    /// That many bytes arrive.
    ToServer(usize),
    ToClient(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    let tag = || 0..TAGS.len();
    let len = || prop_oneof![2 => Just(usize::MAX), 1 => 0_usize..100];
    prop_oneof![
        3 => Just(Step::Open),
        2 => index().prop_map(Step::Declare),
        2 => index().prop_map(Step::Get),
        6 => (index(), tag(), any::<bool>())
            .prop_map(|(on, tag, no_ack)| Step::Consume { on, tag, no_ack }),
        3 => (index(), tag(), any::<bool>())
            .prop_map(|(on, tag, no_wait)| Step::Cancel { on, tag, no_wait }),
        3 => index().prop_map(Step::AbandonConsumer),
        2 => index().prop_map(Step::AbandonRequest),
        4 => (index(), any::<bool>())
            .prop_map(|(on, mandatory)| Step::Publish { on, mandatory }),
        3 => (index(), any::<bool>(), any::<bool>()).prop_map(|(delivery, multiple, positive)| {
            Step::Acknowledge { delivery, multiple, positive }
        }),
        1 => index().prop_map(Step::Close),
        14 => Just(Step::Serve),
        7 => index().prop_map(Step::Deliver),
        1 => index().prop_map(Step::CancelByServer),
        2 => (index(), any::<bool>(), any::<bool>()).prop_map(|(publish, multiple, positive)| {
            Step::Confirm { publish, multiple, positive }
        }),
        2 => index().prop_map(Step::Return),
        1 => index().prop_map(Step::CloseByServer),
        8 => len().prop_map(Step::ToServer),
        8 => len().prop_map(Step::ToClient),
    ]
}

struct Pair {
    client: Client,
    server: Server,
    to_client: BytesMut,
    to_server: BytesMut,
}

impl Pair {
    fn open() -> Self {
        let mut pair = Self {
            client: Client::new(),
            server: Server::new(),
            to_client: BytesMut::new(),
            to_server: BytesMut::new(),
        };
        pair.carry();
        assert!(pair.client.machine.is_open());
        pair
    }

    fn take(&mut self, step: Step) {
        let (client, server) = (&mut self.client, &mut self.server);
        match step {
            Step::Open => client.open(),
            Step::Declare(on) => client.declare(on),
            Step::Get(on) => client.get(on),
            Step::Consume { on, tag, no_ack } => client.consume(on, TAGS[tag], no_ack),
            Step::Cancel { on, tag, no_wait } => client.cancel(on, TAGS[tag], no_wait),
            Step::AbandonConsumer(which) => client.abandon_consumer(which),
            Step::AbandonRequest(which) => client.abandon_request(which),
            Step::Publish { on, mandatory } => client.publish(on, mandatory),
            Step::Acknowledge {
                delivery,
                multiple,
                positive,
            } => client.acknowledge(delivery, multiple, positive),
            Step::Close(on) => client.close(on),
            Step::Serve => drop(server.serve()),
            Step::Deliver(which) => server.deliver(which),
            Step::CancelByServer(which) => server.cancel(which),
            Step::Confirm {
                publish,
                multiple,
                positive,
            } => server.confirm(publish, multiple, positive),
            Step::Return(publish) => server.give_back(publish),
            Step::CloseByServer(on) => server.close(on),
            Step::ToServer(len) => self.carry_to_server(len),
            Step::ToClient(len) => self.carry_to_client(len),
        }
        self.send();
    }

    fn send(&mut self) {
        self.client.handle_events();
        self.server.handle_events(&self.client.channels);
        send(&mut self.client.machine, &mut self.to_server);
        send(&mut self.server.machine, &mut self.to_client);
    }

    fn carry_to_server(&mut self, len: usize) {
        let len = len.min(self.to_server.len());
        self.server.input.unsplit(self.to_server.split_to(len));
        // One frame at a time: a close-ok of the machine is sent after the replies before it.
        let server = &mut self.server;
        while server.machine.handle_frame(NOW, &mut server.input) {
            server.handle_events(&self.client.channels);
        }
    }

    fn carry_to_client(&mut self, len: usize) {
        let len = len.min(self.to_client.len());
        self.client.input.unsplit(self.to_client.split_to(len));
        let client = &mut self.client;
        client.machine.handle_input(NOW, &mut client.input);
    }

    /// Carries everything both ways.
    fn carry(&mut self) {
        self.send();
        while !self.to_server.is_empty() || !self.to_client.is_empty() {
            self.carry_to_server(usize::MAX);
            self.carry_to_client(usize::MAX);
            self.send();
        }
    }

    /// Lets everything come to rest, and compares the knowledge of the sides.
    fn rest(&mut self) {
        self.carry();
        let mut turns = 0;
        while self.server.serve() {
            self.carry();
            turns += 1;
            assert!(turns < 2000, "a circle");
        }
        assert_eq!(self.client.machine.close_reason(), None);
        assert_eq!(self.server.machine.close_reason(), None);
        self.client.assert_answered();
        let open = self.client.open_channels().len();
        assert_eq!(
            self.client.machine.channel_count(),
            open,
            "a close is not answered"
        );
        assert_eq!(
            self.server.machine.channel_count(),
            open,
            "a close is not answered"
        );
        for (place, number, outcome) in &self.client.outcomes {
            let confirmed = self.server.confirmed.get(&(*place, *number));
            let is_true = match outcome {
                Outcome::Acked => confirmed == Some(&true),
                Outcome::Nacked => confirmed == Some(&false),
                Outcome::NotSent(_) => !self.server.has_received(*place, *number),
                Outcome::Unknown(_) => true,
                // No two bodies are the same.
                Outcome::PossiblyReturned => false,
            };
            assert!(
                is_true,
                "{number} of channel {place} was reported {outcome:?}"
            );
        }
        for id in self.client.open_channels() {
            let theirs = self
                .server
                .channel_of(id)
                .expect("it is open on both sides");
            let consumers = self.server.consumers_of(theirs);
            for tag in TAGS {
                let known = self.client.has_consumer(id, tag);
                assert_eq!(known, consumers.contains(&tag), "{tag} on {id:?}");
            }
            let (ours, unacked) = (self.client.unacked(id), self.server.unacked_of(theirs));
            assert_eq!(ours, unacked, "the deliveries of {id:?}");
            let (ours, confirms) = (self.client.unconfirmed(id), self.server.unconfirmed(theirs));
            assert_eq!(ours, confirms, "the publishes of {id:?}");
        }
    }
}

fn send(machine: &mut impl Endpoint, to: &mut BytesMut) {
    let mut out = Transmit::new();
    while machine.poll_transmit(NOW, &mut out) {}
    to.extend_from_slice(&out.copy_to_bytes(out.remaining()));
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn both_sides_know_the_same_however_channels_and_tags_are_used_again(
        steps in vec(any_step(), 0..150),
    ) {
        let mut pair = Pair::open();
        for step in steps {
            pair.take(step);
        }
        pair.rest();
        pair.client.machine.close(ReplyCode::SUCCESS, "bye");
        pair.carry();
        pair.client.assert_settled();
        prop_assert!(pair.client.machine.close_reason().unwrap().is_clean());
        prop_assert!(pair.server.machine.close_reason().unwrap().by_peer().is_some());
        prop_assert!(pair.client.machine.is_finished() && pair.server.machine.is_finished());
    }
}

//! The order and frequency of polling do not change the events.

use alloc::{collections::BTreeMap, format, string::String, vec, vec::Vec};
use core::time::Duration;

use bytes::BytesMut;
use proptest::{collection::vec as list, prelude::*};

use super::script::*;
use crate::{
    ChannelId, Requeue, Tags,
    client::{Config, Connection, Event, Outcome},
    frame::FrameKind,
    protocol::{ReplyCode, basic, channel, confirm, connection, queue, tx},
};

type Client = Script<Connection>;

/// Something that happens, whether the machine is polled or not.
#[derive(Clone, Debug)]
enum Step {
    Open,
    Publish(u16, usize),
    Declare(u16),
    Consume(u16),
    Get(u16),
    Ack(u16, u64),
    Confirm(u16),
    Transaction(u16),
    Commit(u16),
    CloseChannel(u16),
    Close,
    /// The server says something, right or wrong.
    Said(u16, Said),
    Wait(u64),
}

#[derive(Clone, Copy, Debug)]
enum Said {
    OpenOk,
    CloseOk,
    Close,
    DeclareOk,
    ConsumeOk,
    GetEmpty,
    CommitOk,
    Deliver(u64),
    Ack(u64),
    Flow(bool),
    Blocked,
    Unblocked,
    Heartbeat,
    ConnectionClose,
    ConnectionCloseOk,
}

/// A call that should make no difference.
#[derive(Clone, Copy, Debug)]
enum Idle {
    Event,
    Timeout,
    PollTimeout,
    EarlierTimeout,
    Input,
    Getters,
    Reading,
}

fn any_said() -> impl Strategy<Value = Said> {
    prop_oneof![
        6 => Just(Said::OpenOk),
        2 => Just(Said::CloseOk),
        1 => Just(Said::Close),
        4 => Just(Said::DeclareOk),
        4 => Just(Said::ConsumeOk),
        2 => Just(Said::GetEmpty),
        3 => Just(Said::CommitOk),
        6 => (1u64..20).prop_map(Said::Deliver),
        4 => (0u64..6).prop_map(Said::Ack),
        2 => any::<bool>().prop_map(Said::Flow),
        1 => Just(Said::Blocked),
        2 => Just(Said::Unblocked),
        2 => Just(Said::Heartbeat),
        1 => Just(Said::ConnectionClose),
        1 => Just(Said::ConnectionCloseOk),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let on = || 1u16..4;
    prop_oneof![
        4 => Just(Step::Open),
        6 => (on(), 0usize..5000).prop_map(|(on, len)| Step::Publish(on, len)),
        3 => (on(), 100_000usize..600_000).prop_map(|(on, len)| Step::Publish(on, len)),
        3 => on().prop_map(Step::Declare),
        3 => on().prop_map(Step::Consume),
        2 => on().prop_map(Step::Get),
        3 => (on(), 1u64..20).prop_map(|(on, number)| Step::Ack(on, number)),
        2 => on().prop_map(Step::Confirm),
        1 => on().prop_map(Step::Transaction),
        2 => on().prop_map(Step::Commit),
        1 => on().prop_map(Step::CloseChannel),
        1 => Just(Step::Close),
        24 => (on(), any_said()).prop_map(|(on, said)| Step::Said(on, said)),
        4 => (0u64..4000).prop_map(Step::Wait),
    ]
}

fn any_idle() -> impl Strategy<Value = Idle> {
    prop::sample::select(vec![
        Idle::Event,
        Idle::Timeout,
        Idle::PollTimeout,
        Idle::EarlierTimeout,
        Idle::Input,
        Idle::Getters,
        Idle::Reading,
    ])
}

/// One run of a machine.
struct Run {
    client: Client,
    channels: BTreeMap<u16, ChannelId>,
    /// The results of the commands.
    results: Vec<String>,
    events: Vec<Event>,
    bytes: Vec<u8>,
}

impl Run {
    fn new() -> Self {
        let mut config = Config::default();
        config.limits.output_high = usize::MAX;
        let tune = connection::Tune {
            channel_max: 3,
            frame_max: 131_072,
            heartbeat: 10,
        };
        Self {
            client: Client::tuned(config, &tune),
            channels: BTreeMap::new(),
            results: Vec::new(),
            events: Vec::new(),
            bytes: Vec::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        let result = match step {
            Step::Open => {
                let result = self.client.conn.open_channel();
                if let Ok((id, _)) = result {
                    self.channels.insert(id.number(), id);
                }
                format!("{result:?}")
            }
            Step::Close => {
                self.client.conn.close(ReplyCode::SUCCESS, "bye");
                String::new()
            }
            Step::Said(on, said) => {
                self.said(*on, *said);
                String::new()
            }
            Step::Wait(millis) => {
                self.wait(Duration::from_millis(*millis));
                String::new()
            }
            Step::Publish(on, _)
            | Step::Declare(on)
            | Step::Consume(on)
            | Step::Get(on)
            | Step::Ack(on, _)
            | Step::Confirm(on)
            | Step::Transaction(on)
            | Step::Commit(on)
            | Step::CloseChannel(on) => {
                let id = self.channels.get(on).copied();
                match id.and_then(|id| self.client.conn.channel(id)) {
                    Some(mut on) => Self::command(&mut on, step),
                    None => "no channel".into(),
                }
            }
        };
        self.results.push(result);
    }

    fn command(on: &mut crate::client::ChannelMut<'_>, step: &Step) -> String {
        let properties = basic::Properties::default();
        match step {
            Step::Publish(_, len) => {
                let body = vec![*len as u8; *len];
                format!("{:?}", on.publish(&publish("q"), &properties, body))
            }
            Step::Declare(_) => format!("{:?}", on.call(&queue::Declare::default())),
            Step::Consume(_) => format!("{:?}", on.consume(consume("q", ""))),
            Step::Get(_) => format!("{:?}", on.get(&basic::Get::default())),
            Step::Ack(_, number) if number % 3 == 0 => {
                format!("{:?}", on.nack(Tags::UpTo(tag(*number)), Requeue::No))
            }
            Step::Ack(_, number) => format!("{:?}", on.ack(Tags::One(tag(*number)))),
            Step::Confirm(_) => format!("{:?}", on.call(&confirm::Select::default())),
            Step::Transaction(_) => format!("{:?}", on.call(&tx::Select)),
            Step::Commit(_) => format!("{:?}", on.call(&tx::Commit)),
            _ => format!("{:?}", on.close(ReplyCode::SUCCESS, "")),
        }
    }

    fn said(&mut self, on: u16, said: Said) {
        let client = &mut self.client;
        match said {
            Said::OpenOk => client.send(on, &channel::OpenOk),
            Said::CloseOk => client.send(on, &channel::CloseOk),
            Said::Close => client.send(on, &channel::Close::default()),
            Said::DeclareOk => client.send(on, &queue::DeclareOk::default()),
            Said::ConsumeOk => {
                let ok = basic::ConsumeOk::default().consumer_tag("ctag-0");
                client.send(on, &ok);
            }
            Said::GetEmpty => client.send(on, &basic::GetEmpty),
            Said::CommitOk => client.send(on, &tx::CommitOk),
            Said::Deliver(number) => client.deliver_to(on, "ctag-0", number),
            Said::Ack(number) => client.send(on, &ack(number, number % 2 == 0)),
            Said::Flow(active) => client.send(on, &channel::Flow { active }),
            Said::Blocked => client.send(0, &connection::Blocked::default()),
            Said::Unblocked => client.send(0, &connection::Unblocked),
            Said::Heartbeat => client.feed(&frame(FrameKind::Heartbeat, 0, b"")),
            Said::ConnectionClose => client.send(0, &connection::Close::default()),
            Said::ConnectionCloseOk => client.send(0, &connection::CloseOk),
        }
    }

    /// Time passes; at each deadline, the output is taken.
    fn wait(&mut self, span: Duration) {
        let end = self.client.now + span;
        self.client.conn.handle_timeout(self.client.now);
        self.take();
        while let Some((at, _)) = self.client.conn.poll_timeout().filter(|&(at, _)| at <= end) {
            self.client.now = self.client.now.max(at);
            self.client.conn.handle_timeout(self.client.now);
            self.take();
        }
        self.client.now = end;
    }

    fn take(&mut self) {
        let bytes = self.client.bytes();
        self.bytes.extend(bytes);
    }

    fn idle(&mut self, idle: Idle) {
        let now = self.client.now;
        let conn = &mut self.client.conn;
        match idle {
            Idle::Event => self.events.extend(conn.poll_event()),
            Idle::Timeout => conn.handle_timeout(now),
            Idle::PollTimeout => drop(conn.poll_timeout()),
            Idle::EarlierTimeout => conn.handle_timeout(crate::Instant::ORIGIN),
            Idle::Input => conn.handle_input(now, &mut BytesMut::new()),
            Idle::Getters => {
                let _ = (conn.is_finished(), conn.stage(), conn.has_transmit());
                let _ = (conn.buffered(), conn.read_hint(), conn.close_reason());
                for id in self.channels.values() {
                    let _ = conn.channel(*id).map(|on| (on.hold(1), on.is_open()));
                }
            }
            Idle::Reading => conn.set_reading(now, true),
        }
    }

    fn finish(&mut self) {
        self.take();
        self.events.extend(self.client.events());
    }

    /// The output of each channel, bodies in one piece.
    fn streams(&self) -> BTreeMap<u16, Vec<What>> {
        let mut streams: BTreeMap<u16, Vec<What>> = BTreeMap::new();
        for sent in frames(&self.bytes) {
            let stream = streams.entry(sent.channel).or_default();
            match (stream.last_mut(), sent.what) {
                (Some(What::Body(body)), What::Body(more)) => body.extend(more),
                (_, what) => stream.push(what),
            }
        }
        streams
    }
}

proptest! {
    #![proptest_config(amqp_test_support::cases(128))]

    /// Idle calls have no effect: the same bytes leave, in the same order, with the same events.
    #[test]
    fn spurious_calls_change_nothing(
        steps in list((any_step(), list(any_idle(), 0..5), any::<bool>()), 0..60),
    ) {
        let (mut quiet, mut busy) = (Run::new(), Run::new());
        for (step, idles, take) in &steps {
            quiet.step(step);
            busy.step(step);
            for idle in idles {
                // A report of reading restarts the deadline of silence, so both sides need one.
                if matches!(idle, Idle::Reading) {
                    quiet.idle(*idle);
                }
                busy.idle(*idle);
            }
            prop_assert_eq!(&quiet.results, &busy.results);
            if *take {
                quiet.take();
                busy.take();
            }
        }
        quiet.finish();
        busy.finish();
        prop_assert!(quiet.bytes == busy.bytes);
        prop_assert_eq!(quiet.events, busy.events);
        prop_assert_eq!(
            format!("{:?}", quiet.client.conn.poll_timeout()),
            format!("{:?}", busy.client.conn.poll_timeout())
        );
    }

    /// The time of taking output decides how channels take turns, and how much had left when a
    /// channel ended; but each channel's output and the events are the same.
    #[test]
    fn taking_the_output_at_any_time_changes_no_channel(
        steps in list((any_step(), any::<bool>(), any::<bool>()), 0..60),
    ) {
        let (mut first, mut second) = (Run::new(), Run::new());
        let ends = |step: &Step| match step {
            // A method out of place ends the connection at once.
            Step::Said(_, said) => !matches!(said, Said::Heartbeat | Said::Blocked | Said::Unblocked),
            Step::Close | Step::CloseChannel(_) | Step::Wait(_) => true,
            _ => false,
        };
        for (step, take_first, take_second) in &steps {
            // An end drops unsent output; both have sent as much by then.
            if ends(step) {
                first.take();
                second.take();
            }
            first.step(step);
            second.step(step);
            // A close that has left makes deaf.
            let leave = matches!(step, Step::Close);
            if *take_first || leave {
                first.take();
            }
            if *take_second || leave {
                second.take();
            }
        }
        first.finish();
        second.finish();
        let reported = |events: &[Event]| events.iter().map(|event| match event {
            Event::Settled { channel, first, last, outcome: Outcome::NotSent(reason) } => {
                let (channel, first, last) = (*channel, *first, *last);
                Event::Settled { channel, first, last, outcome: Outcome::Unknown(reason.clone()) }
            }
            event => event.clone(),
        }).collect::<Vec<_>>();
        prop_assert_eq!(reported(&first.events), reported(&second.events));
        prop_assert_eq!(&first.results, &second.results);
        prop_assert!(first.streams() == second.streams());
    }
}

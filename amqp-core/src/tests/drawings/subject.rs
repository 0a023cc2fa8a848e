//! One side of a connection in a state that a path of steps leads to, and its reaction to a step.

use alloc::{boxed::Box, string::ToString as _, vec::Vec};

use crate::{
    ChannelId, MethodDef as _,
    client::{self, Checks},
    close::{CloseCause, Stage},
    frame::{FrameKind, PROTOCOL_HEADER},
    machine::ChannelLife,
    protocol::{Method, ReplyCode, basic, channel, confirm},
    sasl::{Mechanism, SaslError},
    server::{self, Event as ServerEvent},
    tests::{
        harmless,
        pair::Pair,
        side::{Event, Machine, Role, Sent, Side, body_frame, frames, header_frame, method_frame},
    },
    wire::Secret,
};

/// The number of the channel that is tried.
pub(super) const NUMBER: u16 = 1;

/// A step that a side can take.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// The protocol header comes in.
    Greeting,
    /// The method of that index in [`harmless::every_method`] comes in on that channel.
    Hear(usize, u16),
    /// A content header comes in, for a body of one byte or none.
    Header { empty: bool },
    /// The byte of the body comes in.
    Body,
    /// The application calls a command.
    Call(Command),
    /// All output is handed out.
    HandOut,
    /// The transport ends.
    Eof,
    /// The next deadline passes, and each that follows, until the state changes.
    Deadline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Accept,
    Challenge,
    Refuse,
    Open,
    Close,
    OpenChannel,
    CloseChannel,
}

impl Command {
    pub(super) const ALL: [Self; 7] = [
        Self::Accept,
        Self::Challenge,
        Self::Refuse,
        Self::Open,
        Self::Close,
        Self::OpenChannel,
        Self::CloseChannel,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept()",
            Self::Challenge => "challenge()",
            Self::Refuse => "refuse()",
            Self::Open => "open()",
            Self::Close | Self::CloseChannel => "close()",
            Self::OpenChannel => "open_channel()",
        }
    }
}

/// A mechanism that answers any challenge.
#[derive(Clone, Debug)]
struct Obliging;

impl Mechanism for Obliging {
    fn name(&self) -> &str {
        "PLAIN"
    }

    fn initial_response(&mut self) -> Secret {
        Secret::from("")
    }

    fn respond(&mut self, _: &[u8]) -> Result<Secret, SaslError> {
        Ok(Secret::from(""))
    }

    fn boxed(&self) -> Box<dyn Mechanism> {
        Box::new(self.clone())
    }
}

/// A side, and the channel that is tried, if there is one.
pub(super) struct Subject {
    pub(super) side: Side,
    role: Role,
    channel: Option<ChannelId>,
}

/// The effect of a step.
pub(super) struct Effect {
    /// The names of the methods that were sent.
    pub(super) sent: Vec<&'static str>,
    /// The code and the cause, if the step is a fault of the peer.
    pub(super) fault: Option<u16>,
    pub(super) has_events: bool,
}

impl Subject {
    /// A side before anything has come in.
    pub(super) fn new(role: Role) -> Self {
        let mut side = match role {
            Role::Client => Side::client(client::Config {
                checks: Checks::Standard,
                mechanisms: alloc::vec![Box::new(Obliging)],
                ..client::Config::default()
            }),
            Role::Server => Side::server(server::Config::default()),
        };
        let _greeting = side.sent();
        Self {
            side,
            role,
            channel: None,
        }
    }

    /// A side of an open connection without channels.
    pub(super) fn open(role: Role) -> Self {
        let config = client::Config {
            checks: Checks::Standard,
            ..client::Config::default()
        };
        let pair = Pair::open_with(config, server::Config::default());
        Self {
            side: Side::of(pair, role),
            role,
            channel: None,
        }
    }

    pub(super) fn stage(&self) -> Stage {
        match &self.side.machine {
            Machine::Client(client) => client.stage(),
            Machine::Server(server) => server.stage(),
        }
    }

    pub(super) fn has_output(&self) -> bool {
        match &self.side.machine {
            Machine::Client(client) => client.has_transmit(),
            Machine::Server(server) => server.has_transmit(),
        }
    }

    /// The life of the channel, and whether its content header or body is due.
    pub(super) fn channel(&self) -> Option<(ChannelLife, bool, bool)> {
        let id = self.channel?;
        match &self.side.machine {
            Machine::Client(client) => client.0.channel(id).map(|it| {
                let due = (it.assembly.wants_header(), it.assembly.in_progress());
                (it.life, due.0, due.1)
            }),
            Machine::Server(server) => server.0.channel(id).map(|it| {
                let due = (it.assembly.wants_header(), it.assembly.in_progress());
                (it.life, due.0, due.1)
            }),
        }
    }

    /// Takes a step. `None` if it is not possible here.
    pub(super) fn take(&mut self, step: Step) -> Option<Effect> {
        let before = self.side.close_reason().is_some();
        let events = match step {
            Step::Greeting if self.stage() == Stage::Greeting && self.role == Role::Server => {
                self.side.feed(&PROTOCOL_HEADER)
            }
            Step::Greeting => return None,
            Step::Hear(index, number) => {
                let method = &harmless::every_method()[index];
                let events = self.side.feed(&method_frame(number, method));
                self.note(&events);
                let is_open = matches!(self.channel(), Some((ChannelLife::Open, ..)));
                if method.id() == channel::OpenOk::ID && is_open {
                    self.furnish();
                }
                events
            }
            Step::Header { empty } => {
                let header = header_frame(NUMBER, 60, 0, u64::from(!empty), &[]);
                self.side.feed(&header)
            }
            Step::Body => self.side.feed(&body_frame(NUMBER, b"x")),
            Step::Call(command) => {
                self.call(command)?;
                self.side.events()
            }
            Step::HandOut if self.has_output() => Vec::new(),
            Step::HandOut => return None,
            Step::Eof => {
                self.side.end();
                self.side.events()
            }
            Step::Deadline => self.side.pass_deadlines()?,
        };
        // The close of a connection waits for the output before it: that is a state of its own.
        let (sent, closes) = match step {
            Step::Call(Command::Close) if self.stage() == Stage::Closing => (Vec::new(), None),
            _ => self.sent(),
        };
        let is_method = matches!(step, Step::Hear(..));
        let fault = match self.side.close_reason().map(|reason| reason.cause()) {
            Some(CloseCause::ProtocolError(error)) if !before => Some(error.fault.code().0),
            // A fault that closes the channel alone.
            _ => closes.filter(|_| is_method),
        };
        Some(Effect {
            sent,
            fault,
            has_events: !events.is_empty(),
        })
    }

    /// The methods that are sent, and the code of the close of the channel, if that is among it.
    fn sent(&mut self) -> (Vec<&'static str>, Option<u16>) {
        let sent = self.side.sent();
        if sent.starts_with(&PROTOCOL_HEADER[..4]) {
            return (alloc::vec!["protocol header"], None);
        }
        let frames = frames(&sent);
        let methods = frames.iter().filter(|sent| sent.kind == FrameKind::Method);
        let methods: Vec<_> = methods.map(Sent::method).collect();
        let code = methods.iter().find_map(|method| match method {
            Method::ChannelClose(close) => Some(close.reply_code.0),
            _ => None,
        });
        (
            methods.iter().map(|method| method.rule().name).collect(),
            code,
        )
    }

    fn call(&mut self, command: Command) -> Option<()> {
        let code = ReplyCode::SUCCESS;
        if command == Command::Close {
            if self.side.close_reason().is_some() {
                return None;
            }
            self.side.close(code, "bye");
            return Some(());
        }
        match (&mut self.side.machine, command) {
            (Machine::Server(server), Command::Accept) => server.accept().ok(),
            (Machine::Server(server), Command::Challenge) => server.challenge("more?").ok(),
            (Machine::Server(server), Command::Refuse) => server.refuse("no").ok(),
            (Machine::Server(server), Command::Open) => server.open().ok(),
            (Machine::Client(client), Command::OpenChannel) => {
                let (id, _) = client.open_channel_at(NUMBER).ok()?;
                self.channel = Some(id);
                Some(())
            }
            (Machine::Client(client), Command::CloseChannel) => client
                .channel(self.channel?)?
                .close(code, "bye")
                .ok()
                .map(drop),
            (Machine::Server(server), Command::CloseChannel) => {
                server.channel(self.channel?)?.close(code, "bye", None).ok()
            }
            _ => None,
        }
    }

    /// Notes a channel that the client has opened.
    fn note(&mut self, events: &[Event]) {
        for event in events {
            if let Event::Server(ServerEvent::ChannelOpened { channel }) = event {
                self.channel = Some(*channel);
            }
        }
    }

    /// Gives the client's new channel a consumer and an unconfirmed publish, so that deliveries and
    /// confirms make sense.
    fn furnish(&mut self) {
        let (Some(id), Machine::Client(client)) = (self.channel, &mut self.side.machine) else {
            return;
        };
        let mut channel = client.channel(id).unwrap();
        let name = harmless::NAME.to_string();
        channel.send(&confirm::Select::default()).unwrap();
        let consume = basic::Consume::default().queue(name.as_str());
        let consume = consume.consumer_tag(name.as_str());
        channel.consume(consume.no_wait(true)).unwrap();
        let properties = basic::Properties::default();
        channel
            .publish(&basic::Publish::default(), &properties, "")
            .unwrap();
        let _furniture = self.side.sent();
    }
}

//! Two commands that race, one of each side, in every order in which their frames can pass each
//! other.
//!
//! A schedule is a list of choices among the steps that are possible: a command is given, or the
//! oldest frame of a direction arrives. All schedules of a race are tried, in depth-first order.

use amqp_core::{
    CloseCause, ConsumerId, MethodDef as _, RequestId,
    protocol::{ReplyCode, basic},
};

use crate::{
    Story, oracle,
    world::{Direction, Ending, World},
};

/// A command of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ours {
    CloseConnection,
    CloseChannel,
    Cancel,
    CancelNoWait,
    AbandonConsumer,
    AbandonRequest,
    Publish,
    Declare,
    Acknowledge,
    OpenChannel,
    LoseTransport,
}

const OURS: [Ours; 11] = [
    Ours::CloseConnection,
    Ours::CloseChannel,
    Ours::Cancel,
    Ours::CancelNoWait,
    Ours::AbandonConsumer,
    Ours::AbandonRequest,
    Ours::Publish,
    Ours::Declare,
    Ours::Acknowledge,
    Ours::OpenChannel,
    Ours::LoseTransport,
];

/// A command of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theirs {
    CloseConnection,
    CloseChannel,
    Cancel,
    Deliver,
    Confirm,
    Answer,
}

const THEIRS: [Theirs; 6] = [
    Theirs::CloseConnection,
    Theirs::CloseChannel,
    Theirs::Cancel,
    Theirs::Deliver,
    Theirs::Confirm,
    Theirs::Answer,
];

/// The state in which a race begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// The channel has a consumer with a delivery, an unconfirmed publish and an unanswered request.
    Settled,
    /// Its consume and the request are in transit.
    InFlight,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Ours,
    Theirs,
    Arrive(Direction),
}

struct Race {
    world: World,
    consumer: ConsumerId,
    request: RequestId,
    ours: Vec<Ours>,
    theirs: Vec<Theirs>,
    done: Vec<Step>,
    /// The transport was lost.
    lost: bool,
}

impl Race {
    fn new(start: Start, ours: &[Ours], theirs: &[Theirs]) -> Self {
        let mut world = World::new(Story::Manual, false);
        world.server.delivers = false;
        world.server.confirms = false;
        world.settle();
        let (id, open) = world.client.machine.open_channel().unwrap();
        world.client.channel = Some(id);
        world.client.expect_open(id, open);
        world.settle();
        world.client.select(id);
        world.client.publish(id, 1);
        world.settle();
        let consumer = world.client.consume(id);
        if start == Start::Settled {
            world.settle();
            world.server.deliver();
            world.settle();
            assert!(world.client.requests.is_empty() && world.client.delivered == [1]);
        }
        let request = world.client.declare(id);
        match start {
            Start::Settled => world.settle(),
            Start::InFlight => world.send(),
        }
        Self {
            world,
            consumer,
            request,
            ours: ours.to_vec(),
            theirs: theirs.to_vec(),
            done: Vec::new(),
            lost: false,
        }
    }

    /// The steps that are possible, in an order that is always the same.
    fn possible(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        for direction in Direction::BOTH {
            if self.world.has_frame(direction) {
                steps.push(Step::Arrive(direction));
            }
        }
        if !self.ours.is_empty() {
            steps.push(Step::Ours);
        }
        if !self.theirs.is_empty() {
            steps.push(Step::Theirs);
        }
        steps
    }

    fn take(&mut self, step: Step) {
        self.done.push(step);
        match step {
            Step::Ours => {
                let ours = self.ours.remove(0);
                self.command(ours);
            }
            Step::Theirs => {
                let theirs = self.theirs.remove(0);
                self.serve(theirs);
            }
            Step::Arrive(direction) => {
                self.world.pass_frame(direction);
            }
        }
        self.world.send();
    }

    /// Gives a command, if the channel and the connection take any.
    fn command(&mut self, ours: Ours) {
        let client = &mut self.world.client;
        if ours == Ours::LoseTransport {
            self.lost = true;
            self.world.end(Ending::Reset);
            return;
        }
        if ours == Ours::CloseConnection {
            client.machine.close(ReplyCode::SUCCESS, "bye");
            client.react();
            return;
        }
        if ours == Ours::OpenChannel {
            if let Ok((id, open)) = client.machine.open_channel() {
                client.expect_open(id, open);
            }
            return;
        }
        let id = client.channel.unwrap();
        let open = client.machine.channel(id).is_some_and(|it| it.is_open());
        if !open {
            return;
        }
        match ours {
            Ours::CloseChannel => client.close_channel(id),
            Ours::Cancel => client.cancel(id, false),
            Ours::CancelNoWait => {
                client.cancel(id, true);
                client.silent.insert(self.consumer);
            }
            Ours::AbandonConsumer => {
                let mut channel = client.machine.channel(id).unwrap();
                channel.abandon_consumer(&"t".parse().unwrap(), self.consumer);
                client.silent.insert(self.consumer);
                client
                    .requests
                    .retain(|_, method| *method != basic::Consume::ID);
            }
            Ours::AbandonRequest => {
                client.machine.abandon(id, self.request);
                client.requests.remove(&self.request);
            }
            Ours::Publish => client.publish(id, 2),
            Ours::Declare => drop(client.declare(id)),
            Ours::Acknowledge if client.delivered.is_empty() => {}
            Ours::Acknowledge => client.acknowledge_first(id),
            Ours::CloseConnection | Ours::OpenChannel | Ours::LoseTransport => {}
        }
        client.react();
    }

    fn serve(&mut self, theirs: Theirs) {
        let server = &mut self.world.server;
        match theirs {
            Theirs::CloseConnection => {
                server.machine.close(ReplyCode::CONNECTION_FORCED, "bye");
            }
            Theirs::CloseChannel => server.close_channel(),
            Theirs::Cancel => server.cancel(),
            Theirs::Deliver if server.consuming => server.deliver(),
            Theirs::Deliver => {}
            Theirs::Confirm => server.confirm(1, false),
            Theirs::Answer => server.declare_ok(),
        }
        server.react();
    }

    /// Checks that all that can be answered is answered without any time; then ends the connection.
    fn finish(mut self, what: &str) {
        let what = format!("{what}: {:?}", self.done);
        // Requests for the queue that the server is silent about are all that may wait.
        let waiting = self.world.client.requests.values();
        for method in waiting {
            assert_eq!(method.name(), Some("queue.declare"), "{what}: it waits");
        }
        let open = self.world.client.open_channels();
        let (client, server) = (&self.world.client.machine, &self.world.server.machine);
        if client.is_open() && server.is_open() {
            let counts = (client.channel_count(), server.channel_count());
            assert_eq!(counts, (open, open), "{what}: a close is not answered");
        }
        self.world.client.machine.close(ReplyCode::SUCCESS, "bye");
        self.world.client.react();
        let start = self.world.now;
        self.world.run();
        assert_eq!(self.world.now, start, "{what}: a timeout");
        oracle::check(&self.world, &what);
        oracle::check_faultless(&self.world, &what);
        let reasons = [&self.world.client.closed, &self.world.server.closed];
        for reason in reasons.into_iter().flatten() {
            let known = match reason.cause() {
                CloseCause::Requested(close) | CloseCause::ByPeer(close) => {
                    [ReplyCode::SUCCESS, ReplyCode::CONNECTION_FORCED].contains(&close.code)
                }
                CloseCause::Transport { .. } | CloseCause::Eof { .. } => self.lost,
                _ => false,
            };
            assert!(known, "{what}: {reason:?}");
        }
    }
}

/// Tries all schedules of a race. Returns their number.
fn explore(start: Start, ours: &[Ours], theirs: &[Theirs]) -> usize {
    let what = format!("{start:?}, {ours:?} and {theirs:?}");
    // The choices of the schedule, each with the number of steps that were possible.
    let mut schedule: Vec<(usize, usize)> = Vec::new();
    let mut count = 0;
    loop {
        let mut race = Race::new(start, ours, theirs);
        let mut depth = 0;
        loop {
            let possible = race.possible();
            if possible.is_empty() {
                break;
            }
            if depth == schedule.len() {
                schedule.push((0, possible.len()));
            }
            let (choice, _) = schedule[depth];
            race.take(possible[choice]);
            depth += 1;
        }
        race.finish(&what);
        count += 1;
        // The next schedule: the last choice that has another one is changed.
        while schedule.pop_if(|(choice, of)| *choice + 1 == *of).is_some() {}
        match schedule.last_mut() {
            Some((choice, _)) => *choice += 1,
            None => return count,
        }
    }
}

#[test]
fn every_order_of_two_racing_commands_ends_each_wait_once() {
    for start in [Start::Settled, Start::InFlight] {
        let mut count = 0;
        for ours in OURS {
            for theirs in THEIRS {
                count += explore(start, &[ours], &[theirs]);
            }
        }
        println!("races: {count} orders of two commands, {start:?}");
    }
}

/// Two closes of one side race with one of the other.
#[test]
fn every_order_of_three_racing_closes_ends_each_wait_once() {
    let closes = [Ours::CloseConnection, Ours::CloseChannel, Ours::Cancel];
    let their_closes = [
        Theirs::CloseConnection,
        Theirs::CloseChannel,
        Theirs::Cancel,
    ];
    let mut count = 0;
    for ours in closes {
        for theirs in their_closes {
            for second in closes {
                if second != ours {
                    count += explore(Start::Settled, &[ours, second], &[theirs]);
                }
            }
            for second in their_closes {
                if second != theirs {
                    count += explore(Start::Settled, &[ours], &[theirs, second]);
                }
            }
        }
    }
    println!("races: {count} orders of three closes");
}

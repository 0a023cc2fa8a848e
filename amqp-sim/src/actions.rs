//! The effects of faults.

use std::{sync::Arc, time::Duration};

use amqp_driver::protocol::ReplyCode;
use amqp_embedded::{
    LocalBroker,
    broker::{Broker, ConfirmFault, Direction},
};

use crate::{
    fault::{Fault, Link},
    network::{Conn, LinkState},
    runtime::SimRuntime,
    sim::Sim,
    world::{NodeId, ProcessId, ProcessKind},
};

/// An event at a time of the simulation.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Fault(Fault),
    StartNode(NodeId),
    StartService(ProcessId),
    Resume(ProcessId),
    EndAlarm(NodeId),
}

/// The text of a close.
const CLOSED: &str = "closed by a fault of the simulation";

const BOTH: [Direction; 2] = [Direction::FromClient, Direction::ToClient];

impl Sim {
    pub(crate) fn act(&self, action: Action) {
        match action {
            Action::Fault(fault) => self.apply(&fault),
            Action::StartNode(node) => {
                if let Some(broker) = self.broker(node) {
                    self.0
                        .shared
                        .note(|world| format!("{} starts", world.node_name(node)));
                    self.start_node(node, &broker);
                }
            }
            Action::StartService(process) => self.start_service(process),
            Action::Resume(process) => {
                self.0.shared.suspend(process, false);
                self.0
                    .shared
                    .note(|world| format!("{} goes on", world.process_name(process)));
            }
            Action::EndAlarm(node) => {
                if let Some(broker) = self.broker(node) {
                    broker.with(|broker| broker.faults().memory_alarm(false));
                }
            }
        }
    }

    fn start_service(&self, process: ProcessId) {
        if self.0.executor.alive().contains(&process) {
            return;
        }
        let factory = self.0.services.borrow().get(&process).cloned();
        if let Some(factory) = factory {
            self.0.shared.suspend(process, false);
            self.0
                .shared
                .note(|world| format!("{} starts", world.process_name(process)));
            factory(self);
        }
    }

    fn broker(&self, node: NodeId) -> Option<LocalBroker<SimRuntime>> {
        self.0
            .shared
            .with(|world, _| Some(world.nodes.get(node.0)?.broker.clone()))
    }

    fn node_named(&self, name: &str) -> NodeId {
        match self.0.shared.with(|world, _| world.find_node(name)) {
            Some(node) => node,
            None => panic!("the simulation has no node {name:?}"),
        }
    }

    fn process_named(&self, name: &str) -> ProcessId {
        match self.0.shared.with(|world, _| world.find(name)) {
            Some(process) => process,
            None => panic!("the simulation has no process {name:?}"),
        }
    }

    /// Changes the state of a link.
    fn link(&self, link: &Link, change: impl FnOnce(&mut LinkState)) {
        let (client, node) = (
            self.process_named(&link.client),
            self.node_named(&link.node),
        );
        self.0
            .shared
            .with(|world, _| change(world.network.link(client, node)));
    }

    /// Resets the connections of a link or of a process.
    fn reset(&self, which: impl Fn(&Conn) -> bool) {
        let now = self.instant();
        self.0.shared.with(|world, later| {
            for conn in world.network.connections(&which) {
                world.reset(conn, now, later);
            }
        });
    }

    /// Lets a fault occur.
    pub(crate) fn apply(&self, fault: &Fault) {
        self.0.shared.note(|_| format!("*** {fault}"));
        let now = self.instant();
        let lane = |direction: Direction| crate::network::lane_of(direction);
        match fault {
            Fault::Latency {
                link,
                min,
                max,
                time,
            } => self.link(link, |link| link.latency.set((*min, *max), now + *time)),
            Fault::Split { link, max, time } => self.link(link, |link| {
                for lane in &mut link.lanes {
                    lane.pieces.set(*max, now + *time);
                }
            }),
            Fault::Bandwidth {
                link,
                direction,
                rate,
                time,
            } => self.link(link, |link| {
                link.lanes[lane(*direction)].rate.set(*rate, now + *time);
            }),
            Fault::SlowReader {
                link,
                direction,
                window,
                time,
            } => self.link(link, |link| {
                let window = (*window).max(1);
                link.lanes[lane(*direction)].window.set(window, now + *time);
            }),
            Fault::Cut {
                link,
                direction,
                after,
            } => self.link(link, |link| {
                link.lanes[lane(*direction)].cut_after = Some((*after).max(1));
            }),
            Fault::Refuse { link, time } => {
                self.link(link, |link| link.refused.set((), now + *time));
            }
            Fault::Reset { link } => {
                let (client, node) = self.ends_of(link);
                self.reset(|conn| conn.client == client && conn.node == node);
            }
            Fault::Eof { link } => {
                let (client, node) = self.ends_of(link);
                self.0.shared.with(|world, later| {
                    let of_link = |conn: &Conn| conn.client == client && conn.node == node;
                    for conn in world.network.connections(of_link) {
                        world.end_both(conn, now, later);
                    }
                });
            }
            Fault::Stall {
                link,
                direction,
                time,
            } => {
                let (client, node) = self.ends_of(link);
                let only = direction.as_ref().map(std::slice::from_ref);
                self.0.shared.with(|world, _| {
                    for direction in only.unwrap_or(&BOTH) {
                        world.stall(client, node, *direction, now + *time);
                    }
                });
            }
            Fault::HalfOpen { link, deaf } => {
                let (client, node) = self.ends_of(link);
                self.0.shared.with(|world, later| {
                    let of_link = |conn: &Conn| conn.client == client && conn.node == node;
                    for conn in world.network.connections(of_link) {
                        world.half_open(conn, *deaf, now, later);
                    }
                });
            }
            Fault::Restart { node, down } => self.stop_node(node, *down, false),
            Fault::Kill { node, down } => self.stop_node(node, *down, true),
            Fault::Suspend { process, time } => {
                let process = self.process_named(process);
                self.0.shared.suspend(process, true);
                self.schedule(now + *time, Action::Resume(process));
            }
            Fault::Crash { process, down } => self.crash(process, *down),
            Fault::Close { node, code } => self.close_connections(node, *code),
            Fault::CloseChannels { node, code } => self.close_channels(node, *code),
            Fault::Alarm { node, time } => {
                let node = self.node_named(node);
                if let Some(broker) = self.broker(node) {
                    broker.with(|broker| broker.faults().memory_alarm(true));
                    self.schedule(now + *time, Action::EndAlarm(node));
                }
            }
            Fault::DeleteQueue { node, queue } => self.on_broker(node, |broker| {
                let _may_not_exist = broker.admin().delete_queue("/", queue);
            }),
            Fault::LoseConfirms { node, count } => self.on_broker(node, |broker| {
                broker.faults().confirms(ConfirmFault::DropNext(*count));
            }),
            Fault::Nack { node, count } => self.on_broker(node, |broker| {
                broker.faults().confirms(ConfirmFault::NackNext(*count));
            }),
            Fault::SlowDisk { node, delay, time } => {
                let node = self.node_named(node);
                self.0.shared.with(|world, _| {
                    let disk = world.nodes.get_mut(node.0).and_then(|it| it.disk.as_mut());
                    if let Some(disk) = disk {
                        disk.delay.set(*delay, now + *time);
                    }
                });
            }
            Fault::Jump { time } => {
                let then = now + *time;
                self.0.shared.set_now(then);
                self.0
                    .shared
                    .with(|world, later| world.alarms.go_off(then, later));
            }
        }
    }

    fn ends_of(&self, link: &Link) -> (ProcessId, NodeId) {
        (
            self.process_named(&link.client),
            self.node_named(&link.node),
        )
    }

    fn on_broker(&self, node: &str, act: impl FnOnce(&mut Broker)) {
        if let Some(broker) = self.broker(self.node_named(node)) {
            broker.with(act);
        }
    }

    /// Stops a node, which starts again after a time. Without effect on one that is stopped.
    fn stop_node(&self, name: &Arc<str>, down: Duration, is_killed: bool) {
        let node = self.node_named(name);
        let Some(broker) = self.broker(node) else {
            return;
        };
        if broker.with(|broker| broker.is_stopped()) {
            return;
        }
        if is_killed {
            self.reset(|conn| conn.node == node);
            let process = self.process_named(name);
            self.0.executor.kill(&self.0.shared, process);
            self.0.shared.suspend(process, false);
            self.0.shared.with(|world, _| world.kill_disk(node));
        }
        broker.stop();
        self.schedule(self.instant() + down, Action::StartNode(node));
    }

    fn crash(&self, name: &Arc<str>, down: Duration) {
        let process = self.process_named(name);
        let kind = self
            .0
            .shared
            .with(|world, _| world.processes[process.0].kind);
        match kind {
            ProcessKind::Service => {
                self.schedule(self.instant() + down, Action::StartService(process));
            }
            ProcessKind::Program => self.forget_program(process),
            ProcessKind::Node(_) => return self.stop_node(name, down, true),
            ProcessKind::Test => return,
        }
        self.reset(|conn| conn.client == process);
        self.0.executor.kill(&self.0.shared, process);
    }

    fn close_connections(&self, node: &str, code: ReplyCode) {
        self.on_broker(node, |broker| {
            for connection in broker.list_connections(0, usize::MAX) {
                broker
                    .faults()
                    .close_connection(connection.key, code, CLOSED);
            }
        });
    }

    fn close_channels(&self, node: &str, code: ReplyCode) {
        self.on_broker(node, |broker| {
            for connection in broker.inspect().connections {
                for channel in connection.channels {
                    let mut faults = broker.faults();
                    faults.close_channel(connection.key, channel.number, code, CLOSED);
                }
            }
        });
    }
}

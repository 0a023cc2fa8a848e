//! A cluster of three nodes: the leader of a quorum queue is killed.

use std::time::{Duration, Instant};

use amqp_tests::rabbitmq::Node;
use amqp_tokio::core::dial::Address;

use crate::{
    Result,
    load::queue_name,
    options::{Length, Options},
    run::Run,
};

const NODES: usize = 3;

/// The lines of each node's log that a failure shows.
const LOG_LINES: usize = 10;

/// Kills leaders. Returns whether all checks hold.
pub(crate) fn run(options: &Options, count: usize) -> Result<bool> {
    eprintln!("starting a cluster of {NODES} RabbitMQs");
    let nodes = Node::start_cluster(NODES)?;
    let address = |node: &Node| Address::tcp("127.0.0.1", node.port());
    let addresses = nodes.iter().map(address).collect();
    let mut run = Run::start(options, Length::Faults(2 * count), addresses, "quorum")?;
    let outcome = (0..count).try_for_each(|kill| {
        let leader = leader(&nodes[kill % NODES], &queue_name(kill % 2))?;
        let node = nodes.iter().find(|node| node.name() == leader);
        let node = node.ok_or_else(|| format!("the leader {leader} is none of the nodes"))?;
        run.fault("kill -9 of the leader", |_, _, _| {
            let begun = Instant::now();
            node.kill()?;
            Ok(begun.elapsed())
        })?;
        run.fault("a node starts", |_, _, _| {
            node.restart()?;
            Ok(Duration::ZERO)
        })
    });
    run.finish(outcome.map_err(|error| {
        let log = |node: &Node| format!("{}:\n{}", node.name(), node.log_tail(LOG_LINES));
        let logs: Vec<_> = nodes.iter().map(log).collect();
        format!("{error}\nthe ends of the logs:\n{}", logs.join("\n")).into()
    }))
}

/// The name of the node that leads a quorum queue.
fn leader(node: &Node, queue: &str) -> Result<String> {
    let listed = node.ctl(&["list_queues", "--no-table-headers", "name", "leader"])?;
    for line in listed.lines() {
        if let Some((name, leader)) = line.split_once('\t')
            && name == queue
        {
            return Ok(leader.trim().to_owned());
        }
    }
    Err(format!("no leader of {queue} in: {listed}").into())
}

//! The view and the commands of the operators of a broker, which its clients do not have.

mod commands;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use amqp_broker::BindingTarget;
use amqp_tokio::wire::{FieldTable, FieldValue};

use crate::{
    context::Ctx,
    embedded::Embedded,
    harness::{Failure, Outcome},
    rabbitmq::Node,
};

/// The operator of a scenario's broker.
#[derive(Clone, Debug)]
pub enum Operator {
    /// With `rabbitmqctl`.
    RabbitMq(Arc<Node>),
    /// By its own interface.
    Embedded(Arc<Embedded>),
}

/// A queue as it was declared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// Whether it outlives the broker.
    pub durable: bool,
    /// Whether it goes with its last consumer.
    pub auto_delete: bool,
}

/// A binding: its source, its destination, and the routing key.
pub(crate) type Binding = (String, String, String);

impl Ctx {
    /// Lets the broker run out of memory, as it sees it, or have enough again. Only for scenarios
    /// that have their broker to themselves.
    ///
    /// # Errors
    /// As [`Node::ctl`].
    pub async fn set_memory_alarm(&self, raised: bool) -> Outcome {
        match self.operator() {
            Operator::RabbitMq(node) => {
                let watermark = if raised { "0" } else { "0.8" };
                self.ctl(node, &["set_vm_memory_high_watermark", watermark])
                    .await?;
            }
            Operator::Embedded(embedded) => {
                let broker = embedded.broker();
                broker.with(|broker| broker.faults().memory_alarm(raised));
            }
        }
        Ok(())
    }

    /// The properties that the only client in this scenario's virtual host sent: texts and
    /// capabilities, by name.
    ///
    /// # Errors
    /// As [`Node::ctl`], and when there is not one client.
    pub async fn client_properties(&self) -> Result<BTreeMap<String, String>, Failure> {
        let mut reported = BTreeMap::new();
        match self.operator() {
            Operator::RabbitMq(node) => {
                let all = self
                    .ctl(node, &["list_connections", "vhost", "client_properties"])
                    .await?;
                let prefix = format!("{}\t", self.vhost);
                let mut ours = all.lines().filter_map(|line| line.strip_prefix(&prefix));
                let (Some(line), None) = (ours.next(), ours.next()) else {
                    return Err(format!("not one connection in {}:\n{all}", self.vhost).into());
                };
                // A list of Erlang's: [{"product","amqp-core"},{"capabilities",[{"basic.nack",true}]}]
                for pair in line.split('{').filter(|pair| !pair.is_empty()) {
                    let end = pair.find('}').unwrap_or(pair.len());
                    if let Some((name, value)) = pair[..end].split_once(',') {
                        let bare = |text: &str| text.trim_matches('"').to_owned();
                        reported.insert(bare(name), bare(value));
                    }
                }
            }
            Operator::Embedded(embedded) => {
                let connections = embedded.broker().inspect().connections;
                let [connection] = &connections[..] else {
                    return Err(format!("there are {} connections", connections.len()).into());
                };
                flatten(&connection.client_properties, &mut reported);
            }
        }
        Ok(reported)
    }

    /// The queues in this scenario's virtual host.
    ///
    /// # Errors
    /// As [`Node::ctl`].
    pub async fn queues(&self) -> Result<BTreeSet<Declared>, Failure> {
        match self.operator() {
            Operator::RabbitMq(node) => {
                let vhost = &self.vhost;
                let columns = ["name", "durable", "auto_delete"];
                let listed = ["list_queues", "--vhost", vhost];
                let listed = self.ctl(node, &[&listed[..], &columns].concat()).await?;
                let queue = |line: &str| {
                    let [name, durable, auto_delete] = line.split('\t').collect::<Vec<_>>()[..]
                    else {
                        return Err(format!("not a queue: {line}"));
                    };
                    Ok(Declared {
                        name: name.into(),
                        durable: durable == "true",
                        auto_delete: auto_delete == "true",
                    })
                };
                Ok(listed.lines().map(queue).collect::<Result<_, _>>()?)
            }
            Operator::Embedded(embedded) => {
                let inspection = embedded.broker().inspect();
                let vhost = inspection.vhost(&self.vhost).ok_or("no virtual host")?;
                let queues = vhost.queues.iter().map(|queue| Declared {
                    name: queue.name.to_string(),
                    durable: queue.durable,
                    auto_delete: queue.auto_delete,
                });
                Ok(queues.collect())
            }
        }
    }

    /// The bindings in this scenario's virtual host, those of the default exchange included.
    ///
    /// # Errors
    /// As [`Node::ctl`].
    pub(crate) async fn bindings(&self) -> Result<BTreeSet<Binding>, Failure> {
        match self.operator() {
            Operator::RabbitMq(node) => {
                let columns = ["source_name", "destination_name", "routing_key"];
                let listed = ["list_bindings", "--vhost", &self.vhost];
                let listed = self.ctl(node, &[&listed[..], &columns].concat()).await?;
                let binding = |line: &str| {
                    let [source, destination, key] = line.split('\t').collect::<Vec<_>>()[..]
                    else {
                        return Err(format!("not a binding: {line}"));
                    };
                    Ok((source.into(), destination.into(), key.into()))
                };
                Ok(listed.lines().map(binding).collect::<Result<_, _>>()?)
            }
            Operator::Embedded(embedded) => {
                let inspection = embedded.broker().inspect();
                let vhost = inspection.vhost(&self.vhost).ok_or("no virtual host")?;
                let bindings = vhost.bindings.iter().map(|binding| {
                    let (BindingTarget::Queue(to) | BindingTarget::Exchange(to)) =
                        &binding.destination;
                    let [from, to, key] = [&binding.source, to, &binding.routing_key];
                    (from.to_string(), to.to_string(), key.to_string())
                });
                let queues = vhost.queues.iter().map(|queue| {
                    let name = queue.name.to_string();
                    (String::new(), name.clone(), name)
                });
                Ok(bindings.chain(queues).collect())
            }
        }
    }

    /// The names of the exchanges in this scenario's virtual host that clients have declared.
    ///
    /// # Errors
    /// As [`Node::ctl`].
    pub async fn exchanges(&self) -> Result<BTreeSet<String>, Failure> {
        let names: BTreeSet<String> = match self.operator() {
            Operator::RabbitMq(node) => {
                let list = ["list_exchanges", "--vhost", &self.vhost, "name"];
                let listed = self.ctl(node, &list).await?;
                listed.lines().map(ToOwned::to_owned).collect()
            }
            Operator::Embedded(embedded) => {
                let inspection = embedded.broker().inspect();
                let vhost = inspection.vhost(&self.vhost).ok_or("no virtual host")?;
                let names = vhost.exchanges.iter().map(|it| it.name.to_string());
                names.collect()
            }
        };
        let own = |name: &String| !name.is_empty() && !name.starts_with("amq.");
        Ok(names.into_iter().filter(own).collect())
    }

    /// Lets new channels look for overdue acknowledgements ten times a second. RabbitMQ does so once
    /// a minute, and the embedded broker always at once. Only for scenarios that have their broker to
    /// themselves.
    ///
    /// # Errors
    /// As [`Node::ctl`].
    pub async fn check_acknowledgements_often(&self) -> Outcome {
        if let Operator::RabbitMq(node) = self.operator() {
            let set = "application:set_env(rabbit, channel_tick_interval, 100).";
            self.ctl(node, &["eval", set]).await?;
        }
        Ok(())
    }

    /// Runs `rabbitmqctl`.
    ///
    /// # Errors
    /// As [`Node::ctl`].
    pub async fn ctl(&self, node: &Arc<Node>, arguments: &[&str]) -> Result<String, Failure> {
        let node = Arc::clone(node);
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        // It takes its time, which the runtime has better uses for.
        let running = self.in_thread(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            node.ctl(&arguments)
        });
        Ok(running.await??)
    }
}

/// The entries of a table, and of the tables in it.
fn flatten(table: &FieldTable, reported: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        match value {
            FieldValue::Table(table) => flatten(table, reported),
            FieldValue::Bool(value) => {
                reported.insert(name.to_string(), value.to_string());
            }
            value => {
                if let Some(text) = value.as_str() {
                    reported.insert(name.to_string(), text.to_owned());
                }
            }
        }
    }
}

//! `queue.*` (<https://www.rabbitmq.com/docs/queues>)

use amqp_core::{
    protocol::{ReplyCode, queue},
    wire::ShortStr,
};

use super::{
    check_reserved,
    exchange::{check_not_default, limit_reached},
    without_newlines,
};
use crate::{
    broker::Broker,
    keys::{ChannelKey, ConnectionKey, QueueKey},
    model::{
        arguments::{QueueArguments, QueueKind, check_equivalent},
        exchange::{Binding, Destination},
        queue::{Declared, Queue},
    },
    permission::{Access, TopicAccess},
    refusal::{Outcome, Refusal, Resource, quoted, short},
};

/// The pseudo-queue of direct reply-to (<https://www.rabbitmq.com/docs/direct-reply-to>).
pub(super) const REPLIES: &str = "amq.rabbitmq.reply-to";

/// The side that has chosen the name of a new queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NamedBy {
    Client,
    Server,
}

impl Broker {
    pub(super) fn declare_queue(&mut self, at: ChannelKey, mut declare: queue::Declare) -> Outcome {
        // An exclusive queue is not durable: it is deleted with its connection.
        declare.durable &= !declare.exclusive;
        if declare.queue.starts_with(REPLIES) {
            return self.declare_replies(at, &declare);
        }
        let key = at.connection;
        let no_wait = declare.no_wait;
        let name = without_newlines(declare.queue.clone());
        let (name, found) = if declare.passive {
            let found = self.find_queue(key, &name)?;
            self.check_owner(key, found)?;
            (name, found)
        } else {
            let (name, named_by) = if name.is_empty() {
                (short(&self.random.name("amq.gen-")), NamedBy::Server)
            } else {
                check_reserved("queue", &name)?;
                (name, NamedBy::Client)
            };
            self.check_queue(key, Access::Configure, &name)?;
            let found = match self.vhost(key)?.queues.get(&name).copied() {
                Some(found) => {
                    self.check_declared(key, found, &declare)?;
                    found
                }
                None => self.create_queue(at, name.clone(), declare, named_by)?,
            };
            (name, found)
        };
        self.channel(at)?.last_queue = Some(name.clone());
        let now = self.now;
        let messages = self.message_count(found);
        if let Some(queue) = self.queues.get_mut(&found) {
            queue.used = now;
            let declared = queue::DeclareOk {
                queue: name,
                message_count: count(messages),
                consumer_count: count(queue.consumer_count()),
            };
            self.reply(at, no_wait, &declared);
        }
        self.set_deadline(found);
        Ok(())
    }

    /// Replies to the declaration of the pseudo-queue, or of a reply address, which exists as long
    /// as its consumer does.
    fn declare_replies(&mut self, at: ChannelKey, declare: &queue::Declare) -> Outcome {
        let name = &declare.queue;
        if *name != REPLIES && !self.reply_addresses.contains_key(name) {
            return Err(self.no_queue(at.connection, name)?);
        }
        let declared = queue::DeclareOk {
            queue: name.clone(),
            message_count: 0,
            consumer_count: 1,
        };
        self.reply(at, declare.no_wait, &declared);
        Ok(())
    }

    /// Checks that a redeclaration matches the existing queue (section 1.7.2.1 of the protocol
    /// reference).
    fn check_declared(
        &self,
        key: ConnectionKey,
        found: QueueKey,
        declare: &queue::Declare,
    ) -> Outcome {
        let vhost = self.vhost(key)?;
        let Some(queue) = self.queues.get(&found) else {
            return Ok(());
        };
        let resource = vhost.queue_named(&queue.name);
        if queue.owner != declare.exclusive.then_some(key) {
            return Err(Refusal::locked(&resource));
        }
        let flags = [
            ("durable", declare.durable, queue.durable),
            ("auto_delete", declare.auto_delete, queue.auto_delete),
        ];
        for (name, received, current) in flags {
            if received != current {
                let (received, current) = (quoted(received), quoted(current));
                return Err(Refusal::inequivalent(name, &resource, received, current));
            }
        }
        let kind = queue.arguments.kind;
        check_equivalent(kind, &queue.table, &declare.arguments, &resource)
    }

    fn create_queue(
        &mut self,
        at: ChannelKey,
        name: ShortStr,
        declare: queue::Declare,
        named_by: NamedBy,
    ) -> Outcome<QueueKey> {
        let key = at.connection;
        self.check_transient(&declare)?;
        let vhost = self.vhost(key)?;
        let resource = vhost.queue_named(&name);
        let kind = QueueKind::read(&declare.arguments, &resource)?;
        if kind != QueueKind::Classic && named_by == NamedBy::Server {
            return Err(Refusal::precondition(format_args!(
                "Cannot declare a server-named queue for type {}",
                kind.module()
            )));
        }
        self.check_queue_limit(vhost, &name)?;
        let arguments = QueueArguments::read(&declare.arguments, &resource)?;
        arguments.check_declaration(&declare, &resource)?;
        if let Some(target) = &arguments.dead_letter {
            self.check_queue(key, Access::Read, &name)?;
            self.check_exchange(key, Access::Write, &target.exchange)?;
        }
        let limit = self.config.limits.queues;
        if self.queues.len() >= limit {
            return Err(limit_reached("queues", limit));
        }
        let vhost = vhost.name.clone();
        Ok(self.insert_queue(Declared {
            name,
            vhost,
            durable: declare.durable,
            owner: declare.exclusive.then_some(key),
            auto_delete: declare.auto_delete,
            table: declare.arguments,
            declared_arguments: arguments,
        }))
    }

    /// Refuses a queue that is neither durable nor exclusive, if the rules do.
    pub(crate) fn check_transient(&self, declare: &queue::Declare) -> Outcome {
        if declare.durable || declare.exclusive || self.config.rules.transient_queues {
            return Ok(());
        }
        Err(Refusal::new(
            ReplyCode::INTERNAL_ERROR,
            "Feature `transient_nonexcl_queues` is deprecated. By default, this feature is not \
             permitted anymore.",
        ))
    }

    pub(super) fn bind_queue(&mut self, at: ChannelKey, bind: queue::Bind) -> Outcome {
        let key = at.connection;
        let source = without_newlines(bind.exchange);
        let (name, routing_key) = self.name_and_key(at, bind.queue, bind.routing_key)?;
        self.check_queue(key, Access::Write, &name)?;
        check_not_default(&source)?;
        self.check_exchange(key, Access::Read, &source)?;
        self.exchange(key, &source)?;
        self.check_topic(key, TopicAccess::Read, &source, &routing_key)?;
        let found = self.find_queue(key, &name)?;
        self.exchange(key, &source)?
            .check_binding(&bind.arguments)?;
        self.check_owner(key, found)?;
        let destination = Destination::Queue(found);
        let binding = Binding::new(destination, routing_key, bind.arguments);
        self.add_binding(at, &source, binding)?;
        self.reply(at, bind.no_wait, &queue::BindOk);
        Ok(())
    }

    pub(super) fn unbind_queue(&mut self, at: ChannelKey, unbind: queue::Unbind) -> Outcome {
        let key = at.connection;
        let source = without_newlines(unbind.exchange);
        let (name, routing_key) = self.name_and_key(at, unbind.queue, unbind.routing_key)?;
        self.check_queue(key, Access::Write, &name)?;
        check_not_default(&source)?;
        self.check_exchange(key, Access::Read, &source)?;
        self.check_topic(key, TopicAccess::Read, &source, &routing_key)?;
        if let Ok(found) = self.find_queue(key, &name) {
            let destination = Destination::Queue(found);
            let binding = Binding::new(destination, routing_key, unbind.arguments);
            let exchange = self.exchange(key, &source);
            if exchange.is_ok_and(|exchange| exchange.bindings().contains(&binding)) {
                self.check_owner(key, found)?;
                self.take_binding(at, &source, &binding)?;
            }
        }
        self.send(at, &queue::UnbindOk);
        Ok(())
    }

    pub(super) fn purge_queue(&mut self, at: ChannelKey, purge: &queue::Purge) -> Outcome {
        let key = at.connection;
        let name = self.queue_name(at, &purge.queue)?;
        self.check_queue(key, Access::Read, &name)?;
        let found = self.find_queue(key, &name)?;
        self.check_owner(key, found)?;
        if self.streams.contains_key(&found) {
            let resource = self.vhost(key)?.queue_named(&name);
            return Err(Refusal::of_stream("queue.purge", &resource));
        }
        self.record_purge(found);
        let purged = self.queues.get_mut(&found).map_or(0, Queue::purge);
        self.schedule(found);
        let message_count = count(purged);
        self.reply(at, purge.no_wait, &queue::PurgeOk { message_count });
        Ok(())
    }

    pub(super) fn delete_queue_named(&mut self, at: ChannelKey, delete: &queue::Delete) -> Outcome {
        let key = at.connection;
        let name = self.queue_name(at, &delete.queue)?;
        self.check_queue(key, Access::Configure, &name)?;
        let mut message_count = 0;
        // Deleting a queue that does not exist is no error
        // (<https://www.rabbitmq.com/docs/specification>).
        if let Ok(found) = self.find_queue(key, &name) {
            self.check_owner(key, found)?;
            // RabbitMQ ignores the conditions on a stream, and does not count its messages.
            if let Some(queue) = self.queues.get(&found)
                && queue.arguments.kind != QueueKind::Stream
            {
                let resource = self.vhost(key)?.queue_named(&name);
                if queue.arguments.kind == QueueKind::Quorum {
                    check_unconditional(delete, &resource)?;
                }
                let refuse =
                    |problem| Err(Refusal::precondition(format_args!("{resource} {problem}")));
                if delete.if_empty && !queue.is_empty() {
                    return refuse("not empty");
                }
                if delete.if_unused && !queue.consumers.is_empty() {
                    return refuse("in use");
                }
            }
            message_count = count(self.delete_queue(found));
        }
        self.reply(at, delete.no_wait, &queue::DeleteOk { message_count });
        Ok(())
    }

    // Lookup of queues.

    /// Resolves the name of a queue: an empty one means the queue that was last declared on the
    /// channel (section 1.1 of the protocol reference).
    pub(super) fn queue_name(&mut self, at: ChannelKey, name: &ShortStr) -> Outcome<ShortStr> {
        if !name.is_empty() {
            return Ok(without_newlines(name.clone()));
        }
        let last = self.channel(at)?.last_queue.clone();
        last.ok_or_else(|| Refusal::not_found("no previously declared queue"))
    }

    /// Resolves a name as [`queue_name`](Self::queue_name) does. If both the name and the key are
    /// empty, the key is the name of the queue, too.
    fn name_and_key(
        &mut self,
        at: ChannelKey,
        name: ShortStr,
        routing_key: ShortStr,
    ) -> Outcome<(ShortStr, ShortStr)> {
        let both_empty = name.is_empty() && routing_key.is_empty();
        let name = self.queue_name(at, &name)?;
        let routing_key = if both_empty {
            name.clone()
        } else {
            routing_key
        };
        Ok((name, routing_key))
    }

    pub(super) fn find_queue(&self, key: ConnectionKey, name: &ShortStr) -> Outcome<QueueKey> {
        match self.vhost(key)?.queues.get(name) {
            Some(found) => Ok(*found),
            None => Err(self.no_queue(key, name)?),
        }
    }

    fn no_queue(&self, key: ConnectionKey, name: &str) -> Outcome<Refusal> {
        let queue = self.vhost(key)?.queue_named(name);
        Ok(Refusal::not_found(format_args!("no {queue}")))
    }

    /// Checks that a queue is not exclusive to another connection (section 1.7.2.1 of the protocol
    /// reference).
    pub(super) fn check_owner(&self, key: ConnectionKey, found: QueueKey) -> Outcome {
        if let Some(queue) = self.queues.get(&found)
            && queue.owner.is_some_and(|owner| owner != key)
        {
            return Err(Refusal::locked(&self.vhost(key)?.queue_named(&queue.name)));
        }
        Ok(())
    }
}

/// Converts a count to a method field; saturates at `u32::MAX`.
pub(super) fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Refuses the conditions of a deletion, which quorum queues do not support.
fn check_unconditional(delete: &queue::Delete, resource: &Resource<'_>) -> Outcome {
    let conditions = [
        (delete.if_unused, "if-unused"),
        (delete.if_empty, "if-empty"),
    ];
    match conditions.iter().find(|(is_set, _)| *is_set) {
        None => Ok(()),
        Some((_, flag)) => Err(Refusal::not_implemented(format_args!(
            "cannot delete {resource}. queue.delete operations with {flag} flag set are not \
             supported by quorum queues"
        ))),
    }
}

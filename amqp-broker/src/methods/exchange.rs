//! `exchange.*`, with bindings between exchanges (<https://www.rabbitmq.com/docs/e2e>)

use amqp_core::{
    protocol::exchange,
    wire::{FieldTable, FieldValue, ShortStr},
};

use super::{check_reserved, without_newlines};
use crate::{
    broker::Broker,
    keys::ChannelKey,
    model::{
        arguments::check_argument,
        exchange::{ALTERNATE, Binding, Destination, Exchange, ExchangeFlags, ExchangeKind},
    },
    permission::{Access, TopicAccess},
    refusal::{Outcome, Refusal, Resource, quoted, type_name},
};

impl Broker {
    pub(super) fn declare_exchange(
        &mut self,
        at: ChannelKey,
        declare: exchange::Declare,
    ) -> Outcome {
        let key = at.connection;
        let no_wait = declare.no_wait;
        let name = without_newlines(declare.exchange.clone());
        if declare.passive {
            check_not_default(&name)?;
            self.exchange(key, &name)?;
        } else {
            let kind = ExchangeKind::from_name(&declare.kind).ok_or_else(|| {
                let kind = &declare.kind;
                let problem = if kind.is_empty() {
                    "invalid"
                } else {
                    "unknown"
                };
                Refusal::invalid(format_args!("{problem} exchange type '{kind}'"))
            })?;
            check_not_default(&name)?;
            self.check_exchange(key, Access::Configure, &name)?;
            if let Ok(current) = self.exchange(key, &name) {
                let resource = self.vhost(key)?.exchange_named(&name);
                check_equivalent(current, &declare, kind, &resource)?;
            } else {
                self.create_exchange(at, name, declare, kind)?;
            }
        }
        self.reply(at, no_wait, &exchange::DeclareOk);
        Ok(())
    }

    fn create_exchange(
        &mut self,
        at: ChannelKey,
        name: ShortStr,
        declare: exchange::Declare,
        kind: ExchangeKind,
    ) -> Outcome {
        check_reserved("exchange", &name)?;
        let key = at.connection;
        let alternate = match declare.arguments.get(ALTERNATE) {
            None => None,
            Some(FieldValue::LongStr(alternate)) => {
                let alternate = alternate.to_str_lossy();
                self.check_exchange(key, Access::Read, &name)?;
                self.check_exchange(key, Access::Write, &alternate)?;
                // No exchange has a name of more than 255 bytes.
                ShortStr::try_from(&*alternate).ok()
            }
            Some(other) => {
                return Err(Refusal::precondition(format_args!(
                    "invalid type '{}' for arg '{ALTERNATE}' in {}",
                    type_name(other),
                    self.vhost(key)?.exchange_named(&name)
                )));
            }
        };
        let limit = self.config.limits.queues;
        let vhost = self.vhost_mut(key)?;
        if vhost.exchanges.len() >= limit {
            return Err(limit_reached("exchanges", limit));
        }
        let flags = ExchangeFlags {
            durable: declare.durable,
            auto_delete: declare.auto_delete,
            internal: declare.internal,
        };
        let exchange = Exchange::new(kind, flags, declare.arguments, alternate);
        let vhost = vhost.name.clone();
        self.insert_exchange(&vhost, name, exchange);
        Ok(())
    }

    pub(super) fn delete_exchange(&mut self, at: ChannelKey, delete: &exchange::Delete) -> Outcome {
        let key = at.connection;
        let name = without_newlines(delete.exchange.clone());
        check_not_default(&name)?;
        if name.starts_with("amq.") {
            return Err(Refusal::access_refused(format_args!(
                "deletion of system {} not allowed",
                self.vhost(key)?.exchange_named(&name)
            )));
        }
        self.check_exchange(key, Access::Configure, &name)?;
        let vhost = self.vhost_mut(key)?;
        let used = vhost
            .exchanges
            .get(&name)
            .is_some_and(|exchange| !exchange.bindings().is_empty());
        if delete.if_unused && used {
            let exchange = vhost.exchange_named(&name);
            return Err(Refusal::precondition(format_args!("{exchange} in use")));
        }
        let gone = vhost.delete_exchange(&name);
        let vhost = vhost.name.clone();
        self.record_exchanges_deleted(&vhost, gone);
        self.reply(at, delete.no_wait, &exchange::DeleteOk);
        Ok(())
    }

    pub(super) fn bind_exchange(&mut self, at: ChannelKey, bind: exchange::Bind) -> Outcome {
        let key = at.connection;
        let (source, destination) = (
            without_newlines(bind.source),
            without_newlines(bind.destination),
        );
        self.check_exchange(key, Access::Write, &destination)?;
        check_not_default(&destination)?;
        check_not_default(&source)?;
        self.check_exchange(key, Access::Read, &source)?;
        self.exchange(key, &source)?;
        self.check_topic(key, TopicAccess::Read, &source, &bind.routing_key)?;
        self.exchange(key, &destination)?;
        let destination = Destination::Exchange(destination);
        let binding = Binding::new(destination, bind.routing_key, bind.arguments);
        self.add_binding(at, &source, binding)?;
        self.reply(at, bind.no_wait, &exchange::BindOk);
        Ok(())
    }

    pub(super) fn unbind_exchange(&mut self, at: ChannelKey, unbind: exchange::Unbind) -> Outcome {
        let key = at.connection;
        let (source, destination) = (
            without_newlines(unbind.source),
            without_newlines(unbind.destination),
        );
        self.check_exchange(key, Access::Write, &destination)?;
        check_not_default(&destination)?;
        check_not_default(&source)?;
        self.check_exchange(key, Access::Read, &source)?;
        self.check_topic(key, TopicAccess::Read, &source, &unbind.routing_key)?;
        let destination = Destination::Exchange(destination);
        let binding = Binding::new(destination, unbind.routing_key, unbind.arguments);
        self.take_binding(at, &source, &binding)?;
        self.reply(at, unbind.no_wait, &exchange::UnbindOk);
        Ok(())
    }

    /// Adds a binding to an existing exchange.
    pub(super) fn add_binding(
        &mut self,
        at: ChannelKey,
        source: &ShortStr,
        binding: Binding,
    ) -> Outcome {
        let limit = self.config.limits.bindings;
        let vhost = self.vhost_mut(at.connection)?;
        if vhost.bindings >= limit {
            return Err(limit_reached("bindings", limit));
        }
        if let Some(exchange) = vhost.exchanges.get_mut(source)
            && exchange.bind(binding.clone())?
        {
            vhost.bindings += 1;
            let vhost = vhost.name.clone();
            self.record_binding(&vhost, source, &binding);
        }
        Ok(())
    }

    /// Removes a binding, if it exists. An `auto-delete` exchange is deleted with its last binding.
    pub(super) fn take_binding(
        &mut self,
        at: ChannelKey,
        source: &ShortStr,
        binding: &Binding,
    ) -> Outcome {
        let vhost = self.vhost_mut(at.connection)?;
        if let Some(exchange) = vhost.exchanges.get_mut(source)
            // With its arguments in the order in which they were given.
            && let Some(binding) = exchange.bindings().get(binding).cloned()
        {
            exchange.unbind(&binding);
            vhost.bindings -= 1;
            let unused = exchange.auto_delete && exchange.bindings().is_empty();
            let name = vhost.name.clone();
            self.record_unbinding(&name, source, &binding);
            if unused {
                let gone = self.vhost_mut(at.connection)?.delete_exchange(source);
                self.record_exchanges_deleted(&name, gone);
            }
        }
        Ok(())
    }
}

/// The refusal for a limit of this broker, which RabbitMQ does not have.
pub(super) fn limit_reached(entities: &str, limit: usize) -> Refusal {
    Refusal::new(
        amqp_core::protocol::ReplyCode::RESOURCE_ERROR,
        format_args!("there are {limit} {entities} already, which is the limit of this broker"),
    )
}

pub(super) fn check_not_default(name: &ShortStr) -> Outcome {
    if name.is_empty() {
        return Err(Refusal::default_exchange());
    }
    Ok(())
}

/// Checks that a redeclaration matches the existing exchange (section 1.6.2.1 of the protocol
/// reference).
fn check_equivalent(
    current: &Exchange,
    declare: &exchange::Declare,
    kind: ExchangeKind,
    resource: &Resource<'_>,
) -> Outcome {
    let flags = [
        ("durable", declare.durable, current.durable),
        ("auto_delete", declare.auto_delete, current.auto_delete),
        ("internal", declare.internal, current.internal),
    ];
    if kind != current.kind {
        let (received, current) = (quoted(kind.name()), quoted(current.kind.name()));
        return Err(Refusal::inequivalent("type", resource, received, current));
    }
    for (name, received, current) in flags {
        if received != current {
            let (received, current) = (quoted(received), quoted(current));
            return Err(Refusal::inequivalent(name, resource, received, current));
        }
    }
    let (current, received): (&FieldTable, _) = (&current.arguments, &declare.arguments);
    check_argument(ALTERNATE, current, received, resource)
}

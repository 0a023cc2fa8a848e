//! Definitions that are checked before any of them is applied.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use amqp_core::{
    protocol::queue,
    text::Quoted,
    wire::{FieldTable, FieldValue, ShortStr},
};

use super::{
    BindingDefinition, Definitions, DefinitionsError, DefinitionsWarning, ExchangeDefinition,
    PolicyDefinition, QueueDefinition, TopicPermissionDefinition, path::Path,
};
use crate::{
    broker::Broker,
    durable::{is_storable, is_storable_value},
    inspect::BindingTarget,
    model::{
        arguments::QueueArguments,
        exchange::{ALTERNATE, ExchangeKind, check_binding},
    },
    permission::TopicPermissions,
    policy::{Policy, PolicyKind, is_known},
    refusal::{Resource, type_name},
};

type Outcome<T = ()> = Result<T, DefinitionsError>;

/// The parts of definitions that apply, checked and parsed.
pub(super) struct Plan<'a> {
    pub(super) topic_permissions: Vec<(&'a TopicPermissionDefinition, TopicPermissions)>,
    pub(super) exchanges: Vec<(&'a ExchangeDefinition, ExchangeKind, Option<ShortStr>)>,
    pub(super) policies: Vec<(PolicyKind, &'a str, Policy)>,
    pub(super) queues: Vec<(&'a QueueDefinition, QueueArguments)>,
    pub(super) bindings: Vec<&'a BindingDefinition>,
    pub(super) warnings: Vec<DefinitionsWarning>,
}

/// The name of an entity in a virtual host.
type Name<'a> = (&'a str, &'a str);

struct Checker<'b, 'a> {
    broker: &'b Broker,
    users: BTreeSet<&'b str>,
    vhosts: BTreeSet<&'b str>,
    /// The new exchanges.
    exchanges: BTreeMap<Name<'a>, ExchangeKind>,
    /// The new queues.
    queues: BTreeSet<Name<'a>>,
    plan: Plan<'a>,
}

/// Calls `check` with each element and its place.
fn each<'a, T>(
    list: &'a [T],
    name: &str,
    mut check: impl FnMut(&'a T, &Path<'_>) -> Outcome,
) -> Outcome {
    let root = Path::Root;
    let path = root.field(name);
    let mut elements = list.iter().enumerate();
    elements.try_for_each(|(index, element)| check(element, &path.element(index)))
}

/// Checks definitions against each other and the state of a broker.
pub(super) fn check<'a>(broker: &Broker, all: &'a Definitions) -> Outcome<Plan<'a>> {
    let users = all.users.iter().map(|user| user.name.as_str());
    let vhosts = all.vhosts.iter().map(|vhost| vhost.name.as_str());
    let mut checker = Checker {
        broker,
        users: users
            .chain(broker.users.keys().map(|name| &**name))
            .collect(),
        vhosts: vhosts
            .chain(broker.vhosts.keys().map(|name| &**name))
            .collect(),
        exchanges: BTreeMap::new(),
        queues: BTreeSet::new(),
        plan: Plan {
            topic_permissions: Vec::new(),
            exchanges: Vec::new(),
            policies: Vec::new(),
            queues: Vec::new(),
            bindings: Vec::new(),
            warnings: Vec::new(),
        },
    };
    checker.check_all(all)?;
    Ok(checker.plan)
}

/// Checks that a table can be encoded: it is not nested too deep.
fn check_table(table: &FieldTable, path: &Path<'_>) -> Outcome {
    if is_storable(table) {
        return Ok(());
    }
    Err(path.error("a table is nested too deep"))
}

/// As [`check_table`], of a value.
fn check_value(value: &FieldValue, path: &Path<'_>) -> Outcome {
    if is_storable_value(value) {
        return Ok(());
    }
    Err(path.error("a value is nested too deep"))
}

impl<'a> Checker<'_, 'a> {
    fn check_all(&mut self, all: &'a Definitions) -> Outcome {
        each(&all.vhosts, "vhosts", |it, path| {
            check_table(&it.metadata, path)
        })?;
        each(&all.global_parameters, "global_parameters", |it, path| {
            check_value(&it.value, path)
        })?;
        each(&all.permissions, "permissions", |it, path| {
            self.check_user(&it.user, path)?;
            self.check_vhost(&it.vhost, path)
        })?;
        each(&all.topic_permissions, "topic_permissions", |it, path| {
            self.check_topic_permission(it, path)
        })?;
        each(&all.exchanges, "exchanges", |it, path| {
            check_table(&it.arguments, path)?;
            self.check_exchange(it, path)
        })?;
        each(&all.policies, "policies", |it, path| {
            self.check_policy(it, PolicyKind::Plain, path)
        })?;
        each(&all.vhost_limits, "vhost_limits", |it, path| {
            self.check_vhost(&it.vhost, path)
        })?;
        each(&all.operator_policies, "operator_policies", |it, path| {
            self.check_policy(it, PolicyKind::Operator, path)
        })?;
        each(&all.parameters, "parameters", |it, path| {
            check_value(&it.value, path)?;
            self.check_vhost(&it.vhost, path)
        })?;
        each(&all.queues, "queues", |it, path| {
            check_table(&it.arguments, path)?;
            self.check_queue(it, path)
        })?;
        each(&all.bindings, "bindings", |it, path| {
            check_table(&it.arguments, path)?;
            self.check_binding(it, path)
        })?;
        self.check_limits()
    }

    fn check_user(&self, name: &str, path: &Path<'_>) -> Outcome {
        if self.users.contains(name) {
            return Ok(());
        }
        let path = path.field("user");
        Err(path.error(format_args!("user {} does not exist", Quoted(name))))
    }

    fn check_vhost(&self, name: &str, path: &Path<'_>) -> Outcome {
        if self.vhosts.contains(name) {
            return Ok(());
        }
        let path = path.field("vhost");
        Err(path.error(format_args!("virtual host {} does not exist", Quoted(name))))
    }

    fn check_topic_permission(
        &mut self,
        permission: &'a TopicPermissionDefinition,
        path: &Path<'_>,
    ) -> Outcome {
        self.check_user(&permission.user, path)?;
        self.check_vhost(&permission.vhost, path)?;
        let expanded = permission
            .permissions
            .expand(&permission.user, &permission.vhost)
            .map_err(|bad| path.error(bad))?;
        self.plan.topic_permissions.push((permission, expanded));
        Ok(())
    }

    fn check_exchange(&mut self, exchange: &'a ExchangeDefinition, path: &Path<'_>) -> Outcome {
        let (name, vhost) = (&exchange.name, exchange.vhost.as_str());
        self.check_vhost(vhost, path)?;
        if name.is_empty() || name.starts_with("amq.") {
            self.warn(path, "a predeclared exchange is not imported");
            return Ok(());
        }
        if self.exchange_kind(vhost, name).is_some() {
            return Ok(());
        }
        let kind = ExchangeKind::from_name(&exchange.kind).ok_or_else(|| {
            let kind = Quoted(&exchange.kind);
            path.field("type")
                .error(format_args!("unknown exchange type {kind}"))
        })?;
        let alternate = match exchange.arguments.get(ALTERNATE) {
            None => None,
            // No exchange has a name of more than 255 bytes.
            Some(FieldValue::LongStr(name)) => ShortStr::try_from(&*name.to_str_lossy()).ok(),
            Some(other) => {
                let reason = format_args!("invalid type '{}' for '{ALTERNATE}'", type_name(other));
                return Err(path.field("arguments").error(reason));
            }
        };
        self.exchanges.insert((vhost, name), kind);
        self.plan.exchanges.push((exchange, kind, alternate));
        Ok(())
    }

    /// Checks a policy. Settings that RabbitMQ does not know without plugins are left out.
    fn check_policy(
        &mut self,
        policy: &'a PolicyDefinition,
        kind: PolicyKind,
        path: &Path<'_>,
    ) -> Outcome {
        self.check_vhost(&policy.vhost, path)?;
        let mut known = policy.policy.clone();
        known.definition = FieldTable::new();
        for (setting, value) in policy.policy.definition.iter() {
            if is_known(kind, setting) {
                known.definition.push(setting.clone(), value.clone());
            } else {
                let path = path.field("definition");
                self.warn(&path.field(setting), "the setting is not recognised");
            }
        }
        if known.definition.is_empty() && !policy.policy.definition.is_empty() {
            return Ok(());
        }
        let checked = known.check(kind);
        checked.map_err(|problem| path.field("definition").error(problem))?;
        self.plan.policies.push((kind, &policy.vhost, known));
        Ok(())
    }

    fn check_queue(&mut self, queue: &'a QueueDefinition, path: &Path<'_>) -> Outcome {
        let (name, vhost) = (&queue.name, queue.vhost.as_str());
        self.check_vhost(vhost, path)?;
        if name.is_empty() || name.starts_with("amq.") {
            self.warn(path, "a queue with a name of the server is not imported");
            return Ok(());
        }
        if self.has_queue(vhost, name) {
            return Ok(());
        }
        let resource = Resource::queue(name, vhost);
        let declare = queue::Declare {
            queue: name.clone(),
            durable: queue.durable,
            auto_delete: queue.auto_delete,
            arguments: queue.arguments.clone(),
            ..queue::Declare::default()
        };
        let arguments = QueueArguments::read(&queue.arguments, &resource);
        let checked = arguments.and_then(|arguments| {
            arguments.check_declaration(&declare, &resource)?;
            self.broker.check_transient(&declare)?;
            Ok(arguments)
        });
        let arguments = checked.map_err(|refusal| path.error(refusal.text))?;
        self.queues.insert((vhost, name));
        self.plan.queues.push((queue, arguments));
        Ok(())
    }

    /// Checks a binding. One from or to an entity that does not exist is left out, as in RabbitMQ:
    /// it exports bindings of internal exchanges, but not these exchanges.
    fn check_binding(&mut self, binding: &'a BindingDefinition, path: &Path<'_>) -> Outcome {
        let vhost = binding.vhost.as_str();
        self.check_vhost(vhost, path)?;
        let source = self.exchange_kind(vhost, &binding.source);
        let has_destination = match &binding.destination {
            BindingTarget::Queue(name) => self.has_queue(vhost, name),
            BindingTarget::Exchange(name) => {
                !name.is_empty() && self.exchange_kind(vhost, name).is_some()
            }
        };
        let Some(kind) = source.filter(|_| has_destination && !binding.source.is_empty()) else {
            self.warn(path, "the source or the destination does not exist");
            return Ok(());
        };
        check_binding(kind, &binding.arguments).map_err(|refusal| path.error(refusal.text))?;
        self.plan.bindings.push(binding);
        Ok(())
    }

    /// Checks the limits of the broker, and that of a virtual host on its queues.
    fn check_limits(&self) -> Outcome {
        let limits = &self.broker.config.limits;
        let root = Path::Root;
        let over = |name: &str, count: usize, limit: usize| {
            if count <= limit {
                return Ok(());
            }
            let reason =
                format_args!("more than {limit} of them, which is the limit of the broker");
            Err(root.field(name).error(reason))
        };
        over(
            "queues",
            self.broker.queues.len() + self.queues.len(),
            limits.queues,
        )?;
        for (name, vhost) in &self.broker.vhosts {
            let exchanges = self.exchanges.keys().filter(|(vhost, _)| vhost == name);
            let bindings = self.plan.bindings.iter().filter(|it| it.vhost == *name);
            over(
                "exchanges",
                vhost.exchanges.len() + exchanges.count(),
                limits.queues,
            )?;
            over(
                "bindings",
                vhost.bindings + bindings.count(),
                limits.bindings,
            )?;
            let (new, old) = (self.queues.iter(), vhost.queues.len());
            let new = new.filter(|(vhost, _)| vhost == name).count();
            if let Some(max) = vhost.limits.max_queues
                && new > 0
                && (new + old) as u64 > max
            {
                return Err(root.field("queues").error(format_args!(
                    "Adding {new} queue(s) to virtual host \"{name}\" would exceed the limit of \
                     {max} queue(s)."
                )));
            }
        }
        over("exchanges", self.exchanges.len(), limits.queues)?;
        over("bindings", self.plan.bindings.len(), limits.bindings)
    }

    fn exchange_kind(&self, vhost: &str, name: &str) -> Option<ExchangeKind> {
        let existing = self.broker.vhosts.get(vhost);
        let existing = existing.and_then(|vhost| vhost.exchanges.get(name));
        let predeclared = ExchangeKind::predeclared(name);
        let new = self.exchanges.get(&(vhost, name)).copied();
        existing
            .map(|exchange| exchange.kind)
            .or(new)
            .or(predeclared)
    }

    fn has_queue(&self, vhost: &str, name: &str) -> bool {
        let existing = self.broker.vhosts.get(vhost);
        existing.is_some_and(|vhost| vhost.queues.contains_key(name))
            || self.queues.contains(&(vhost, name))
    }

    fn warn(&mut self, path: &Path<'_>, reason: &str) {
        self.plan.warnings.push(path.warning(reason));
    }
}

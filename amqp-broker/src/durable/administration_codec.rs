//! The bytes of users, virtual hosts, policies and parameters.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use amqp_core::wire::{Decode as _, Encode as _, FieldTable, FieldValue, Secret};
use bytes::{BufMut as _, BytesMut};

use super::{
    change::DurableVhost,
    codec::{BadChange, Reader, put_flags, put_len, put_text},
};
#[cfg(feature = "definitions")]
use crate::definitions::{HashingAlgorithm, PasswordHash};
use crate::{
    admin::{UserLimits, VhostLimits},
    config::{Password, User},
    pattern::BadPattern,
    permission::{Permissions, TopicPermissions},
    policy::{ApplyTo, Policy, PolicyKind},
    refusal::short,
};

const PLAIN: u8 = 0;
const HASH: u8 = 1;

/// The name of the field that has a value alone.
const VALUE: &str = "value";

impl From<BadPattern> for BadChange {
    fn from(_: BadPattern) -> Self {
        Self::Invalid("pattern")
    }
}

/// Returns whether the bytes of a table decode: it is not nested too deep.
pub(crate) fn is_storable(table: &FieldTable) -> bool {
    let mut bytes = BytesMut::new();
    table.encode(&mut bytes);
    FieldTable::decode(&bytes).is_ok()
}

/// As [`is_storable`], of a value alone.
#[cfg(feature = "definitions")]
pub(crate) fn is_storable_value(value: &FieldValue) -> bool {
    is_storable(&alone(value))
}

fn alone(value: &FieldValue) -> FieldTable {
    let mut table = FieldTable::new();
    table.push(short(VALUE), value.clone());
    table
}

pub(super) fn put_value(out: &mut BytesMut, value: &FieldValue) {
    alone(value).encode(out);
}

pub(super) fn put_user(out: &mut BytesMut, user: &User) {
    put_text(out, &user.name);
    match &user.password {
        Password::Plain(plain) => {
            out.put_u8(PLAIN);
            plain.encode(out);
        }
        #[cfg(feature = "definitions")]
        Password::Hash(hash) => {
            out.put_u8(HASH);
            put_text(out, hash.algorithm().name());
            put_text(out, &hash.to_base64());
        }
    }
    put_len(out, user.tags.len());
    for tag in &user.tags {
        put_text(out, tag);
    }
    let limits = user.limits;
    put_limits(out, [limits.max_connections, limits.max_channels]);
    put_len(out, user.permissions.len());
    for (vhost, permissions) in &user.permissions {
        put_text(out, vhost);
        put_text(out, permissions.configure());
        put_text(out, permissions.write());
        put_text(out, permissions.read());
    }
    put_len(out, user.topic_permissions.len());
    for ((vhost, exchange), permissions) in &user.topic_permissions {
        put_text(out, vhost);
        put_text(out, exchange);
        put_text(out, permissions.write());
        put_text(out, permissions.read());
    }
}

pub(super) fn put_vhost(out: &mut BytesMut, vhost: &DurableVhost) {
    put_text(out, &vhost.name);
    put_limits(out, [vhost.limits.max_connections, vhost.limits.max_queues]);
    vhost.metadata.encode(out);
}

fn put_limits(out: &mut BytesMut, limits: [Option<u64>; 2]) {
    let [first, second] = limits.map(|limit| limit.is_some());
    put_flags(out, [first, second, false]);
    for limit in limits {
        out.put_u64(limit.unwrap_or(0));
    }
}

pub(super) fn put_policy_kind(out: &mut BytesMut, vhost: &str, kind: PolicyKind) {
    put_text(out, vhost);
    put_flags(out, [kind == PolicyKind::Operator, false, false]);
}

pub(super) fn put_policy(out: &mut BytesMut, policy: &Policy) {
    put_text(out, &policy.name);
    put_text(out, policy.pattern.as_str());
    put_text(out, policy.apply_to.name());
    out.put_i64(policy.priority);
    policy.definition.encode(out);
}

impl Reader<'_> {
    pub(super) fn user(&mut self) -> Result<User, BadChange> {
        let name = self.text()?;
        let mut user = User::new(name.clone(), "");
        user.password = self.password()?;
        // Not sized by the counts: each element takes at least the bytes of its lengths.
        let mut tags = Vec::new();
        for _ in 0..self.u32()? {
            tags.push(self.text()?);
        }
        user.tags = tags;
        let [max_connections, max_channels] = self.limits()?;
        user.limits = UserLimits {
            max_connections,
            max_channels,
        };
        for _ in 0..self.u32()? {
            let vhost = self.text()?;
            let [configure, write, read] = [self.text()?, self.text()?, self.text()?];
            let permissions = Permissions::new(&configure, &write, &read)?;
            user.permissions.insert(vhost, permissions);
        }
        user.topic_permissions = self.topic_permissions(&name)?;
        Ok(user)
    }

    fn topic_permissions(
        &mut self,
        user: &str,
    ) -> Result<BTreeMap<(String, String), TopicPermissions>, BadChange> {
        let mut all = BTreeMap::new();
        for _ in 0..self.u32()? {
            let (vhost, exchange) = (self.text()?, self.text()?);
            let [write, read] = [self.text()?, self.text()?];
            let permissions = TopicPermissions::new(&write, &read)?;
            let permissions = permissions.expand(user, &vhost)?;
            all.insert((vhost, exchange), permissions);
        }
        Ok(all)
    }

    fn password(&mut self) -> Result<Password, BadChange> {
        match self.u8()? {
            PLAIN => Ok(Password::Plain(Secret::from(self.long()?.to_vec()))),
            HASH => {
                let (algorithm, hash) = (self.text()?, self.text()?);
                read_hash(&algorithm, &hash)
            }
            _ => Err(BadChange::Invalid("password")),
        }
    }

    fn limits(&mut self) -> Result<[Option<u64>; 2], BadChange> {
        let [first, second, _] = self.flags()?;
        let limits = [(first, self.u64()?), (second, self.u64()?)];
        Ok(limits.map(|(is_set, limit)| is_set.then_some(limit)))
    }

    pub(super) fn vhost(&mut self) -> Result<DurableVhost, BadChange> {
        let name = self.text()?;
        let [max_connections, max_queues] = self.limits()?;
        Ok(DurableVhost {
            name,
            limits: VhostLimits {
                max_connections,
                max_queues,
            },
            metadata: self.table()?,
        })
    }

    pub(super) fn policy_kind(&mut self) -> Result<PolicyKind, BadChange> {
        let [is_operator, ..] = self.flags()?;
        Ok(if is_operator {
            PolicyKind::Operator
        } else {
            PolicyKind::Plain
        })
    }

    pub(super) fn policy(&mut self) -> Result<Policy, BadChange> {
        let policy = Policy::new(self.text()?, self.text()?)?;
        let apply_to = ApplyTo::from_name(&self.text()?);
        let apply_to = apply_to.ok_or(BadChange::Invalid("apply-to of a policy"))?;
        let policy = policy.apply_to(apply_to).priority(self.i64()?);
        Ok(policy.definition(self.table()?))
    }

    pub(super) fn value(&mut self) -> Result<FieldValue, BadChange> {
        let table = self.table()?;
        let value = table.get(VALUE).cloned();
        value.ok_or(BadChange::Invalid("value of a parameter"))
    }
}

#[cfg(feature = "definitions")]
fn read_hash(algorithm: &str, hash: &str) -> Result<Password, BadChange> {
    let algorithm = HashingAlgorithm::from_name(algorithm);
    let hash = algorithm.and_then(|algorithm| PasswordHash::from_base64(algorithm, hash));
    let hash = hash.ok_or(BadChange::Invalid("hash of a password"))?;
    Ok(Password::Hash(hash))
}

#[cfg(not(feature = "definitions"))]
const fn read_hash(_: &str, _: &str) -> Result<Password, BadChange> {
    Err(BadChange::Invalid(
        "password: its hash needs the feature `definitions`",
    ))
}

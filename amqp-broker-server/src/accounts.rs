//! The users, virtual hosts and permissions that the broker begins with.

use std::{collections::BTreeMap, fs, path::Path};

use amqp_tokio::broker::{
    Broker, Config, Permissions, User,
    definitions::{Definitions, DefinitionsWarning},
};

/// RabbitMQ's default user, and its password.
const GUEST: &str = "guest";

/// The accounts of the command line.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    /// Names and passwords.
    pub(crate) users: Vec<(String, String)>,
    /// The virtual hosts beside the default one.
    pub(crate) vhosts: Vec<String>,
    /// By user and virtual host.
    pub(crate) permissions: BTreeMap<(String, String), Permissions>,
}

impl Accounts {
    /// Sets the accounts of a broker. Without a user there is `guest`, and `/` is a virtual host,
    /// unless there are definitions: as in RabbitMQ (`load_definitions` in
    /// <https://www.rabbitmq.com/docs/definitions>), their users and virtual hosts take the place of
    /// these.
    pub(crate) fn configure(
        mut self,
        config: &mut Config,
        definitions: Option<&Definitions>,
    ) -> Result<(), String> {
        if definitions.is_some() {
            config.vhosts.clear();
        } else if self.users.is_empty() {
            self.users.push((GUEST.into(), GUEST.into()));
        }
        config.vhosts.extend(self.vhosts);
        let defined = definitions.map_or(&[][..], |it| &it.vhosts);
        let defined = defined.iter().map(|it| &it.name);
        let vhosts: Vec<&String> = config.vhosts.iter().chain(defined).collect();
        for (user, vhost) in self.permissions.keys() {
            if !self.users.iter().any(|(name, _)| name == user) {
                return Err(format!("--permissions: there is no user {user:?}"));
            }
            if !vhosts.contains(&vhost) {
                return Err(format!("--permissions: there is no virtual host {vhost:?}"));
            }
        }
        let users = self.users.into_iter().map(|(name, password)| {
            let own = self.permissions.iter();
            let own = own.filter(|((user, _), _)| *user == name);
            let mut own: Vec<_> = own.map(|((_, vhost), it)| (vhost, it.clone())).collect();
            if own.is_empty() {
                let all = vhosts.iter().map(|vhost| (*vhost, Permissions::all()));
                own = all.collect();
            }
            let user = User::new(name, password);
            own.into_iter().fold(user, |user, (vhost, permissions)| {
                user.may(vhost, permissions)
            })
        });
        config.users = users.collect();
        Ok(())
    }
}

/// Reads RabbitMQ's definitions. Returns an error that names the file.
pub(crate) fn read(path: &Path) -> Result<Definitions, String> {
    let named = |error: String| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path);
    let text = text.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Definitions::from_json(&text).map_err(|error| named(error.to_string()))
}

/// Adds definitions to a new broker. Returns the parts that were skipped.
pub(crate) fn apply(
    broker: &mut Broker,
    definitions: &Definitions,
    path: &Path,
) -> Result<Vec<DefinitionsWarning>, String> {
    let applied = broker.apply(definitions);
    applied.map_err(|error| format!("{}: {error}", path.display()))
}

/// Returns whether `guest` has its default password.
pub(crate) fn has_guest(broker: &Broker) -> bool {
    broker.has_password(GUEST, &GUEST.into())
}

//! Notices of the life of connections, for a log.

use alloc::string::String;

use amqp_core::{CloseReason, wire::ShortStr};

use crate::{broker::Broker, keys::ConnectionKey, model::spare::pop_front};

/// A step in the life of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// It was authenticated, and granted access to its virtual host.
    Opened {
        /// The user.
        user: String,
        /// The virtual host.
        vhost: String,
    },
    /// Its login was refused, and it ends.
    LoginRefused {
        /// The name in the login: `Some` unless EXTERNAL has none.
        user: Option<String>,
        /// The SASL mechanism.
        mechanism: ShortStr,
    },
    /// It has ended.
    Ended {
        /// The user; empty before the login.
        user: String,
        /// The reason. A refused virtual host is one, with the text that the client was sent.
        reason: CloseReason,
    },
}

impl Broker {
    /// Returns the next notice, with its connection: `Some` only with
    /// [`Config::notices`](crate::Config::notices). Poll it after any call, because notices are
    /// kept until then.
    pub fn poll_notice(&mut self) -> Option<(ConnectionKey, Notice)> {
        pop_front(&mut self.notices)
    }

    /// Adds a notice, if the configuration has them.
    pub(crate) fn notify(&mut self, key: ConnectionKey, notice: Notice) {
        if self.config.notices {
            self.notices.push_back((key, notice));
        }
    }
}

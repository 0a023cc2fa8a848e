//! The numbers that name a method.

use core::fmt;

use crate::protocol;

/// The class id and the method id of a method (section 4.2.4 of the specification).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MethodId {
    /// The class id, for example 60 for `basic`.
    pub class: u16,
    /// The method id within the class, for example 40 for `publish`.
    pub method: u16,
}

impl MethodId {
    /// Creates the id of a method from its class id and its method id.
    #[must_use]
    pub const fn new(class: u16, method: u16) -> Self {
        Self { class, method }
    }

    /// Returns the name of the method, such as `basic.publish`. `Some` if the protocol has such a
    /// method.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        protocol::rule(self).map(|rule| rule.name)
    }
}

impl fmt::Display for MethodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "method {}.{}", self.class, self.method),
        }
    }
}

impl fmt::Debug for MethodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.class, self.method)?;
        match self.name() {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}

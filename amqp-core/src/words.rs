//! Methods in words, for logs: every argument by its name, without secrets and without the values of
//! tables.

use core::fmt;

use crate::{
    protocol::ReplyCode,
    text::{Escaped, Quoted},
    wire::{FieldTable, LongStr, Secret, ShortStr},
};

/// Writes the name of a method, then its arguments.
pub(crate) struct Words<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    result: fmt::Result,
}

impl<'a, 'b> Words<'a, 'b> {
    pub(crate) fn new(f: &'a mut fmt::Formatter<'b>, method: &str) -> Self {
        let result = f.write_str(method);
        Self { f, result }
    }

    /// Writes an argument.
    pub(crate) fn argument(mut self, name: &str, value: &impl Word) -> Self {
        self.result = self.result.and_then(|()| value.put(name, self.f));
        self
    }

    pub(crate) const fn finish(self) -> fmt::Result {
        self.result
    }
}

/// An argument of a method.
pub(crate) trait Word {
    fn put(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// Named if it is set.
impl Word for bool {
    fn put(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            true => write!(f, " {name}"),
            false => Ok(()),
        }
    }
}

impl Word for u8 {
    fn put(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " {name}={self}")
    }
}

impl Word for u16 {
    fn put(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " {name}={self}")
    }
}

impl Word for u32 {
    fn put(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " {name}={self}")
    }
}

impl Word for u64 {
    fn put(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " {name}={self}")
    }
}

impl Word for ReplyCode {
    fn put(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " {name}={self}")
    }
}

impl Word for ShortStr {
    fn put(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " {name}={}", Quoted(self))
    }
}

/// Its size: a challenge may be as secret as its response.
impl Word for LongStr {
    fn put(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " {name}=({} bytes)", self.len())
    }
}

/// Not even its size.
impl Word for Secret {
    fn put(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " {name}=(secret)")
    }
}

/// The names of its fields, and its size. Nothing if it is empty.
impl Word for FieldTable {
    fn put(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return Ok(());
        }
        write!(f, " {name}={{")?;
        for (at, (field, _)) in self.into_iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            write!(f, "{separator}{}", Escaped(field))?;
        }
        write!(f, "}} ({} bytes)", self.encoded_len())
    }
}

//! Merges files: a later file adds to the elements that it repeats.

use crate::{
    error::{At, Error, ErrorKind},
    xml::{Class, Constant, Document, Domain, Field, Method, Named, Response},
};

type Result<T> = std::result::Result<T, Error>;

/// Merges the files, each on top of the earlier ones.
pub(crate) fn merge(documents: Vec<Document>) -> Result<Document> {
    let mut merged = Document::default();
    for document in documents {
        let at = document.at;
        merged.at = at;
        let add = Addition {
            at,
            element: "amqp",
            name: "",
        };
        add.attribute("major", &mut merged.major, document.major)?;
        add.attribute("minor", &mut merged.minor, document.minor)?;
        add.attribute("revision", &mut merged.revision, document.revision)?;
        add.attribute("port", &mut merged.port, document.port)?;
        named(&mut merged.constants, document.constants)?;
        named(&mut merged.domains, document.domains)?;
        named(&mut merged.classes, document.classes)?;
    }
    Ok(merged)
}

/// Adds items to a list with unique names: merges an item with the known one of its name, or
/// appends it.
fn named<T: Merge>(all: &mut Vec<T>, added: Vec<T>) -> Result<()> {
    for item in added {
        match all.iter_mut().find(|known| known.name() == item.name()) {
            Some(known) => known.absorb(item)?,
            None => all.push(item),
        }
    }
    Ok(())
}

/// An element that a later file may repeat.
trait Merge: Named {
    /// Adds the attributes and children of the later element. Fails if an attribute changes, or the
    /// element must not be repeated.
    fn absorb(&mut self, later: Self) -> Result<()>;
}

impl Merge for Constant {
    fn absorb(&mut self, later: Self) -> Result<()> {
        Err(later.duplicate())
    }
}

impl Merge for Domain {
    fn absorb(&mut self, later: Self) -> Result<()> {
        Err(later.duplicate())
    }
}

impl Merge for Class {
    fn absorb(&mut self, later: Self) -> Result<()> {
        let add = Addition::of(&later);
        add.attribute("index", &mut self.index, later.index)?;
        add.attribute("handler", &mut self.handler, later.handler.clone())?;
        self.doc.extend(later.doc);
        named(&mut self.properties, later.properties)?;
        named(&mut self.methods, later.methods)
    }
}

impl Merge for Method {
    fn absorb(&mut self, later: Self) -> Result<()> {
        let add = Addition::of(&later);
        add.attribute("index", &mut self.index, later.index)?;
        add.attribute("synchronous", &mut self.synchronous, later.synchronous)?;
        add.attribute("content", &mut self.content, later.content)?;
        add.attribute("deprecated", &mut self.deprecated, later.deprecated)?;
        add.attribute("sent-by", &mut self.sent_by, later.sent_by)?;
        add.attribute("own-command", &mut self.own_command, later.own_command)?;
        self.doc.extend(later.doc);
        self.chassis.extend(later.chassis);
        named(&mut self.responses, later.responses)?;
        named(&mut self.fields, later.fields)
    }
}

impl Merge for Response {
    fn absorb(&mut self, later: Self) -> Result<()> {
        Err(later.duplicate())
    }
}

impl Merge for Field {
    fn absorb(&mut self, later: Self) -> Result<()> {
        let add = Addition::of(&later);
        add.attribute("domain", &mut self.domain, later.domain.clone())?;
        add.attribute("type", &mut self.kind, later.kind.clone())?;
        add.attribute("reserved", &mut self.reserved, later.reserved)?;
        add.attribute("secret", &mut self.secret, later.secret)?;
        add.attribute("default", &mut self.default, later.default)?;
        self.doc.extend(later.doc);
        Ok(())
    }
}

/// An element of a later file that is merged into an earlier one.
struct Addition<'a> {
    at: At,
    element: &'static str,
    name: &'a str,
}

impl Addition<'_> {
    fn of<T: Named>(later: &T) -> Addition<'_> {
        Addition {
            at: later.at(),
            element: T::ELEMENT,
            name: later.name(),
        }
    }

    /// Sets a missing attribute. A present one must have the same value.
    fn attribute<T: PartialEq>(
        &self,
        attribute: &'static str,
        known: &mut Option<T>,
        later: Option<T>,
    ) -> Result<()> {
        if known.is_none() {
            *known = later;
        } else if later.is_some() && *known != later {
            let (element, name) = (self.element, self.name.to_owned());
            return Err(self.at.error(ErrorKind::Conflict {
                attribute,
                element,
                name,
            }));
        }
        Ok(())
    }
}

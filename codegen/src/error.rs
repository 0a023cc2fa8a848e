//! What can be wrong with a specification.

use std::fmt;

/// Where something stands in the sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct At {
    /// Which of the sources, from 0.
    pub(crate) source: usize,
    /// The line, from 1.
    pub(crate) line: u32,
}

impl At {
    pub(crate) fn error(self, kind: ErrorKind) -> Error {
        Error { at: self, kind }
    }
}

/// A specification that no source can be generated from: where the fault is, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    at: At,
    kind: ErrorKind,
}

impl Error {
    /// Which of the given sources the fault is in, from 0.
    pub fn source_index(&self) -> usize {
        self.at.source
    }

    /// The line that the fault is in, from 1.
    pub fn line(&self) -> u32 {
        self.at.line
    }

    /// What is wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "source {}, line {}: {}",
            self.at.source, self.at.line, self.kind
        )
    }
}

impl std::error::Error for Error {}

/// What can be wrong with a specification. Elements and attributes have their names in the XML.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The text is not XML, and why.
    Xml(String),
    /// An element that the schema does not have at this place.
    UnexpectedElement {
        /// The element.
        element: String,
        /// The element around it; empty for the outermost.
        parent: String,
    },
    /// An attribute that the schema does not have on this element.
    UnexpectedAttribute {
        /// The attribute.
        attribute: String,
        /// The element that has it.
        element: String,
    },
    /// An attribute that has to be there, in this source or in one before it.
    MissingAttribute {
        /// The attribute.
        attribute: &'static str,
        /// The element that lacks it.
        element: String,
    },
    /// An attribute with a value that it cannot have.
    InvalidValue {
        /// The attribute.
        attribute: &'static str,
        /// Its value.
        value: String,
    },
    /// A second element of the same name.
    Duplicate {
        /// What there are two of.
        element: &'static str,
        /// The name that both have.
        name: String,
    },
    /// Two classes, or two methods of a class, with the same index.
    DuplicateIndex {
        /// What there are two of.
        element: &'static str,
        /// The index that both have.
        index: u16,
        /// The name of the first.
        first: String,
        /// The name of the second.
        second: String,
    },
    /// A later source gives an attribute another value than it had before.
    Conflict {
        /// The attribute.
        attribute: &'static str,
        /// The element that has it.
        element: &'static str,
        /// The element's name.
        name: String,
    },
    /// A domain that is not defined, or a type that is not one of the protocol's.
    UnknownDomain(String),
    /// A field with both a domain and a type.
    DomainAndType(String),
    /// A response that is not a method of the same class.
    UnknownResponse {
        /// The method that is answered.
        method: String,
        /// The method that is not there.
        response: String,
    },
    /// A method that nobody sends.
    NoSender(String),
    /// A secret that is not a long string.
    SecretType(String),
    /// A default of a field that is not a bit.
    DefaultType(String),
    /// A bit among the properties of a content. The standard has none, so there is no type for it.
    BitProperty(String),
    /// Content without properties: the class of a method that carries content has no fields.
    NoProperties(String),
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xml(error) => f.write_str(error),
            Self::UnexpectedElement { element, parent } if parent.is_empty() => {
                write!(f, "<{element}> where <amqp> should be")
            }
            Self::UnexpectedElement { element, parent } => {
                write!(f, "unexpected <{element}> in <{parent}>")
            }
            Self::UnexpectedAttribute { attribute, element } => {
                write!(f, "unexpected attribute {attribute} of <{element}>")
            }
            Self::MissingAttribute { attribute, element } => {
                write!(f, "<{element}> lacks the attribute {attribute}")
            }
            Self::InvalidValue { attribute, value } => {
                write!(f, "the attribute {attribute} cannot be {value:?}")
            }
            Self::Duplicate { element, name } => write!(f, "a second {element} {name}"),
            Self::DuplicateIndex {
                element,
                index,
                first,
                second,
            } => {
                write!(f, "the {element} {second} has the index {index} of {first}")
            }
            Self::Conflict {
                attribute,
                element,
                name,
            } => {
                write!(f, "the {element} {name} had another {attribute} before")
            }
            Self::UnknownDomain(name) => write!(f, "unknown domain or type {name}"),
            Self::DomainAndType(name) => write!(f, "the field {name} has a domain and a type"),
            Self::UnknownResponse { method, response } => {
                write!(
                    f,
                    "{method} is answered by {response}, which the class does not have"
                )
            }
            Self::NoSender(name) => write!(f, "nobody sends the method {name}"),
            Self::SecretType(name) => write!(f, "the secret field {name} is not a long string"),
            Self::DefaultType(name) => write!(f, "the field {name} has a default and is not a bit"),
            Self::BitProperty(name) => write!(f, "the property {name} is a bit"),
            Self::NoProperties(name) => {
                write!(
                    f,
                    "the method {name} carries content, but its class has no properties"
                )
            }
        }
    }
}

//! The errors of a specification.

use std::fmt;

/// A position in the sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct At {
    /// The index of the source, from 0.
    pub(crate) source: usize,
    /// The line number, from 1.
    pub(crate) line: u32,
}

impl At {
    pub(crate) fn error(self, kind: ErrorKind) -> Error {
        Error { at: self, kind }
    }
}

/// The position and the kind of an error in a specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    at: At,
    kind: ErrorKind,
}

impl Error {
    /// Returns the index of the faulty source, from 0.
    pub fn source_index(&self) -> usize {
        self.at.source
    }

    /// Returns the line number of the fault, from 1.
    pub fn line(&self) -> u32 {
        self.at.line
    }

    /// Returns the kind of the error.
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

/// The kind of an error in a specification. Elements and attributes are called as in the XML.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The text is not well-formed XML; holds the message of the parser.
    Xml(String),
    /// The schema does not allow the element in this place.
    UnexpectedElement {
        /// The element.
        element: String,
        /// The enclosing element; empty for the outermost one.
        parent: String,
    },
    /// The schema does not allow the attribute on this element.
    UnexpectedAttribute {
        /// The attribute.
        attribute: String,
        /// The element with the attribute.
        element: String,
    },
    /// A required attribute is missing in this source and in the earlier ones.
    MissingAttribute {
        /// The attribute.
        attribute: &'static str,
        /// The element without the attribute.
        element: String,
    },
    /// The value of an attribute is invalid.
    InvalidValue {
        /// The attribute.
        attribute: &'static str,
        /// The value.
        value: String,
    },
    /// A second element has the same name.
    Duplicate {
        /// The kind of element.
        element: &'static str,
        /// The common name.
        name: String,
    },
    /// Two classes, two methods of a class, or two reply codes have the same number.
    DuplicateIndex {
        /// The kind of element.
        element: &'static str,
        /// The common number.
        index: u16,
        /// The name of the first.
        first: String,
        /// The name of the second.
        second: String,
    },
    /// A later source gives an attribute a different value.
    Conflict {
        /// The attribute.
        attribute: &'static str,
        /// The element with the attribute.
        element: &'static str,
        /// The name of the element.
        name: String,
    },
    /// The domain is not defined, or the type is not one of the protocol's.
    UnknownDomain(String),
    /// The field has both a domain and a type.
    DomainAndType(String),
    /// The response is not a method of the same class.
    UnknownResponse {
        /// The method with the response.
        method: String,
        /// The missing method.
        response: String,
    },
    /// The method has no sender: it has neither `chassis` nor `sent-by`.
    NoSender(String),
    /// A field with `secret="1"` is not a long string.
    SecretType(String),
    /// A field with `default="1"` is not a bit.
    DefaultType(String),
    /// A property of a content is a bit. The specification has no such property, so there is no
    /// type for it.
    BitProperty(String),
    /// A method carries content, but its class has no properties.
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

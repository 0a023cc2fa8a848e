//! Reads one XML file, without resolving or merging.
//!
//! A missing attribute is `None`, since another file may have it.

use std::str::FromStr;

use roxmltree::Node;

use crate::error::{At, Error, ErrorKind};

type Result<T> = std::result::Result<T, Error>;

/// The content of one file.
#[derive(Debug, Default)]
pub(crate) struct Document {
    pub(crate) at: At,
    pub(crate) major: Option<u8>,
    pub(crate) minor: Option<u8>,
    pub(crate) revision: Option<u8>,
    pub(crate) port: Option<u16>,
    pub(crate) constants: Vec<Constant>,
    pub(crate) domains: Vec<Domain>,
    pub(crate) classes: Vec<Class>,
}

#[derive(Debug)]
pub(crate) struct Constant {
    pub(crate) at: At,
    pub(crate) name: String,
    pub(crate) value: u32,
    pub(crate) class: Option<ErrorClass>,
    pub(crate) doc: Vec<String>,
}

/// The severity of a reply code: a soft error closes the channel, a hard one the connection
/// (section 4.8.1 of the specification).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorClass {
    Soft,
    Hard,
}

#[derive(Debug)]
pub(crate) struct Domain {
    pub(crate) at: At,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) doc: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) at: At,
    pub(crate) name: String,
    pub(crate) index: Option<u16>,
    pub(crate) handler: Option<String>,
    pub(crate) properties: Vec<Field>,
    pub(crate) methods: Vec<Method>,
    pub(crate) doc: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) at: At,
    pub(crate) name: String,
    pub(crate) index: Option<u16>,
    pub(crate) synchronous: Option<bool>,
    pub(crate) content: Option<bool>,
    pub(crate) deprecated: Option<bool>,
    pub(crate) sent_by: Option<Side>,
    pub(crate) own_command: Option<bool>,
    /// The sides that have to implement the method.
    pub(crate) chassis: Vec<Side>,
    pub(crate) responses: Vec<Response>,
    pub(crate) fields: Vec<Field>,
    pub(crate) doc: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) at: At,
    pub(crate) name: String,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) at: At,
    pub(crate) name: String,
    pub(crate) domain: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) reserved: Option<bool>,
    pub(crate) secret: Option<bool>,
    pub(crate) default: Option<bool>,
    pub(crate) doc: Vec<String>,
}

/// An element with a name that is unique among its siblings.
pub(crate) trait Named {
    /// The tag of the element in the XML.
    const ELEMENT: &'static str;

    fn at(&self) -> At;
    fn name(&self) -> &str;

    /// Returns the error for a second element of the same name.
    fn duplicate(&self) -> Error {
        let name = self.name().to_owned();
        self.at().error(ErrorKind::Duplicate {
            element: Self::ELEMENT,
            name,
        })
    }
}

macro_rules! named {
    ($($type:ty: $element:literal),*) => {$(
        impl Named for $type {
            const ELEMENT: &'static str = $element;

            fn at(&self) -> At {
                self.at
            }

            fn name(&self) -> &str {
                &self.name
            }
        }
    )*};
}

named!(
    Constant: "constant", Domain: "domain", Class: "class", Method: "method", Response: "response",
    Field: "field"
);

/// Appends an item to a list with unique names. Fails if the list has one of the same name.
fn push<T: Named>(list: &mut Vec<T>, item: T) -> Result<()> {
    if list.iter().any(|known| known.name() == item.name()) {
        return Err(item.duplicate());
    }
    list.push(item);
    Ok(())
}

/// Reads the file with the index `source`.
pub(crate) fn read(source: usize, text: &str) -> Result<Document> {
    let tree = roxmltree::Document::parse(text).map_err(|error| {
        At {
            source,
            line: error.pos().row,
        }
        .error(ErrorKind::Xml(error.to_string()))
    })?;
    let root = Element {
        source,
        node: tree.root_element(),
    };
    if root.name() != "amqp" {
        return Err(root.unexpected());
    }
    root.allow(&["major", "minor", "revision", "port"])?;
    let mut document = Document {
        at: root.at(),
        major: root.number("major")?,
        minor: root.number("minor")?,
        revision: root.number("revision")?,
        port: root.number("port")?,
        ..Document::default()
    };
    for child in root.children() {
        match child.name() {
            "constant" => push(&mut document.constants, constant(child)?)?,
            "domain" => push(&mut document.domains, domain(child)?)?,
            "class" => push(&mut document.classes, class(child)?)?,
            _ => return Err(child.unexpected()),
        }
    }
    Ok(document)
}

fn constant(element: Element<'_, '_>) -> Result<Constant> {
    element.allow(&["name", "value", "class"])?;
    let mut constant = Constant {
        at: element.at(),
        name: element.named()?,
        value: element
            .number("value")?
            .ok_or_else(|| element.missing("value"))?,
        class: element.choice(
            "class",
            &[
                ("soft-error", ErrorClass::Soft),
                ("hard-error", ErrorClass::Hard),
            ],
        )?,
        doc: Vec::new(),
    };
    for child in element.children() {
        child.doc_or_assert(&mut constant.doc)?;
    }
    Ok(constant)
}

fn domain(element: Element<'_, '_>) -> Result<Domain> {
    element.allow(&["name", "type"])?;
    let mut domain = Domain {
        at: element.at(),
        name: element.named()?,
        kind: element
            .text("type")
            .ok_or_else(|| element.missing("type"))?,
        doc: Vec::new(),
    };
    for child in element.children() {
        child.doc_or_assert(&mut domain.doc)?;
    }
    Ok(domain)
}

fn class(element: Element<'_, '_>) -> Result<Class> {
    element.allow(&["name", "handler", "index"])?;
    let mut class = Class {
        at: element.at(),
        name: element.named()?,
        index: element.number("index")?,
        handler: element.text("handler"),
        properties: Vec::new(),
        methods: Vec::new(),
        doc: Vec::new(),
    };
    for child in element.children() {
        match child.name() {
            // The sides that implement a class follow from its methods.
            "chassis" => drop(child.chassis()?),
            "field" => push(&mut class.properties, field(child)?)?,
            "method" => push(&mut class.methods, method(child)?)?,
            _ => child.doc_or_assert(&mut class.doc)?,
        }
    }
    Ok(class)
}

fn method(element: Element<'_, '_>) -> Result<Method> {
    element.allow(&[
        "name",
        "index",
        "synchronous",
        "content",
        "deprecated",
        "sent-by",
        "own-command",
    ])?;
    let mut method = Method {
        at: element.at(),
        name: element.named()?,
        index: element.number("index")?,
        synchronous: element.flag("synchronous")?,
        content: element.flag("content")?,
        deprecated: element.flag("deprecated")?,
        sent_by: element.choice("sent-by", &SIDES)?,
        own_command: element.flag("own-command")?,
        chassis: Vec::new(),
        responses: Vec::new(),
        fields: Vec::new(),
        doc: Vec::new(),
    };
    for child in element.children() {
        match child.name() {
            "chassis" => method.chassis.push(child.chassis()?),
            "response" => {
                child.allow(&["name"])?;
                let response = Response {
                    at: child.at(),
                    name: child.named()?,
                };
                push(&mut method.responses, response)?;
            }
            "field" => push(&mut method.fields, field(child)?)?,
            _ => child.doc_or_assert(&mut method.doc)?,
        }
    }
    Ok(method)
}

fn field(element: Element<'_, '_>) -> Result<Field> {
    element.allow(&["name", "domain", "type", "reserved", "secret", "default"])?;
    let mut field = Field {
        at: element.at(),
        name: element.named()?,
        domain: element.text("domain"),
        kind: element.text("type"),
        reserved: element.flag("reserved")?,
        secret: element.flag("secret")?,
        default: element.flag("default")?,
        doc: Vec::new(),
    };
    for child in element.children() {
        child.doc_or_assert(&mut field.doc)?;
    }
    Ok(field)
}

const SIDES: [(&str, Side); 2] = [("client", Side::Client), ("server", Side::Server)];

/// An element, and the index of its file.
#[derive(Clone, Copy)]
struct Element<'a, 'input> {
    source: usize,
    node: Node<'a, 'input>,
}

impl<'a> Element<'a, '_> {
    fn name(&self) -> &'a str {
        self.node.tag_name().name()
    }

    fn at(&self) -> At {
        let line = self
            .node
            .document()
            .text_pos_at(self.node.range().start)
            .row;
        At {
            source: self.source,
            line,
        }
    }

    fn children(&self) -> impl Iterator<Item = Self> {
        let source = self.source;
        self.node
            .children()
            .filter(Node::is_element)
            .map(move |node| Self { source, node })
    }

    /// Fails if the element has any attribute other than these.
    fn allow(&self, attributes: &[&str]) -> Result<()> {
        match self
            .node
            .attributes()
            .find(|attribute| !attributes.contains(&attribute.name()))
        {
            None => Ok(()),
            Some(attribute) => Err(self.at().error(ErrorKind::UnexpectedAttribute {
                attribute: attribute.name().to_owned(),
                element: self.name().to_owned(),
            })),
        }
    }

    fn text(&self, attribute: &'static str) -> Option<String> {
        self.node.attribute(attribute).map(str::to_owned)
    }

    /// Returns the attribute `name`: words of lower-case letters and digits, separated by hyphens,
    /// the first of which starts with a letter.
    fn named(&self) -> Result<String> {
        let name = self.text("name").ok_or_else(|| self.missing("name"))?;
        let word = |word: &str| {
            word.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
                && !word.is_empty()
        };
        if name.starts_with(|c: char| c.is_ascii_lowercase()) && name.split('-').all(word) {
            Ok(name)
        } else {
            Err(self.invalid("name", &name))
        }
    }

    fn number<T: FromStr>(&self, attribute: &'static str) -> Result<Option<T>> {
        match self.node.attribute(attribute) {
            None => Ok(None),
            Some(value) => match value.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(self.invalid(attribute, value)),
            },
        }
    }

    fn flag(&self, attribute: &'static str) -> Result<Option<bool>> {
        self.choice(attribute, &[("0", false), ("1", true)])
    }

    /// Returns the choice for the value of an attribute. `Some` if the attribute is present. Fails
    /// if the value is not in `choices`.
    fn choice<T: Copy>(&self, attribute: &'static str, choices: &[(&str, T)]) -> Result<Option<T>> {
        match self.node.attribute(attribute) {
            None => Ok(None),
            Some(value) => match choices.iter().find(|(name, _)| *name == value) {
                Some((_, choice)) => Ok(Some(*choice)),
                None => Err(self.invalid(attribute, value)),
            },
        }
    }

    fn chassis(&self) -> Result<Side> {
        self.allow(&["name", "implement"])?;
        self.choice("name", &SIDES)?
            .ok_or_else(|| self.missing("name"))
    }

    /// Appends the paragraphs of a `<doc>`, one string of trimmed lines each. Skips an `<assert>`:
    /// values are checked by the peer. Any other element is an error.
    fn doc_or_assert(&self, doc: &mut Vec<String>) -> Result<()> {
        match self.name() {
            "doc" => self.allow(&[])?,
            "assert" => return Ok(()),
            _ => return Err(self.unexpected()),
        }
        if let Some(child) = self.children().next() {
            return Err(child.unexpected());
        }
        let text: String = self
            .node
            .children()
            .filter(Node::is_text)
            .filter_map(|node| node.text())
            .collect();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for paragraph in lines.split(|line| line.is_empty()) {
            if !paragraph.is_empty() {
                doc.push(paragraph.join("\n"));
            }
        }
        Ok(())
    }

    fn missing(&self, attribute: &'static str) -> Error {
        let element = self.name().to_owned();
        self.at()
            .error(ErrorKind::MissingAttribute { attribute, element })
    }

    fn invalid(&self, attribute: &'static str, value: &str) -> Error {
        self.at().error(ErrorKind::InvalidValue {
            attribute,
            value: value.to_owned(),
        })
    }

    fn unexpected(&self) -> Error {
        let parent = self
            .node
            .parent_element()
            .map_or("", |parent| parent.tag_name().name());
        self.at().error(ErrorKind::UnexpectedElement {
            element: self.name().to_owned(),
            parent: parent.to_owned(),
        })
    }
}

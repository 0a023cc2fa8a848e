//! The specification for the emitter: merged, checked, and with all names resolved.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    error::{At, Error, ErrorKind},
    merge::merge,
    xml::{self, ErrorClass, Side},
};

type Result<T> = std::result::Result<T, Error>;

/// A whole specification.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) major: u8,
    pub(crate) minor: u8,
    pub(crate) revision: u8,
    pub(crate) port: u16,
    /// The constants other than reply codes, in file order.
    pub(crate) constants: Vec<Constant<u32>>,
    /// Ordered by value.
    pub(crate) reply_codes: Vec<Constant<u16>>,
    /// Ordered by index.
    pub(crate) classes: Vec<Class>,
}

#[derive(Debug)]
pub(crate) struct Constant<T> {
    pub(crate) name: String,
    pub(crate) value: T,
    pub(crate) class: Option<ErrorClass>,
    pub(crate) doc: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) name: String,
    pub(crate) index: u16,
    /// Whether its methods travel on channel 0 (section 4.2.3 of the specification).
    pub(crate) connection: bool,
    /// The properties in the content header of its methods (section 4.2.6.1 of the specification).
    pub(crate) properties: Vec<Field>,
    /// Ordered by index.
    pub(crate) methods: Vec<Method>,
    pub(crate) doc: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) name: String,
    pub(crate) index: u16,
    pub(crate) synchronous: bool,
    pub(crate) content: bool,
    pub(crate) deprecated: bool,
    pub(crate) client_sends: bool,
    pub(crate) server_sends: bool,
    /// Whether a client sends it by a command of its own.
    pub(crate) own_command: bool,
    /// The methods of the class that answer this one.
    pub(crate) responses: Vec<String>,
    /// The methods of the class that this one answers.
    pub(crate) answers: Vec<String>,
    pub(crate) fields: Vec<Field>,
    pub(crate) doc: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) reserved: bool,
    /// Whether it is the `no-wait` bit of a request, which suppresses the response.
    pub(crate) no_wait: bool,
    /// Whether it is a bit that is set in the `Default` of its method.
    pub(crate) set_by_default: bool,
    /// The documentation of the field, or else of its domain.
    pub(crate) doc: Vec<String>,
}

/// The type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bit,
    Octet,
    Short,
    Long,
    LongLong,
    ShortStr,
    /// A short string that RabbitMQ does not check for UTF-8.
    Text,
    LongStr,
    Timestamp,
    Table,
    /// A long string that must not be logged.
    Secret,
    /// A short that is a reply code.
    ReplyCode,
}

impl Kind {
    /// Returns the kind for a value that any publisher may have chosen: RabbitMQ forwards the
    /// arguments of methods with content, and properties, without a check of their text.
    fn passed_on(self) -> Self {
        if self == Self::ShortStr {
            Self::Text
        } else {
            self
        }
    }

    fn of_type(name: &str) -> Option<Self> {
        Some(match name {
            "bit" => Self::Bit,
            "octet" => Self::Octet,
            "short" => Self::Short,
            "long" => Self::Long,
            "longlong" => Self::LongLong,
            "shortstr" => Self::ShortStr,
            "longstr" => Self::LongStr,
            "timestamp" => Self::Timestamp,
            "table" => Self::Table,
            _ => return None,
        })
    }
}

impl Spec {
    /// Merges the files, each on top of the earlier ones, and checks the result.
    pub(crate) fn new(documents: Vec<xml::Document>) -> Result<Self> {
        let xml = merge(documents)?;
        let domains = domains(xml.domains)?;
        let (reply_codes, constants) = xml
            .constants
            .into_iter()
            .partition::<Vec<_>, _>(|it| it.class.is_some() || it.name.starts_with("reply-"));
        Ok(Self {
            major: required(xml.major, xml.at, "major", "amqp")?,
            minor: required(xml.minor, xml.at, "minor", "amqp")?,
            revision: required(xml.revision, xml.at, "revision", "amqp")?,
            port: required(xml.port, xml.at, "port", "amqp")?,
            constants: constants.into_iter().map(constant).collect::<Result<_>>()?,
            reply_codes: by_index(
                "constant",
                reply_codes.into_iter().map(|it| Ok((it.at, constant(it)?))),
                |it| (it.value, &it.name),
            )?,
            classes: by_index(
                "class",
                xml.classes
                    .into_iter()
                    .map(|it| Ok((it.at, class(it, &domains)?))),
                |it| (it.index, &it.name),
            )?,
        })
    }
}

fn required<T>(
    value: Option<T>,
    at: At,
    attribute: &'static str,
    element: &'static str,
) -> Result<T> {
    value.ok_or_else(|| {
        at.error(ErrorKind::MissingAttribute {
            attribute,
            element: element.to_owned(),
        })
    })
}

/// Orders items by index, which must be unique.
fn by_index<T>(
    element: &'static str,
    items: impl Iterator<Item = Result<(At, T)>>,
    index: impl Fn(&T) -> (u16, &str),
) -> Result<Vec<T>> {
    let mut ordered: BTreeMap<u16, T> = BTreeMap::new();
    for item in items {
        let (at, item) = item?;
        let (number, name) = index(&item);
        if let Some(first) = ordered.get(&number) {
            return Err(at.error(ErrorKind::DuplicateIndex {
                element,
                index: number,
                first: index(first).1.to_owned(),
                second: name.to_owned(),
            }));
        }
        ordered.insert(number, item);
    }
    Ok(ordered.into_values().collect())
}

fn constant<T: TryFrom<u32>>(xml: xml::Constant) -> Result<Constant<T>> {
    let Ok(value) = T::try_from(xml.value) else {
        let value = xml.value.to_string();
        return Err(xml.at.error(ErrorKind::InvalidValue {
            attribute: "value",
            value,
        }));
    };
    Ok(Constant {
        name: xml.name,
        value,
        class: xml.class,
        doc: xml.doc,
    })
}

type Domains = BTreeMap<String, (Kind, Vec<String>)>;

fn domains(xml: Vec<xml::Domain>) -> Result<Domains> {
    let mut domains = Domains::new();
    for domain in xml {
        let Some(kind) = Kind::of_type(&domain.kind) else {
            return Err(domain.at.error(ErrorKind::UnknownDomain(domain.kind)));
        };
        let kind = match (domain.name.as_str(), kind) {
            ("reply-code", Kind::Short) => Kind::ReplyCode,
            // A close must be readable even if its reply text is not UTF-8.
            ("reply-text", Kind::ShortStr) => Kind::Text,
            (_, kind) => kind,
        };
        domains.insert(domain.name, (kind, domain.doc));
    }
    Ok(domains)
}

fn class(xml: xml::Class, domains: &Domains) -> Result<Class> {
    let methods = xml.methods.iter();
    let names: BTreeSet<String> = methods.clone().map(|method| method.name.clone()).collect();
    let given: BTreeSet<String> = methods
        .flat_map(|method| &method.responses)
        .map(|it| it.name.clone())
        .collect();
    let properties = xml
        .properties
        .into_iter()
        .map(|it| property(it, domains))
        .collect::<Result<Vec<_>>>()?;
    let mut methods = by_index(
        "method",
        xml.methods.into_iter().map(|it| {
            let at = it.at;
            let method = method(it, domains, &names, &given)?;
            if method.content && properties.is_empty() {
                return Err(at.error(ErrorKind::NoProperties(method.name)));
            }
            Ok((at, method))
        }),
        |it| (it.index, &it.name),
    )?;

    let mut answers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for method in &methods {
        for response in &method.responses {
            answers
                .entry(response.clone())
                .or_default()
                .push(method.name.clone());
        }
    }
    for method in &mut methods {
        method.answers = answers.remove(&method.name).unwrap_or_default();
    }

    Ok(Class {
        index: required(xml.index, xml.at, "index", "class")?,
        connection: xml.handler.as_deref() == Some("connection"),
        name: xml.name,
        properties,
        methods,
        doc: xml.doc,
    })
}

/// Resolves a method. `names` are the methods of its class, `given` those that the class names as
/// responses.
fn method(
    xml: xml::Method,
    domains: &Domains,
    names: &BTreeSet<String>,
    given: &BTreeSet<String>,
) -> Result<Method> {
    let synchronous = xml.synchronous.unwrap_or(false);
    let mut responses = Vec::new();
    for response in xml.responses {
        if !names.contains(&response.name) {
            let kind = ErrorKind::UnknownResponse {
                method: xml.name,
                response: response.name,
            };
            return Err(response.at.error(kind));
        }
        responses.push(response.name);
    }
    // The published XML lacks the `<response>` of `basic.recover`.
    if synchronous && responses.is_empty() && !given.contains(&xml.name) {
        let inferred = format!("{}-ok", xml.name);
        if names.contains(&inferred) {
            responses.push(inferred);
        }
    }

    // `chassis` names the side that has to implement a method: its receiver.
    let sends = |side, other| match xml.sent_by {
        Some(sender) => sender == side,
        None => xml.chassis.contains(&other),
    };
    let client_sends = sends(Side::Client, Side::Server);
    let server_sends = sends(Side::Server, Side::Client);
    if !client_sends && !server_sends {
        return Err(xml.at.error(ErrorKind::NoSender(xml.name)));
    }

    let content = xml.content.unwrap_or(false);
    let read = |it| {
        let mut field = field(it, domains)?;
        if content {
            field.kind = field.kind.passed_on();
        }
        Ok(field)
    };

    Ok(Method {
        index: required(xml.index, xml.at, "index", "method")?,
        name: xml.name,
        synchronous,
        content,
        deprecated: xml.deprecated.unwrap_or(false),
        client_sends,
        server_sends,
        own_command: xml.own_command.unwrap_or(false),
        responses,
        answers: Vec::new(),
        fields: xml.fields.into_iter().map(read).collect::<Result<_>>()?,
        doc: xml.doc,
    })
}

fn field(xml: xml::Field, domains: &Domains) -> Result<Field> {
    let (mut kind, domain_doc) = match (&xml.domain, &xml.kind) {
        (Some(_), Some(_)) => return Err(xml.at.error(ErrorKind::DomainAndType(xml.name))),
        (None, None) => return required(None, xml.at, "domain", "field"),
        (Some(domain), None) => domains.get(domain).cloned().ok_or(domain),
        (None, Some(kind)) => Kind::of_type(kind).map(|it| (it, Vec::new())).ok_or(kind),
    }
    .map_err(|name| xml.at.error(ErrorKind::UnknownDomain(name.clone())))?;
    if xml.secret == Some(true) {
        if kind != Kind::LongStr {
            return Err(xml.at.error(ErrorKind::SecretType(xml.name)));
        }
        kind = Kind::Secret;
    }
    let set_by_default = xml.default.unwrap_or(false);
    if set_by_default && kind != Kind::Bit {
        return Err(xml.at.error(ErrorKind::DefaultType(xml.name)));
    }
    Ok(Field {
        kind,
        set_by_default,
        reserved: xml.reserved.unwrap_or(false),
        // `confirm.select`, an extension of RabbitMQ, calls it `nowait` and uses no domain.
        no_wait: kind == Kind::Bit && matches!(xml.name.as_str(), "no-wait" | "nowait"),
        doc: if xml.doc.is_empty() {
            domain_doc
        } else {
            xml.doc
        },
        name: xml.name,
    })
}

fn property(xml: xml::Field, domains: &Domains) -> Result<Field> {
    let at = xml.at;
    let mut property = field(xml, domains)?;
    property.kind = property.kind.passed_on();
    if property.kind == Kind::Bit {
        return Err(at.error(ErrorKind::BitProperty(property.name)));
    }
    Ok(property)
}

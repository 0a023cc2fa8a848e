//! A message as JSON: `consume --format json` prints it, `publish --format json` takes it.

use std::{fmt, marker::PhantomData};

use amqp_tokio::{
    Body, EncodedProperties, Fetched, Message,
    protocol::{basic, basic::Properties},
    wire::{FieldTable, ShortStr, Timestamp},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::failure::{Failure, Outcome};

/// A message. Fields that are `None` are left out.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct JsonMessage {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exchange: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) routing_key: Option<String>,
    /// Ignored when it is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) redelivered: Option<bool>,
    /// The reason why the message was not confirmed. Ignored when it is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unconfirmed: Option<String>,
    #[serde(deserialize_with = "object")]
    pub(crate) properties: JsonProperties,
    /// The properties as they came, if they cannot be decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) properties_base64: Option<String>,
    /// The body, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<String>,
    /// The body, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) body_base64: Option<String>,
}

/// The properties of a message, by the names of the specification.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct JsonProperties {
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<ShortStr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_encoding: Option<ShortStr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<FieldTable>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery_mode: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<ShortStr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<ShortStr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<ShortStr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<ShortStr>,
    /// In seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<u64>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<ShortStr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<ShortStr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_id: Option<ShortStr>,
    /// The reserved property of the specification, once the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_id: Option<ShortStr>,
}

/// Reads a structure from an object, and not from an array as well.
fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_map(Object(PhantomData))
}

struct Object<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

impl From<Properties> for JsonProperties {
    fn from(properties: Properties) -> Self {
        Self {
            content_type: properties.content_type,
            content_encoding: properties.content_encoding,
            headers: properties.headers,
            delivery_mode: properties.delivery_mode,
            priority: properties.priority,
            correlation_id: properties.correlation_id,
            reply_to: properties.reply_to,
            expiration: properties.expiration,
            message_id: properties.message_id,
            timestamp: properties.timestamp.map(|time| time.0),
            kind: properties.kind,
            user_id: properties.user_id,
            app_id: properties.app_id,
            cluster_id: properties.reserved,
        }
    }
}

impl From<JsonProperties> for Properties {
    fn from(json: JsonProperties) -> Self {
        Self {
            content_type: json.content_type,
            content_encoding: json.content_encoding,
            headers: json.headers,
            delivery_mode: json.delivery_mode,
            priority: json.priority,
            correlation_id: json.correlation_id,
            reply_to: json.reply_to,
            expiration: json.expiration,
            message_id: json.message_id,
            timestamp: json.timestamp.map(Timestamp),
            kind: json.kind,
            user_id: json.user_id,
            app_id: json.app_id,
            reserved: json.cluster_id,
        }
    }
}

impl JsonMessage {
    /// A message without its place.
    fn new(properties: &EncodedProperties, body: &Body) -> Self {
        let mut message = Self::of_body(body);
        match properties.decode() {
            Ok(properties) => message.properties = properties.into(),
            Err(_) => message.properties_base64 = Some(BASE64.encode(properties.as_bytes())),
        }
        message
    }

    fn of_body(body: &Body) -> Self {
        let (mut text, mut base64) = (None, None);
        match String::from_utf8(body.to_vec()) {
            Ok(body) => text = Some(body),
            Err(error) => base64 = Some(BASE64.encode(error.as_bytes())),
        }
        Self {
            body: text,
            body_base64: base64,
            ..Self::default()
        }
    }

    /// A delivered message.
    pub(crate) fn delivered(message: &Message) -> Self {
        Self {
            exchange: Some(message.method.exchange.to_string()),
            routing_key: Some(message.method.routing_key.to_string()),
            redelivered: message.method.redelivered.then_some(true),
            ..Self::new(&message.encoded_properties, &message.body)
        }
    }

    /// A fetched message.
    pub(crate) fn fetched(fetched: &Fetched) -> Self {
        Self {
            exchange: Some(fetched.method.exchange.to_string()),
            routing_key: Some(fetched.method.routing_key.to_string()),
            redelivered: fetched.method.redelivered.then_some(true),
            ..Self::new(&fetched.properties, &fetched.body)
        }
    }

    /// A message that was to be published, and the reason why it was not confirmed.
    pub(crate) fn unconfirmed(
        publish: &basic::Publish,
        properties: Properties,
        body: &Body,
        reason: String,
    ) -> Self {
        Self {
            exchange: Some(publish.exchange.to_string()),
            routing_key: Some(publish.routing_key.to_string()),
            unconfirmed: Some(reason),
            properties: properties.into(),
            ..Self::of_body(body)
        }
    }

    /// Reads a message.
    pub(crate) fn parse(line: &[u8]) -> Outcome<Self> {
        let mut deserializer = serde_json::Deserializer::from_slice(line);
        let message: Self = object(&mut deserializer).map_err(Failure::usage)?;
        deserializer.end().map_err(Failure::usage)?;
        if message.properties_base64.is_some() {
            return Err(Failure::usage(
                "properties_base64: properties that cannot be decoded cannot be published",
            ));
        }
        Ok(message)
    }

    /// The body as bytes, taken out.
    pub(crate) fn take_body(&mut self) -> Outcome<Body> {
        match (self.body.take(), self.body_base64.take()) {
            (Some(_), Some(_)) => Err(Failure::usage("there are both body and body_base64")),
            (Some(body), None) => Ok(body.into_bytes().into()),
            (None, Some(base64)) => {
                let body = BASE64.decode(base64);
                let body =
                    body.map_err(|error| Failure::usage(format_args!("body_base64: {error}")))?;
                Ok(body.into())
            }
            (None, None) => Ok(Body::default()),
        }
    }
}

//! The properties of a message as a list.

use alloc::vec::Vec;

use crate::{protocol::basic::Properties, wire::FieldValue};

impl Properties {
    /// The properties that are present, by the names of the specification and in its order: for
    /// programs that show messages. The values are copies.
    ///
    /// ```
    /// use amqp_core::{protocol::basic::Properties, wire::FieldValue};
    ///
    /// let properties = Properties::default().persistent();
    /// assert_eq!(properties.present(), [("delivery_mode", FieldValue::U8(2))]);
    /// ```
    #[must_use]
    pub fn present(&self) -> Vec<(&'static str, FieldValue)> {
        let Self {
            content_type,
            content_encoding,
            headers,
            delivery_mode,
            priority,
            correlation_id,
            reply_to,
            expiration,
            message_id,
            timestamp,
            kind,
            user_id,
            app_id,
            reserved,
        } = self;
        let text = |value: &Option<_>| value.as_ref().map(FieldValue::from);
        let all = [
            ("content_type", text(content_type)),
            ("content_encoding", text(content_encoding)),
            ("headers", headers.clone().map(FieldValue::Table)),
            ("delivery_mode", delivery_mode.map(FieldValue::U8)),
            ("priority", priority.map(FieldValue::U8)),
            ("correlation_id", text(correlation_id)),
            ("reply_to", text(reply_to)),
            ("expiration", text(expiration)),
            ("message_id", text(message_id)),
            ("timestamp", timestamp.map(FieldValue::Timestamp)),
            ("type", text(kind)),
            ("user_id", text(user_id)),
            ("app_id", text(app_id)),
            ("cluster_id", text(reserved)),
        ];
        let present = all.into_iter();
        present
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }
}

//! Strategies of [`proptest`] for values of the protocol: methods, properties, tables,
//! frames, and operations of a client. Requires the feature `proptest`.
//!
//! Every type below has an implementation of [`Arbitrary`](proptest::arbitrary::Arbitrary), so
//! that `any::<queue::Declare>()` is a strategy, and a failing value is shrunk:
//!
//! | type | values |
//! |---|---|
//! | each method of [`protocol`](crate::protocol), [`basic::Properties`](crate::protocol::basic::Properties) | each field by the strategy that [`Values`] has for its wire type |
//! | [`Method`](crate::protocol::Method), [`ClientMethod`](crate::protocol::ClientMethod), [`ServerMethod`](crate::protocol::ServerMethod) | any of those methods |
//! | [`ShortStr`](crate::wire::ShortStr), [`LongStr`](crate::wire::LongStr), [`Secret`](crate::wire::Secret), [`Timestamp`](crate::wire::Timestamp), [`Decimal`](crate::wire::Decimal), [`ReplyCode`](crate::protocol::ReplyCode) | the whole range, and often its ends |
//! | [`FieldValue`](crate::wire::FieldValue), [`FieldArray`](crate::wire::FieldArray), [`FieldTable`](crate::wire::FieldTable) | every field type, nested up to five deep; a number is never NaN, so that each value equals itself |
//! | [`OwnedFrame`] | a well-formed frame of any type |
//! | [`Cuts`] | places at which a byte stream is cut |
//! | [`Operation`] | a command of a client's application; an [`Application`] applies it |
//!
//! The strategies of methods are generated from the specification by `amqp-codegen`.
//!
//! # A round trip of one's own
//!
//! Delays that a program stores in a header come back:
//!
//! ```
//! use amqp_core::{protocol::basic::Properties, wire::FieldTable};
//! use proptest::prelude::*;
//!
//! fn set_delay(properties: Properties, seconds: i32) -> Properties {
//!     let headers = properties.headers.clone().unwrap_or_default();
//!     let headers = headers.with("x-delay", seconds);
//!     properties.headers(headers)
//! }
//!
//! fn delay(properties: &Properties) -> Option<i64> {
//!     properties.headers.as_ref()?.get("x-delay")?.as_i64()
//! }
//!
//! proptest! {
//!     fn a_delay_comes_back(properties: Properties, seconds: i32) {
//!         let delayed = set_delay(properties, seconds);
//!         prop_assert_eq!(delay(&delayed), Some(i64::from(seconds)));
//!     }
//! }
//! a_delay_comes_back();
//! ```
//!
//! # Operations against a client
//!
//! The transport ends after any operations, with any answers: each request and each publish in
//! confirm mode has one outcome.
//!
//! ```
//! use amqp_core::{
//!     Instant,
//!     bytes::BytesMut,
//!     client::{Config, Connection},
//!     protocol::{ServerMethod, connection},
//!     strategies::{Application, Operation, OwnedFrame},
//! };
//! use proptest::{collection::vec, prelude::*};
//!
//! const NOW: Instant = Instant::ORIGIN;
//!
//! fn feed(client: &mut Connection, frame: OwnedFrame) {
//!     let mut input = BytesMut::from(&frame.to_bytes()[..]);
//!     client.handle_input(NOW, &mut input);
//! }
//!
//! fn open_client() -> Connection {
//!     let mut client = Connection::new(Config::default(), NOW).unwrap();
//!     let start = connection::Start::default().version_minor(9);
//!     let start = start.mechanisms("PLAIN").locales("en_US");
//!     feed(&mut client, OwnedFrame::method(0, start));
//!     feed(&mut client, OwnedFrame::method(0, connection::Tune::default()));
//!     feed(&mut client, OwnedFrame::method(0, connection::OpenOk));
//!     client
//! }
//!
//! proptest! {
//!     fn each_request_has_one_outcome(
//!         steps in vec(any::<(Operation, Option<ServerMethod>)>(), 0..40),
//!     ) {
//!         let mut client = open_client();
//!         let mut application = Application::default();
//!         for (operation, answer) in steps {
//!             application.apply(&mut client, &operation);
//!             if let Some(answer) = answer {
//!                 feed(&mut client, OwnedFrame::method(1, answer));
//!             }
//!             prop_assert_eq!(application.handle_events(&mut client), []);
//!         }
//!         client.handle_eof(NOW);
//!         prop_assert_eq!(application.handle_events(&mut client), []);
//!         prop_assert!(application.is_settled());
//!     }
//! }
//! each_request_has_one_outcome();
//! ```

mod frames;
mod methods;
mod operations;
mod tables;
mod values;

pub use self::{
    frames::{Cuts, OwnedFrame},
    methods::{client_methods, methods, requests, server_methods},
    operations::{Application, Applied, Operation, Settlement},
    values::Values,
};

//! Two connections behind one handle: one to publish, one to consume.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use amqp_core::wire::{FieldTable, FieldValue};
use futures_core::Stream;

use crate::{
    both::{both, try_both},
    channel::Channel,
    connect::{connect, error::ConnectError, options::Options},
    connection::Connection,
    error::Error,
    io::Runtime,
    states::{ConnectionState, ConnectionStates},
};

/// A connection to publish and one to consume, behind one handle.
///
/// Under a [resource alarm](https://www.rabbitmq.com/docs/alarms) RabbitMQ reads nothing from a
/// connection that publishes, so that the acknowledgements of consumers on it wait, too, and with
/// them the deliveries. On a connection that never publishes they go on.
///
/// Each of the two is a [`Connection`] like any other, and recovers by itself if the
/// [options](Options::recovery) say so. An exclusive queue belongs to the connection that declares
/// it: declare those to consume from on the consuming one. Requests with [direct
/// reply-to](https://www.rabbitmq.com/docs/direct-reply-to) are published on the channel of their
/// consumer, which is one of the publishing connection then.
///
/// ```no_run
/// use amqp_driver::{Options, connect_pair, io::Runtime, protocol::basic};
///
/// # async fn example<R: Runtime>(runtime: R) -> Result<(), Box<dyn std::error::Error>> {
/// let options = Options::from_uri("amqp://broker.example.com")?.recovering();
/// let pair = connect_pair(&runtime, &options).await?;
/// let publishing = pair.open_publishing_channel().await?.confirm_select().await?;
/// let consuming = pair.open_consuming_channel().await?;
/// let mut orders = consuming.consume(basic::Consume::default().queue("orders")).await?;
/// let to_invoices = basic::Publish::default().routing_key("invoices");
/// while let Some(order) = orders.next().await.transpose()? {
///     let persistent = basic::Properties::default().persistent();
///     publishing.publish(&to_invoices, &persistent, order.body.clone()).await?.await?;
///     order.ack()?;
/// }
/// pair.close().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct ConnectionPair {
    publishing: Connection,
    consuming: Connection,
}

/// Opens two connections as [`connect`](crate::connect()) does, side by side, and spawns their
/// drivers. If the options have a `connection_name`, it is followed by the purpose of each.
///
/// # Cancel safety
/// Dropping it closes the streams opened so far.
///
/// # Errors
/// As [`connect`](crate::connect()), of the one that fails first; the other is closed.
pub async fn connect_pair<R: Runtime>(
    runtime: &R,
    options: &Options,
) -> Result<ConnectionPair, ConnectError> {
    let [to_publish, to_consume] = ["publishing", "consuming"].map(|purpose| {
        let mut options = options.clone();
        name_purpose(&mut options.config.properties, purpose);
        options
    });
    let connecting = try_both(connect(runtime, &to_publish), connect(runtime, &to_consume));
    let (publishing, consuming) = connecting.await?;
    Ok(ConnectionPair::new(publishing, consuming))
}

/// The property that RabbitMQ shows to operators (<https://www.rabbitmq.com/docs/connections>).
const NAME: &str = "connection_name";

fn name_purpose(properties: &mut FieldTable, purpose: &str) {
    if let Some(value) = properties.get_mut(NAME)
        && let FieldValue::LongStr(name) = value
        && let Ok(name) = str::from_utf8(name.as_bytes())
    {
        *value = format!("{name} ({purpose})").as_str().into();
    }
}

impl ConnectionPair {
    /// A pair of connections that were opened otherwise, such as with options of their own.
    #[must_use]
    pub const fn new(publishing: Connection, consuming: Connection) -> Self {
        Self {
            publishing,
            consuming,
        }
    }

    /// The connection to publish on.
    #[must_use]
    pub const fn publishing(&self) -> &Connection {
        &self.publishing
    }

    /// The connection to consume, fetch and acknowledge on. Publishing on it would let an alarm hold
    /// up the acknowledgements.
    #[must_use]
    pub const fn consuming(&self) -> &Connection {
        &self.consuming
    }

    /// Opens a channel to publish on.
    ///
    /// # Cancel safety
    /// As [`Connection::open_channel`].
    ///
    /// # Errors
    /// As [`Connection::open_channel`].
    pub async fn open_publishing_channel(&self) -> Result<Channel, Error> {
        self.publishing.open_channel().await
    }

    /// Opens a channel to consume on.
    ///
    /// # Cancel safety
    /// As [`Connection::open_channel`].
    ///
    /// # Errors
    /// As [`Connection::open_channel`].
    pub async fn open_consuming_channel(&self) -> Result<Channel, Error> {
        self.consuming.open_channel().await
    }

    /// Returns the stream of the states of both connections. It does not keep them open.
    #[must_use]
    pub fn states(&self) -> PairStates {
        PairStates {
            publishing: Side::new(&self.publishing),
            consuming: Side::new(&self.consuming),
        }
    }

    /// Closes both connections, side by side: an alarm delays only the close of the publishing one.
    ///
    /// # Cancel safety
    /// Once polled, the connections are closing, and dropping it only drops the wait.
    ///
    /// # Errors
    /// As [`Connection::close`], for either; if both fail, that of the publishing one.
    pub async fn close(&self) -> Result<(), Error> {
        let (publishing, consuming) = both(self.publishing.close(), self.consuming.close()).await;
        publishing.and(consuming)
    }

    /// Ends both connections at once, as [`Connection::abort`] does.
    pub fn abort(&self) {
        self.publishing.abort();
        self.consuming.abort();
    }
}

/// The states of the connections of a [`ConnectionPair`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PairState {
    /// The state of the connection to publish on.
    pub publishing: ConnectionState,
    /// The state of the connection to consume on.
    pub consuming: ConnectionState,
}

/// The states of a [`ConnectionPair`], as a [`Stream`] that ends after both connections are
/// [closed](ConnectionState::Closed). The first item is the current state; a state that was left
/// before the stream was polled is skipped.
#[derive(Debug)]
pub struct PairStates {
    publishing: Side,
    consuming: Side,
}

impl PairStates {
    /// Returns the next state that differs from the last one, or `None` after the end of both.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn next(&mut self) -> Option<PairState> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for PairStates {
    type Item = PairState;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PairState>> {
        let Self {
            publishing,
            consuming,
        } = &mut *self;
        let news = [publishing.poll_news(cx), consuming.poll_news(cx)];
        if news == [News::Ended; 2] {
            return Poll::Ready(None);
        }
        match (&publishing.last, &consuming.last) {
            (Some(publishing), Some(consuming)) if news.contains(&News::Changed) => {
                Poll::Ready(Some(PairState {
                    publishing: publishing.clone(),
                    consuming: consuming.clone(),
                }))
            }
            _ => Poll::Pending,
        }
    }
}

/// The states of one of the connections.
#[derive(Debug)]
struct Side {
    states: ConnectionStates,
    last: Option<ConnectionState>,
}

/// A change of the states of a connection since the last poll.
#[derive(Clone, Copy, PartialEq, Eq)]
enum News {
    None,
    Changed,
    Ended,
}

impl Side {
    fn new(connection: &Connection) -> Self {
        Self {
            states: connection.states(),
            last: None,
        }
    }

    fn poll_news(&mut self, cx: &mut Context<'_>) -> News {
        match Pin::new(&mut self.states).poll_next(cx) {
            Poll::Pending => News::None,
            Poll::Ready(None) => News::Ended,
            Poll::Ready(state) => {
                self.last = state;
                News::Changed
            }
        }
    }
}

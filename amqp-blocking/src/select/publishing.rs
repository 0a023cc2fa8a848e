//! Publishing, with and without confirms.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
};

use amqp_core::protocol::basic;
use amqp_driver::{
    Body, Channel, ConfirmChannel, ReturnedMessage, Returns, Unconfirmed,
    publishing::Acknowledgements,
};

use super::{
    Answer, Error,
    shared::{CountGuard, Shared, goes_on, is_usable},
};

impl Shared {
    /// Publishes, in the order of the calls, and waits for the outcome.
    pub(super) fn publish(
        self: &Rc<Self>,
        method: basic::Publish,
        properties: basic::Properties,
        body: Body,
    ) -> impl Future<Output = Result<Answer, Error>> + use<> {
        let shared = Rc::clone(self);
        let acknowledgements = self.acknowledgements.get();
        let outstanding = CountGuard::new(self, |shared| &shared.outstanding_publishes, 1);
        let queued = CountGuard::new(self, |shared| &shared.queued_bytes, body.len());
        async move {
            let _outstanding = outstanding;
            let turn = shared.publish_queue.wait_turn().await;
            let connection = shared.connection.get().await.map_err(unsent)?;
            let confirms = match acknowledgements {
                Acknowledgements::On => true,
                Acknowledgements::Off => false,
                Acknowledgements::IfSupported => connection.has_capability("publisher_confirms"),
            };
            if confirms {
                let confirm = loop {
                    let channel = shared.confirming_publisher().await.map_err(unsent)?;
                    match channel.publish(&method, &properties, body.clone()).await {
                        // The channel was closed, and not because of this message: it was not sent.
                        Err(amqp_driver::Error::ChannelClosed(_)) => {}
                        published => break published.map_err(|error| unsent(error.into()))?,
                    }
                };
                drop((turn, queued, body));
                confirm.await?;
                return Ok(Answer::Published);
            }
            let (channel, returns) = loop {
                let channel = shared.plain_publisher().await.map_err(unsent)?;
                let returns = method.mandatory.then(|| channel.returns());
                match channel.publish(&method, &properties, body.clone()).await {
                    Err(amqp_driver::Error::ChannelClosed(_)) => {}
                    published => {
                        published.map_err(|error| unsent(error.into()))?;
                        break (channel, returns);
                    }
                }
            };
            let turn = method.mandatory.then_some(turn);
            drop((queued, body));
            let handled = channel.call(basic::Qos::default()).await;
            let returned = match returns {
                Some(returns) => first_returned(returns).await,
                None => None,
            };
            if handled.is_err() {
                // A late answer, or a late return, is not for another publish.
                shared.forget_plain_publisher(&channel);
            }
            drop(turn);
            if let Some(message) = returned {
                return Err(Unconfirmed::Returned(Box::new(message)).into());
            }
            handled.map_err(unknown)?;
            Ok(Answer::Published)
        }
    }

    /// Returns the open channel to publish on, in confirm mode
    /// (<https://www.rabbitmq.com/docs/confirms#publisher-confirms>). Opens a new one if it was
    /// closed.
    async fn confirming_publisher(self: &Rc<Self>) -> Result<Rc<ConfirmChannel>, Error> {
        let open = self.confirming_publisher.borrow().clone();
        if let Some(channel) = open.filter(|channel| is_usable(channel)) {
            return Ok(channel);
        }
        let connection = self.connection.get().await?;
        loop {
            let channel = self.channel().await?.into_channel();
            match channel.confirm_select().await {
                // It was in flight at a loss, after which the connection goes on.
                Err(amqp_driver::Error::ConnectionClosed(_)) if goes_on(&connection) => {}
                channel => {
                    let channel = Rc::new(channel?);
                    self.confirming_publisher.replace(Some(Rc::clone(&channel)));
                    return Ok(channel);
                }
            }
        }
    }

    /// Returns the open channel to publish on without confirms. Opens a new one if it was closed.
    async fn plain_publisher(self: &Rc<Self>) -> Result<Rc<Channel>, Error> {
        let open = self.plain_publisher.borrow().clone();
        if let Some(channel) = open.filter(|channel| is_usable(channel)) {
            return Ok(channel);
        }
        let channel = Rc::new(self.channel().await?.into_channel());
        self.plain_publisher.replace(Some(Rc::clone(&channel)));
        Ok(channel)
    }

    fn forget_plain_publisher(&self, channel: &Rc<Channel>) {
        let mut publisher = self.plain_publisher.borrow_mut();
        publisher.take_if(|it| Rc::ptr_eq(it, channel));
    }
}

/// Returns the message that has been returned already. `Some` if there is one.
async fn first_returned(mut returns: Returns) -> Option<ReturnedMessage> {
    let mut next = pin!(returns.next());
    poll_fn(|cx| match next.as_mut().poll(cx) {
        Poll::Ready(returned) => Poll::Ready(returned),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Maps the end of the connection to the outcome of a message that was not accepted: not sent.
fn unsent(error: Error) -> Error {
    match error {
        Error::Call(amqp_driver::Error::ConnectionClosed(reason)) => {
            Unconfirmed::NotSent(reason).into()
        }
        error => error,
    }
}

/// Maps the end of a channel or the connection to the outcome of a message that was accepted.
fn unknown(error: amqp_driver::Error) -> Error {
    match error {
        amqp_driver::Error::ChannelClosed(reason)
        | amqp_driver::Error::ConnectionClosed(reason) => Unconfirmed::Unknown(reason).into(),
        error => error.into(),
    }
}

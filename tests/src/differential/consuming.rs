//! The effect of the steps that begin and end consumers.

use amqp_tokio::{
    protocol::basic,
    wire::{FieldValue, ShortStr},
};

use super::{
    program::{From, Step},
    run::{Kind, Reader, Run},
};
use crate::harness::Failure;

impl Run<'_> {
    pub(super) async fn consume(&mut self, step: &Step) -> Result<(), Failure> {
        let Step::Consume {
            on,
            queue,
            tag,
            no_ack,
            exclusive,
            priority,
        } = *step
        else {
            return Ok(());
        };
        let mut consume = basic::Consume::default()
            .queue(self.names.queue(queue))
            .consumer_tag(format!("t{tag}"));
        consume.exclusive = exclusive;
        if let Some(priority) = priority {
            consume
                .arguments
                .insert(ShortStr::try_from("x-priority")?, priority);
        }
        self.begin(on, queue, tag, no_ack, consume).await
    }

    pub(super) async fn read(&mut self, step: &Step) -> Result<(), Failure> {
        let Step::Read {
            on,
            queue,
            tag,
            from,
        } = *step
        else {
            return Ok(());
        };
        let qos = basic::Qos::default().prefetch_count(1000);
        if self.call(on, qos).await?.is_none() {
            return Ok(());
        }
        let mut consume = basic::Consume::default()
            .queue(self.names.queue(queue))
            .consumer_tag(format!("t{tag}"));
        let from: Option<FieldValue> = match from {
            From::Nowhere => None,
            From::First => Some("first".into()),
            From::Next => Some("next".into()),
            From::Offset(offset) => Some(offset.into()),
            From::Text(text) => Some(text.into()),
        };
        if let Some(from) = from {
            consume
                .arguments
                .insert(ShortStr::try_from("x-stream-offset")?, from);
        }
        self.begin(on, queue, tag, false, consume).await
    }

    /// Begins to consume.
    async fn begin(
        &mut self,
        on: u8,
        queue: u8,
        tag: u8,
        no_ack: bool,
        consume: basic::Consume,
    ) -> Result<(), Failure> {
        let Some(live) = self.open(on).await? else {
            return Ok(());
        };
        let begun = if no_ack {
            live.channel.consume_no_ack(consume).await.map(Kind::NoAck)
        } else {
            live.channel.consume(consume).await.map(Kind::Manual)
        };
        match begun {
            Ok(consumer) => {
                live.consumers.insert(tag, Reader { queue, consumer });
                self.line("consuming");
            }
            Err(error) => self.failed(&error),
        }
        Ok(())
    }

    pub(super) async fn consume_twice(&mut self, on: u8, tag: u8) -> Result<(), Failure> {
        let in_use = self.channels[usize::from(on)]
            .as_ref()
            .is_some_and(|live| live.consumers.contains_key(&tag));
        if !in_use {
            self.line("nothing to do");
            return Ok(());
        }
        let consume = basic::Consume::default()
            .queue(self.names.queue(0))
            .consumer_tag(format!("t{tag}"));
        self.inject(on, &consume).await
    }

    pub(super) async fn cancel(&mut self, on: u8, tag: u8) -> Result<(), Failure> {
        let Some(live) = self.open(on).await? else {
            return Ok(());
        };
        let cancelled = match live.consumers.get_mut(&tag) {
            Some(reader) => match &mut reader.consumer {
                Kind::Manual(consumer) => consumer.cancel().await,
                Kind::NoAck(consumer) => consumer.cancel().await,
            },
            None => {
                let cancel = basic::Cancel::default().consumer_tag(format!("t{tag}"));
                live.channel.call(cancel).await.map(drop)
            }
        };
        match cancelled {
            Ok(()) => self.line("cancelled"),
            Err(error) => self.failed(&error),
        }
        Ok(())
    }
}

//! The answers to requests, at once or on demand, and the account of deliveries.

use amqp_driver::core::{
    ChannelId,
    protocol::{ClientMethod, basic},
};
use bytes::Bytes;

use super::Peer;
use crate::replies::reply;

impl Peer {
    pub(super) fn answer_or_hold(&mut self, channel: ChannelId, method: ClientMethod) {
        if self.hold {
            self.held.push_back((channel, method));
        } else {
            self.answer(channel, method);
        }
    }

    /// How many requests were put aside.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Answers the oldest request that was put aside; false if there is none.
    pub fn answer_one(&mut self) -> bool {
        let Some((channel, method)) = self.held.pop_front() else {
            return false;
        };
        self.answer(channel, method);
        true
    }

    /// Answers all requests, now and from now on.
    pub fn release(&mut self) {
        self.hold = false;
        while self.answer_one() {}
    }

    fn answer(&mut self, id: ChannelId, method: ClientMethod) {
        let number = id.number();
        let open = self.is_open(id);
        let Some(mut channel) = self.machine.channel(id).filter(|_| open) else {
            return;
        };
        let answered = match method {
            ClientMethod::TxCommit(_) => {
                self.committing.remove(&number);
                reply(&mut channel, method)
            }
            ClientMethod::BasicRecover(_) => {
                let answered = reply(&mut channel, method);
                self.recover(number);
                answered
            }
            ClientMethod::BasicConsume(it) => {
                self.consume(id, &it);
                Ok(())
            }
            ClientMethod::BasicCancel(ref it) => {
                self.consumers
                    .remove(&(number, it.consumer_tag.to_string()));
                // RabbitMQ answers also for a consumer that it does not know.
                reply(&mut channel, method)
            }
            ClientMethod::BasicGet(it) => {
                self.fetch(id, it.no_ack);
                Ok(())
            }
            method => reply(&mut channel, method),
        };
        answered.unwrap();
    }

    fn consume(&mut self, id: ChannelId, consume: &basic::Consume) {
        let number = id.number();
        let tag = consume.consumer_tag.to_string();
        let before = self.consumers.insert((number, tag.clone()), consume.no_ack);
        if before.is_some() {
            self.violations
                .push(format!("consumer tag {tag} is in use"));
        }
        if !consume.no_wait {
            let consumer_tag = consume.consumer_tag.clone();
            let mut channel = self.machine.channel(id).unwrap();
            channel.send(&basic::ConsumeOk { consumer_tag }).unwrap();
        }
        for body in self.at_once.clone() {
            self.deliver(number, &tag, body);
        }
    }

    fn fetch(&mut self, id: ChannelId, no_ack: bool) {
        let Some(body) = self.gettable.pop_front() else {
            let mut channel = self.machine.channel(id).unwrap();
            channel.send(&basic::GetEmpty).unwrap();
            return;
        };
        let method = basic::GetOk {
            delivery_tag: self.next_tag(id.number(), no_ack, &body),
            message_count: u32::try_from(self.gettable.len()).unwrap(),
            ..basic::GetOk::default()
        };
        let mut channel = self.machine.channel(id).unwrap();
        channel
            .send_content(&method, &basic::Properties::default(), body)
            .unwrap();
    }

    pub(super) fn next_tag(&mut self, number: u16, no_ack: bool, body: &Bytes) -> u64 {
        let tag = self.tags.get_mut(&number).unwrap();
        *tag += 1;
        let tag = *tag;
        if no_ack {
            self.handed_over.push(body.clone());
        } else {
            self.outstanding.insert((number, tag), body.clone());
        }
        tag
    }

    pub(super) fn refused(&mut self, number: u16, settled: Vec<Bytes>, requeue: bool) {
        if requeue {
            let consumer = self
                .consumers
                .keys()
                .find(|(channel, _)| *channel == number);
            let consumer = consumer.map(|(_, tag)| tag.clone());
            let open = self.channels.get(&number).copied();
            let open = open.is_some_and(|id| self.is_open(id));
            if let Some(tag) = consumer.filter(|_| self.redelivers && open) {
                for body in &settled {
                    self.deliver_as(number, &tag, body.clone(), true);
                }
            }
            self.requeued.extend(settled);
        } else {
            self.rejected.extend(settled);
        }
    }

    pub(super) fn settle(&mut self, number: u16, tag: u64, multiple: bool) -> Vec<Bytes> {
        let last = if multiple && tag == 0 { u64::MAX } else { tag };
        let first = if multiple { 0 } else { tag };
        let known = self.outstanding.contains_key(&(number, tag));
        if !known && tag != 0 {
            let violation = format!("unknown delivery tag {tag} on channel {number}");
            self.violations.push(violation);
        }
        let range = (number, first)..=(number, last);
        let tags: Vec<_> = self.outstanding.range(range).map(|(&key, _)| key).collect();
        tags.iter()
            .filter_map(|key| self.outstanding.remove(key))
            .collect()
    }

    pub(super) fn recover(&mut self, number: u16) {
        let all = self.settle(number, 0, true);
        self.requeued.extend(all);
    }
}

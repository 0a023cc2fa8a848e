//! From a transport to a link that is up: admission, and the choice between two links to one peer.
//!
//! A peer has at most one link that is up. The connector decides whether to go on once it knows the
//! listener's name, and has at most one link to a peer that joins. The listener decides whether the
//! link comes up, when the connector consumes.
//!
//! - If both dial each other at once, the link of the peer with the lower name stays: that peer
//!   refuses the other link while its own joins, and the other one gives its own up.
//! - If a link is up already, it is probed. If it answers, the newer one is refused. If it does not,
//!   it is replaced. A connector of the same instance that comes again has given its last link up,
//!   which is then replaced at once.

use amqp_core::{
    ChannelId, DeliveryTag, PublishSeq, client,
    protocol::{ClientMethod, Method, ReplyCode, basic, confirm},
    server,
};

use super::{
    Machine, causes,
    handshake::{identity, is_login_right, is_peer},
    link::{Link, Side, Stage},
    wire::QUEUE,
};
use crate::{
    cause::DownCause,
    config::{Clients, TtlClock},
    event::{Down, Event, LinkKey, Refused, Up},
};

/// The number of the channel of the messages that the connector sends.
const CONNECTOR_SENDS: u16 = 1;

/// The number of the channel of the messages that the listener sends.
const LISTENER_SENDS: u16 = 2;

/// What a link does when the peer has one that is up, or that joins.
enum Choice {
    /// It comes up, or joins.
    Proceed,
    /// It waits while the one that is up is probed.
    Contest,
    /// It takes the place of another link.
    Replace(LinkKey, DownCause),
    /// It ends.
    Refuse(DownCause),
}

impl Machine {
    /// Handles the credentials of a client.
    pub(super) fn on_authenticate(&self, link: &mut Link, request: server::AuthRequest) {
        let Side::Listener(machine) = &mut link.side else {
            return;
        };
        let properties = &request.client_properties;
        let refused = if !is_peer(properties) {
            if self.config.clients == Clients::Allow {
                link.client = Some(request);
                return;
            }
            Some((DownCause::NotAPeer, causes::NO_CLIENTS))
        } else if is_login_right(&self.config, &request) {
            match identity(properties) {
                Ok(identity) => link.identity = Some(identity),
                // Told at `open`, where it can be told to any client.
                Err(cause) => link.cause = Some(cause),
            }
            None
        } else {
            Some((DownCause::Secret, causes::told(&DownCause::Secret).1))
        };
        // The decision is pending.
        let _decided = match refused {
            None => machine.accept(),
            Some((cause, text)) => {
                link.cause = Some(cause);
                machine.refuse(text)
            }
        };
    }

    /// Handles the request of a client to open the virtual host: the last step of a login.
    pub(super) fn on_open(&mut self, link: &mut Link) {
        if let Err(cause) = self.admit(link) {
            self.close(link, cause);
        } else if let Side::Listener(machine) = &mut link.side {
            // The decision is pending.
            let _decided = machine.open();
        }
    }

    /// Handles the end of AMQP's handshake, on the side of the connector.
    pub(super) fn on_opened(&mut self, link: &mut Link) {
        if let Side::Connector(machine) = &link.side {
            match identity(machine.server_properties()) {
                Ok(identity) => link.identity = Some(identity),
                Err(cause) => link.cause = Some(cause),
            }
            match self.admit(link) {
                Ok(()) => self.join(link),
                Err(cause) => self.close(link, cause),
            }
        }
    }

    /// Checks what can be checked of any link, and makes the peer known.
    fn admit(&mut self, link: &mut Link) -> Result<(), DownCause> {
        if let Some(cause) = link.cause.take() {
            return Err(cause);
        }
        let identity = link.identity.as_ref().ok_or(DownCause::NotAPeer)?;
        let name = &identity.name;
        if *name == self.config.name {
            return Err(DownCause::OwnName);
        }
        if let Some(rule) = &self.config.certificate_rule
            && !rule.allows(name, &link.certificates)
        {
            return Err(DownCause::Certificate);
        }
        if self.is_stopped {
            return Err(DownCause::Requested);
        }
        let name = name.clone();
        let key = self.know(&name);
        if let Some(peer) = self.peers.get_mut(key) {
            peer.links += 1;
        }
        link.peer = Some(key);
        link.stage = Stage::Joining;
        Ok(())
    }

    /// Handles the request of a connector to consume.
    pub(super) fn on_consume(&mut self, link: &mut Link, consume: &basic::Consume) {
        let is_right = link.is_selected
            && !link.owes_consume_ok
            && link.stage == Stage::Joining
            && consume.queue == QUEUE
            && consume.consumer_tag == QUEUE
            && !consume.no_ack
            && !consume.no_wait;
        if is_right {
            link.owes_consume_ok = true;
            self.join(link);
        } else {
            self.close_broken(link, ReplyCode::COMMAND_INVALID);
        }
    }

    fn choose(&self, link: &Link) -> Choice {
        let peer = link.peer.and_then(|key| self.peers.get(key));
        let (Some(peer), Some(identity)) = (peer, &link.identity) else {
            return Choice::Refuse(DownCause::NotAPeer);
        };
        let another = if identity.instance == peer.instance {
            DownCause::Duplicate
        } else {
            DownCause::NameInUse
        };
        if let Some(up) = peer.up {
            let came_again = link.is_listener()
                && identity.instance == peer.instance
                && self.links.get(&up).is_some_and(|up| up.is_listener());
            return match peer.contest {
                _ if came_again => Choice::Replace(up, DownCause::Replaced),
                Some((contender, _)) if contender != link.key => Choice::Refuse(another),
                _ => Choice::Contest,
            };
        }
        if self.up_links >= self.config.limits.links {
            return Choice::Refuse(DownCause::TooManyLinks);
        }
        match peer.joining.filter(|joining| *joining != link.key) {
            None => Choice::Proceed,
            Some(_) if !link.is_listener() => Choice::Refuse(DownCause::Duplicate),
            Some(_) if self.config.name < identity.name => Choice::Refuse(DownCause::Duplicate),
            Some(own) => Choice::Replace(own, DownCause::Duplicate),
        }
    }

    /// Brings a link up, or a step closer to it, unless another one of the same peer comes first.
    pub(super) fn join(&mut self, link: &mut Link) {
        // One to replace, and the one that has waited for its place.
        for _ in 0..3 {
            match self.choose(link) {
                Choice::Proceed => return self.proceed(link),
                Choice::Contest => return self.contest(link),
                Choice::Refuse(cause) => return self.close(link, cause),
                Choice::Replace(other, cause) => {
                    self.with_link(other, |machine, other| machine.close(other, cause));
                }
            }
        }
        self.close(link, DownCause::Duplicate);
    }

    fn proceed(&mut self, link: &mut Link) {
        link.stage = Stage::Joining;
        match &mut link.side {
            Side::Listener(_) => self.up(link),
            Side::Connector(machine) => {
                let opened = machine
                    .open_channel_at(CONNECTOR_SENDS)
                    .and_then(|sending| {
                        let receiving = machine.open_channel_at(LISTENER_SENDS)?;
                        Ok((sending.0, receiving.0))
                    });
                let Ok((sending, receiving)) = opened else {
                    return self.close_broken(link, ReplyCode::NOT_ALLOWED);
                };
                (link.sending, link.receiving) = (Some(sending), Some(receiving));
                if let Some(peer) = link.peer.and_then(|key| self.peers.get_mut(key)) {
                    peer.joining = Some(link.key);
                }
                self.wake(link);
            }
        }
    }

    /// Handles a reply to a request of the connector.
    fn on_reply(&mut self, link: &mut Link, channel: Option<ChannelId>, reply: &Method) {
        let Side::Connector(machine) = &mut link.side else {
            return;
        };
        match reply {
            Method::ChannelOpenOk(_) => {
                let is_sending = channel == link.sending;
                let channel = channel.and_then(|id| machine.channel(id));
                let asked = channel.map(|mut channel| {
                    if is_sending {
                        return channel.call(&confirm::Select::default()).map(drop);
                    }
                    let consume = basic::Consume {
                        queue: QUEUE,
                        consumer_tag: QUEUE,
                        ..basic::Consume::default()
                    };
                    channel.consume(consume).map(drop)
                });
                if asked != Some(Ok(())) {
                    self.close_broken(link, ReplyCode::COMMAND_INVALID);
                }
            }
            Method::BasicConsumeOk(_) if link.stage == Stage::Joining => {
                let peer = link.peer.and_then(|key| self.peers.get(key));
                if peer.is_some_and(|peer| peer.up.is_none()) {
                    self.up(link);
                } else {
                    self.close(link, DownCause::Duplicate);
                }
            }
            Method::ChannelFlowOk(_) => link.awaits_flow_ok = false,
            _ => {}
        }
    }

    fn up(&mut self, link: &mut Link) {
        let (Some(key), Some(identity)) = (link.peer, link.identity.clone()) else {
            return;
        };
        if std::mem::take(&mut link.owes_consume_ok)
            && let (Side::Listener(machine), Some(id)) = (&mut link.side, link.sending)
            && let Some(mut channel) = machine.channel(id)
        {
            let consumer_tag = QUEUE;
            // A request is owed its answer.
            let _sent = channel.send(&basic::ConsumeOk { consumer_tag });
        }
        self.expire(key);
        let now = self.now;
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        peer.up = Some(link.key);
        if std::mem::replace(&mut peer.instance, identity.instance) != identity.instance {
            peer.outbox.receiver_changed();
        }
        peer.joining = None;
        peer.inbox.link_changed();
        peer.outbox.rewind();
        self.disconnected.remove(&peer.down_order);
        if self.config.ttl_clock == TtlClock::Disconnected && peer.clock.is_running() {
            peer.clock.stop(now);
            self.note_clock(key);
        }
        self.plan_expiry(key);
        link.stage = Stage::Up;
        (link.heard, link.probed) = (now, None);
        self.up_links += 1;
        self.pending_links -= usize::from(link.is_listener());
        self.push_link_event(Event::Up(Up {
            name: identity.name,
            instance: identity.instance,
            link: link.key,
            is_listener: link.is_listener(),
            certificates: link.certificates.clone(),
        }));
        self.wake(link);
    }

    /// Lets a link wait while the one that is up is probed.
    fn contest(&mut self, link: &mut Link) {
        let now = self.now;
        let Some((key, peer)) = link
            .peer
            .and_then(|key| Some((key, self.peers.get_mut(key)?)))
        else {
            return;
        };
        peer.contest = Some((link.key, now + self.config.probe));
        link.stage = Stage::Contested;
        let up = peer.up;
        self.contested.insert(key);
        if let Some(up) = up {
            self.with_link(up, |machine, up| {
                up.probe(now);
                machine.wake(up);
            });
        }
    }

    /// Ends the contest of a peer: the link that is up has shown that it is alive.
    pub(super) fn incumbent_is_alive(&mut self, key: u64) {
        self.contested.remove(&key);
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let Some((contender, _)) = peer.contest.take() else {
            return;
        };
        let instance = peer.instance;
        self.with_link(contender, |machine, link| {
            let is_same = link
                .identity
                .as_ref()
                .is_some_and(|identity| identity.instance == instance);
            let cause = if is_same {
                DownCause::Duplicate
            } else {
                DownCause::NameInUse
            };
            machine.close(link, cause);
        });
    }

    /// Ends the contests of those that have not answered in time.
    pub(super) fn end_contests(&mut self) {
        let due: Vec<u64> = self.contested.iter().copied().collect();
        for key in due {
            let Some(peer) = self.peers.get(key) else {
                continue;
            };
            if let (Some((_, until)), Some(up)) = (peer.contest, peer.up)
                && until <= self.now
            {
                self.with_link(up, |machine, up| {
                    up.cause = Some(DownCause::Replaced);
                    machine.cut(up, "silent while probed");
                });
            }
        }
    }

    /// Ends a link because the transport is of no use, without a word to the peer.
    pub(super) fn cut(&mut self, link: &mut Link, message: &str) {
        let now = self.now;
        let machine = link.side.endpoint_mut();
        machine.handle_transport_error(now, message);
        self.process(link);
        self.wake(link);
    }

    /// Closes a link for a violation of the peers' protocol.
    pub(super) fn close_broken(&mut self, link: &mut Link, code: ReplyCode) {
        self.close(link, DownCause::Protocol { code });
    }

    /// Closes a link, and tells the peer the cause.
    pub(super) fn close(&mut self, link: &mut Link, cause: DownCause) {
        if link.stage == Stage::Ended {
            return;
        }
        let (code, text) = causes::told(&cause);
        link.cause = Some(cause);
        link.acknowledge();
        link.side.close(code, text);
        self.end(link);
        self.wake(link);
    }

    /// Notes the end of a link, and reports it once.
    pub(super) fn end(&mut self, link: &mut Link) {
        if link.stage == Stage::Ended {
            return;
        }
        let Some(reason) = link.side.close_reason().cloned() else {
            return;
        };
        let was_up = link.is_up();
        link.stage = Stage::Ended;
        let cause = link.cause.clone().unwrap_or_else(|| causes::of(&reason));
        let name = link.identity.as_ref().map(|it| it.name.clone());
        if was_up {
            self.up_links -= 1;
        } else {
            self.pending_links -= usize::from(link.is_listener());
        }
        if let Some(name) = &name {
            // Events of messages that will not be reported keep no place.
            for _ in std::mem::take(&mut link.unwritten) {
                self.event_taken(name, 0);
            }
        }
        let event = match name {
            Some(name) if was_up => Event::Down(Down {
                name,
                link: link.key,
                cause,
                reason,
            }),
            name => Event::Refused(Refused {
                name,
                link: link.key,
                is_listener: link.is_listener(),
                cause,
                reason,
            }),
        };
        self.push_link_event(event);
        if let Some(key) = link.peer {
            self.leave(key, link.key);
        }
    }

    /// Takes a link that has ended from its peer. The link that has waited for its end goes on.
    fn leave(&mut self, key: u64, link: LinkKey) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        peer.links -= 1;
        if peer.joining == Some(link) {
            peer.joining = None;
        }
        let mut successor = None;
        match peer.contest {
            Some((contender, _)) if contender == link => peer.contest = None,
            Some((contender, _)) if peer.up == Some(link) => {
                peer.contest = None;
                successor = Some(contender);
            }
            _ => {}
        }
        if peer.contest.is_none() {
            self.contested.remove(&key);
        }
        if peer.up == Some(link) {
            peer.up = None;
            peer.outbox.rewind();
            peer.inbox.link_changed();
            if !peer.outbox.is_empty() {
                peer.clock.start(now);
                self.note_clock(key);
            }
            self.remember_disconnected(key);
            self.expire(key);
        }
        if let Some(successor) = successor {
            self.with_link(successor, |machine, link| machine.join(link));
        }
        self.forget_if_idle(key);
    }

    /// Handles an event of the connector's machine.
    pub(super) fn on_connector_event(&mut self, link: &mut Link, event: client::Event) {
        match event {
            client::Event::Opened => self.on_opened(link),
            client::Event::Reply { channel, reply, .. } => self.on_reply(link, channel, &reply),
            client::Event::Delivered(delivery) => {
                let tag = delivery.tag.map(DeliveryTag::get);
                self.receive(link, tag, delivery.content);
            }
            client::Event::Settled {
                first,
                last,
                outcome,
                ..
            } => self.on_settled(link, super::link::range(first, last), &outcome),
            // The end of the connection follows, with its reason.
            client::Event::Failed { .. } if link.side.close_reason().is_some() => {}
            client::Event::Unreadable { .. }
            | client::Event::ConsumerCancelled { .. }
            | client::Event::Failed { .. } => {
                self.close_broken(link, ReplyCode::COMMAND_INVALID);
            }
            client::Event::ChannelClosed { reason, .. } => {
                let cause = causes::of(&reason);
                self.close(link, cause);
            }
            client::Event::Closed(_) => self.end(link),
            _ => {}
        }
    }

    /// Handles an event of the listener's machine.
    pub(super) fn on_listener_event(&mut self, link: &mut Link, event: server::Event) {
        match event {
            server::Event::Authenticate(request) => self.on_authenticate(link, request),
            server::Event::Open { .. } => self.on_open(link),
            server::Event::ChannelOpened { channel } => {
                let place = match channel.number() {
                    CONNECTOR_SENDS => &mut link.receiving,
                    LISTENER_SENDS => &mut link.sending,
                    _ => return self.close_broken(link, ReplyCode::NOT_ALLOWED),
                };
                *place = Some(channel);
            }
            server::Event::Request { channel, method } => self.on_request(link, channel, &method),
            server::Event::Published(published) => {
                let tag = published.seq.map(PublishSeq::get);
                let tag = tag.filter(|_| Some(published.channel) == link.receiving);
                self.receive(link, tag, published.content);
            }
            server::Event::Flow { channel, active } => self.on_probe(link, channel, active),
            server::Event::ChannelClosed { reason, .. } => {
                let cause = causes::of(&reason);
                self.close(link, cause);
            }
            server::Event::Closed(_) => self.end(link),
            _ => {}
        }
    }

    /// Answers a probe of the connector.
    fn on_probe(&mut self, link: &mut Link, channel: ChannelId, active: bool) {
        if link.stage != Stage::Ended && !link.answer_probe(channel, active) {
            // It does not read, so that there is no use in a close.
            let code = ReplyCode::RESOURCE_ERROR;
            link.cause = Some(DownCause::Protocol { code });
            self.cut(link, "the peer does not read the answers to its probes");
        }
    }

    fn on_request(&mut self, link: &mut Link, channel: ChannelId, method: &ClientMethod) {
        let is_sending = link.sending == Some(channel);
        match method {
            ClientMethod::ConfirmSelect(select)
                if !is_sending && !link.is_selected && !select.nowait =>
            {
                link.is_selected = true;
                if let Side::Listener(machine) = &mut link.side
                    && let Some(mut channel) = machine.channel(channel)
                {
                    // A request is owed its answer.
                    let _sent = channel.send(&confirm::SelectOk);
                }
            }
            ClientMethod::BasicConsume(consume) if is_sending => self.on_consume(link, consume),
            ClientMethod::BasicAck(ack) if is_sending => {
                self.on_ack(link, ack.delivery_tag, ack.multiple);
            }
            ClientMethod::BasicNack(nack) if is_sending && !nack.multiple => {
                self.on_given_back(link, nack.delivery_tag);
            }
            ClientMethod::ChannelFlowOk(_) => link.awaits_flow_ok = false,
            _ => self.close_broken(link, ReplyCode::NOT_IMPLEMENTED),
        }
    }
}

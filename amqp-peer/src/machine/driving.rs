//! The calls of the drivers of links.

use amqp_core::{CloseCause, Instant, TimeoutReason, Transmit};
use bytes::{Bytes, BytesMut};

use super::{
    Client, Machine, handshake,
    link::{Link, Side, Stage},
};
use crate::{cause::LinkError, event::LinkKey};

impl Machine {
    /// Begins a link over a transport that this side has connected.
    ///
    /// # Errors
    /// [`LinkError`]: close the transport.
    pub fn dial(&mut self, now: Instant) -> Result<LinkKey, LinkError> {
        self.begin(now, false)
    }

    /// Begins a link over a transport that a listener has accepted.
    ///
    /// # Errors
    /// [`LinkError`]: close the transport.
    pub fn accept(&mut self, now: Instant) -> Result<LinkKey, LinkError> {
        self.begin(now, true)
    }

    /// Checks that a link may be begun now.
    pub(crate) fn check_begin(&self, is_listener: bool) -> Result<(), LinkError> {
        let limits = &self.config.limits;
        if self.is_stopped {
            return Err(LinkError::Stopped);
        }
        if self.up_links >= limits.links {
            let limit = limits.links;
            return Err(LinkError::TooManyLinks { limit });
        }
        if is_listener && self.pending_links >= limits.pending_links {
            let limit = limits.pending_links;
            return Err(LinkError::TooManyPending { limit });
        }
        if self.link_events >= limits.link_events {
            let limit = limits.link_events;
            return Err(LinkError::TooManyEvents { limit });
        }
        Ok(())
    }

    fn begin(&mut self, now: Instant, is_listener: bool) -> Result<LinkKey, LinkError> {
        self.advance_clock(now);
        self.check_begin(is_listener)?;
        let key = LinkKey(self.last_link + 1);
        let link = handshake::begin(&self.config, key, is_listener, self.now)?;
        self.last_link += 1;
        self.pending_links += usize::from(is_listener);
        self.links.insert(key, Box::new(link));
        Ok(key)
    }

    /// Notes the certificates that the peer has shown, in DER, its own one first. Call it before
    /// the first input.
    pub fn handle_certificates(&mut self, link: LinkKey, certificates: Vec<Bytes>) {
        if let Some(link) = self.links.get_mut(&link) {
            link.certificates = certificates;
        }
    }

    /// Handles received bytes: removes complete frames from the front of `input`.
    pub fn handle_input(&mut self, link: LinkKey, now: Instant, input: &mut BytesMut) {
        self.advance_clock(now);
        self.with_link(link, |machine, link| machine.read(link, input));
    }

    fn read(&mut self, link: &mut Link, input: &mut BytesMut) {
        let now = self.now;
        if let Some(bucket) = &mut link.receive_bucket {
            bucket.take(now, input.len().saturating_sub(link.leftover));
        }
        link.heard = now;
        let answers = link.probed.take().is_some();
        link.side.endpoint_mut().handle_input(now, input);
        self.process(link);
        link.leftover = input.len();
        if answers && link.is_up() {
            self.answered(link);
        }
    }

    /// Handles the end of the transport.
    pub fn handle_eof(&mut self, link: LinkKey, now: Instant) {
        self.drive(link, now, |side, now| side.endpoint_mut().handle_eof(now));
    }

    /// Handles a failure of the transport because the peer has hung up, with its message.
    pub fn handle_reset(&mut self, link: LinkKey, now: Instant, message: &str) {
        self.drive(link, now, |side, now| {
            side.endpoint_mut().handle_reset(now, message);
        });
    }

    /// Handles a failure of the transport, with its message.
    pub fn handle_transport_error(&mut self, link: LinkKey, now: Instant, message: &str) {
        self.drive(link, now, |side, now| {
            side.endpoint_mut().handle_transport_error(now, message);
        });
    }

    /// Handles the time of [`poll_link_timeout`](Self::poll_link_timeout).
    pub fn handle_link_timeout(&mut self, link: LinkKey, now: Instant) {
        self.drive(link, now, |side, now| {
            side.endpoint_mut().handle_timeout(now);
        });
        self.with_link(link, Self::check_deadlines);
    }

    /// Handles a partial write of the output.
    pub fn handle_written(&mut self, link: LinkKey, now: Instant) {
        self.drive(link, now, |side, now| {
            side.endpoint_mut().handle_written(now);
        });
    }

    /// Runs `work` on a link at that time, and handles what it causes.
    fn drive(&mut self, key: LinkKey, now: Instant, work: impl FnOnce(&mut Side, Instant)) {
        self.advance_clock(now);
        let now = self.now;
        self.with_link(key, |machine, link| {
            work(&mut link.side, now);
            machine.process(link);
        });
    }

    /// Moves bytes to send into `out`, behind its contents. Returns `false` if there are none, or
    /// none that the throttle allows now: [`poll_link_timeout`](Self::poll_link_timeout) is then
    /// the time at which there are. Call it when the contents of `out` have been written.
    pub fn poll_transmit(&mut self, link: LinkKey, now: Instant, out: &mut Transmit) -> bool {
        self.advance_clock(now);
        let before = out.len();
        self.with_link(link, |machine, link| machine.transmit(link, out));
        out.len() > before
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) would return bytes now.
    #[must_use]
    pub fn has_transmit(&mut self, link: LinkKey, now: Instant) -> bool {
        self.advance_clock(now);
        let mut has_output = false;
        self.with_link(link, |machine, link| has_output = machine.has_output(link));
        has_output
    }

    /// Returns the next deadline of a link, for
    /// [`handle_link_timeout`](Self::handle_link_timeout), after which the link is to be driven.
    #[must_use]
    pub fn poll_link_timeout(&self, link: LinkKey) -> Option<(Instant, TimeoutReason)> {
        let link = self.links.get(&link)?;
        let joins = !matches!(link.stage, Stage::Up | Stage::Ended);
        let keepalive = self.keepalive_at(link).map(|(at, judges)| {
            let reason = if judges {
                TimeoutReason::PeerSilent
            } else {
                TimeoutReason::HeartbeatDue
            };
            (at, reason)
        });
        let deadlines = [
            link.side.endpoint().poll_timeout(),
            joins.then_some((link.join_by, TimeoutReason::Handshake)),
            keepalive,
        ];
        let throttles = [self.throttled_until(link), self.receives_at(link)];
        let throttles = throttles.map(|at| Some((at?, TimeoutReason::HeartbeatDue)));
        let all = deadlines.into_iter().chain(throttles).flatten();
        all.min_by_key(|(at, _)| *at)
    }

    /// Whether to read from the transport. `false` while the throttle of receiving forbids it.
    pub fn wants_input(&mut self, link: LinkKey, now: Instant) -> bool {
        self.advance_clock(now);
        let Some(link) = self.links.get_mut(&link) else {
            return false;
        };
        let Some(bucket) = &link.receive_bucket else {
            return true;
        };
        let wants = bucket.is_ready(self.now);
        link.side.set_reading(self.now, wants);
        wants
    }

    /// Returns the number of bytes to read at most now, for an accurate throttle of receiving.
    #[must_use]
    pub fn read_budget(&self, link: LinkKey, now: Instant) -> usize {
        let link = self.links.get(&link);
        let bucket = link.and_then(|link| link.receive_bucket.as_ref());
        bucket.map_or(usize::MAX, |bucket| bucket.available(self.now.max(now)))
    }

    /// Returns the number of bytes that the frame in progress needs at least.
    #[must_use]
    pub fn read_hint(&self, link: LinkKey) -> usize {
        let link = self.links.get(&link);
        link.map_or(0, |link| link.side.endpoint().read_hint())
    }

    /// Returns the expected size of the next frames, in bytes, in the middle of a large body;
    /// otherwise 0.
    #[must_use]
    pub fn frame_hint(&self, link: LinkKey) -> usize {
        let link = self.links.get(&link);
        link.map_or(0, |link| link.side.endpoint().frame_hint())
    }

    /// Whether the link has ended and all of its output was handed out. Also `true` for a link that
    /// was removed.
    #[must_use]
    pub fn is_finished(&self, link: LinkKey) -> bool {
        self.links
            .get(&link)
            .is_none_or(|link| link.side.endpoint().is_finished() && link.staged.is_empty())
    }

    /// Whether to send the rest of the output after the link's end, such as the answer to the
    /// peer's close.
    #[must_use]
    pub fn flush_on_close(&self, link: LinkKey) -> bool {
        let link = self.links.get(&link);
        let reason = link.and_then(|link| link.side.close_reason());
        reason.is_some_and(|reason| {
            !matches!(
                reason.cause(),
                CloseCause::Eof { .. } | CloseCause::Transport { .. } | CloseCause::TimedOut(_)
            )
        })
    }

    /// Removes a link. Its driver is gone, so that no bytes move any more.
    pub fn remove(&mut self, link: LinkKey, now: Instant) {
        self.handle_transport_error(link, now, "the driver is gone");
        self.links.remove(&link);
    }

    /// Takes a plain AMQP client out of a link, if one has come and
    /// [clients are allowed](crate::Clients::Allow). The link ends without an event; the transport
    /// belongs to the client's machine from now on.
    pub fn take_client(&mut self, link: LinkKey) -> Option<Client> {
        self.links.get(&link)?.client.as_ref()?;
        let mut link = self.links.remove(&link)?;
        if link.stage != Stage::Ended {
            self.pending_links -= 1;
        }
        let request = link.client.take()?;
        match link.side {
            Side::Listener(machine) => Some(Client {
                machine: *machine,
                request,
                certificates: link.certificates,
            }),
            Side::Connector(_) => None,
        }
    }

    /// Returns the next link that is to be driven: it has output or another deadline, may be read
    /// from again, or has ended. To be called after any other call.
    pub fn poll_wake(&mut self) -> Option<LinkKey> {
        while let Some(key) = self.wakes.pop_front() {
            if let Some(link) = self.links.get_mut(&key) {
                link.is_woken = false;
                return Some(key);
            }
        }
        None
    }
}

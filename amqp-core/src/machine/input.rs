//! Input: parsing frames, and checking each against the state of the connection and its channel.

use bytes::{Buf as _, Bytes, BytesMut};

use super::{
    ChannelLife, Life, Lookup, Machine, OffendingFrame, Role,
    assembly::{Memory, Piece},
    closing::read_close,
    content_channel::content_channel,
    read_buffer::SHARE_FROM,
    skip::LargeHeader,
};
use crate::{
    body::{EncodedProperties, NO_FLAGS},
    close::{Close, CloseCause},
    fault::{Fault, ProtocolError},
    frame::{FRAME_HEAD, FrameHead, FrameKind, split_method},
    ids::ChannelId,
    limits::FRAME_OVERHEAD,
    method::{MethodDef as _, Rule},
    method_id::MethodId,
    protocol::{self, Method, basic::Properties, channel, connection, tx},
    time::Instant,
    wire::Decode as _,
};

const OPEN: MethodId = channel::Open::ID;
const CLOSE: MethodId = channel::Close::ID;
const CLOSE_OK: MethodId = channel::CloseOk::ID;
const COMMIT_OK: MethodId = tx::CommitOk::ID;

impl<R: Role> Machine<R> {
    /// Consumes all complete frames at the front of `input`.
    pub(crate) fn handle_input(&mut self, now: Instant, input: &mut BytesMut) {
        self.begin_input(now, input);
        loop {
            R::receive_whole(self, input);
            if !self.step(input) {
                break;
            }
        }
        self.end_input(input);
    }

    /// Consumes at most one complete frame at the front of `input`. Returns whether there was one.
    pub(crate) fn handle_frame(&mut self, now: Instant, input: &mut BytesMut) -> bool {
        self.begin_input(now, input);
        let taken = self.step(input);
        self.end_input(input);
        taken
    }

    fn begin_input(&mut self, now: Instant, input: &BytesMut) {
        self.advance_clock(now);
        if input.len() > self.leftover {
            self.stats.received.bytes += (input.len() - self.leftover) as u64;
            self.timers.note_heard(self.now);
        }
        self.buffer.enter(input);
        self.missing = 0;
    }

    fn end_input(&mut self, input: &BytesMut) {
        self.arena.note_time(self.now);
        self.buffer.leave(input);
        self.leftover = input.len();
    }

    /// Consumes one frame. Returns whether there was one.
    fn step(&mut self, input: &mut BytesMut) -> bool {
        match &self.life {
            Life::Closed(_) => {
                input.clear();
                return false;
            }
            _ if self.skip.is_some() => return self.step_skip(input),
            Life::Closing(_) => return self.step_closing(input),
            Life::Handshake(_) if !self.header_seen => return self.step_greeting(input),
            Life::Handshake(_) | Life::Open | Life::Draining(_) => {}
        }
        let head = match FrameHead::read(input) {
            Ok(Some(head)) => head,
            Ok(None) => {
                if !input.is_empty() {
                    self.missing = FRAME_OVERHEAD.saturating_sub(input.len());
                }
                return false;
            }
            Err(Fault::FrameType(kind)) if self.role.reads_unknown_frames() => {
                return self.step_unknown_type(kind, input);
            }
            Err(fault) => {
                let number = readable_channel(&fault, input);
                self.fail_framing(fault, number, input);
                return true;
            }
        };
        if let Err(fault) = head.check(self.frame_limit()) {
            match self.large_header(&head) {
                LargeHeader::Taken => {}
                LargeHeader::Skipped(header) => return self.skip_header(&head, header, input),
                LargeHeader::Refused => {
                    let number = readable_channel(&fault, input);
                    self.fail_framing(fault, number, input);
                    return true;
                }
            }
        }
        let number = head.channel;
        let payload = match head.payload(input) {
            Ok(Some(payload)) => payload,
            Ok(None) => {
                self.missing = head.frame_len().saturating_sub(input.len());
                return false;
            }
            Err(fault) => {
                self.fail_framing(fault, Some(number), input);
                return true;
            }
        };
        if self.frame_log.is_some() {
            self.log_received(&head, payload);
        }
        self.stats.received.frames += 1;
        let kind = head.kind.to_wire();
        let received = match head.kind {
            FrameKind::Method => self.receive_method(number, payload),
            FrameKind::Header => self.receive_header(number, payload),
            FrameKind::Body if self.buffer.shares(payload.len()) => {
                input.advance(FRAME_HEAD);
                let payload = input.split_to(head.size).freeze();
                input.advance(1);
                let piece = Piece::Slice(payload.clone());
                if let Err(error) = self.receive_body(number, piece) {
                    let payload = &payload;
                    self.fail(error, &OffendingFrame { kind, payload });
                }
                return true;
            }
            FrameKind::Body => self.receive_body(number, Piece::Borrowed(payload)),
            FrameKind::Heartbeat if number != 0 || !payload.is_empty() => {
                Err(Fault::Heartbeat.at(Some(number), None))
            }
            FrameKind::Heartbeat => {
                self.heartbeat_received();
                Ok(())
            }
        };
        if let Err(error) = received {
            self.fail(error, &OffendingFrame { kind, payload });
        }
        // A faulty frame is consumed, too.
        input.advance(head.frame_len());
        true
    }

    /// Handles a frame of a type that the protocol does not have: reports the fault once the frame
    /// is complete, or an earlier fault in it.
    fn step_unknown_type(&mut self, kind: u8, input: &mut BytesMut) -> bool {
        let Some(&[_, c1, c0, s3, s2, s1, s0]) = input.first_chunk::<FRAME_HEAD>() else {
            self.missing = FRAME_OVERHEAD.saturating_sub(input.len());
            return false;
        };
        let size = u32::from_be_bytes([s3, s2, s1, s0]);
        let head = FrameHead {
            // A placeholder that is not read: there is no kind for an unknown type.
            kind: FrameKind::Body,
            channel: u16::from_be_bytes([c1, c0]),
            size: size as usize,
        };
        let limit = self.frame_limit();
        let whole = u64::from(size) + FRAME_OVERHEAD as u64;
        let fault = if whole > u64::from(limit) {
            Fault::FrameTooLarge { size: whole, limit }
        } else {
            match head.payload(input) {
                Ok(Some(_)) => {
                    self.fail_framing(Fault::FrameType(kind), Some(head.channel), input);
                    // The boundaries are intact: the reply to the close is read.
                    input.advance(head.frame_len());
                    return true;
                }
                Ok(None) => {
                    self.missing = head.frame_len().saturating_sub(input.len());
                    return false;
                }
                Err(fault) => fault,
            }
        };
        self.fail_framing(fault, Some(head.channel), input);
        true
    }

    /// Frame boundaries are lost: the connection must fail.
    pub(super) fn fail_framing(&mut self, fault: Fault, number: Option<u16>, input: &[u8]) {
        let size = input.get(3..FRAME_HEAD).and_then(<[u8]>::first_chunk);
        let size = size.map_or(0, |size| u32::from_be_bytes(*size) as usize);
        let culprit = OffendingFrame {
            kind: input.first().copied().unwrap_or_default(),
            payload: input
                .get(FRAME_HEAD..)
                .and_then(|rest| rest.get(..size))
                .unwrap_or_default(),
        };
        self.fail(fault.at(number, None), &culprit);
    }

    /// Handles the greeting: the first bytes of the peer.
    fn step_greeting(&mut self, input: &mut BytesMut) -> bool {
        if input.is_empty() {
            return false;
        }
        match R::parse_header(self, input) {
            Ok(done) => {
                self.header_seen = done;
                done
            }
            Err(cause) => {
                self.finish(cause.into());
                input.clear();
                false
            }
        }
    }

    /// Consumes one frame after the own close was sent. Only close and close-ok are processed;
    /// anything else is discarded (section 1.4.2.9 of the protocol reference).
    fn step_closing(&mut self, input: &mut BytesMut) -> bool {
        if self.hanging_up {
            input.clear();
            return false;
        }
        let limit = self.frame_limit();
        let head = FrameHead::read(input);
        if let Ok(Some(head)) = &head
            && R::TAKES_LARGE_HEADERS
            && !self.final_event_emitted
            && head.kind == FrameKind::Header
            && head.check(limit).is_err()
        {
            return self.skip_header(head, None, input);
        }
        let read = head.and_then(|head| {
            let Some(head) = head else {
                return Ok(None);
            };
            head.check(limit)?;
            let payload = head.payload(input)?;
            Ok(payload.map(|payload| (head, payload)))
        });
        let (head, payload) = match read {
            Ok(Some(frame)) => frame,
            Ok(None) => return false,
            // Frame boundaries are lost: a later close-ok could not be found.
            Err(fault) => {
                let number = readable_channel(&fault, input);
                self.finish_unread(fault.at(number, None));
                input.clear();
                return false;
            }
        };
        if self.frame_log.is_some() {
            self.log_received(&head, payload);
        }
        if head.kind == FrameKind::Method
            && head.channel == 0
            && let Ok((id, arguments)) = split_method(payload)
        {
            self.receive_while_closing(id, arguments);
        }
        self.stats.received.frames += 1;
        if head.kind == FrameKind::Heartbeat {
            self.heartbeat_received();
        }
        input.advance(head.frame_len());
        true
    }

    /// Handles a method on channel 0 after the own close was sent.
    fn receive_while_closing(&mut self, id: MethodId, arguments: &[u8]) {
        if id == connection::CloseOk::ID {
            if let Life::Closing(reason) = &self.life {
                self.finish(reason.clone());
            }
        } else if id == connection::Close::ID {
            // The closes of both sides have crossed.
            match connection::Close::decode(arguments) {
                Ok(close) => self.closed_by_peer(close),
                Err(error) => self.finish_unread(Fault::from(error).at(Some(0), Some(id))),
            }
        }
    }

    /// Ends the connection after the own close was sent, because the input cannot be parsed.
    pub(super) fn finish_unread(&mut self, mut error: ProtocolError) {
        error.code = None;
        self.finish(CloseCause::ProtocolError(error).into());
    }

    /// The current limit for incoming frames, in bytes.
    pub(super) fn frame_limit(&self) -> u32 {
        if self.tuning.is_frame_unlimited() {
            self.limits.unlimited_frame
        } else {
            self.tuning
                .frame_max
                .saturating_add(self.role.frame_slack())
        }
    }

    fn receive_method(&mut self, number: u16, payload: &[u8]) -> Result<(), ProtocolError> {
        let (id, arguments) =
            split_method(payload).map_err(|fault| fault.at(Some(number), None))?;
        let received = match protocol::rule(id) {
            Some(rule) => self.receive_known(number, rule, arguments),
            None => R::on_unknown(self, number, id, arguments),
        };
        received.map_err(|fault| fault.at(Some(number), Some(id)))
    }

    #[inline]
    fn receive_known(&mut self, number: u16, rule: &Rule, arguments: &[u8]) -> Result<(), Fault> {
        if !R::precheck(self, number, rule, arguments)? {
            Ok(())
        } else if !R::is_peers(rule) {
            Err(Fault::WrongSender)
        } else if rule.connection != (number == 0) {
            Err(Fault::WrongChannel)
        } else if rule.connection {
            self.receive_connection_method(rule, arguments)
        } else {
            self.receive_channel_method(number, rule, arguments)
        }
    }

    fn receive_connection_method(&mut self, rule: &Rule, arguments: &[u8]) -> Result<(), Fault> {
        match Method::decode(rule.id, arguments)? {
            Method::ConnectionClose(close) => {
                self.closed_by_peer(close);
                Ok(())
            }
            // The own close was not sent yet, so there is nothing to answer.
            Method::ConnectionCloseOk(_) => Err(Fault::UnexpectedReply),
            method => R::on_connection_method(self, method),
        }
    }

    fn receive_channel_method(
        &mut self,
        number: u16,
        rule: &Rule,
        arguments: &[u8],
    ) -> Result<(), Fault> {
        if matches!(self.life, Life::Handshake(_)) {
            return Err(Fault::NotDue);
        }
        if number > self.tuning.channel_max && !self.role.counts_channels() {
            return Err(Fault::ChannelNumber(self.tuning.channel_max));
        }
        let is = |id| rule.id == id;
        let (id, channel) = match self.channels.lookup(number) {
            Lookup::Live(id, channel) => (id, channel),
            Lookup::Unused | Lookup::Free if is(OPEN) => {
                return R::on_channel_open(self, number);
            }
            Lookup::Free if R::FORGIVES_ENDED => return Ok(()),
            Lookup::Unused | Lookup::Free => return Err(Fault::ChannelNotOpen),
        };
        match channel.life {
            ChannelLife::Opening(_) | ChannelLife::Open => {}
            ChannelLife::Closing(request) => {
                if is(CLOSE_OK) {
                    if !channel.backlog.is_empty() {
                        // The own close, behind the backlog, was not sent yet.
                        return Err(Fault::UnexpectedReply);
                    }
                    R::on_channel_closed(self, id, request);
                    self.remove_channel(id);
                } else if is(CLOSE) {
                    let unsent = !channel.backlog.is_empty() && !R::ANSWERS_FIRST;
                    channel.life = ChannelLife::Closing(None);
                    if let Some(request) = request {
                        let close = decode_channel_close(arguments)?;
                        let reason = self.log_end(CloseCause::ByPeer(close).into());
                        let reason = reason.on_channel(id.number());
                        R::on_close_crossed(self, id, request, reason);
                    }
                    if unsent {
                        // The own close was not sent yet, and is dropped.
                        self.finish_channel(id);
                    } else {
                        // The own close still needs its close-ok; until then the number is not
                        // free.
                        self.put_answer(id, &channel::CloseOk)?;
                    }
                } else if is(COMMIT_OK) {
                    // The own close may be held until commit-ok.
                    self.release_channel(id);
                }
                return Ok(());
            }
            ChannelLife::ClosingRemote => return Ok(()),
        }
        if channel.assembly.in_progress() {
            return Err(Fault::MethodInContent);
        }
        if is(CLOSE) {
            let close = decode_channel_close(arguments)?;
            self.channel_closed_by_peer(id, CloseCause::ByPeer(close));
            return Ok(());
        }
        if is(CLOSE_OK) {
            return Err(Fault::UnexpectedReply);
        }
        if is(OPEN) {
            return Err(Fault::ChannelAlreadyOpen);
        }
        let method = Method::decode(rule.id, arguments)?;
        if rule.content {
            let wanted = R::on_content_begun(self, id, &method)?;
            if let Some(channel) = self.channels.get_mut(id) {
                channel.assembly.begin(method, wanted, &mut self.spare);
            }
            return Ok(());
        }
        R::on_channel_method(self, id, method, None)
    }

    fn channel_closed_by_peer(&mut self, id: ChannelId, cause: CloseCause) {
        let reason = self.log_end(cause.into()).on_channel(id.number());
        self.end_channel(id, &reason);
        self.finish_channel(id);
        self.push(R::channel_closed(id, reason));
    }

    /// Answers the peer's `channel.close`. Besides close-ok, only the rest of a begun message is
    /// sent, or everything queued if the role answers first ([`Role::ANSWERS_FIRST`]).
    fn finish_channel(&mut self, id: ChannelId) {
        if !R::ANSWERS_FIRST {
            self.discard_unsent_of(id);
        }
        self.put_method_anyway(id, &channel::CloseOk);
        if let Some(channel) = self.channels.get_mut(id) {
            channel.life = ChannelLife::ClosingRemote;
            if !channel.backlog.is_empty() {
                return;
            }
            if R::FORGIVES_ENDED {
                self.drop_channel(id);
            } else {
                self.closing_after_flush.push(id);
            }
        }
    }

    fn receive_header(&mut self, number: u16, payload: &[u8]) -> Result<(), ProtocolError> {
        let limits = &self.limits;
        let Some((id, channel)) = content_channel::<R>(&mut self.channels, number)? else {
            return Ok(());
        };
        let method = channel.assembly.method();
        let header = channel
            .assembly
            .check_header(payload, limits)
            .and_then(|header| {
                if R::CHECKS_PROPERTIES {
                    Properties::check(header.properties)?;
                }
                Ok(header)
            })
            .map_err(|fault| fault.at(Some(number), method))?;
        let kept = header.properties != NO_FLAGS && !channel.assembly.is_dropped();
        let properties = if kept {
            self.arena.copy(header.properties)
        } else {
            Bytes::from_static(NO_FLAGS)
        };
        let Some(channel) = self.channels.get_mut(id) else {
            return Ok(());
        };
        let properties = EncodedProperties::from_wire(properties);
        if channel.assembly.take_header(properties, header.body_size) {
            return self.complete(id);
        }
        self.assembled += channel.assembly.count();
        self.check_assembled(id, method)
    }

    fn receive_body(&mut self, number: u16, piece: Piece<'_>) -> Result<(), ProtocolError> {
        let limits = &self.limits;
        let memory = Memory {
            buffer: &self.buffer,
            arena: &mut self.arena,
        };
        let Some((id, channel)) = content_channel::<R>(&mut self.channels, number)? else {
            return Ok(());
        };
        let method = channel.assembly.method();
        let len = piece.len();
        let is_whole = channel
            .assembly
            .take_body(piece, memory, limits)
            .map_err(|fault| fault.at(Some(number), method))?;
        self.next_frame = if len >= SHARE_FROM && channel.assembly.expects_body(len) {
            len + FRAME_OVERHEAD
        } else {
            0
        };
        if is_whole {
            return self.complete(id);
        }
        self.assembled += channel.assembly.count();
        self.check_assembled(id, method)
    }

    /// Checks the memory held by the unfinished messages of all channels.
    fn check_assembled(
        &self,
        id: ChannelId,
        method: Option<MethodId>,
    ) -> Result<(), ProtocolError> {
        let limit = self.limits.assembly();
        if self.assembled > limit {
            return Err(Fault::AssemblyTooLarge { limit }.at(Some(id.number()), method));
        }
        Ok(())
    }

    /// Passes on a complete message of a channel.
    pub(super) fn complete(&mut self, id: ChannelId) -> Result<(), ProtocolError> {
        let channel = self.channels.get_mut(id);
        let spare = &mut self.spare;
        let Some(complete) = channel.and_then(|channel| channel.assembly.complete(spare)) else {
            return Ok(());
        };
        self.assembled = self.assembled.saturating_sub(complete.counted);
        let method_id = complete.method.id();
        match complete.content {
            Ok(content) => R::on_channel_method(self, id, complete.method, Some(content)),
            Err(why) => R::on_content_dropped(self, id, complete.method, why),
        }
        .map_err(|fault| fault.at(Some(id.number()), Some(method_id)))
    }
}

/// Returns the channel number of a frame with a faulty head. `None` for an unknown frame type: that
/// is detected at the first octet, before the channel number is received.
fn readable_channel(fault: &Fault, input: &[u8]) -> Option<u16> {
    if let Fault::FrameType(_) = fault {
        return None;
    }
    let number = input.get(1..3)?.first_chunk()?;
    Some(u16::from_be_bytes(*number))
}

/// Decodes the arguments of `channel.close`.
fn decode_channel_close(arguments: &[u8]) -> Result<Close, Fault> {
    let close = channel::Close::decode(arguments)?;
    Ok(read_close(
        close.reply_code,
        &close.reply_text,
        close.class_id,
        close.method_id,
    ))
}

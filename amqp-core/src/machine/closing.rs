//! The end of channels and of the connection: requested by this side, by the peer, or for a fault.

use alloc::vec::Vec;

use super::{ChannelLife, Life, Lookup, Machine, OffendingFrame, Role, Wants};
use crate::{
    close::{Close, CloseCause, CloseReason, Stage},
    error::ApiMisuse,
    fault::ProtocolError,
    ids::{ChannelId, RequestId},
    method::MethodDef,
    method_id::MethodId,
    protocol::{ReplyCode, Severity, channel, connection},
    wire::ShortStr,
};

impl<R: Role> Machine<R> {
    /// Closes a channel: the queued output is sent first, then the close.
    pub(crate) fn close_channel(
        &mut self,
        id: ChannelId,
        close: &Close,
        request: Option<RequestId>,
    ) -> Result<(), ApiMisuse> {
        self.open_channel_and_output(id)?;
        self.put_channel_close(id, close, request);
        Ok(())
    }

    fn put_channel_close(&mut self, id: ChannelId, close: &Close, request: Option<RequestId>) {
        let method = channel::Close {
            reply_code: close.code,
            reply_text: reply_text(&close.text),
            class_id: close.method.unwrap_or_default().class,
            method_id: close.method.unwrap_or_default().method,
        };
        self.put_method_anyway(id, &method);
        if let Some(channel) = self.channels.get_mut(id) {
            channel.life = ChannelLife::Closing(request);
            let counted = channel.assembly.clear();
            self.assembled = self.assembled.saturating_sub(counted);
            self.next_frame = 0;
        }
    }

    /// Closes the connection on request: the queued output is sent first, then the close.
    pub(crate) fn close(&mut self, code: ReplyCode, text: &str) {
        let close = Close {
            code,
            text: text.into(),
            method: None,
        };
        match &self.life {
            Life::Open => {
                self.output.put_last(&close_method(&close));
                self.life = Life::Draining(CloseCause::Requested(close).into());
                self.timers.start_close(self.timeouts.close);
                self.close_from = self.output.position();
            }
            // Before the connection is open, `connection.close` is not legal: RabbitMQ treats it as
            // a protocol error. The connection ends without it.
            Life::Handshake(_) => {
                self.finish(CloseCause::Requested(close).into());
                self.drop_output();
            }
            Life::Draining(_) | Life::Closing(_) | Life::Closed(_) => {}
        }
    }

    /// Handles a fault of the peer, or a limit that it exceeds: closes the channel or the
    /// connection, by the severity of the reply code (section 4.8.1 of the specification).
    pub(super) fn fail(&mut self, mut error: ProtocolError, frame: &OffendingFrame<'_>) {
        let cause = if error.fault.is_own_limit() {
            CloseCause::LimitExceeded
        } else {
            CloseCause::ProtocolError
        };
        let Some(close) = R::reply(self, &error, frame) else {
            error.code = None;
            self.hang_up(cause(error).into());
            return;
        };
        error.code = Some(close.code);
        let soft = close.code.severity() == Some(Severity::Soft);
        let channel = match self.channels.lookup(error.channel.unwrap_or_default()) {
            Lookup::Live(id, _) if soft => Some(id),
            Lookup::Live(..) | Lookup::Unused | Lookup::Free => None,
        };
        let reason = CloseReason::from(cause(error));
        let Some(id) = channel else {
            self.close_for(&close, reason);
            return;
        };
        let reason = self.log_end(reason).on_channel(id.number());
        self.end_channel(id, &reason);
        self.put_channel_close(id, &close, None);
        self.push(R::channel_closed(id, reason));
    }

    /// Closes the connection at once, and announces the reason at once.
    pub(crate) fn close_for(&mut self, close: &Close, reason: CloseReason) {
        let reason = self.log_end(reason);
        self.settle_output();
        self.end_everything(&reason);
        self.queue_final(&close_method(close));
        self.timers.start_close(self.timeouts.close);
        self.life = Life::Closing(reason);
    }

    /// Answers the peer's `connection.close`, and ends the connection.
    pub(super) fn closed_by_peer(&mut self, close: connection::Close) {
        let close = read_close(
            close.reply_code,
            &close.reply_text,
            close.class_id,
            close.method_id,
        );
        self.settle_output();
        self.queue_final(&connection::CloseOk);
        let refused = self.stage() == Stage::Authenticating
            && R::PEER_AUTHENTICATES
            && close.code == ReplyCode::ACCESS_REFUSED;
        let cause = if refused {
            CloseCause::AuthenticationFailed {
                why: close.text.clone(),
                close: Some(close),
            }
        } else {
            CloseCause::ByPeer(close)
        };
        self.finish(cause.into());
    }

    /// Ends the connection. Urgent output may still be sent and, if the role answers first, output
    /// queued before the end. A reason that was already announced stays.
    pub(crate) fn finish(&mut self, reason: CloseReason) {
        self.settle_output();
        let told = self
            .close_reason()
            .filter(|_| self.final_event_emitted)
            .cloned();
        let reason = told.unwrap_or_else(|| self.log_end(reason));
        self.end_everything(&reason);
        self.timers.stop();
        if self.output.len() > 0 {
            // The timeout for the remaining output is the one for a close.
            self.timers.start_close(self.timeouts.close);
        }
        self.life = Life::Closed(reason);
    }

    /// Ends the connection without sending a close to the peer. The role may delay the end of the
    /// transport, until which input is discarded.
    pub(crate) fn hang_up(&mut self, reason: CloseReason) {
        let delay = R::hang_up_delay(self);
        let reason = self.log_end(reason);
        self.output.abort();
        if delay.is_zero() {
            self.finish(reason);
            return;
        }
        self.end_everything(&reason);
        self.timers.stop();
        self.timers.start_close(delay);
        self.hanging_up = true;
        self.life = Life::Closing(reason);
    }

    /// Drops all output.
    pub(crate) fn drop_output(&mut self) {
        self.output.clear();
        self.timers.stop();
    }

    /// Drops the queued output except urgent frames, or makes all of it ready if the role answers
    /// first.
    pub(super) fn settle_output(&mut self) {
        if !R::ANSWERS_FIRST {
            self.output.abort();
            return;
        }
        self.output.cancel_last();
        self.take_turns(usize::MAX);
    }

    /// Queues close or close-ok, the last method to the peer.
    pub(super) fn queue_final<M: MethodDef>(&mut self, method: &M) {
        // The methods sent this way are far smaller than any frame limit.
        let _fits = if R::ANSWERS_FIRST {
            self.output.append(method)
        } else {
            self.output.put_urgent(method)
        };
    }

    /// Ends all channels and requests with the reason, and queues the final event.
    fn end_everything(&mut self, reason: &CloseReason) {
        if self.final_event_emitted {
            return;
        }
        self.final_event_emitted = true;
        self.wants = Wants::default();
        let of_channels = CloseReason::from(CloseCause::Connection(reason.clone()));
        for id in self.channels.ids() {
            let of_channel = of_channels.clone().on_channel(id.number());
            R::on_channel_end(self, id, &of_channel);
            self.drop_channel(id);
        }
        R::on_end(self, reason);
        self.deadlines.clear();
        self.timers.end_blocked(self.now);
        self.closing_after_flush = Vec::new();
        self.assembled = 0;
        self.arena.clear();
        self.push(R::closed(reason.clone()));
    }

    /// Ends everything pending on a channel with the reason. Drops its output that has not begun to
    /// be sent, unless the role answers first.
    pub(super) fn end_channel(&mut self, id: ChannelId, reason: &CloseReason) {
        R::on_channel_end(self, id, reason);
        if let Some(channel) = self.channels.get_mut(id) {
            if !R::ANSWERS_FIRST {
                self.output
                    .discard_unsent(&mut channel.backlog, id.number());
            }
            let counted = channel.assembly.clear();
            self.assembled = self.assembled.saturating_sub(counted);
            self.next_frame = 0;
        }
    }
}

/// Builds the method that closes a connection.
fn close_method(close: &Close) -> connection::Close {
    connection::Close {
        reply_code: close.code,
        reply_text: reply_text(&close.text),
        class_id: close.method.unwrap_or_default().class,
        method_id: close.method.unwrap_or_default().method,
    }
}

/// Builds a [`Close`] from the arguments of a close method.
pub(super) fn read_close(code: ReplyCode, text: &ShortStr, class: u16, method: u16) -> Close {
    let method = MethodId::new(class, method);
    Close {
        code,
        text: text.as_str().into(),
        method: (method != MethodId::default()).then_some(method),
    }
}

/// Converts a reply text, cut at a character boundary if it is too long for a short string (section
/// 4.2.5.3 of the specification).
fn reply_text(text: &str) -> ShortStr {
    let mut end = text.len().min(ShortStr::MAX_LEN);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end)
        .and_then(|text| ShortStr::try_from(text).ok())
        .unwrap_or_default()
}

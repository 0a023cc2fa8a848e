//! The check of the size of a frame to be sent.

use crate::{
    error::ApiMisuse,
    limits::FRAME_OVERHEAD,
    method::MethodDef,
    wire::{Encode, TOO_LONG, TextTooLong},
};

/// Checks that a frame with a payload of `head` bytes and these fields may be sent. Returns the size
/// of the payload, in bytes. A text that is too long is of a size that fits into no frame.
pub(super) fn payload_len<M: MethodDef>(
    head: usize,
    fields: &impl Encode,
    frame_max: u32,
) -> Result<usize, ApiMisuse> {
    let payload = head + fields.encoded_len();
    let len = payload + FRAME_OVERHEAD;
    if len as u64 > u64::from(frame_max).min(TOO_LONG as u64 - 1) {
        return Err(too_large(M::NAME, len, frame_max, fields));
    }
    Ok(payload)
}

#[cold]
fn too_large(method: &'static str, len: usize, frame_max: u32, fields: &impl Encode) -> ApiMisuse {
    match fields.text_too_long() {
        Some(TextTooLong { field, len }) => ApiMisuse::TextTooLong { method, field, len },
        None => ApiMisuse::FrameTooLarge {
            method,
            len,
            frame_max,
        },
    }
}

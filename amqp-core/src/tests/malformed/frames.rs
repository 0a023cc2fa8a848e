//! Malformed frames.

use super::{OPEN, content, content_method, open_side, refused};
use crate::{
    Fault,
    tests::side::{Role, body_frame, method_frame, raw_frame},
};

#[test]
fn a_frame_with_a_wrong_end() {
    for role in Role::BOTH {
        let method = method_frame(OPEN, &content_method(role));
        for frame in [
            method,
            raw_frame(8, 0, &[], 0),
            body_frame(OPEN, &[0; 3000]),
            raw_frame(2, 7, &[0; 14], 0),
        ] {
            for end in [0, 0xCD, 0xFF] {
                let mut bad = frame.clone();
                *bad.last_mut().unwrap() = end;
                refused(role, &[], &bad, (Fault::FrameEnd(end), 501), None);
            }
        }
    }
}

#[test]
fn an_unknown_frame_type_is_a_fault_at_its_first_octet() {
    for role in Role::BOTH {
        for kind in (0..=255).filter(|kind| !matches!(kind, 1 | 2 | 3 | 8)) {
            let mut side = open_side(role);
            let bad = raw_frame(kind, 0, &[], 0xCE);
            let events = side.feed(&bad[..1]);
            side.assert_failed(&events, &Fault::FrameType(kind), 501, None);
        }
        let bad = raw_frame(4, OPEN, b"trace", 0xCE);
        refused(role, &[], &bad, (Fault::FrameType(4), 501), None);
    }
}

#[test]
fn frames_of_gigabytes_are_refused_at_their_size() {
    for role in Role::BOTH {
        let limit = 131_072;
        for kind in [1, 2, 3, 8] {
            for size in [u32::MAX, u32::MAX - 8, 1 << 31, limit - 7] {
                let mut head = raw_frame(kind, OPEN, &[], 0);
                head[3..7].copy_from_slice(&size.to_be_bytes());
                let size = u64::from(size) + 8;
                let fault = Fault::FrameTooLarge { size, limit };
                refused(role, &[], &head[..7], (fault, 501), None);
            }
        }
    }
}

#[test]
fn frames_too_short_for_their_contents() {
    for role in Role::BOTH {
        let fault = || (Fault::FrameTooShort, 501);
        for len in 0..4 {
            for channel in [0, OPEN, 77] {
                let bad = raw_frame(1, channel, &[0, 60, 0, 40][..len], 0xCE);
                refused(role, &[], &bad, fault(), None);
            }
        }
        let method = content_method(role);
        let good = method_frame(OPEN, &method);
        for len in 0..12 {
            let header = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let bad = raw_frame(2, OPEN, &header[..len], 0xCE);
            refused(role, &good, &bad, fault(), Some(method.id()));
        }
    }
}

#[test]
fn heartbeats_on_a_channel_or_with_a_payload() {
    for role in Role::BOTH {
        for bad in [
            raw_frame(8, OPEN, &[], 0xCE),
            raw_frame(8, 77, &[], 0xCE),
            raw_frame(8, 0, &[0], 0xCE),
            raw_frame(8, 0, &[0; 3000], 0xCE),
        ] {
            refused(role, &[], &bad, (Fault::Heartbeat, 501), None);
        }
        // Between the frames of a message they are welcome.
        let mut side = open_side(role);
        let beat = raw_frame(8, 0, &[], 0xCE);
        let mut message = content(role, 2);
        for piece in [b"a", b"b"] {
            message.extend(beat.repeat(3));
            message.extend(body_frame(OPEN, piece));
        }
        assert_eq!(side.feed(&message).len(), 1);
        assert_eq!(side.close_reason(), None);
    }
}

//! The output keeps to the limits that were negotiated, and to the lengths that it announces.

use std::collections::BTreeMap;

use amqp_core::{
    client::Config,
    frame::{ContentHeader, FrameKind},
    protocol::{channel, connection},
    strategies::{Application, Applied, Operation, OwnedFrame},
};
use amqp_test_support::cases;
use proptest::{collection::vec, prelude::*};

use crate::{feed, frames, method, open_client, output};

/// The body sizes of the messages of a channel, checked frame by frame.
#[derive(Default)]
struct Channel {
    /// The bytes missing from the message in progress. `Some` behind its header.
    missing: Option<u64>,
    /// A method with content has come.
    header_due: bool,
    sizes: Vec<u64>,
}

impl Channel {
    fn take(&mut self, frame: &OwnedFrame, chunk: usize) {
        match frame.kind {
            FrameKind::Method => {
                assert!(!self.header_due, "a method in place of a header");
                assert_eq!(self.missing.take().unwrap_or(0), 0, "a method in a body");
                self.header_due = method(frame).unwrap().rule().content;
            }
            FrameKind::Header => {
                assert!(
                    std::mem::take(&mut self.header_due),
                    "a header out of place"
                );
                let size = ContentHeader::parse(&frame.payload).unwrap().body_size;
                self.sizes.push(size);
                self.missing = Some(size);
            }
            FrameKind::Body => {
                let missing = self.missing.as_mut().expect("a body out of place");
                let len = frame.payload.len();
                assert!(len > 0 && len <= chunk, "a body frame of {len} bytes");
                let left = missing.checked_sub(len as u64);
                *missing = left.expect("at most the announced size");
                // Only the last one is smaller than it could be.
                assert!(len == chunk || *missing == 0);
            }
            FrameKind::Heartbeat => panic!("a heartbeat"),
        }
    }
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn output_keeps_to_the_negotiated_frames_and_the_announced_lengths(
        operations in vec((any::<Operation>(), any::<bool>()), 0..40),
        frame_max in prop_oneof![4096_u32..4200, 4096_u32..40_000],
    ) {
        let tune = connection::Tune { channel_max: 3, frame_max, heartbeat: 0 };
        let mut client = open_client(Config::default(), tune);
        let mut application = Application::default();
        let (mut published, mut stream) = (0_usize, Vec::new());
        for (operation, sends) in &operations {
            let buffered = client.buffered();
            let applied = application.apply(&mut client, operation);
            match applied {
                Applied::Refused(_) | Applied::Skipped | Applied::HeldBack(_) => {
                    prop_assert_eq!(client.buffered(), buffered, "a refusal has sent something");
                }
                Applied::Published(_) => published += 1,
                _ => {}
            }
            if let Operation::Open = operation {
                let opened = (1..=3).map(|number| OwnedFrame::method(number, channel::OpenOk));
                let opening = opened.filter(|_| matches!(applied, Applied::Request(_)));
                let newest = client.channel_count() as u16;
                feed(&mut client, opening.filter(|frame| frame.channel == newest));
            }
            prop_assert_eq!(application.handle_events(&mut client), []);
            if *sends {
                stream.extend(output(&mut client).concat());
            }
        }
        stream.extend(output(&mut client).concat());
        prop_assert!(!client.has_transmit());
        let mut channels: BTreeMap<u16, Channel> = BTreeMap::new();
        for frame in frames(&stream) {
            let len = frame.as_frame().len();
            prop_assert!(len <= frame_max as usize, "a frame of {} bytes", len);
            let chunk = frame_max as usize - 8;
            channels.entry(frame.channel).or_default().take(&frame, chunk);
        }
        let complete = |channel: &Channel| channel.missing.unwrap_or(0) == 0 && !channel.header_due;
        prop_assert!(channels.values().all(complete));
        let sent: usize = channels.values().map(|channel| channel.sizes.len()).sum();
        prop_assert!(sent <= published);
    }
}

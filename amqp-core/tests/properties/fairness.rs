//! No lane of the output starves another one, and each channel keeps its order.

use std::collections::BTreeMap;

use amqp_core::{
    ChannelId, Limits,
    client::Config,
    frame::{ContentHeader, FrameKind},
    protocol::{basic, channel, connection},
    strategies::OwnedFrame,
};
use amqp_test_support::cases;
use proptest::{collection::vec, prelude::*};

use crate::{feed, frames, open_client, output};

const LARGE: usize = 4;
const SMALL: usize = 2;

proptest! {
    #![proptest_config(cases(64))]

    /// Between two body frames of a channel with a large message, each other channel with one has a
    /// frame; and a small message leaves with the next call, before all of them.
    #[test]
    fn channels_with_large_messages_take_turns_and_small_messages_pass_them(
        messages in vec((0..LARGE, 0_usize..60_000), 1..16),
        small in vec(vec((LARGE..LARGE + SMALL, 0_usize..300), 0..3), 0..6),
        frame_max in prop_oneof![Just(4096_u32), 4096_u32..12_000],
    ) {
        let tune = connection::Tune { channel_max: 10, frame_max, heartbeat: 0 };
        let limits = Limits::default().output_high(1 << 20).output_backlog(64 << 20);
        let mut client = open_client(Config::default().limits(limits), tune);
        let mut ids: Vec<ChannelId> = Vec::new();
        for number in 1..=LARGE + SMALL {
            ids.push(client.open_channel().unwrap().0);
            feed(&mut client, [OwnedFrame::method(number as u16, channel::OpenOk)]);
        }
        output(&mut client);
        let chunk = frame_max as usize - 8;
        // The number of body frames that each channel has left, and the sizes of its messages.
        let mut left = vec![0; LARGE];
        let mut sizes: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
        let mut publish = |client: &mut amqp_core::client::Connection, at: usize, len: usize| {
            let mut channel = client.channel(ids[at]).unwrap();
            let properties = basic::Properties::default();
            channel.publish(&basic::Publish::default(), &properties, vec![at as u8; len]).unwrap();
            sizes.entry(at as u16 + 1).or_default().push(len as u64);
        };
        for (at, len) in messages {
            let len = len + chunk + 1;
            publish(&mut client, at, len);
            left[at] += len.div_ceil(chunk);
        }
        let mut waits: Vec<Vec<usize>> = vec![vec![0; LARGE]; LARGE];
        let mut sent: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
        let mut small = small.into_iter();
        loop {
            let passing = small.next().unwrap_or_default();
            for (at, len) in &passing {
                publish(&mut client, *at, *len);
            }
            let mut out = amqp_core::Transmit::new();
            if !client.poll_transmit(crate::NOW, &mut out) {
                break;
            }
            let call: Vec<u8> = out.segments().flatten().copied().collect();
            let call = frames(&call);
            let heads = call.iter().filter(|frame| frame.kind == FrameKind::Header);
            for header in heads {
                let size = ContentHeader::parse(&header.payload).unwrap().body_size;
                sent.entry(header.channel).or_default().push(size);
            }
            let is_small = |frame: &OwnedFrame| usize::from(frame.channel) > LARGE;
            let count = call.iter().filter(|frame| is_small(frame)).count();
            prop_assert!(call.iter().take(count).all(is_small), "a small message waits");
            let methods = call.iter().filter(|it| is_small(it) && it.kind == FrameKind::Method);
            prop_assert_eq!(methods.count(), passing.len());
            for frame in call.iter().filter(|it| !is_small(it)) {
                let at = usize::from(frame.channel) - 1;
                waits[at] = vec![0; LARGE];
                if frame.kind == FrameKind::Body {
                    left[at] -= 1;
                    for other in (0..LARGE).filter(|it| *it != at && left[*it] > 0) {
                        waits[other][at] += 1;
                        prop_assert!(waits[other][at] <= 1, "channel {other} waits for {at}");
                    }
                }
            }
        }
        prop_assert_eq!(left, vec![0; LARGE]);
        prop_assert_eq!(sent, sizes);
    }

    /// However much the ready lane is given before each call: each one sends a part of the message.
    #[test]
    fn a_large_message_leaves_however_many_small_ones_pass_it(
        len in 10_000_usize..400_000,
        passing in vec(0_usize..80, 1..8),
    ) {
        let tune = connection::Tune { channel_max: 10, frame_max: 8192, heartbeat: 0 };
        let limits = Limits::default().output_high(4 << 20);
        let mut client = open_client(Config::default().limits(limits), tune);
        let mut ids: Vec<ChannelId> = Vec::new();
        for number in 1..=2 {
            ids.push(client.open_channel().unwrap().0);
            feed(&mut client, [OwnedFrame::method(number, channel::OpenOk)]);
        }
        output(&mut client);
        let publish = |client: &mut amqp_core::client::Connection, at: usize, len: usize| {
            let mut channel = client.channel(ids[at]).unwrap();
            let properties = basic::Properties::default();
            channel.publish(&basic::Publish::default(), &properties, vec![0; len]).unwrap();
        };
        publish(&mut client, 0, len);
        let mut left = len;
        for count in passing.into_iter().cycle() {
            if left == 0 {
                break;
            }
            for _ in 0..count {
                publish(&mut client, 1, 8000);
            }
            let mut out = amqp_core::Transmit::new();
            client.poll_transmit(crate::NOW, &mut out);
            let call: Vec<u8> = out.segments().flatten().copied().collect();
            let call = frames(&call);
            let bodies = call.iter().filter(|it| it.channel == 1 && it.kind == FrameKind::Body);
            let sent: usize = bodies.map(|frame| frame.payload.len()).sum();
            prop_assert!(sent > 0, "it waits behind {count} messages");
            left -= sent;
        }
    }
}

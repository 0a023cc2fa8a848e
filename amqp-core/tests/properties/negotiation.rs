//! Limits are negotiated as the specification has it, for any values of either side (section 1.4.2.6
//! of the protocol reference): the smaller limit applies, and 0 is none.

use amqp_core::{
    Limits,
    client::{Config, Connection, Event},
    protocol::{FRAME_MIN_SIZE, Method, connection},
    server,
    strategies::{OwnedFrame, Values},
};
use amqp_test_support::cases;
use bytes::{Buf as _, BytesMut};
use proptest::prelude::*;

use crate::{NOW, feed, frames, method, output, start};

/// The smaller of two limits, of which 0 is none.
fn smaller(ours: u64, theirs: u64) -> u64 {
    match (ours, theirs) {
        (0, other) | (other, 0) => other,
        (ours, theirs) => ours.min(theirs),
    }
}

fn any_frame_max() -> impl Strategy<Value = u32> {
    prop_oneof![2 => Just(0), 3 => FRAME_MIN_SIZE..200_000, 2 => FRAME_MIN_SIZE..]
}

fn any_channel_max() -> impl Strategy<Value = u16> {
    prop_oneof![1 => Just(0), 2 => 1_u16..20, 2 => any::<u16>()]
}

fn any_heartbeat() -> impl Strategy<Value = Option<u16>> {
    proptest::option::of(Values::default().short)
}

/// The client's `tune-ok`.
fn answer(client: &mut Connection) -> Option<connection::TuneOk> {
    let sent = output(client).concat();
    frames(&sent).iter().find_map(|frame| match method(frame) {
        Some(Method::ConnectionTuneOk(tune_ok)) => Some(tune_ok),
        _ => None,
    })
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_client_takes_the_smaller_limits(
        channel_max in any_channel_max(),
        frame_max in any_frame_max(),
        heartbeat in any_heartbeat(),
        tune: connection::Tune,
    ) {
        let mut config = Config::default().channel_max(channel_max).frame_max(frame_max);
        config.heartbeat = heartbeat;
        let limits = Limits::default();
        let mut client = Connection::new(config, NOW).unwrap();
        feed(&mut client, [OwnedFrame::method(0, start())]);
        feed(&mut client, [OwnedFrame::method(0, tune.clone())]);
        let answer = answer(&mut client);
        if (1..FRAME_MIN_SIZE).contains(&tune.frame_max) {
            // `frame-min-size` of the specification.
            prop_assert_eq!(answer, None);
            prop_assert!(client.close_reason().is_some());
            return Ok(());
        }
        let channels = smaller(channel_max.into(), tune.channel_max.into()) as u16;
        // Without a limit of its own, a client bounds the frames that it accepts.
        let ours = if frame_max == 0 { limits.unlimited_frame } else { frame_max };
        let frame = smaller(ours.into(), tune.frame_max.into()) as u32;
        let interval = heartbeat.unwrap_or(tune.heartbeat);
        let frame = if frame_max == 0 && tune.frame_max == 0 { 0 } else { frame };
        prop_assert_eq!(answer, Some(connection::TuneOk {
            channel_max: channels,
            frame_max: frame,
            heartbeat: interval,
        }));
        let tuning = *client.tuning();
        prop_assert_eq!(tuning.channel_max, if channels == 0 { u16::MAX } else { channels });
        prop_assert_eq!(tuning.frame_max, if frame == 0 { u32::MAX } else { frame });
        prop_assert_eq!(tuning.heartbeat, interval);
        feed(&mut client, [OwnedFrame::method(0, connection::OpenOk)]);
        prop_assert_eq!(client.poll_event(), Some(Event::Opened));
    }

    /// A server accepts the limits that are within its own, and no others.
    #[test]
    fn a_server_accepts_what_is_within_its_limits(
        channel_max in any_channel_max(),
        frame_max in prop_oneof![Just(0), 8192_u32..],
        tune_ok: connection::TuneOk,
        near in any::<bool>(),
        within in 0_u32..20_000,
    ) {
        let mut tune_ok = tune_ok;
        if near {
            tune_ok.frame_max = within;
            tune_ok.channel_max = channel_max.saturating_sub((within % 4) as u16).saturating_add(2);
        }
        let config = server::Config::default().channel_max(channel_max).frame_max(frame_max);
        let frame_min = config.frame_min;
        let mut server = server::Connection::new(config, NOW).unwrap();
        let mut input = BytesMut::from(&amqp_core::frame::PROTOCOL_HEADER[..]);
        let login = connection::StartOk::default().mechanism("PLAIN");
        OwnedFrame::method(0, login).as_frame().encode(&mut input);
        server.handle_input(NOW, &mut input);
        prop_assert!(matches!(server.poll_event(), Some(server::Event::Authenticate(_))));
        server.accept().unwrap();
        OwnedFrame::method(0, tune_ok.clone()).as_frame().encode(&mut input);
        server.handle_input(NOW, &mut input);
        prop_assert!(input.remaining() == 0);
        let within = |value: u32, min: u32, max: u32| match (value, max) {
            (0, max) => max == 0,
            (value, 0) => value >= min,
            (value, max) => (min..=max).contains(&value),
        };
        let accepted = within(tune_ok.channel_max.into(), 1, channel_max.into())
            && within(tune_ok.frame_max, frame_min, frame_max);
        prop_assert_eq!(server.close_reason().is_none(), accepted, "{:?}", tune_ok);
        if accepted {
            let channels = if tune_ok.channel_max == 0 { u16::MAX } else { tune_ok.channel_max };
            prop_assert_eq!(server.tuning().channel_max, channels);
            prop_assert_eq!(server.tuning().heartbeat, tune_ok.heartbeat);
        }
    }

    /// Two sides with any configurations agree, and on the same limits.
    #[test]
    fn both_sides_agree(
        channel_max in any_channel_max(),
        frame_max in prop_oneof![Just(0), 8192_u32..],
        heartbeat in any_heartbeat(),
        their_channel_max in any_channel_max(),
        their_frame_max in prop_oneof![Just(0), 8192_u32..],
        their_heartbeat: u16,
    ) {
        let mut config = Config::default().channel_max(channel_max).frame_max(frame_max);
        config.heartbeat = heartbeat;
        let theirs = server::Config::default()
            .channel_max(their_channel_max)
            .frame_max(their_frame_max)
            .heartbeat(their_heartbeat);
        let mut client = Connection::new(config, NOW).unwrap();
        let mut server = server::Connection::new(theirs, NOW).unwrap();
        let (mut to_client, mut to_server) = (BytesMut::new(), BytesMut::new());
        for _ in 0..5 {
            to_server.extend_from_slice(&output(&mut client).concat());
            server.handle_input(NOW, &mut to_server);
            while let Some(event) = server.poll_event() {
                match event {
                    server::Event::Authenticate(_) => server.accept().unwrap(),
                    server::Event::Open { .. } => server.open().unwrap(),
                    server::Event::Opened => {}
                    other => panic!("{other:?}"),
                }
            }
            let mut out = amqp_core::Transmit::new();
            while server.poll_transmit(NOW, &mut out) {}
            to_client.extend_from_slice(&out.copy_to_bytes(out.remaining()));
            client.handle_input(NOW, &mut to_client);
        }
        prop_assert!(client.is_open() && server.is_open());
        let (ours, theirs) = (client.tuning(), server.tuning());
        prop_assert_eq!(ours.channel_max, theirs.channel_max);
        prop_assert_eq!(ours.heartbeat, theirs.heartbeat);
        // A server without a limit treats a huge one as none.
        let huge = theirs.frame_max == u32::MAX && their_frame_max == 0;
        prop_assert!(ours.frame_max == theirs.frame_max || huge);
    }
}

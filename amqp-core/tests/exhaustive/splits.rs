//! The bytes arrive in any pieces.

use amqp_core::{client, server};

use crate::{
    Story,
    cuts::lengths,
    oracle,
    world::{Direction, Fault, World, frame_lens},
};

/// All that happens in a world.
#[derive(Debug, PartialEq)]
struct Record {
    client: Vec<client::Event>,
    server: Vec<server::Event>,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

fn record(story: Story, direction: Direction, fault: Fault) -> Record {
    let what = format!("{story:?}, {direction:?}: {fault:?}");
    let mut world = World::with_fault(story, direction, fault);
    world.run();
    oracle::check_undisturbed(&world, &what);
    Record {
        client: world.client.events,
        server: world.server.events,
        to_server: world.to_server.received,
        to_client: world.to_client.received,
    }
}

/// Compares all worlds with the undisturbed one. Returns their number.
fn compare(story: Story, direction: Direction, faults: impl IntoIterator<Item = Fault>) -> usize {
    let whole = record(story, direction, Fault::None);
    let mut count = 0;
    for fault in faults {
        let split = record(story, direction, fault.clone());
        let what = format!("{story:?}, {direction:?}: {fault:?}");
        assert_eq!(split.client, whole.client, "{what}");
        assert_eq!(split.server, whole.server, "{what}");
        assert!(split == whole, "{what}: other bytes");
        count += 1;
    }
    count
}

#[test]
fn every_split_in_two_and_every_size_of_pieces_changes_nothing() {
    let (mut splits, mut sizes) = (0, 0);
    for story in Story::ALL {
        for direction in Direction::BOTH {
            let (total, _) = lengths(story, direction);
            let places = (1..total).map(|at| Fault::Split(vec![at]));
            splits += compare(story, direction, places);
            let pieces = (1..=total.min(64)).map(Fault::Pieces);
            sizes += compare(story, direction, pieces);
        }
    }
    println!("splits: {splits} in two, {sizes} into pieces of one size");
}

/// Within each frame behind the handshake, every two places.
#[test]
fn every_split_of_a_frame_in_three_changes_nothing() {
    let mut count = 0;
    for story in [Story::Publish, Story::Consume, Story::Close] {
        for direction in Direction::BOTH {
            let (_, handshake) = lengths(story, direction);
            let whole = record(story, direction, Fault::None);
            let stream = match direction {
                Direction::ToServer => whole.to_server,
                Direction::ToClient => whole.to_client,
            };
            let mut start = 0;
            let mut places = Vec::new();
            for len in frame_lens(&stream) {
                let end = start + len;
                if start >= handshake {
                    for first in start + 1..end {
                        places.extend((first + 1..end).map(|at| Fault::Split(vec![first, at])));
                    }
                }
                start = end;
            }
            count += compare(story, direction, places);
        }
    }
    println!("splits: {count} of a frame in three");
}

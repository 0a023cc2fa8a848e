//! The transport ends behind every byte.

use crate::{
    Story, oracle,
    world::{Direction, Ending, Fault, World},
};

/// The bytes that each direction carries in a story, and those of its handshake.
pub(crate) fn lengths(story: Story, direction: Direction) -> (usize, usize) {
    let mut world = World::new(story, false);
    world.run();
    oracle::check_undisturbed(&world, &format!("{story:?}"));
    let total = world.lane(direction).received.len();
    let mut open = World::new(Story::Manual, false);
    open.settle();
    assert!(open.client.machine.is_open());
    (total, open.lane(direction).received.len())
}

#[test]
fn every_cut_of_every_story_ends_each_wait_once() {
    let mut count = 0;
    for story in Story::ALL {
        for direction in Direction::BOTH {
            let (total, handshake) = lengths(story, direction);
            // The handshake is the same in each.
            let first = if story == Story::Open { 0 } else { handshake };
            for at in first..total {
                for ending in Ending::ALL {
                    let fault = Fault::Cut(at, ending);
                    let mut world = World::with_fault(story, direction, fault);
                    world.run();
                    let what = format!("{story:?}, {direction:?}: {ending:?} behind {at} bytes");
                    oracle::check(&world, &what);
                    oracle::check_faultless(&world, &what);
                    count += 1;
                }
            }
        }
    }
    println!("cuts: {count}");
}

//! Every frame of either side is lost once.

use crate::{
    Story, oracle,
    world::{Direction, Fault, World},
};

#[test]
fn every_lost_frame_ends_each_wait_once_and_misreports_no_message() {
    let mut count = 0;
    for story in Story::ALL {
        for direction in Direction::BOTH {
            let mut whole = World::new(story, true);
            whole.run();
            oracle::check_undisturbed(&whole, &format!("{story:?}"));
            for frame in 0..whole.lane(direction).frames {
                let mut world = World::with_fault(story, direction, Fault::Lost(frame));
                world.run();
                let what = format!("{story:?}, {direction:?}: frame {frame} is lost");
                oracle::check(&world, &what);
                count += 1;
            }
        }
    }
    println!("lost frames: {count}");
}

//! The workers of tutorial 2 at their end.

use amqp_tests::harness::Outcome;

use crate::program::Place;

/// A worker of the tutorial sleeps for a second for each dot.
const TASK: &str = "a task.";

pub(crate) fn a_worker_that_is_killed_loses_no_task(place: &Place) -> Outcome {
    let long = "a long task............................................................";
    let mut killed = place.start("worker", &[])?;
    killed.read_to(1)?;
    place.start("new_task", &[long.into()])?.end()?;
    killed.read_to(2)?;
    assert_eq!(killed.printed[1], format!("received: {long}"));

    let mut other = place.start("worker", &[])?;
    other.read_to(1)?;
    drop(killed);
    other.read_to(2)?;
    assert_eq!(other.printed[1], format!("received: {long}"));
    Ok(())
}

pub(crate) fn a_worker_that_is_interrupted_does_its_task_first(place: &Place) -> Outcome {
    let mut worker = place.start("worker", &[])?;
    worker.read_to(1)?;
    place.start("new_task", &[TASK.into()])?.end()?;
    worker.read_to(2)?;
    worker.interrupt()?;
    worker.end()?;
    let ends = [format!("received: {TASK}"), format!("done: {TASK}")];
    assert_eq!(worker.printed[1..], ends);

    // It has acknowledged the task: another worker gets the next one alone.
    let mut other = place.start("worker", &[])?;
    other.read_to(1)?;
    place.start("new_task", &["next".into()])?.end()?;
    other.read_to(2)?;
    assert_eq!(other.printed[1], "received: next");
    Ok(())
}

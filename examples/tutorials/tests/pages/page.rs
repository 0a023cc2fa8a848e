//! A page of the book, run as it stands.
//!
//! Its commands run one after the other. One that goes on does so beside those below it: its lines
//! are awaited at the end of the page, and then it is interrupted. Those that go on with the same
//! command share their lines, in any order.

use std::{
    thread,
    time::{Duration, Instant},
};

use amqp_tests::harness::Outcome;

use crate::{
    program::{Place, Program, SOON},
    transcript::{Step, transcript},
};

/// Runs the commands of a page.
pub(crate) fn run(text: &str, place: &Place) -> Outcome {
    let mut running: Vec<(Step, Program)> = Vec::new();
    for step in transcript(text)? {
        let mut program = place.start(&step.program, &step.arguments)?;
        if step.goes_on() {
            program.read_to(1)?;
            assert_eq!(program.printed[0], step.lines[0], "{program:?}");
            running.push((step, program));
        } else {
            program.end()?;
            assert_eq!(program.printed, step.lines, "{program:?}");
        }
    }
    while let Some((step, _)) = running.first() {
        let step = step.clone();
        let (same, others) = running
            .into_iter()
            .partition::<Vec<_>, _>(|(other, _)| step.is_same_command(other));
        running = others;
        let (steps, mut programs): (Vec<_>, Vec<_>) = same.into_iter().unzip();
        finish(&steps, &mut programs)?;
    }
    Ok(())
}

/// Waits until programs with the same command have printed the lines of all of them, interrupts
/// them, and compares all that they have printed.
fn finish(steps: &[Step], programs: &mut [Program]) -> Outcome {
    let mut expected: Vec<_> = steps.iter().flat_map(|it| it.lines.clone()).collect();
    let begun = Instant::now();
    while programs.iter().map(|it| it.printed.len()).sum::<usize>() < expected.len() {
        if begun.elapsed() > SOON {
            return Err(format!("not all lines: {programs:#?}").into());
        }
        thread::sleep(Duration::from_millis(5));
        programs.iter_mut().for_each(Program::read_available);
    }
    for program in programs.iter_mut() {
        program.interrupt()?;
        program.end()?;
    }
    let mut printed: Vec<_> = programs.iter().flat_map(|it| it.printed.clone()).collect();
    if programs.len() > 1 {
        expected.sort_unstable();
        printed.sort_unstable();
    }
    assert_eq!(printed, expected, "{programs:#?}");
    Ok(())
}

//! The threads of this program, counted.

use std::{
    error::Error,
    fs, io, thread,
    time::{Duration, Instant},
};

/// The time limit of steps that end at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The number of threads of this program that are called `amqp`.
pub(crate) fn threads() -> io::Result<usize> {
    let mut count = 0;
    for task in fs::read_dir("/proc/self/task")? {
        // A thread that has ended meanwhile has no name any more.
        let name = fs::read_to_string(task?.path().join("comm")).unwrap_or_default();
        count += usize::from(name.starts_with("amqp"));
    }
    Ok(count)
}

/// Waits until a condition holds.
pub(crate) fn until(
    text: &str,
    holds: impl Fn() -> io::Result<bool>,
) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    while !holds()? {
        if begun.elapsed() > PATIENCE {
            return Err(format!("it does not come true that {text}").into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

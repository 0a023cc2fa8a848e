//! The end of a load of publishes.

use std::time::{Duration, Instant};

use crate::Result;
use crate::clock::{Sample, Stopwatch};
use crate::load::check;
use crate::target::Target;

/// The time without another message, or without any progress, after which the rest counts as lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until everything has arrived. `counts` asks the server on a channel for the number of
/// messages and acknowledgements that it has got; a broker's answer on each channel means that it
/// has got that far.
pub(crate) async fn published<C>(
    target: &Target,
    channels: &[C],
    watch: Stopwatch,
    count: u64,
    counts: impl AsyncFn(&C) -> Result<(u64, u64)>,
) -> Result<Sample> {
    if !target.counts() {
        for channel in channels {
            counts(channel).await?;
        }
        return Ok(watch.stop(count));
    }
    let (mut arrived, mut since) = (0, Instant::now());
    while arrived < count && since.elapsed() < PATIENCE {
        let (now, _) = counts(&channels[0]).await?;
        if now > arrived {
            (arrived, since) = (now, Instant::now());
        }
    }
    let sample = watch.stop(count);
    check("messages", arrived, count)?;
    Ok(sample)
}

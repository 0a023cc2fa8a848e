//! One run: a load, and faults one after the other.

use std::{fs, path::PathBuf, time::Duration};

use amqp_tests::differential::generate::Random;
use amqp_tokio::core::dial::Address;
use tokio::runtime::Runtime;

use crate::{
    Result,
    load::{Load, PUBLISHERS, Settings},
    options::{Length, Options},
    report::Report,
    samples::Sampler,
};

/// The number of changes of a connection that are shown if it is back late.
const SHOWN: usize = 8;

/// The number of faults after which a message that is done is forgotten. It may be delivered again
/// until then.
const REMEMBERED: u32 = 30;

/// A load under faults.
pub(crate) struct Run {
    pub(crate) runtime: Runtime,
    pub(crate) load: Load,
    pub(crate) random: Random,
    report: Report,
    /// The samples of a soak.
    sampler: Option<Sampler>,
    plot: Option<PathBuf>,
}

impl Run {
    /// Starts the load on queues of that type, at a broker with those addresses.
    pub(crate) fn start(
        options: &Options,
        length: Length,
        addresses: Vec<Address>,
        queue_type: &'static str,
    ) -> Result<Self> {
        let settings = Settings {
            addresses,
            queue_type,
            seed: options.seed,
            interval: Duration::from_secs(PUBLISHERS as u64) / options.rate,
        };
        let runtime = Runtime::new()?;
        let load = runtime.block_on(Load::start(&settings))?;
        load.wait_until_back()?;
        eprintln!(
            "{PUBLISHERS} publishers and the consumers work, seed {}",
            options.seed
        );
        let sampler = match length {
            Length::Faults(_) => None,
            Length::Time(_) => Some(Sampler::start(&load.shared)?),
        };
        Ok(Self {
            runtime,
            load,
            random: Random::new(options.seed),
            report: Report::new(options, length),
            sampler,
            plot: options.plot.clone(),
        })
    }

    pub(crate) fn goes_on(&self) -> bool {
        self.report.goes_on()
    }

    /// Lets the load work for a while, injects a fault, and waits until everything works again. The
    /// fault returns the time without a broker, as soon as there is one.
    pub(crate) fn fault(
        &mut self,
        kind: &'static str,
        inject: impl FnOnce(&Runtime, &Load, &mut Random) -> Result<Duration>,
    ) -> Result {
        let pause = Duration::from_millis(self.random.below(400));
        std::thread::sleep(pause);
        if let Some(sampler) = &mut self.sampler {
            sampler.take_settled();
        }
        let before = self.load.counts();
        let down = inject(&self.runtime, &self.load, &mut self.random)?;
        let (back, last) = self.load.wait_until_back()?;
        let counts = [before, self.load.counts()];
        let epoch = self.load.shared.epoch();
        let mut ledger = self.load.shared.ledger();
        ledger.forget_before(epoch.saturating_sub(REMEMBERED));
        drop(ledger);
        if !self.report.add(kind, down, back, counts) {
            eprintln!("{}", last.tell(SHOWN));
        }
        Ok(())
    }

    /// Ends the load, and prints the results. The outcome is that of the faults: an error if one has
    /// failed. Returns whether all checks hold.
    pub(crate) fn finish(mut self, outcome: Result) -> Result<bool> {
        let samples = self.sampler.map(Sampler::stop);
        let shared = std::sync::Arc::clone(&self.load.shared);
        let balance = outcome.and_then(|()| self.load.finish(&self.runtime));
        // A task that hangs is left behind.
        self.runtime.shutdown_background();
        let mut ledger = shared.ledger();
        let hang = balance.is_err();
        let balance = balance.unwrap_or_else(|error| {
            eprintln!("{error}");
            ledger.balance()
        });
        let counts = ledger.counts;
        let mut good = self.report.finish(&counts, &balance, hang);
        for remark in ledger.take_remarks() {
            println!("  {remark}");
        }
        if let Some(samples) = samples {
            good &= samples.report();
            if let Some(file) = &self.plot {
                fs::write(file, samples.svg()).map_err(|it| format!("{}: {it}", file.display()))?;
                eprintln!("drawn into {}", file.display());
            }
        }
        Ok(good)
    }
}

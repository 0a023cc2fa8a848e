//! The log on the standard error.

use std::{
    fmt,
    io::{self, Write as _},
    time::{Duration, SystemTime},
};

/// The lines that are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Warnings.
    Quiet,
    /// The logins and ends of connections, too.
    #[default]
    Normal,
    /// All that is accepted, and connections that never logged in, too.
    Verbose,
}

/// Writes one line for each event, with the time in UTC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log(Verbosity);

impl Log {
    pub(crate) const fn new(verbosity: Verbosity) -> Self {
        Self(verbosity)
    }

    pub(crate) fn warning(self, text: fmt::Arguments<'_>) {
        self.write(Verbosity::Quiet, "warning", text);
    }

    pub(crate) fn info(self, text: fmt::Arguments<'_>) {
        self.write(Verbosity::Normal, "info", text);
    }

    pub(crate) fn debug(self, text: fmt::Arguments<'_>) {
        self.write(Verbosity::Verbose, "debug", text);
    }

    fn write(self, from: Verbosity, level: &str, text: fmt::Arguments<'_>) {
        if self.0 >= from {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let time = Utc(since.unwrap_or_default());
            // A closed standard error is no reason to stop serving.
            let _closed = writeln!(io::stderr(), "{time} [{level}] {text}");
        }
    }
}

/// A time since the Unix epoch, shown as a date and a time of day.
struct Utc(Duration);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.subsec_millis());
        let (year, month, day) = date(seconds / 86_400);
        let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
        let second = seconds % 60;
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03}Z"
        )
    }
}

/// Returns the year, month and day of a day since the Unix epoch. Computes in years that begin in
/// March, within eras of 400 years, so that a leap day is the last of its year.
const fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let january_or_february = (month <= 2) as u64;
    (era * 400 + year + january_or_february, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_utc() {
        for (seconds, shown) in [
            (0, "1970-01-01 00:00:00.007Z"),
            (951_782_399, "2000-02-28 23:59:59.007Z"),
            (951_782_400, "2000-02-29 00:00:00.007Z"),
            (951_868_800, "2000-03-01 00:00:00.007Z"),
            (1_704_067_199, "2023-12-31 23:59:59.007Z"),
            (1_709_208_000, "2024-02-29 12:00:00.007Z"),
        ] {
            let time = Utc(Duration::from_secs(seconds) + Duration::from_millis(7));
            assert_eq!(time.to_string(), shown);
        }
    }
}

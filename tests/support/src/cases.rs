//! The number of cases of a property.

use std::env;

use proptest::test_runner::Config;

/// Returns the configuration with that many cases, unless `PROPTEST_CASES` sets their number.
#[must_use]
pub fn cases(count: u32) -> Config {
    let config = Config::default();
    if env::var_os("PROPTEST_CASES").is_some() {
        return config;
    }
    Config {
        cases: count,
        ..config
    }
}

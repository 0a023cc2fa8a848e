//! Durations in options.

use std::time::Duration;

/// Reads `1.5` as seconds, and `250ms`, `2m` or `1h 30m` with their units.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::parse;

    #[test]
    fn numbers_are_seconds_and_units_are_read() {
        assert_eq!(parse("2"), Ok(Duration::from_secs(2)));
        assert_eq!(parse("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("1h 30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "-1", "nan", "1e300", "5 parsecs"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

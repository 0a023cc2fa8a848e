//! Timestamps of messages from the clock of the system.

use std::time::{Duration, SystemTime};

use amqp_driver::{SystemTimestamp as _, wire::Timestamp};

#[test]
fn a_time_is_its_seconds_since_the_epoch() {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_999);
    assert_eq!(Timestamp::from_system_time(time).ok(), Some(Timestamp(1)));
    let back = Timestamp(1).to_system_time();
    assert_eq!(back, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1)));
}

#[test]
fn times_before_the_epoch_and_beyond_the_system_are_none() {
    let before = SystemTime::UNIX_EPOCH - Duration::from_secs(2);
    assert!(Timestamp::from_system_time(before).is_err());
    assert_eq!(Timestamp(u64::MAX).to_system_time(), None);
}

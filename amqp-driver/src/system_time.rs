//! Timestamps of the system's clock.

use std::time::{SystemTime, SystemTimeError};

use amqp_core::wire::Timestamp;

/// The conversion between a [`Timestamp`] and the time of the system.
///
/// ```
/// use amqp_driver::{SystemTimestamp, protocol::basic, wire::Timestamp};
/// use std::time::SystemTime;
///
/// let now = Timestamp::from_system_time(SystemTime::now())?;
/// let properties = basic::Properties::default().timestamp(now);
/// assert!(now.to_system_time().is_some());
/// # assert_eq!(properties.timestamp, Some(now));
/// # Ok::<(), std::time::SystemTimeError>(())
/// ```
pub trait SystemTimestamp: Sized {
    /// Creates a timestamp, without the fraction of a second.
    ///
    /// # Errors
    /// If the time is before the Unix epoch.
    fn from_system_time(time: SystemTime) -> Result<Self, SystemTimeError>;

    /// Returns the time. `Some` if the system has it.
    fn to_system_time(self) -> Option<SystemTime>;
}

impl SystemTimestamp for Timestamp {
    fn from_system_time(time: SystemTime) -> Result<Self, SystemTimeError> {
        let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH)?;
        Ok(Self::since_epoch(since_epoch))
    }

    fn to_system_time(self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(self.duration_since_epoch())
    }
}

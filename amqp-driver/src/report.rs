//! Errors with the frames before them.

use std::fmt;

use amqp_core::FrameLog;

/// An error, to be printed with the last frames before it: the text of the error, then the
/// [log of frames](FrameLog), if there is one, in lines of its own.
///
/// ```no_run
/// # async fn example(connection: amqp_driver::Connection) -> Result<(), amqp_driver::Error> {
/// use amqp_driver::protocol::queue;
///
/// let channel = connection.open_channel().await?;
/// if let Err(error) = channel.call(queue::Declare::default().queue("jobs")).await {
///     eprintln!("{}", error.report());
/// }
/// # Ok(()) }
/// ```
///
/// [`Config::frame_log`](crate::Config) turns the log on.
#[derive(Clone, Copy)]
pub struct Report<'a> {
    error: &'a dyn fmt::Display,
    frames: Option<&'a FrameLog>,
}

impl<'a> Report<'a> {
    pub(crate) const fn new(error: &'a dyn fmt::Display, frames: Option<&'a FrameLog>) -> Self {
        Self { error, frames }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        match self.frames {
            Some(frames) => write!(f, "\n{frames}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

//! Functions that run for messages by the start of the body.

use std::fmt;

use bytes::Buf as _;
use regex_lite::Regex;

use crate::message::Message;

/// The default number of bytes of a body that patterns see.
const PREFIX: usize = 4096;

/// Functions by pattern. Each pattern is matched with the start of a message's body, and the functions
/// of all that match run, in the order in which they were added.
///
/// A pattern is a regular expression in the syntax of
/// [`regex_lite`](https://docs.rs/regex-lite/latest/regex_lite/#syntax). It sees the first 4,096 bytes of
/// the body, as far as they are UTF-8.
///
/// ```
/// use amqp_peer::{Message, rpc::Hooks};
/// use std::sync::atomic::{AtomicU32, Ordering};
///
/// static SEEN: AtomicU32 = AtomicU32::new(0);
///
/// let mut hooks = Hooks::new();
/// hooks.on("log:(info|warn) ", |_message: &Message| { SEEN.fetch_add(1, Ordering::Relaxed); })?;
/// assert_eq!(hooks.run(&Message::new("log:warn the disk is full")), 1);
/// assert_eq!(hooks.run(&Message::new("no log:warn ")), 0);
/// assert_eq!(SEEN.load(Ordering::Relaxed), 1);
/// # Ok::<(), amqp_peer::rpc::HookError>(())
/// ```
#[derive(Default)]
pub struct Hooks(Vec<Hook>);

struct Hook {
    pattern: Regex,
    run: Box<dyn Fn(&Message) + Send + Sync>,
}

/// A pattern that is no regular expression.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[error("the pattern is not a regular expression: {reason}")]
#[non_exhaustive]
pub struct HookError {
    /// The reason.
    pub reason: String,
}

impl Hooks {
    /// Creates an empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a function for the messages with a body that begins with a match of `pattern`.
    ///
    /// # Errors
    /// [`HookError`] if the pattern is not a regular expression.
    pub fn on(
        &mut self,
        pattern: &str,
        run: impl Fn(&Message) + Send + Sync + 'static,
    ) -> Result<&mut Self, HookError> {
        // By itself first: otherwise a pattern could close the group.
        let parsed = Regex::new(pattern).and_then(|_| Regex::new(&format!(r"\A(?:{pattern})")));
        let pattern = parsed.map_err(|error| HookError {
            reason: error.to_string(),
        })?;
        self.0.push(Hook {
            pattern,
            run: Box::new(run),
        });
        Ok(self)
    }

    /// Runs the functions of all patterns that match. Returns their number.
    pub fn run(&self, message: &Message) -> usize {
        let mut start = vec![0; message.body.len().min(PREFIX)];
        message.body.clone().copy_to_slice(&mut start);
        let text = match str::from_utf8(&start) {
            Ok(text) => text,
            Err(error) => {
                let valid = start.get(..error.valid_up_to()).unwrap_or_default();
                str::from_utf8(valid).unwrap_or_default()
            }
        };
        let matching = self.0.iter().filter(|hook| hook.pattern.is_match(text));
        matching.map(|hook| (hook.run)(message)).count()
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns = self.0.iter().map(|hook| hook.pattern.as_str());
        f.debug_list().entries(patterns).finish()
    }
}

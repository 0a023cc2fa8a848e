//! Regular expressions over names, as in permissions and policies.

use alloc::{borrow::Cow, string::String};
use core::fmt;

use regex_automata::{
    nfa::thompson::{self, pikevm::PikeVM},
    util::syntax,
};

/// A regular expression that does not parse, or is too large.
///
/// The syntax is that of the `regex` family of crates, on bytes: unlike in RabbitMQ, look-around
/// and back references are not supported. Matching takes at most linear time. A brace that begins
/// no repetition stands for itself, as in RabbitMQ.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[error("the pattern `{pattern}` does not parse: {problem}")]
pub struct BadPattern {
    /// The expression; of a long one, the beginning.
    pub pattern: String,
    /// The error of the parser.
    pub problem: String,
}

/// A regular expression that is searched for anywhere in a name.
///
/// ```
/// use amqp_broker::Pattern;
///
/// let pattern = Pattern::new("^tmp-")?;
/// assert_eq!(pattern.as_str(), "^tmp-");
/// assert!(pattern.matches("tmp-1") && !pattern.matches("my-tmp-1"));
/// # Ok::<_, amqp_broker::BadPattern>(())
/// ```
#[derive(Clone)]
pub struct Pattern {
    text: Cow<'static, str>,
    matcher: Matcher,
}

#[derive(Clone)]
enum Matcher {
    All,
    Expression(PikeVM),
}

/// The memory limit of a compiled expression, in bytes: far above that of any expression written by
/// hand, and low enough that a search in a name takes milliseconds at most.
const NFA_MAX: usize = 256 << 10;

/// The maximum length of an expression, in bytes.
const TEXT_MAX: usize = 8 << 10;

/// The length of the part of a too long expression that its error has, in characters.
const SHOWN_MAX: usize = 100;

impl Pattern {
    /// Compiles an expression. The empty one matches every name.
    ///
    /// # Errors
    /// If it does not parse, is longer than 8 KiB or needs more than 256 KiB of memory.
    pub fn new(text: impl Into<String>) -> Result<Self, BadPattern> {
        let text = text.into();
        let matcher = Matcher::new(&text)?;
        Ok(Self {
            text: Cow::Owned(text),
            matcher,
        })
    }

    /// Returns the expression that matches every name, `.*`.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            text: Cow::Borrowed(".*"),
            matcher: Matcher::All,
        }
    }

    /// Compiles the expression of a permission: the empty one matches only the empty name, as in
    /// RabbitMQ (<https://www.rabbitmq.com/docs/access-control>).
    pub(crate) fn of_permission(text: &str) -> Result<Self, BadPattern> {
        Self::expanded(text, text)
    }

    /// As [`of_permission`](Self::of_permission), with the expression that `text` stands for.
    pub(crate) fn expanded(text: &str, expression: &str) -> Result<Self, BadPattern> {
        let matcher = Matcher::new(if expression.is_empty() {
            "^$"
        } else {
            expression
        })?;
        Ok(Self {
            text: Cow::Owned(text.into()),
            matcher,
        })
    }

    /// Returns the text of the expression.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether the expression is found in `name`.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match &self.matcher {
            Matcher::All => true,
            Matcher::Expression(vm) => {
                let mut cache = vm.create_cache();
                vm.is_match(&mut cache, name)
            }
        }
    }
}

impl Matcher {
    fn new(text: &str) -> Result<Self, BadPattern> {
        let bad = |problem| BadPattern {
            pattern: text.chars().take(SHOWN_MAX).collect(),
            problem,
        };
        if text == ".*" {
            return Ok(Self::All);
        }
        if text.len() > TEXT_MAX {
            return Err(bad(alloc::format!("it is longer than {TEXT_MAX} bytes")));
        }
        let bytes = syntax::Config::new().unicode(false).utf8(false);
        let nfa = thompson::Config::new()
            .utf8(false)
            .nfa_size_limit(Some(NFA_MAX));
        PikeVM::builder()
            .syntax(bytes)
            .thompson(nfa)
            .build(&with_plain_braces(text))
            .map(Self::Expression)
            .map_err(|error| bad(alloc::string::ToString::to_string(&error)))
    }
}

/// Escapes the braces that begin no repetition: they stand for themselves in the expressions of
/// RabbitMQ (<https://www.erlang.org/doc/apps/stdlib/re.html>).
fn with_plain_braces(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_class = false;
    while let Some(next) = rest.chars().next() {
        let len = next.len_utf8();
        let (head, tail) = rest.split_at_checked(len).unwrap_or((rest, ""));
        match next {
            '\\' => {
                let (taken, after) = rest
                    .split_at_checked(escape_len(rest))
                    .unwrap_or((rest, ""));
                plain.push_str(taken);
                rest = after;
                continue;
            }
            '[' => in_class = true,
            ']' => in_class = false,
            '{' if !in_class && !is_repetition(tail) => plain.push('\\'),
            _ => {}
        }
        plain.push_str(head);
        rest = tail;
    }
    plain
}

/// Returns the length of the escape that a text begins with, in bytes. The braces of `\x{41}` and
/// the like belong to it.
fn escape_len(text: &str) -> usize {
    let mut chars = text.chars().skip(1);
    let kind = chars.next();
    let short = 1 + kind.map_or(0, char::len_utf8);
    if matches!(kind, Some('x' | 'u' | 'U' | 'p' | 'P')) && chars.next() == Some('{') {
        return text.find('}').map_or(text.len(), |at| at + 1);
    }
    short
}

/// Returns whether the text behind a brace makes it a repetition: `3}`, `3,}` or `3,5}`.
fn is_repetition(text: &str) -> bool {
    let after = text.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let digits = text.len() - after.len();
    let after = after.strip_prefix(',').map_or(after, |upper| {
        upper.trim_start_matches(|digit: char| digit.is_ascii_digit())
    });
    digits > 0 && after.starts_with('}')
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::time::Instant;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(name)
    }

    #[test]
    fn the_empty_pattern_matches_every_name_but_in_a_permission() {
        assert!(matches("", "") && matches("", "a"));
        let permission = Pattern::of_permission("").unwrap();
        assert!(permission.matches("") && !permission.matches("a"));
        assert_eq!(permission.as_str(), "");
    }

    #[test]
    fn braces_that_begin_no_repetition_are_plain() {
        assert!(matches("^a{2}$", "aa") && !matches("^a{2}$", "a{2}"));
        assert!(matches("^a{1,}$", "aaa") && matches("^a{1,2}$", "aa"));
        assert!(matches("^{client_id}-x$", "{client_id}-x"));
        assert!(matches("^a{$", "a{") && matches("^a{,2}$", "a{,2}"));
        assert!(matches("^a\\{2}$", "a{2}") && matches("^[{]2}$", "{2}"));
        assert!(matches(r"^\x{61}{2}$", "aa"));
    }

    /// The steps of a pattern that is matched badly would take years.
    #[test]
    fn a_hostile_pattern_is_refused_or_matched_in_time() {
        let hostile = [
            "(a+)+$".into(),
            "(a|a)*(b|b)*$".into(),
            "(.*)*(.*)*(.*)*=$".into(),
            "((a{0,99}){0,99}){0,99}".into(),
            "a{1000000000}".into(),
            "(((((a{9}){9}){9}){9}){9}){9}".into(),
            "(.{1,30}){1,30}$".into(),
            "(".repeat(4000) + &")".repeat(4000),
            "[[[[".repeat(1000),
            "a|".repeat(4000),
            "\\".into(),
            "\\x{".into(),
            "a?".repeat(2000) + &"a".repeat(2000),
            "x".repeat(1 << 20),
        ];
        let name = "a".repeat(255) + "!";
        for pattern in hostile {
            let start = Instant::now();
            let compiled = Pattern::new(pattern);
            if let Ok(pattern) = &compiled {
                let _matched = pattern.matches(&name);
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{compiled:?}");
            if let Err(error) = compiled {
                assert!(error.pattern.len() <= 100);
            }
        }
    }
}

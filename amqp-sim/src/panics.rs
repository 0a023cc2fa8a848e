//! Panics of a simulation: kept in place of being printed, while seeds are tried.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    panic,
    sync::Once,
};

thread_local! {
    /// Whether this thread tries seeds.
    static QUIET: Cell<bool> = const { Cell::new(false) };
    /// The message and the place of the last panic since.
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `act` without printing its panics, and returns its output or its panic in words.
pub(crate) fn quietly<T>(act: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                return before(info);
            }
            let place = info.location().map(ToString::to_string);
            let text = match place {
                Some(place) => format!("{} ({place})", message(info.payload())),
                None => message(info.payload()),
            };
            LAST.set(Some(text));
        }));
    });
    LAST.take();
    let before = QUIET.replace(true);
    let result = panic::catch_unwind(panic::AssertUnwindSafe(act));
    QUIET.set(before);
    result.map_err(|payload| message(&*payload))
}

/// The text of a panic of this thread, with its place if that is known.
pub(crate) fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(last) = LAST.take() {
        return last;
    }
    if let Some(text) = payload.downcast_ref::<&str>() {
        return (*text).to_owned();
    }
    match payload.downcast_ref::<String>() {
        Some(text) => text.clone(),
        None => "a panic without a text".into(),
    }
}

/// Forgets a panic that was caught.
pub(crate) fn forget() {
    LAST.set(None);
}

/// Panics with a text that says all, place included.
pub(crate) fn fail(text: String) -> ! {
    if QUIET.get() {
        forget();
        panic::resume_unwind(Box::new(text));
    }
    panic!("{text}")
}

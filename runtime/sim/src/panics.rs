//! Panics of the code under test are findings, not the end: they are caught, and what they said is kept instead of printed.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static WATCHING: RefCell<Option<String>> = const { RefCell::new(None) };
}

static INSTALL: Once = Once::new();

/// Runs `body`; a panic in it comes back as what it said and where.
///
/// # Errors
/// The panic's message.
pub fn watch<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    INSTALL.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let watching = WATCHING.with_borrow_mut(|said| {
                let watching = said.is_some();
                if let Some(said) = said.as_mut().filter(|said| said.is_empty()) {
                    *said = info.to_string().replace('\n', " ");
                }
                watching
            });
            if !watching {
                usual(info);
            }
        }));
    });
    WATCHING.set(Some(String::new()));
    let outcome = catch_unwind(AssertUnwindSafe(body));
    let said = WATCHING.take().unwrap_or_default();
    outcome.map_err(|_| said)
}

/// Whether anything has panicked inside `body` of the running [`watch`] and was caught further in.
#[must_use]
pub fn last_said() -> Option<String> {
    WATCHING.with_borrow(|said| said.clone().filter(|said| !said.is_empty()))
}

//! What the builtins `ringfence.*` know while a policy is evaluated.
//!
//! The evaluator calls a builtin with its arguments and nothing else, so what belongs to the request lies in a
//! variable of the thread that evaluates: set before, cleared after, never locked.

use std::cell::RefCell;

use jiff::Timestamp;

use crate::netpol::Snapshot;

/// What belongs to one evaluation.
#[derive(Clone, Debug)]
pub(super) struct Context {
    /// The cluster with the change made.
    pub(super) snapshot: Snapshot,
    /// The current time.
    pub(super) now: Timestamp,
}

thread_local! {
    static CURRENT: RefCell<Option<Context>> = const { RefCell::new(None) };
}

/// Keeps a context in place; what was there before comes back when it is dropped.
pub(super) struct Entered(Option<Context>);

/// Puts a context in place for the evaluations of this thread.
pub(super) fn enter(context: Context) -> Entered {
    Entered(CURRENT.replace(Some(context)))
}

/// Looks at the context of this thread; none outside of an evaluation.
pub(super) fn look<R>(at: impl FnOnce(&Context) -> R) -> Option<R> {
    CURRENT.with_borrow(|current| current.as_ref().map(at))
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

//! The switch that stops effects at once, also those of a batch that is under way: read before each of them.

use std::sync::atomic::{AtomicBool, Ordering};

/// Shared between those who order and the effects thread.
#[derive(Debug, Default)]
pub struct Switch {
    stopped: AtomicBool,
}

impl Switch {
    /// No effect of a rule begins any more.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Effects may begin again. The effects thread's alone, when what stopped it is over.
    pub fn release(&self) {
        self.stopped.store(false, Ordering::SeqCst);
    }

    /// Whether effects may begin.
    pub fn may_act(&self) -> bool {
        !self.stopped.load(Ordering::SeqCst)
    }
}

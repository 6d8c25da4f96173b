//! The memory that request bodies take, over all connections of a listener together.

use std::cell::Cell;
use std::rc::Rc;

/// Bytes that may still be taken.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Rc<Cell<usize>>);

/// Bytes taken from a [`Budget`], given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    taken: usize,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Rc::new(Cell::new(bytes)))
    }

    pub(crate) fn share(&self) -> Share {
        Share { budget: self.clone(), taken: 0 }
    }
}

impl Share {
    /// Takes so many more bytes, as they arrive: a length that is only announced must not keep others out.
    /// Nothing is taken, and the answer is false, when they are not there.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let Some(left) = self.budget.0.get().checked_sub(bytes) else { return false };
        self.budget.0.set(left);
        self.taken += bytes;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.set(self.budget.0.get() + self.taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_held_comes_back_whole() {
        let budget = Budget::new(10);
        let (mut one, mut two) = (budget.share(), budget.share());
        assert!(one.grow(4) && one.grow(4) && two.grow(2));
        assert!(!two.grow(1));
        drop(one);
        assert!(two.grow(8) && !two.grow(1));
        drop(two);
        assert!(budget.share().grow(10));
    }
}

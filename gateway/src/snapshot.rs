//! A value that is replaced whole while it is in use: a reader keeps what it has read.

use std::{cell::RefCell, rc::Rc};

/// The present value, for the tasks of one core.
#[derive(Debug)]
pub struct Snapshot<T>(RefCell<Rc<T>>);

impl<T> Snapshot<T> {
    /// Begins with this value.
    pub fn new(value: T) -> Self {
        Self(RefCell::new(Rc::new(value)))
    }

    /// The value as it is now; it stays as it is.
    pub fn read(&self) -> Rc<T> {
        Rc::clone(&self.0.borrow())
    }

    /// Puts another in its place.
    pub fn replace(&self, value: T) {
        self.0.replace(Rc::new(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_keeps_what_it_read() {
        let snapshot = Snapshot::new(1);
        let before = snapshot.read();
        snapshot.replace(2);
        assert_eq!((*before, *snapshot.read()), (1, 2));
    }
}

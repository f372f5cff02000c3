//! A router of this process that may come later than the sockets: until its part runs, its requests are refused.

use std::sync::{Arc, OnceLock};

use axum::Router;

/// A router that is there once its part runs, and then for good. Clones share it. The default one never comes: this process has no such
/// part.
#[derive(Clone, Debug, Default)]
pub struct Late(Arc<OnceLock<Router>>);

impl Late {
    /// The router, if its part runs.
    pub fn get(&self) -> Option<&Router> {
        self.0.get()
    }

    /// Its part runs from now on. A part starts once; a second router is dropped.
    pub fn come(&self, router: Router) {
        let is_first = self.0.set(router).is_ok();
        debug_assert!(is_first, "a part starts once");
    }
}

impl From<Router> for Late {
    fn from(router: Router) -> Self {
        Self(Arc::new(OnceLock::from(router)))
    }
}

//! Embedded stores in folders of their own.

use std::{path::Path, sync::Arc};

use seckill::store::{
    conformance::Subject,
    embedded::{EmbeddedStore, Method, Options, RecoverError, Sync},
};

use super::redis::wall_clock;

/// The store of a folder.
pub fn open(folder: &Path, method: Method) -> EmbeddedStore {
    try_open(folder, method).unwrap()
}

/// The store of a folder, or why it is refused.
pub fn try_open(folder: &Path, method: Method) -> Result<EmbeddedStore, RecoverError> {
    let options = Options {
        folder: folder.to_owned(),
        sync: Sync::Durable,
        method,
    };
    EmbeddedStore::open(&options, wall_clock())
}

/// A new store as a subject of the conformance suite.
pub async fn subject(method: Method) -> Subject {
    let folder = tempfile::tempdir().unwrap();
    Subject::new(Arc::new(open(folder.path(), method)), wall_clock()).keeping(folder)
}

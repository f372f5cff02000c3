//! What reading a configuration may touch besides its text.

use std::{io, path::Path};

/// What reading a configuration may touch.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// Reads a file.
    pub read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    /// Whether a folder is there.
    pub is_folder: &'a dyn Fn(&Path) -> bool,
    /// Looks up an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Cores of the machine.
    pub cores: usize,
}

impl Inputs<'static> {
    /// This machine and this process.
    pub fn of_this_machine() -> Self {
        Self {
            read: &|path| std::fs::read(path),
            is_folder: &Path::is_dir,
            env: &|name| std::env::var(name).ok(),
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        }
    }

    /// No files, no folders, no variables, and one core: for tests.
    pub fn none() -> Self {
        Self {
            read: &|_| Err(io::ErrorKind::NotFound.into()),
            is_folder: &|_| false,
            env: &|_| None,
            cores: 1,
        }
    }
}

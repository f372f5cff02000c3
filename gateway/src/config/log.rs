//! `[log]`: what happens to log lines.

use std::path::{Path, PathBuf};

use settings::{Inputs, Section};

/// A refusal is cheap to make and expensive to log.
const SAMPLE_REFUSALS: u64 = 100;

/// `[log]`.
#[derive(Clone, Debug)]
pub struct Log {
    /// Where access lines go.
    pub access: AccessLog,
    /// Of refusals (429 and 409), one in this many is logged.
    pub sample_refusals: u64,
}

/// Where access lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    Off,
    /// The process's standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

pub(super) fn log(root: &Section<'_>, inputs: &Inputs<'_>) -> Log {
    let mut log = Log {
        access: AccessLog::Stdout,
        sample_refusals: SAMPLE_REFUSALS,
    };
    let Some(section) = root.section("log") else {
        return log;
    };
    match section.text("access").as_deref() {
        None | Some("stdout") => {}
        Some("off") => log.access = AccessLog::Off,
        Some("") => section.problem("access", "must be stdout, off or a file's path"),
        Some(path) => {
            let folder = Path::new(path)
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            let is_missing = folder.is_some_and(|folder| !(inputs.is_folder)(folder));
            if is_missing || (inputs.is_folder)(Path::new(path)) {
                section.problem("access", "must be a file in a folder that exists");
            }
            log.access = AccessLog::File(path.into());
        }
    }
    if let Some(one_in) = section.integer("sample_refusals", 1..=1_000_000) {
        log.sample_refusals = one_in;
    }
    section.finish();
    log
}

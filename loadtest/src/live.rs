//! The run as it is watched.

use std::io::{IsTerminal, Write};

use crate::{record::Progress, report::render};

/// Progress on standard error: one line drawn in place on a terminal, appended lines elsewhere.
pub struct Live {
    in_place: bool,
    shown: u32,
}

/// On a pipe every fourth snapshot is enough: one line in two seconds.
const PIPE_EVERY: u32 = 4;

impl Live {
    /// `plain` appends lines on a terminal too.
    pub fn new(plain: bool) -> Live {
        Live {
            in_place: !plain && std::io::stderr().is_terminal(),
            shown: 0,
        }
    }

    pub fn show(&mut self, progress: &Progress) {
        let line = render::progress_line(progress);
        let mut err = std::io::stderr().lock();
        // Nobody is left to tell if standard error is gone.
        let _ = if self.in_place {
            write!(err, "\r\x1b[2K{line}")
        } else if self.shown.is_multiple_of(PIPE_EVERY) {
            writeln!(err, "{line}")
        } else {
            Ok(())
        };
        let _ = err.flush();
        self.shown += 1;
    }

    /// Leaves the line for what is printed next.
    pub fn end(&self) {
        if self.in_place {
            eprintln!();
        }
    }
}

//! Reads a history file line by line: what is wrong with a line is said with its number, and a line that a kill has torn off
//! at the very end is left out and said.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use super::event::{Event, Header, VERSION};

/// Longer lines are no lines of a history: the longest real one is a report of a thousand skus, about 100 kB.
const LONGEST_LINE: usize = 4 << 20;
/// Progress is told every so many lines.
const TELL_EVERY: u32 = 200_000;

/// Why a file cannot be judged.
#[derive(Debug)]
pub enum BadHistory {
    /// It cannot be read.
    Io(io::Error),
    /// It has not even a header.
    Empty,
    /// A line is not what a history holds.
    Line {
        /// Counted from 1.
        line: u32,
        /// What is wrong, and what is allowed.
        why: String,
    },
}

impl std::fmt::Display for BadHistory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BadHistory::Io(error) => write!(f, "cannot read the file: {error}"),
            BadHistory::Empty => f.write_str("the file is empty: not even a header"),
            BadHistory::Line { line, why } => write!(f, "line {line}: {why}"),
        }
    }
}

impl std::error::Error for BadHistory {}

impl From<io::Error> for BadHistory {
    fn from(error: io::Error) -> Self {
        BadHistory::Io(error)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Whole lines, the header included.
    pub lines: u32,
    /// The last line was torn off and left out.
    pub torn: bool,
}

/// Reads a file. `event` gets each line with its number; what it refuses ends the reading. `progress` gets bytes read and in all.
pub fn read_file(
    path: &Path,
    header: impl FnOnce(Header),
    event: impl FnMut(u32, Event) -> Result<(), String>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Read, BadHistory> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    read(
        BufReader::with_capacity(1 << 18, file),
        header,
        event,
        |bytes| {
            progress(bytes, size);
        },
    )
}

/// Reads lines; see [`read_file`].
pub fn read(
    mut source: impl BufRead,
    header: impl FnOnce(Header),
    mut event: impl FnMut(u32, Event) -> Result<(), String>,
    mut progress: impl FnMut(u64),
) -> Result<Read, BadHistory> {
    let mut buffer = Vec::new();
    let mut bytes = 0;
    let bad = |line: u32, why: String| BadHistory::Line { line, why };
    if !next_line(&mut source, &mut buffer, 1, &mut bytes)? {
        return Err(BadHistory::Empty);
    }
    header(parse_header(&buffer).map_err(|why| bad(1, why))?);
    let mut lines = 1;
    loop {
        let number = lines + 1;
        if !next_line(&mut source, &mut buffer, number, &mut bytes)? {
            return Ok(Read { lines, torn: false });
        }
        let is_whole = buffer.last() == Some(&b'\n');
        let parsed = std::str::from_utf8(&buffer)
            .map_err(|error| error.to_string())
            .and_then(|text| Event::parse(text).map_err(|error| error.to_string()));
        match parsed {
            Ok(found) => event(number, found).map_err(|why| bad(number, why))?,
            Err(_) if !is_whole => return Ok(Read { lines, torn: true }),
            Err(why) => return Err(bad(number, why)),
        }
        lines = number;
        if lines.is_multiple_of(TELL_EVERY) {
            progress(bytes);
        }
    }
}

fn parse_header(line: &[u8]) -> Result<Header, String> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        history: u32,
    }
    let versioned: Versioned = serde_json::from_slice(line).map_err(|error| {
        format!("not the header of a history ({{\"history\":{VERSION}, …}}): {error}")
    })?;
    if versioned.history != VERSION {
        return Err(format!(
            "history = {}: this program reads version {VERSION}",
            versioned.history
        ));
    }
    serde_json::from_slice(line).map_err(|error| format!("header: {error}"))
}

/// Reads a line with its end; `false` at the end of the file.
fn next_line(
    source: &mut impl BufRead,
    buffer: &mut Vec<u8>,
    number: u32,
    bytes: &mut u64,
) -> Result<bool, BadHistory> {
    buffer.clear();
    loop {
        let chunk = source.fill_buf()?;
        if chunk.is_empty() {
            return Ok(!buffer.is_empty());
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(chunk.len(), |at| at + 1);
        buffer.extend_from_slice(&chunk[..taken]);
        source.consume(taken);
        *bytes += taken as u64;
        if end.is_some() {
            return Ok(true);
        }
        if buffer.len() > LONGEST_LINE {
            return Err(BadHistory::Line {
                line: number,
                why: format!("longer than {LONGEST_LINE} bytes: not a line of a history"),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        r#"{"history":1,"seed":7,"target":"t","started_unix_ms":1,"clock":"c","level":"fast"}"#;

    fn read_text(text: &str) -> Result<(Read, Vec<(u32, Event)>), BadHistory> {
        let mut events = Vec::new();
        let keep = |line, event| {
            events.push((line, event));
            Ok(())
        };
        let read = read(text.as_bytes(), |_| {}, keep, |_| {})?;
        Ok((read, events))
    }

    #[test]
    fn a_torn_last_line_is_left_out_and_said() {
        let text = format!("{HEADER}\n{{\"e\":\"quiet\",\"t_us\":5}}\n{{\"e\":\"quiet\",\"t_");
        let (read, events) = read_text(&text).unwrap();
        assert_eq!(
            read,
            Read {
                lines: 2,
                torn: true
            }
        );
        assert_eq!(events, [(2, Event::Quiet { t_us: 5 })]);
    }

    #[test]
    fn a_last_line_that_lacks_only_its_end_counts() {
        let text = format!("{HEADER}\n{{\"e\":\"quiet\",\"t_us\":5}}");
        assert_eq!(
            read_text(&text).unwrap().0,
            Read {
                lines: 2,
                torn: false
            }
        );
    }

    #[test]
    fn a_broken_line_in_the_middle_is_refused_with_its_number() {
        let text = format!("{HEADER}\n{{\"e\":\"quiet\",\"t_\n{{\"e\":\"quiet\",\"t_us\":5}}\n");
        let error = read_text(&text).unwrap_err().to_string();
        assert!(error.starts_with("line 2: "), "{error}");
        let text = format!("{HEADER}\n{{\"e\":\"quit\",\"t_us\":5}}\n");
        let error = read_text(&text).unwrap_err().to_string();
        assert!(
            error.contains("\"quit\"") && error.contains("invoke, ok"),
            "{error}"
        );
    }

    #[test]
    fn other_versions_and_other_files_are_refused() {
        let error = read_text("").unwrap_err().to_string();
        assert!(error.contains("empty"), "{error}");
        let error = read_text(&HEADER.replace("\"history\":1", "\"history\":2")).unwrap_err();
        assert!(error.to_string().contains("reads version 1"), "{error}");
        let error = read_text("{\"sale\":1}\n").unwrap_err().to_string();
        assert!(error.contains("not the header"), "{error}");
    }
}

//! The verdict as a person reads it.

use std::fmt::Write;

use super::Verdict;
use crate::history::Read;

/// Renders a verdict on a history file.
pub fn render(verdict: &Verdict, file: &str, read: Read) -> String {
    let mut out = String::new();
    let tally = &verdict.tally;
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "history   {file}: {} lines, seed {}\n\
         \x20         {} operations: {} ok, {} refused, {} unknown; {} faults\n\
         \x20         {} orders acknowledged, {} rows in the ledger",
        read.lines,
        verdict.seed,
        tally.operations,
        tally.ok,
        tally.refused,
        tally.unknown,
        tally.faults,
        tally.acknowledged,
        tally.rows,
    );
    let allowed = &verdict.allowed;
    let _ = writeln!(
        out,
        "allowed   level {:?}, clocks {} ms apart, \"sold out\" from memory {} ms, returns within {} ms",
        allowed.level, allowed.skew_ms, allowed.sold_out_lag_ms, allowed.return_lag_ms
    );
    if tally.lost_within_bound > 0 {
        let _ = writeln!(
            out,
            "lost      {} acknowledged orders, all within {} ms before a fault, as the level allows",
            tally.lost_within_bound, allowed.loss_window_ms
        );
    }
    if read.torn {
        let _ = writeln!(out, "note      the last line is torn off and was left out");
    }
    for missing in &verdict.not_judged {
        let _ = writeln!(out, "note      {missing}");
    }
    for violation in &verdict.violations {
        let _ = writeln!(
            out,
            "BROKEN    {} ({}), {} times",
            violation.rule.name(),
            violation.invariant,
            violation.count
        );
        for example in &violation.examples {
            let lines: Vec<String> = example.lines.iter().map(u32::to_string).collect();
            let _ = writeln!(
                out,
                "            {}; lines {}",
                example.what,
                lines.join(", ")
            );
        }
    }
    let verdict = match verdict.held {
        true => "every rule held",
        false => "violated",
    };
    let _ = writeln!(out, "verdict   {verdict}");
    out
}

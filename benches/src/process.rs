//! What the kernel says about a process: its CPU time and its memory.

use std::fs;

/// Resident memory of a process (`self` or its pid) in bytes.
pub fn resident_bytes(process: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib
        .ok_or_else(|| anyhow::anyhow!("/proc/{process}/status has no VmRSS"))?
        .parse()?;
    Ok(kib * 1024)
}

/// CPU time of this process so far, in seconds; the kernel counts in hundredths.
pub fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux has it");
    // The name in parentheses may hold spaces; utime and stime are the 12th and 13th field behind it.
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    ticks as f64 / 100.0
}

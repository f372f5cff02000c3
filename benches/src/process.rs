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

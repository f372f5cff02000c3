//! What the operating system says of this process, read when Prometheus asks: memory, CPU time, file descriptors. The names are
//! those of Prometheus' own client libraries, so that existing dashboards and alerts find them.

use std::{fmt::Write, fs};

/// Ticks a second in `/proc`: the same on every Linux, whatever the kernel's own timer does.
const USER_HZ: f64 = 100.0;

/// Appends what can be read; a value that cannot is left out rather than shown as 0.
pub(super) fn render(page: &mut String) {
    let read = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let (status, stat) = (read("status"), read("stat"));
    let open_fds = fs::read_dir("/proc/self/fd").map(|fds| fds.count() as f64);
    let values = [
        (
            "process_resident_memory_bytes",
            "gauge",
            "Memory of the process",
            kib_bytes(&status, "VmRSS:"),
        ),
        (
            "process_virtual_memory_bytes",
            "gauge",
            "Address space of the process",
            kib_bytes(&status, "VmSize:"),
        ),
        (
            "process_threads",
            "gauge",
            "Threads of the process",
            threads(&status),
        ),
        (
            "process_cpu_seconds_total",
            "counter",
            "CPU time of the process",
            cpu_seconds(&stat),
        ),
        (
            "process_start_time_seconds",
            "gauge",
            "When the process began, in unix time",
            start_seconds(&stat, &fs::read_to_string("/proc/stat").unwrap_or_default()),
        ),
        (
            "process_open_fds",
            "gauge",
            "Open file descriptors of the process",
            open_fds.ok(),
        ),
        (
            "process_max_fds",
            "gauge",
            "How many file descriptors the process may open",
            max_fds(&read("limits")),
        ),
    ];
    for (name, kind, help, value) in values {
        if let Some(value) = value {
            write!(
                page,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n"
            )
            .expect("writing to a string cannot fail");
        }
    }
}

/// A line such as `VmRSS:      1234 kB` of `/proc/self/status`.
fn kib_bytes(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024.0)
}

/// `Threads:   12` of `/proc/self/status`.
fn threads(status: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:"))?;
    line.trim().parse().ok()
}

/// Fields 14 and 15 of `/proc/self/stat`, counted behind the name, which may hold spaces and brackets itself.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / USER_HZ)
}

/// Field 22 of `/proc/self/stat`, in ticks since the machine began, and when that was: `btime` of `/proc/stat`.
fn start_seconds(stat: &str, machine: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: f64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let began: f64 = machine
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    Some(began + ticks / USER_HZ)
}

/// The soft limit in `/proc/self/limits`.
fn max_fds(limits: &str) -> Option<f64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read_as_they_stand() {
        let status = "Name:\tpenstock\nVmHWM:\t   99 kB\nVmRSS:\t   12 kB\nThreads:\t7\n";
        assert_eq!(kib_bytes(status, "VmRSS:"), Some(12.0 * 1024.0));
        assert_eq!(threads(status), Some(7.0));
        let stat = "77 (pen) stock (x) S 1 77 77 0 -1 4194304 500 0 0 0 150 50 0 0 20 0 9 0 100";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(start_seconds(stat, "cpu 1\nbtime 1000\n"), Some(1001.0));
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 4096                 files\n";
        assert_eq!(max_fds(limits), Some(1024.0));
        for broken in [
            "",
            "VmRSS: many kB\nThreads: some",
            "77 (x) S 1",
            "Max open files",
        ] {
            assert_eq!(kib_bytes(broken, "VmRSS:"), None);
            assert_eq!(threads(broken), None);
            assert_eq!(cpu_seconds(broken), None);
            assert_eq!(max_fds(broken), None);
        }
    }

    #[test]
    fn this_process_has_memory_time_and_descriptors() {
        let mut page = String::new();
        render(&mut page);
        for name in [
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_threads",
            "process_cpu_seconds_total",
            "process_start_time_seconds",
            "process_open_fds",
            "process_max_fds",
        ] {
            let line = page.lines().find(|line| line.starts_with(name)).unwrap();
            let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            assert!(value > 0.0 || name == "process_cpu_seconds_total", "{line}");
        }
    }
}

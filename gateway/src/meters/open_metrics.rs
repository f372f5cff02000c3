//! Prometheus's text format in the words of OpenMetrics 1.0, the format that scrapers ask for first. The recorder renders the former only,
//! and the page is ours from its first line to its last, so this needs to know no more of it than what is on it.
//!
//! `_created` series are left out: the recorder does not know when a counter began, and a process's counters begin with the process
//! (`process_start_time_seconds`) or with their sale.

use std::fmt::Write;

/// The units that names of ours end with.
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// The same page as OpenMetrics.
pub fn open_metrics(page: &str) -> String {
    let mut out = String::with_capacity(page.len() + 4096);
    let mut help = None;
    let mut is_histogram = false;
    for line in page.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap_or((typed, "unknown"));
            let text = help.take().filter(|(of, _)| *of == name);
            is_histogram = kind == "histogram";
            family(&mut out, name, kind, text.map(|(_, text)| text));
        } else if is_histogram && let Some((before, after)) = line.rsplit_once("le=\"") {
            let edge = after.split('"').next().unwrap_or_default();
            // A float is written as one, so that both formats of other programs name the same series.
            let is_whole = edge.bytes().all(|byte| byte.is_ascii_digit());
            let rest = &after[edge.len()..];
            let fraction = if is_whole { ".0" } else { "" };
            out.push_str(before);
            push_line(&mut out, format_args!("le=\"{edge}{fraction}{rest}"));
        } else if !line.is_empty() {
            push_line(&mut out, format_args!("{line}"));
        }
    }
    out.push_str("# EOF\n");
    out
}

/// A counter's family is its name without `_total`; what counts under another name is of no known type there.
fn family(out: &mut String, name: &str, kind: &str, help: Option<&str>) {
    let (name, kind) = match (kind, name.strip_suffix("_total")) {
        ("counter", Some(base)) => (base, kind),
        ("counter", None) => (name, "unknown"),
        _ => (name, kind),
    };
    push_line(out, format_args!("# TYPE {name} {kind}"));
    let unit = UNITS.into_iter().find(|unit| {
        name.strip_suffix(unit)
            .is_some_and(|base| base.ends_with('_'))
    });
    if let Some(unit) = unit {
        push_line(out, format_args!("# UNIT {name} {unit}"));
    }
    if let Some(help) = help {
        let help = help.replace('"', "\\\"");
        push_line(out, format_args!("# HELP {name} {help}"));
    }
}

fn push_line(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_lose_total_in_their_family_and_keep_it_in_their_samples() {
        let page = "# HELP a_total Things, \"quoted\"\n# TYPE a_total counter\na_total{x=\"y\"} 3\n\n\
                    # TYPE cpu_seconds_total counter\ncpu_seconds_total 1.5\n\n# TYPE odd counter\nodd 1\n";
        assert_eq!(
            open_metrics(page),
            "# TYPE a counter\n# HELP a Things, \\\"quoted\\\"\na_total{x=\"y\"} 3\n\
             # TYPE cpu_seconds counter\n# UNIT cpu_seconds seconds\ncpu_seconds_total 1.5\n\
             # TYPE odd unknown\nodd 1\n# EOF\n"
        );
    }

    #[test]
    fn edges_of_buckets_are_floats_and_other_values_stay() {
        let page = "# HELP t_seconds Time\n# TYPE t_seconds histogram\nt_seconds_bucket{r=\"le=\",le=\"0.5\"} 1\nt_seconds_bucket{r=\"le=\",le=\"10\"} 2\n\
                    t_seconds_bucket{r=\"le=\",le=\"+Inf\"} 2\nt_seconds_sum{r=\"le=\"} 3\nt_seconds_count{r=\"le=\"} 2\n\n\
                    # TYPE size_bytes gauge\nsize_bytes{le=\"10\"} 7\n";
        assert_eq!(
            open_metrics(page),
            "# TYPE t_seconds histogram\n# UNIT t_seconds seconds\n# HELP t_seconds Time\nt_seconds_bucket{r=\"le=\",le=\"0.5\"} 1\n\
             t_seconds_bucket{r=\"le=\",le=\"10.0\"} 2\nt_seconds_bucket{r=\"le=\",le=\"+Inf\"} 2\nt_seconds_sum{r=\"le=\"} 3\n\
             t_seconds_count{r=\"le=\"} 2\n# TYPE size_bytes gauge\n# UNIT size_bytes bytes\nsize_bytes{le=\"10\"} 7\n# EOF\n"
        );
    }

    #[test]
    fn a_page_of_nothing_is_still_ended() {
        assert_eq!(open_metrics(""), "# EOF\n");
    }
}

//! Histograms of the request path: buckets of plain cells on each core, handed over with the counters.
//!
//! The recorder's own histograms keep every sample until the next upkeep, in memory that all cores write, with a clock reading each. That is
//! expensive twice per request, and fixed buckets need nothing of it: a core adds to its own ([`LocalHistogram`]), the sums of all cores
//! ([`Sums`]) are rendered behind the recorder's page. Counts and sum are exact.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Edges for requests: 1 ms is a hit in a cache nearby, 10 s is a reader gone.
pub(super) const REQUEST_SECONDS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// The last bucket is everything above the last edge.
const BUCKETS: usize = REQUEST_SECONDS.len() + 1;

/// What one core has measured since the last flush.
#[derive(Debug)]
pub struct LocalHistogram {
    buckets: [Cell<u32>; BUCKETS],
    nanos: Cell<u64>,
    is_touched: Cell<bool>,
    sums: Arc<Sums>,
}

/// What all cores have measured.
#[derive(Debug, Default)]
pub(super) struct Sums {
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

/// Every histogram of the process, by name and labels. Locked at start and for a scrape only.
type Families = BTreeMap<&'static str, Family>;

#[derive(Debug)]
struct Family {
    help: &'static str,
    series: BTreeMap<String, Arc<Sums>>,
}

static FAMILIES: Mutex<Families> = Mutex::new(BTreeMap::new());

impl LocalHistogram {
    /// One core's part of a series, which exists from now on. Cores that name the same one share its sums.
    pub(super) fn new(name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Self {
        let mut families = FAMILIES.lock().unwrap_or_else(PoisonError::into_inner);
        let family = families.entry(name).or_insert_with(|| Family {
            help,
            series: BTreeMap::new(),
        });
        let sums = Arc::clone(family.series.entry(written(labels)).or_default());
        Self::over(sums)
    }

    fn over(sums: Arc<Sums>) -> Self {
        Self {
            buckets: [const { Cell::new(0) }; BUCKETS],
            nanos: Cell::new(0),
            is_touched: Cell::new(false),
            sums,
        }
    }

    pub(super) fn add(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = &self.buckets[REQUEST_SECONDS.partition_point(|edge| *edge < seconds)];
        bucket.set(bucket.get() + 1);
        // 584 years fit.
        self.nanos.set(self.nanos.get() + took.as_nanos() as u64);
        self.is_touched.set(true);
    }

    pub(super) fn flush(&self) {
        if !self.is_touched.take() {
            return;
        }
        for (own, all) in self.buckets.iter().zip(&self.sums.buckets) {
            let count = own.take();
            if count > 0 {
                all.fetch_add(u64::from(count), Ordering::Relaxed);
            }
        }
        self.sums
            .nanos
            .fetch_add(self.nanos.take(), Ordering::Relaxed);
    }
}

/// Appends all histograms in Prometheus's text format.
pub(super) fn render(page: &mut String) {
    let families = FAMILIES.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, family) in families.iter() {
        family
            .render(name, page)
            .expect("writing to a string cannot fail");
    }
}

impl Family {
    fn render(&self, name: &str, page: &mut String) -> std::fmt::Result {
        writeln!(page, "# HELP {name} {}", self.help)?;
        writeln!(page, "# TYPE {name} histogram")?;
        for (labels, sums) in &self.series {
            let mut count = 0;
            let edges = REQUEST_SECONDS.iter().map(f64::to_string);
            let edges = edges.chain(["+Inf".to_owned()]);
            for (bucket, edge) in sums.buckets.iter().zip(edges) {
                count += bucket.load(Ordering::Relaxed);
                writeln!(page, "{name}_bucket{{{labels},le=\"{edge}\"}} {count}")?;
            }
            let seconds = Duration::from_nanos(sums.nanos.load(Ordering::Relaxed)).as_secs_f64();
            writeln!(page, "{name}_sum{{{labels}}} {seconds}")?;
            writeln!(page, "{name}_count{{{labels}}} {count}")?;
        }
        writeln!(page)
    }
}

fn written(labels: &[(&str, &str)]) -> String {
    let label = |(name, value): &(&str, &str)| {
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        format!("{name}=\"{value}\"")
    };
    labels.iter().map(label).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_cores_measured_is_one_series_with_exact_counts_and_sum() {
        let sums = Arc::new(Sums::default());
        let (a, b) = (
            LocalHistogram::over(Arc::clone(&sums)),
            LocalHistogram::over(Arc::clone(&sums)),
        );
        // On an edge, below the first and above the last.
        a.add(Duration::from_micros(2500));
        a.add(Duration::from_micros(10));
        b.add(Duration::from_secs(11));
        a.flush();
        b.flush();
        b.flush();
        let family = Family {
            help: "Help",
            series: BTreeMap::from([(written(&[("route", "a\"b")]), sums)]),
        };
        let mut page = String::new();
        family.render("took_seconds", &mut page).unwrap();
        for line in [
            "# HELP took_seconds Help",
            "# TYPE took_seconds histogram",
            "took_seconds_bucket{route=\"a\\\"b\",le=\"0.001\"} 1",
            "took_seconds_bucket{route=\"a\\\"b\",le=\"0.0025\"} 2",
            "took_seconds_bucket{route=\"a\\\"b\",le=\"10\"} 2",
            "took_seconds_bucket{route=\"a\\\"b\",le=\"+Inf\"} 3",
            "took_seconds_sum{route=\"a\\\"b\"} 11.00251",
            "took_seconds_count{route=\"a\\\"b\"} 3",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in {page}");
        }
    }
}

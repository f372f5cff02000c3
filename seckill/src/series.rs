//! Series that leave `/metrics` again: those of a sale are there for as long as somebody holds them. The recorder of the process keeps what
//! it once had, so what comes and goes is rendered here, behind its page.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::{Counter, Gauge};

use crate::locks::Locked;

/// All families, by name. Locked when a sale comes and for a scrape, never for counting.
static FAMILIES: Mutex<BTreeMap<&'static str, Family>> = Mutex::new(BTreeMap::new());

struct Family {
    kind: Kind,
    /// By their labels as they are written.
    series: BTreeMap<String, Weak<AtomicU64>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

/// A counter, there until the last of its handles is dropped. Who asks for the same labels meanwhile counts on.
pub(crate) fn counter(name: &'static str, labels: &[(&str, &str)]) -> Counter {
    Counter::from_arc(cell(name, Kind::Counter, labels))
}

/// The same for a gauge.
pub(crate) fn gauge(name: &'static str, labels: &[(&str, &str)]) -> Gauge {
    Gauge::from_arc(cell(name, Kind::Gauge, labels))
}

fn cell(name: &'static str, kind: Kind, labels: &[(&str, &str)]) -> Arc<AtomicU64> {
    let mut families = FAMILIES.locked();
    let family = families.entry(name).or_insert_with(|| Family {
        kind,
        series: BTreeMap::new(),
    });
    let known = family.series.entry(written(labels)).or_default();
    known.upgrade().unwrap_or_else(|| {
        let cell = Arc::new(AtomicU64::new(0));
        *known = Arc::downgrade(&cell);
        cell
    })
}

/// Appends all series in Prometheus's text format, each family with its help.
pub fn render(page: &mut String, help: impl Fn(&str) -> Option<&'static str>) {
    for (name, family) in FAMILIES.locked().iter_mut() {
        family
            .render(name, help(name), page)
            .expect("writing to a string cannot fail");
    }
}

impl Family {
    fn render(&mut self, name: &str, help: Option<&str>, page: &mut String) -> std::fmt::Result {
        self.series.retain(|_, cell| cell.strong_count() > 0);
        if self.series.is_empty() {
            return Ok(());
        }
        if let Some(help) = help {
            writeln!(page, "# HELP {name} {help}")?;
        }
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        writeln!(page, "# TYPE {name} {kind}")?;
        for (labels, cell) in &self.series {
            // Dropped between the look above and this one: then it is not shown.
            let Some(cell) = cell.upgrade() else { continue };
            let bits = cell.load(Ordering::Acquire);
            match self.kind {
                Kind::Counter => writeln!(page, "{name}{{{labels}}} {bits}")?,
                Kind::Gauge => writeln!(page, "{name}{{{labels}}} {}", f64::from_bits(bits))?,
            }
        }
        writeln!(page)
    }
}

fn written(labels: &[(&str, &str)]) -> String {
    let label = |(name, value): &(&str, &str)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        format!("{name}=\"{}\"", value.replace('\n', "\\n"))
    };
    labels.iter().map(label).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_of(name: &'static str) -> String {
        let mut page = String::new();
        render(&mut page, |of| (of == name).then_some("Help"));
        let lines = page.lines().filter(|line| line.contains(name));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_series_is_there_while_it_is_held_and_counts_on_while_two_hold_it() {
        let (spring, autumn) = (
            counter("held_total", &[("sale", "spring")]),
            counter("held_total", &[("sale", "a\"b\\")]),
        );
        spring.increment(2);
        let again = counter("held_total", &[("sale", "spring")]);
        drop(spring);
        again.increment(1);
        assert_eq!(
            page_of("held_total"),
            "# HELP held_total Help\n# TYPE held_total counter\nheld_total{sale=\"a\\\"b\\\\\"} 0\nheld_total{sale=\"spring\"} 3"
        );
        drop(again);
        assert!(!page_of("held_total").contains("spring"));
        // It begins anew: what was counted left with it.
        let anew = counter("held_total", &[("sale", "spring")]);
        assert!(page_of("held_total").contains("{sale=\"spring\"} 0"));
        drop((anew, autumn));
        assert_eq!(page_of("held_total"), "");
    }

    #[test]
    fn a_gauge_shows_what_was_set_last() {
        let gauge = gauge("held_units", &[("sale", "x"), ("sku", "y")]);
        gauge.set(12.5);
        assert_eq!(
            page_of("held_units"),
            "# HELP held_units Help\n# TYPE held_units gauge\nheld_units{sale=\"x\",sku=\"y\"} 12.5"
        );
    }
}

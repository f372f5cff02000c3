//! The ranges of a scenario, judged once for files and for code.

use std::time::Duration;

use http::Uri;
use http::header::{HeaderName, HeaderValue};

use settings::{Problem, units::Time};

use super::{Sale, Scenario, Shape};

/// Longest run: a day. Latencies and the plan fit their integers with room to spare.
const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);
/// Above any single machine's reach; guards against a slip of the finger.
const MAX_RATE: f64 = 10_000_000.0;
/// Most lines of a cart in the sale API.
const MAX_CART_SKUS: usize = 16;

pub(super) fn problems(s: &Scenario) -> Vec<Problem> {
    let mut list = List(Vec::new());
    target(s, &mut list);
    generator(s, &mut list);
    profile(s, &mut list);
    people(s, &mut list);
    money(s, &mut list);
    if list.0.is_empty() {
        let purchases = s.arrivals().purchases();
        if purchases > u64::from(u32::MAX / 2) {
            list.note(
                "profile",
                format!("{purchases} purchases: must be at most 2147483647 purchases in one run"),
            );
        }
    }
    list.0
}

struct List(Vec<Problem>);

impl List {
    fn add(&mut self, key: &str, value: impl std::fmt::Display, allowed: &str) {
        self.0.push(Problem {
            key: key.into(),
            value: Some(value.to_string()),
            what: format!("must be {allowed}"),
        });
    }

    /// A problem of a text, which may be an address with a password.
    fn text(&mut self, key: &str, text: &str, allowed: &str) {
        let what = format!("must be {allowed}");
        self.0.push(Problem::of_text(key, text, what));
    }

    /// A problem without a value to show.
    fn note(&mut self, key: &str, what: impl Into<String>) {
        self.0.push(Problem {
            key: key.into(),
            value: None,
            what: what.into(),
        });
    }

    fn range(&mut self, key: &str, value: f64, low: f64, high: f64) {
        if !(low..=high).contains(&value) {
            self.add(key, value, &format!("{low} to {high}"));
        }
    }

    fn duration(&mut self, key: &str, value: Duration, low: Duration) {
        if value < low || value > MAX_DURATION {
            let allowed = format!("{} to {}", Time(low), Time(MAX_DURATION));
            self.add(key, Time(value), &allowed);
        }
    }

    fn url(&mut self, key: &str, url: &str) -> Option<Uri> {
        let parsed = url.parse::<Uri>().ok().filter(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
                && matches!(
                    uri.path_and_query().map(|p| p.as_str()),
                    None | Some("/" | "")
                )
        });
        if parsed.is_none() {
            self.text(
                key,
                url,
                "http://host:port or https://host:port, without a path",
            );
        }
        parsed
    }

    fn header(&mut self, key: &str, name: &str) {
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            self.text(key, name, "a header name");
        }
    }
}

fn target(s: &Scenario, list: &mut List) {
    list.url("target.url", &s.target.url);
    if let Some(admin) = &s.admin
        && let Some(uri) = list.url("admin.url", &admin.url)
        && uri.scheme_str() == Some("https")
    {
        list.text(
            "admin.url",
            &admin.url,
            "http://host:port (the admin listener is plain and local)",
        );
    }
}

fn generator(s: &Scenario, list: &mut List) {
    let g = &s.generator;
    list.range("generator.threads", g.threads as f64, 1.0, 256.0);
    let threads = g.threads.max(1) as f64;
    list.range(
        "generator.connections",
        g.connections as f64,
        threads,
        60_000.0,
    );
    list.range(
        "generator.streams_per_connection",
        g.streams_per_connection as f64,
        1.0,
        10_000.0,
    );
    list.range(
        "generator.max_in_flight",
        g.max_in_flight as f64,
        threads,
        10_000_000.0,
    );
    list.duration(
        "generator.request_timeout",
        g.request_timeout,
        Duration::from_millis(1),
    );
}

fn profile(s: &Scenario, list: &mut List) {
    let least = Duration::from_millis(1);
    match &s.profile.shape {
        Shape::Constant { rate, duration } => {
            list.range("profile.rate", *rate, 0.001, MAX_RATE);
            list.duration("profile.duration", *duration, least);
        }
        Shape::Ramp { from, to, duration } => {
            list.range("profile.from", *from, 0.0, MAX_RATE);
            list.range("profile.to", *to, 0.0, MAX_RATE);
            list.duration("profile.duration", *duration, least);
            if *from == 0.0 && *to == 0.0 {
                list.add("profile.to", 0, "a ramp that is not 0 at both ends");
            }
        }
        Shape::Spike {
            duration,
            first_share,
            first_within,
            warm_up,
            warm_up_rate,
        } => {
            list.duration("profile.duration", *duration, least);
            list.duration("profile.first_within", *first_within, least);
            list.duration("profile.warm_up", *warm_up, Duration::ZERO);
            list.range("profile.warm_up_rate", *warm_up_rate, 0.0, MAX_RATE);
            if first_within > duration {
                list.add(
                    "profile.first_within",
                    Time(*first_within),
                    "at most the duration",
                );
            } else {
                let even = first_within.as_secs_f64() / duration.as_secs_f64().max(1e-9);
                list.range("profile.first_share", *first_share, even, 1.0);
            }
            if s.sale.is_none() {
                list.note(
                    "sale",
                    "missing: must be there, as a spike is a spike of purchases",
                );
            }
            if s.page_views.share >= 1.0 {
                list.add(
                    "page_views.share",
                    s.page_views.share,
                    "below 1 in a spike, whose buyers all buy",
                );
            }
        }
    }
}

fn people(s: &Scenario, list: &mut List) {
    list.range("buyers.count", f64::from(s.buyers.count), 1.0, 1e9);
    list.header("buyers.header", &s.buyers.header);
    if let Some(name) = &s.buyers.address_header {
        list.header("buyers.address_header", name);
    }
    match &s.sale {
        Some(sale) => {
            path_part(list, "sale.id", &sale.id);
            if sale.skus.is_empty() {
                list.add("sale.skus", "[]", "a list of at least one sku");
            }
            for sku in &sale.skus {
                path_part(list, "sale.skus", sku);
            }
            list.range("sale.quantity", f64::from(sale.quantity), 1.0, 1e6);
            list.range("sale.cart_percent", sale.cart_percent, 0.0, 100.0);
            if sale.cart_percent > 0.0 {
                carts(list, sale);
            }
        }
        None if s.page_views.share < 1.0 || s.bots.count > 0 => list.note(
            "sale",
            "missing: must be there, unless page_views.share is 1 and there are no bots",
        ),
        None => {}
    }
    list.range("retry.percent", s.retry.percent, 0.0, 100.0);
    list.range(
        "retry.concurrent_percent",
        s.retry.concurrent_percent,
        0.0,
        100.0,
    );
    list.duration("retry.within", s.retry.within, Duration::ZERO);
    list.range("bots.count", f64::from(s.bots.count), 0.0, 1e6);
    list.range("bots.burst", f64::from(s.bots.burst), 0.0, 1e6);
    list.duration("bots.within", s.bots.within, Duration::ZERO);
    list.range("page_views.share", s.page_views.share, 0.0, 1.0);
    if s.page_views.paths.is_empty() {
        list.add("page_views.paths", "[]", "a list of at least one path");
    }
    for path in &s.page_views.paths {
        if !path.starts_with('/') || path.parse::<Uri>().is_err() {
            list.text("page_views.paths", path, "a path that begins with /");
        }
    }
}

/// A cart names each sku once, and all of them are skus of the sale.
fn carts(list: &mut List, sale: &Sale) {
    let most = MAX_CART_SKUS.min(sale.skus.len());
    if !(2..=most).contains(&sale.cart_skus) {
        let allowed = match most {
            0 | 1 => "made of two skus or more in sale.skus".to_owned(),
            _ => format!("2 to {most}, of the {} skus of the sale", sale.skus.len()),
        };
        list.add("sale.cart_skus", sale.cart_skus, &allowed);
    }
    let mut seen = std::collections::HashSet::new();
    if let Some(twice) = sale.skus.iter().find(|sku| !seen.insert(sku.as_str())) {
        list.note(
            "sale.skus",
            format!("{twice:?} twice: must name each sku once, where carts are made of them"),
        );
    }
}

fn money(s: &Scenario, list: &mut List) {
    if let Some(pay) = &s.pay {
        list.range("pay.share_percent", pay.share_percent, 0.0, 100.0);
        list.range("pay.decline_percent", pay.decline_percent, 0.0, 100.0);
        list.duration("pay.delay", pay.delay, Duration::ZERO);
        list.duration("pay.delay_spread", pay.delay_spread, Duration::ZERO);
        if pay.amount_minor == 0 {
            list.add("pay.amount_minor", 0, "a whole number from 1");
        }
        if pay.currency.len() != 3 || !pay.currency.bytes().all(|b| b.is_ascii_lowercase()) {
            list.text(
                "pay.currency",
                &pay.currency,
                "three lower-case letters, such as \"usd\"",
            );
        }
        if HeaderValue::from_str(&pay.api_key).is_err() || pay.api_key.is_empty() {
            list.note("pay.api_key_env", "must name a key of visible ASCII");
        }
    }
    if let Some(share) = s.thresholds.max_error_share {
        list.range("thresholds.max_error_share", share, 0.0, 1.0);
    }
    if let Some(share) = s.thresholds.max_broken_share {
        list.range("thresholds.max_broken_share", share, 0.0, 1.0);
    }
    list.duration(
        "thresholds.max_schedule_lag",
        s.thresholds.max_schedule_lag,
        Duration::from_millis(1),
    );
}

/// Sale ids and skus go into paths and JSON as they are.
fn path_part(list: &mut List, key: &str, value: &str) {
    let fits = !value.is_empty()
        && value.len() <= 128
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b));
    if !fits {
        list.text(key, value, "1 to 128 of letters, digits, - _ . ~");
    }
}

//! TOML text → [`Scenario`]. Types and unknown keys are judged here, ranges in `check.rs`; both kinds of problem are
//! reported together. What is wrong is filled with something harmless: the result counts only without problems.

use std::time::Duration;

use settings::{Inputs, Problems as Found, Section, one_of, units};

use super::{
    Admin, Bots, Buyers, Generator, PageViews, Pay, Problems, Profile, Protocol, ReconcileWait,
    Retry, Sale, Scenario, Shape, Target, Thresholds, Trust,
};
use crate::outcome::Outcome;

pub(super) fn scenario(text: &str, inputs: &Inputs<'_>) -> Result<Scenario, Problems> {
    let table = settings::parse(text.as_bytes()).map_err(|problem| Problems(vec![problem]))?;
    let found = Found::default();
    let scenario = read(Section::root(table, &found), inputs);
    for problem in scenario.check() {
        // A missing or mistyped key was reported already, with better words.
        if !found.are_of(&problem.key) {
            found.add(problem);
        }
    }
    match found.into_list() {
        list if list.is_empty() => Ok(scenario),
        list => Err(Problems(list)),
    }
}

fn read(root: Section<'_>, inputs: &Inputs<'_>) -> Scenario {
    root.require("target", "a table");
    root.require("profile", "a table");
    let base = Scenario::new("http://127.0.0.1:1", harmless());
    let scenario = Scenario {
        history_file: None,
        seed: root.whole("seed").unwrap_or(base.seed),
        target: root.section("target").map_or(base.target, target),
        generator: root.section("generator").map_or(base.generator, generator),
        admin: root.section("admin").map(admin),
        profile: root.section("profile").map_or(base.profile, profile),
        sale: root.section("sale").map(sale),
        buyers: root.section("buyers").map_or(base.buyers, buyers),
        retry: root.section("retry").map_or(base.retry, retry),
        bots: root.section("bots").map_or(base.bots, bots),
        page_views: root
            .section("page_views")
            .map_or(base.page_views, page_views),
        pay: root.section("pay").map(|section| pay(section, inputs)),
        thresholds: root
            .section("thresholds")
            .map_or(base.thresholds, thresholds),
        reconcile: root.section("reconcile").map_or(base.reconcile, reconcile),
    };
    root.finish();
    scenario
}

/// A curve within every range.
fn harmless() -> Shape {
    Shape::Constant {
        rate: 1.0,
        duration: Duration::from_secs(1),
    }
}

/// A text that must be there.
fn required_text(s: &Section<'_>, key: &str) -> String {
    s.require(key, "a text in quotes");
    s.text(key).unwrap_or_default()
}

/// A number that must be there; a value inside every range if it is not.
fn required_number(s: &Section<'_>, key: &str) -> f64 {
    s.require(key, "a number");
    s.number(key).unwrap_or(1.0)
}

/// A duration that must be there; a value inside every range if it is not.
fn required_duration(s: &Section<'_>, key: &str) -> Duration {
    s.require(key, units::DURATION);
    s.time(key).unwrap_or(Duration::from_secs(1))
}

fn target(s: Section<'_>) -> Target {
    let url = required_text(&s, "url");
    let protocols = [("h1", Protocol::H1), ("h2", Protocol::H2)];
    let protocol = s.choice("protocol", &protocols).unwrap_or(Protocol::H1);
    let ca_file = s.path("ca_file");
    let insecure = s.flag("insecure").unwrap_or(false);
    let trust = match (ca_file, insecure) {
        (Some(file), true) => {
            s.problem("insecure", "must not stand together with ca_file");
            Trust::CaFile(file)
        }
        (Some(file), false) => Trust::CaFile(file),
        (None, true) => Trust::Insecure,
        (None, false) => Trust::System,
    };
    let server_name = s.text("server_name");
    s.finish();
    Target {
        url,
        protocol,
        trust,
        server_name,
    }
}

fn generator(s: Section<'_>) -> Generator {
    let base = Generator::default();
    let read = Generator {
        threads: s.whole("threads").unwrap_or(base.threads),
        connections: s.whole("connections").unwrap_or(base.connections),
        streams_per_connection: s
            .whole("streams_per_connection")
            .unwrap_or(base.streams_per_connection),
        max_in_flight: s.whole("max_in_flight").unwrap_or(base.max_in_flight),
        request_timeout: s.time("request_timeout").unwrap_or(base.request_timeout),
    };
    s.finish();
    read
}

fn admin(s: Section<'_>) -> Admin {
    let read = Admin {
        url: required_text(&s, "url"),
        token_file: s.path("token_file"),
    };
    s.finish();
    read
}

fn profile(s: Section<'_>) -> Profile {
    s.require("kind", "constant, ramp or spike");
    let kind = s.text("kind").unwrap_or_default();
    let shape = match kind.as_str() {
        "constant" => Shape::Constant {
            rate: required_number(&s, "rate"),
            duration: required_duration(&s, "duration"),
        },
        "ramp" => Shape::Ramp {
            from: required_number(&s, "from"),
            to: required_number(&s, "to"),
            duration: required_duration(&s, "duration"),
        },
        "spike" => {
            let duration = required_duration(&s, "duration");
            Shape::Spike {
                duration,
                first_share: s.number("first_share").unwrap_or(0.5),
                first_within: s.time("first_within").unwrap_or(Duration::from_secs(1)),
                warm_up: s.time("warm_up").unwrap_or_default(),
                warm_up_rate: s.number("warm_up_rate").unwrap_or(0.0),
            }
        }
        // Which keys are allowed depends on the kind: judge none of them.
        other => {
            if !other.is_empty() {
                s.problem("kind", one_of(other, &["constant", "ramp", "spike"]));
            }
            return Profile {
                shape: harmless(),
                poisson: false,
                t0_unix_ms: None,
            };
        }
    };
    let poisson = s.flag("poisson").unwrap_or(false);
    let t0_unix_ms = s.whole("t0_unix_ms");
    s.finish();
    Profile {
        shape,
        poisson,
        t0_unix_ms,
    }
}

fn sale(s: Section<'_>) -> Sale {
    let base = Sale::default();
    let read = Sale {
        id: required_text(&s, "id"),
        skus: s.texts("skus").unwrap_or_default(),
        quantity: s.whole("quantity").unwrap_or(base.quantity),
        cart_percent: s.number("cart_percent").unwrap_or(base.cart_percent),
        cart_skus: s.whole("cart_skus").unwrap_or(base.cart_skus),
    };
    s.finish();
    read
}

fn buyers(s: Section<'_>) -> Buyers {
    let base = Buyers::default();
    let read = Buyers {
        count: s.whole("count").unwrap_or(base.count),
        header: s.text("header").unwrap_or(base.header),
        address_header: s.text("address_header"),
    };
    s.finish();
    read
}

fn retry(s: Section<'_>) -> Retry {
    let base = Retry::default();
    let read = Retry {
        percent: s.number("percent").unwrap_or(base.percent),
        concurrent_percent: s
            .number("concurrent_percent")
            .unwrap_or(base.concurrent_percent),
        within: s.time("within").unwrap_or(base.within),
    };
    s.finish();
    read
}

fn bots(s: Section<'_>) -> Bots {
    let base = Bots::default();
    let read = Bots {
        count: s.whole("count").unwrap_or(base.count),
        burst: s.whole("burst").unwrap_or(base.burst),
        within: s.time("within").unwrap_or(base.within),
    };
    s.finish();
    read
}

fn page_views(s: Section<'_>) -> PageViews {
    let base = PageViews::default();
    let read = PageViews {
        paths: s.texts("paths").unwrap_or(base.paths),
        share: s.number("share").unwrap_or(base.share),
    };
    s.finish();
    read
}

fn pay(s: Section<'_>, inputs: &Inputs<'_>) -> Pay {
    s.require_secret("api_key");
    s.require("amount_minor", "a whole number from 1");
    // What is no text is no key either, and `check.rs` refuses it.
    let api_key = s.secret("api_key", 1, inputs).map_or_else(
        || "missing".to_owned(),
        |key| String::from_utf8_lossy(&key).into_owned(),
    );
    let read = Pay {
        share_percent: s.number("share_percent").unwrap_or(100.0),
        decline_percent: s.number("decline_percent").unwrap_or(0.0),
        api_key,
        amount_minor: s.whole("amount_minor").unwrap_or(1),
        currency: required_text(&s, "currency"),
        delay: s.time("delay").unwrap_or_default(),
        delay_spread: s.time("delay_spread").unwrap_or_default(),
    };
    s.finish();
    read
}

fn thresholds(s: Section<'_>) -> Thresholds {
    let base = Thresholds::default();
    let mut p99 = base.p99;
    if let Some(table) = s.section("p99") {
        for outcome in Outcome::ALL {
            if let Some(limit) = table.time(outcome.name()) {
                p99.insert(outcome, limit);
            }
        }
        table.finish();
    }
    let read = Thresholds {
        p99,
        max_error_share: s.number("max_error_share"),
        max_broken_share: s.number("max_broken_share").or(base.max_broken_share),
        max_schedule_lag: s.time("max_schedule_lag").unwrap_or(base.max_schedule_lag),
    };
    s.finish();
    read
}

fn reconcile(s: Section<'_>) -> ReconcileWait {
    let base = ReconcileWait::default();
    let read = ReconcileWait {
        settle_timeout: s.time("settle_timeout").unwrap_or(base.settle_timeout),
        returns_timeout: s.time("returns_timeout").unwrap_or(base.returns_timeout),
    };
    s.finish();
    read
}

//! TOML text → [`Scenario`]. Types and unknown keys are judged here, ranges in `check.rs`; both kinds of problem are
//! reported together.

use std::path::PathBuf;

use toml::Table;

use super::duration::parse_duration;
use super::section::{Problem, Problems, Section};
use super::{
    Admin, Bots, Buyers, Generator, PageViews, Pay, Profile, Protocol, ReconcileWait, Retry, Sale,
    Scenario, Shape, Target, Thresholds, Trust,
};
use crate::outcome::Outcome;

/// Answers an environment variable.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(super) fn scenario(text: &str, env: Env<'_>) -> Result<Scenario, Problems> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        Problems(vec![Problem {
            key: "(file)".into(),
            value: error.to_string().trim_end().to_owned(),
            allowed: "TOML".into(),
        }])
    })?;
    let mut root = Section::root(table);
    let problems = root.problems();

    let scenario = Scenario {
        history_file: None,
        seed: root.integer("seed").unwrap_or(1),
        target: target(root.required_table("target")),
        generator: section(&mut root, "generator", generator),
        admin: root.table("admin").map(admin),
        profile: profile(root.required_table("profile")),
        sale: root.table("sale").map(sale),
        buyers: section(&mut root, "buyers", buyers),
        retry: section(&mut root, "retry", retry),
        bots: section(&mut root, "bots", bots),
        page_views: section(&mut root, "page_views", page_views),
        pay: root.table("pay").map(|table| pay(table, env)),
        thresholds: section(&mut root, "thresholds", thresholds),
        reconcile: section(&mut root, "reconcile", reconcile),
    };
    root.finish();

    let mut found = problems.take();
    for problem in scenario.check() {
        // A missing or mistyped key was reported already, with better words.
        if !found.iter().any(|known| known.key == problem.key) {
            found.push(problem);
        }
    }
    if found.is_empty() {
        Ok(scenario)
    } else {
        Err(Problems(found))
    }
}

fn section<T: Default>(root: &mut Section, key: &'static str, read: fn(Section) -> T) -> T {
    root.table(key).map(read).unwrap_or_default()
}

fn target(mut s: Section) -> Target {
    let url = s.required_string("url");
    let protocol = match s.string("protocol").as_deref() {
        None | Some("h1") => Protocol::H1,
        Some("h2") => Protocol::H2,
        Some(other) => {
            s.problem("protocol", format!("{other:?}"), "\"h1\" or \"h2\"");
            Protocol::H1
        }
    };
    let ca_file = s.string("ca_file").map(PathBuf::from);
    let insecure = s.bool("insecure").unwrap_or(false);
    let trust = match (ca_file, insecure) {
        (Some(file), true) => {
            s.problem(
                "insecure",
                "true together with ca_file",
                "one of ca_file and insecure",
            );
            Trust::CaFile(file)
        }
        (Some(file), false) => Trust::CaFile(file),
        (None, true) => Trust::Insecure,
        (None, false) => Trust::System,
    };
    let server_name = s.string("server_name");
    s.finish();
    Target {
        url,
        protocol,
        trust,
        server_name,
    }
}

fn generator(mut s: Section) -> Generator {
    let base = Generator::default();
    let read = Generator {
        threads: s.integer("threads").unwrap_or(base.threads),
        connections: s.integer("connections").unwrap_or(base.connections),
        streams_per_connection: s
            .integer("streams_per_connection")
            .unwrap_or(base.streams_per_connection),
        max_in_flight: s.integer("max_in_flight").unwrap_or(base.max_in_flight),
        request_timeout: s
            .duration("request_timeout")
            .unwrap_or(base.request_timeout),
    };
    s.finish();
    read
}

fn admin(mut s: Section) -> Admin {
    let read = Admin {
        url: s.required_string("url"),
        token_file: s.string("token_file").map(PathBuf::from),
    };
    s.finish();
    read
}

fn profile(mut s: Section) -> Profile {
    let kind = s.string("kind").unwrap_or_default();
    let shape = match kind.as_str() {
        "constant" => Shape::Constant {
            rate: s.required_number("rate"),
            duration: s.required_duration("duration"),
        },
        "ramp" => Shape::Ramp {
            from: s.required_number("from"),
            to: s.required_number("to"),
            duration: s.required_duration("duration"),
        },
        "spike" => {
            let duration = s.required_duration("duration");
            Shape::Spike {
                duration,
                first_share: s.number("first_share").unwrap_or(0.5),
                first_within: s
                    .duration("first_within")
                    .unwrap_or(std::time::Duration::from_secs(1)),
                warm_up: s.duration("warm_up").unwrap_or_default(),
                warm_up_rate: s.number("warm_up_rate").unwrap_or(0.0),
            }
        }
        other => {
            let value = if other.is_empty() {
                "(missing)".to_owned()
            } else {
                format!("{other:?}")
            };
            s.problem("kind", value, "\"constant\", \"ramp\" or \"spike\"");
            // Which keys are allowed depends on the kind: judge none of them.
            s.drain();
            Shape::Constant {
                rate: 1.0,
                duration: std::time::Duration::from_secs(1),
            }
        }
    };
    let poisson = s.bool("poisson").unwrap_or(false);
    let t0_unix_ms = s.integer("t0_unix_ms");
    s.finish();
    Profile {
        shape,
        poisson,
        t0_unix_ms,
    }
}

fn sale(mut s: Section) -> Sale {
    let base = Sale::default();
    let read = Sale {
        id: s.required_string("id"),
        skus: s.strings("skus").unwrap_or_default(),
        quantity: s.integer("quantity").unwrap_or(base.quantity),
        cart_percent: s.number("cart_percent").unwrap_or(base.cart_percent),
        cart_skus: s.integer("cart_skus").unwrap_or(base.cart_skus),
    };
    s.finish();
    read
}

fn buyers(mut s: Section) -> Buyers {
    let base = Buyers::default();
    let read = Buyers {
        count: s.integer("count").unwrap_or(base.count),
        header: s.string("header").unwrap_or(base.header),
        address_header: s.string("address_header"),
    };
    s.finish();
    read
}

fn retry(mut s: Section) -> Retry {
    let base = Retry::default();
    let read = Retry {
        percent: s.number("percent").unwrap_or(base.percent),
        concurrent_percent: s
            .number("concurrent_percent")
            .unwrap_or(base.concurrent_percent),
        within: s.duration("within").unwrap_or(base.within),
    };
    s.finish();
    read
}

fn bots(mut s: Section) -> Bots {
    let base = Bots::default();
    let read = Bots {
        count: s.integer("count").unwrap_or(base.count),
        burst: s.integer("burst").unwrap_or(base.burst),
        within: s.duration("within").unwrap_or(base.within),
    };
    s.finish();
    read
}

fn page_views(mut s: Section) -> PageViews {
    let base = PageViews::default();
    let read = PageViews {
        paths: s.strings("paths").unwrap_or(base.paths),
        share: s.number("share").unwrap_or(base.share),
    };
    s.finish();
    read
}

fn pay(mut s: Section, env: Env<'_>) -> Pay {
    let key_env = s.string("api_key_env");
    let key_file = s.string("api_key_file");
    let api_key = match (&key_env, &key_file) {
        (Some(name), None) => env(name).unwrap_or_else(|| {
            s.problem(
                "api_key_env",
                format!("{name:?} is not set"),
                "a set environment variable",
            );
            String::new()
        }),
        (None, Some(path)) => std::fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .unwrap_or_else(|error| {
                s.problem(
                    "api_key_file",
                    format!("{path:?}: {error}"),
                    "a readable file",
                );
                String::new()
            }),
        _ => {
            s.problem(
                "api_key_env",
                "not exactly one source",
                "one of api_key_env and api_key_file (never the key itself)",
            );
            String::new()
        }
    };
    let read = Pay {
        share_percent: s.number("share_percent").unwrap_or(100.0),
        decline_percent: s.number("decline_percent").unwrap_or(0.0),
        api_key,
        amount_minor: s.integer("amount_minor").unwrap_or_else(|| {
            s.problem("amount_minor", "(missing)", "a whole number from 1");
            1
        }),
        currency: s.required_string("currency"),
        delay: s.duration("delay").unwrap_or_default(),
        delay_spread: s.duration("delay_spread").unwrap_or_default(),
    };
    s.finish();
    read
}

fn thresholds(mut s: Section) -> Thresholds {
    let base = Thresholds::default();
    let mut p99 = base.p99;
    if let Some(mut table) = s.table("p99") {
        for (name, value) in table.drain() {
            let names = || Outcome::ALL.map(Outcome::name).join(", ");
            let limit = value.as_str().and_then(parse_duration);
            match (Outcome::from_name(&name), limit) {
                (Some(outcome), Some(limit)) => {
                    p99.insert(outcome, limit);
                }
                (None, _) => table.problem(&name, "unknown outcome", names()),
                (_, None) => table.problem(&name, &value, "a duration such as \"250ms\""),
            }
        }
    }
    let read = Thresholds {
        p99,
        max_error_share: s.number("max_error_share"),
        max_broken_share: s.number("max_broken_share").or(base.max_broken_share),
        max_schedule_lag: s
            .duration("max_schedule_lag")
            .unwrap_or(base.max_schedule_lag),
    };
    s.finish();
    read
}

fn reconcile(mut s: Section) -> ReconcileWait {
    let base = ReconcileWait::default();
    let read = ReconcileWait {
        settle_timeout: s.duration("settle_timeout").unwrap_or(base.settle_timeout),
        returns_timeout: s
            .duration("returns_timeout")
            .unwrap_or(base.returns_timeout),
    };
    s.finish();
    read
}

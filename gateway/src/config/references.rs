//! Checks that need the whole configuration: unique names, and sections that routes depend on.

use super::{Config, Target, section::Section, values::LimitKey};

pub(super) fn check(config: &Config, root: &Section<'_>) {
    unique(
        root,
        "upstream",
        config
            .upstreams
            .iter()
            .map(|upstream| upstream.name.as_str()),
    );
    unique(
        root,
        "limit",
        config.limits.iter().map(|limit| limit.name.as_str()),
    );
    unique(
        root,
        "route",
        config.routes.iter().map(|route| route.name.as_str()),
    );
    for (at, limit) in config.limits.iter().enumerate() {
        if limit.key == LimitKey::Buyer && !root.has("seckill") {
            root.problem(
                &format!("limit[{at}].key"),
                "\"buyer\" needs [seckill] buyer, which says how buyers are known: must be ip or header:NAME without it",
            );
        }
    }
    // Payments belong to orders: without the sale every one of them would be answered 503 for ever.
    if root.has("payment") && !root.has("seckill") {
        root.missing(
            "seckill",
            "present, because [payment] takes the money of its orders",
        );
    }
    for (at, route) in config.routes.iter().enumerate() {
        let needs = match route.target {
            Target::Sales if !root.has("seckill") => "seckill",
            Target::Payments if !root.has("payment") => "payment",
            _ => continue,
        };
        root.missing(
            needs,
            format_args!("present, because route[{at}] hands requests to it"),
        );
    }
}

fn unique<'a>(root: &Section<'_>, section: &str, names: impl Iterator<Item = &'a str>) {
    let mut seen = Vec::new();
    for (at, name) in names.enumerate() {
        // An empty name has been reported as missing.
        if !name.is_empty() && seen.contains(&name) {
            root.problem(
                &format!("{section}[{at}].name"),
                format_args!("{name:?} is taken: must be unique"),
            );
        }
        seen.push(name);
    }
}

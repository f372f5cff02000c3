//! Checks that need the whole configuration: unique names, and sections that routes depend on.

use std::net::SocketAddr;

use settings::Section;

use super::{Config, LimitKey, Target};

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
    // Payments belong to orders: without the sale each of them would be answered 503.
    if root.has("payment") && !root.has("seckill") {
        root.missing(
            "seckill",
            "present, because [payment] takes the money of its orders",
        );
    }
    same_routes(config, root);
    sockets(config, root);
    const OF_A_CONNECTION: [&str; 7] = [
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
        "upgrade",
        "te",
        "expect",
    ];
    if let Some(name) = config.buyer_header()
        && OF_A_CONNECTION.contains(&name.as_str())
    {
        root.problem(
            "seckill.buyer",
            format_args!("{name} belongs to the connection and never names a buyer: must be a header of its own, such as x-buyer-id"),
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

/// Of two routes with the same host, path and a method in common the second is never chosen for it.
fn same_routes(config: &Config, root: &Section<'_>) {
    for (at, route) in config.routes.iter().enumerate() {
        let twin = config.routes[..at].iter().position(|other| {
            let is_same_place = other.host == route.host
                && other.path.trim_end_matches('/') == route.path.trim_end_matches('/');
            let is_same_method = match (route.methods.is_empty(), other.methods.is_empty()) {
                (true, true) => true,
                // One for some methods, one for the rest.
                (true, false) | (false, true) => false,
                (false, false) => route.methods.iter().any(|m| other.methods.contains(m)),
            };
            is_same_place && is_same_method
        });
        if let Some(twin) = twin {
            root.problem(
                &format!("route[{at}].path"),
                format_args!("route[{twin}] has the same host, path and methods and is chosen before: must differ in one of them"),
            );
        }
    }
}

/// Addresses that cannot be listened on together, and endpoints that lead back here.
fn sockets(config: &Config, root: &Section<'_>) {
    for (at, listener) in config.listeners.iter().enumerate() {
        let address = listener.address;
        let twin = config.listeners[..at]
            .iter()
            .position(|other| is_same_socket(other.address, address) && other.address != address);
        if let Some(twin) = twin {
            root.problem(
                &format!("listener[{at}].address"),
                format_args!("{address} is part of listener[{twin}]'s {}: must not be used by another listener", config.listeners[twin].address),
            );
        }
        if is_same_socket(config.admin.address, address) {
            root.problem(
                &format!("listener[{at}].address"),
                format_args!(
                    "{address} is the admin listener's {}: must not be used by another listener",
                    config.admin.address
                ),
            );
        }
    }
    for (at, upstream) in config.upstreams.iter().enumerate() {
        for (which, endpoint) in upstream.endpoints.iter().enumerate() {
            let name = endpoint.address.replacen("localhost:", "127.0.0.1:", 1);
            let Ok(address) = name.parse() else { continue };
            if leads_to(address, config.admin.address) {
                root.problem(
                    &format!("upstream[{at}].endpoints[{which}].address"),
                    format_args!(
                        "{} is the admin listener, which would be open to every visitor: must be the shop's own server",
                        endpoint.address
                    ),
                );
            }
            if config
                .listeners
                .iter()
                .any(|listener| leads_to(address, listener.address))
            {
                root.problem(
                    &format!("upstream[{at}].endpoints[{which}].address"),
                    format_args!(
                        "{} is a listener of this file: must be the shop's own server",
                        endpoint.address
                    ),
                );
            }
        }
    }
}

/// Whether both cannot be bound: the same port, and the same address or one that stands for all of its kind.
fn is_same_socket(one: SocketAddr, other: SocketAddr) -> bool {
    let is_all = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0
        && one.port() == other.port()
        && (one.ip() == other.ip() || is_all && one.is_ipv4() == other.is_ipv4())
}

/// Whether a connection to the address comes to the listener.
fn leads_to(address: SocketAddr, listener: SocketAddr) -> bool {
    let is_here = listener.ip().is_unspecified()
        && (address.ip().is_loopback() || address.ip().is_unspecified());
    address.port() == listener.port() && (address.ip() == listener.ip() || is_here)
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

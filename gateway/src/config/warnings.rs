//! Settings that are allowed, but that the operator may not have meant. Printed by `check`, logged at a start.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Config, HashOn, LimitKey, Policy, Target, Tls};

/// Certificates are usually renewed earlier than this.
const SOON_DAYS: i64 = 7;

pub(super) fn of(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    trusted(config, &mut warnings);
    handlers(config, &mut warnings);
    removed_headers(config, &mut warnings);
    certificates(config, &mut warnings);
    twins(config, &mut warnings);
    warnings
}

fn trusted(config: &Config, warnings: &mut Vec<String>) {
    let server = &config.server;
    if !server.trusted_headers.is_empty() {
        let names: Vec<&str> = server.trusted_headers.iter().map(|n| n.as_str()).collect();
        let names = names.join(", ");
        if server.trusted_headers_from.is_empty() {
            warnings.push(format!(
                "server.trusted_headers_from: missing, so {names} is removed from every request: list the addresses of the login proxies that set it"
            ));
        }
        let is_passing_on = server.trusted_headers_from.iter().any(|hop| {
            server
                .trusted_proxies
                .iter()
                .any(|proxy| proxy.overlaps(hop))
        });
        if is_passing_on {
            warnings.push(format!(
                "server.trusted_headers_from: overlaps trusted_proxies: a proxy there must set or remove {names} on every request, or visitors can claim to be anybody"
            ));
        }
    }
    if server
        .trusted_proxies
        .iter()
        .chain(&server.trusted_headers_from)
        .any(|network| network.is_everybody())
    {
        warnings.push(
            "server: a network of all addresses is trusted, so every visitor can say where they come from, or who they are".to_owned(),
        );
    }
}

fn handlers(config: &Config, warnings: &mut Vec<String>) {
    for (at, route) in config.routes.iter().enumerate() {
        // The handler has paths of its own, whatever the route's.
        let served = match route.target {
            Target::Sales => ["/v1/sales", "/v1/orders"].as_slice(),
            Target::Payments => ["/v1/payment_intents"].as_slice(),
            _ => continue,
        };
        let path = route.path.trim_end_matches('/');
        let meets = served
            .iter()
            .any(|own| own.starts_with(path) || path.starts_with(own));
        if !meets {
            warnings.push(format!(
                "route[{at}].path: the handler serves {} only, so every request of this route is 404",
                served.join(" and ")
            ));
        }
    }
}

/// Keys that are taken of a header which no request has any more.
fn removed_headers(config: &Config, warnings: &mut Vec<String>) {
    let server = &config.server;
    let is_removed = |name: &http::HeaderName| {
        server.trusted_proxies.is_empty()
            && (name.as_str().contains('_') || crate::http::headers::is_proxy_claim(name))
    };
    for (at, limit) in config.limits.iter().enumerate() {
        if let LimitKey::Header(name) = &limit.key
            && is_removed(name)
        {
            warnings.push(format!(
                "limit[{at}].key: {name} is removed from every request, as no proxy is trusted"
            ));
        }
    }
    for (at, upstream) in config.upstreams.iter().enumerate() {
        if let Policy::RingHash(HashOn::Header(name)) = &upstream.policy
            && is_removed(name)
        {
            warnings.push(format!("upstream[{at}].hash_on: {name} is removed from every request, as no proxy is trusted"));
        }
    }
}

fn certificates(config: &Config, warnings: &mut Vec<String>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_s = now.map_or(0, |now| now.as_secs());
    let is_self_signed = |tls: &Option<Tls>| matches!(tls, Some(Tls::SelfSigned));
    for (at, listener) in config.listeners.iter().enumerate() {
        if is_self_signed(&listener.tls) && !listener.address.ip().is_loopback() {
            warnings.push(format!(
                "listener[{at}].tls = \"self-signed\": for trying things out; visitors need a certificate they trust"
            ));
        }
    }
    for (at, listener) in config.listeners.iter().enumerate() {
        let Some(Tls::Files(certificates)) = &listener.tls else {
            continue;
        };
        for (which, certificate) in certificates.iter().enumerate() {
            let Some(left) = certificate.days_left(now_s) else {
                continue;
            };
            if left < SOON_DAYS {
                let when = match left {
                    past if past < 0 => "has ended".to_owned(),
                    days => format!("ends in {days} days"),
                };
                warnings.push(format!("listener[{at}].tls[{which}].cert: {when}"));
            }
        }
    }
}

fn twins(config: &Config, warnings: &mut Vec<String>) {
    for (at, route) in config.routes.iter().enumerate() {
        let twin = config.routes[..at].iter().position(|other| {
            other.host == route.host
                && other.path != route.path
                && other.path.eq_ignore_ascii_case(&route.path)
        });
        if let Some(twin) = twin {
            warnings.push(format!("route[{at}].path: differs from route[{twin}]'s in case only, and paths are told apart by case"));
        }
    }
}

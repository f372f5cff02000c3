//! What a configuration may say and its writer may not have meant. Printed by `check`, logged at a start.

use super::{Config, Tls};

pub(super) fn of(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
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
    let is_self_signed = |tls: &Option<Tls>| matches!(tls, Some(Tls::SelfSigned));
    for (at, listener) in config.listeners.iter().enumerate() {
        if is_self_signed(&listener.tls) && !listener.address.ip().is_loopback() {
            warnings.push(format!(
                "listener[{at}].tls = \"self-signed\": for trying things out; visitors need a certificate they trust"
            ));
        }
    }
    warnings
}

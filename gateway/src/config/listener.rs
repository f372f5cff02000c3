//! `[[listener]]`: the sockets of the data plane and their certificates.

use std::{net::SocketAddr, sync::Arc};

use settings::{Inputs, Section};

use crate::tls::Certificate;

/// `[[listener]]`.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Where it listens. Port 0 takes a free one.
    pub address: SocketAddr,
    /// `None` = plain HTTP.
    pub tls: Option<Tls>,
    /// HTTP/2: by ALPN on TLS, by prior knowledge on a plain listener.
    pub h2: bool,
    /// HTTP/1.1.
    pub h1: bool,
}

/// The certificates of a listener.
#[derive(Clone, Debug)]
pub enum Tls {
    /// From files, read and parsed when the configuration was.
    Files(Vec<Arc<Certificate>>),
    /// Made at start for `localhost`: for trying things out.
    SelfSigned,
}

pub(super) fn listeners(root: &Section<'_>, inputs: &Inputs<'_>) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    for section in root.sections("listener") {
        let form = "address:port such as 0.0.0.0:8443";
        section.require("address", form);
        let address: Option<SocketAddr> = section.parsed("address", form, |text| text.parse().ok());
        let tls = tls(&section, inputs);
        let (mut h1, mut h2) = (true, true);
        if let Some(protocols) = section.texts("protocols") {
            h1 = protocols.iter().any(|name| name == "http/1.1");
            h2 = protocols.iter().any(|name| name == "h2");
            let known = |name: &String| name == "h2" || name == "http/1.1";
            if protocols.is_empty() || !protocols.iter().all(known) {
                section.problem("protocols", "must list h2, http/1.1 or both");
            }
        }
        if let Some(address) = address {
            let taken = |other: &Listener| other.address == address && address.port() != 0;
            if listeners.iter().any(taken) {
                section.problem("address", "must not be used by another listener");
            }
            listeners.push(Listener {
                address,
                tls,
                h2,
                h1,
            });
        }
        section.finish();
    }
    root.require("listener", "at least one [[listener]]");
    listeners
}

fn tls(section: &Section<'_>, inputs: &Inputs<'_>) -> Option<Tls> {
    let form = "\"self-signed\", or a list such as [{ cert = \"shop.pem\", key = \"shop.key\" }]";
    match section.value("tls")? {
        toml::Value::String(text) if text == "self-signed" => return Some(Tls::SelfSigned),
        toml::Value::Array(list) if !list.is_empty() => {}
        _ => {
            section.problem("tls", format_args!("must be {form}"));
            return None;
        }
    }
    let mut certificates = Vec::new();
    for entry in section.sections("tls") {
        let cert = file(&entry, "cert", inputs);
        let key = file(&entry, "key", inputs);
        let names = entry.texts("names").unwrap_or_default();
        if let (Some(cert), Some(key)) = (cert, key) {
            match Certificate::try_from_pem(&cert, &key, names) {
                Ok(certificate) => certificates.push(Arc::new(certificate)),
                Err(error) => entry.problem("cert", error),
            }
        }
        entry.finish();
    }
    Some(Tls::Files(certificates))
}

/// The content of a file that must be named.
fn file(section: &Section<'_>, key: &str, inputs: &Inputs<'_>) -> Option<Vec<u8>> {
    section.require(key, "a file's path");
    section.file(key, inputs)
}

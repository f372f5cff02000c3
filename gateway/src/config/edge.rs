//! Reads `[server]`, `[log]`, `[[listener]]` and `[admin]`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use settings::Section;

use super::{AccessLog, Admin, Inputs, Listener, Log, Server, Tls};
use crate::{
    http::{Cidr, MinRate},
    tls::Certificate,
};

/// A page's slowest request is a few seconds; half a minute lets it end and keeps a restart short.
const DRAIN_DEADLINE: Duration = Duration::from_secs(30);

/// A header comes in one or two packets; ten seconds is a client that does not want to send it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// As nginx: longer than browsers keep connections, so that they close first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// An upload that pauses for half a minute has lost its network.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// As nginx: a phone in a tunnel comes back within a minute.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// A byte count per second that a phone on the edge of its cell still reaches.
const MIN_RATE: MinRate = MinRate(512);

/// A thousand pages of slow readers.
const BUFFER_MEMORY: u64 = 64 << 20;

/// As nginx allows one answer.
const BUFFER_DISK: u64 = 1 << 30;

/// WebSocket libraries ping every 20 to 60 s, so five minutes of silence mean that the page is closed.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(300);

/// Four times what browsers send with large cookies.
const MAX_HEADER_BYTES: u64 = 32 << 10;

/// As hyper and Envoy.
const MAX_HEADERS: usize = 100;

/// Product pictures pass, films do not.
const MAX_BODY: u64 = 10 << 20;

/// About 10 KiB each, so half a gigabyte at most.
const MAX_CONNECTIONS: usize = 50_000;

/// What RFC 9113 recommends as the least.
const H2_STREAMS: u32 = 100;

/// A refusal is cheap to make and expensive to log.
const SAMPLE_REFUSALS: u64 = 100;

const ADMIN_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9900);

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

#[cfg(test)]
impl Server {
    /// The defaults, on one core.
    pub fn for_test() -> Self {
        let inputs = Inputs {
            is_folder: &|_| false,
            env: &|_| None,
            read: &|_| Err(std::io::ErrorKind::NotFound.into()),
            cores: 1,
        };
        defaults(&inputs)
    }
}

pub(super) fn server(root: &Section<'_>, inputs: &Inputs<'_>) -> Server {
    let Some(section) = root.section("server") else {
        return defaults(inputs);
    };
    let mut server = defaults(inputs);
    if let Some(workers) = section.integer("workers", 0..=1024).filter(|n| *n > 0) {
        server.workers = workers;
    }
    let times = [
        ("drain_deadline", Duration::ZERO, &mut server.drain_deadline),
        ("drain_delay", Duration::ZERO, &mut server.drain_delay),
        ("header_timeout", MILLISECOND, &mut server.header_timeout),
        ("idle_timeout", MILLISECOND, &mut server.idle_timeout),
        ("body_timeout", MILLISECOND, &mut server.body_timeout),
        ("send_timeout", MILLISECOND, &mut server.send_timeout),
        ("tunnel_timeout", MILLISECOND, &mut server.tunnel_timeout),
    ];
    for (key, least, field) in times {
        if let Some(time) = section.duration(key, least..=HOUR) {
            *field = time;
        }
    }
    // hyper reads into a buffer of at least 8 KiB.
    if let Some(bytes) = section.size("max_header_bytes", 8 << 10..=1 << 20) {
        server.max_header_bytes = bytes as usize;
    }
    if let Some(count) = section.integer("max_headers", 10..=1000) {
        server.max_headers = count;
    }
    if let Some(bytes) = section.size("max_body", 0..=1 << 40) {
        server.max_body = bytes;
    }
    if let Some(bytes) = section.size("buffer_memory", 0..=1 << 40) {
        server.buffer_memory = bytes;
    }
    if let Some(bytes) = section.size("buffer_disk", 0..=1 << 40) {
        server.buffer_disk = bytes;
    }
    if let Some(via) = section.flag("via") {
        server.via = via;
    }
    if let Some(bytes) = section.size("min_rate", 1..=1 << 30) {
        server.min_rate = MinRate(bytes);
    }
    if let Some(count) = section.integer("max_connections", 1..=10_000_000) {
        server.max_connections = count;
    }
    if let Some(count) = section.integer("h2_streams", 1..=10_000) {
        server.h2_streams = count;
    }
    server.trusted_proxies = networks(&section, "trusted_proxies");
    server.trusted_headers_from = networks(&section, "trusted_headers_from");
    for text in section.texts("trusted_headers").unwrap_or_default() {
        match text.parse() {
            Ok(name) => server.trusted_headers.push(name),
            Err(_) => {
                section.problem(
                    "trusted_headers",
                    format_args!("{text:?} must be a header name"),
                );
            }
        }
    }
    section.finish();
    server
}

fn networks(section: &Section<'_>, key: &'static str) -> Vec<Cidr> {
    let mut networks = Vec::new();
    for text in section.texts(key).unwrap_or_default() {
        match text.parse() {
            Ok(network) => networks.push(network),
            Err(()) => section.problem(
                key,
                format_args!("{text:?} must be an address or a network such as 10.0.0.0/8"),
            ),
        }
    }
    networks
}

fn defaults(inputs: &Inputs<'_>) -> Server {
    Server {
        workers: inputs.cores,
        drain_deadline: DRAIN_DEADLINE,
        drain_delay: Duration::ZERO,
        header_timeout: HEADER_TIMEOUT,
        idle_timeout: IDLE_TIMEOUT,
        body_timeout: BODY_TIMEOUT,
        send_timeout: SEND_TIMEOUT,
        tunnel_timeout: TUNNEL_TIMEOUT,
        via: true,
        min_rate: MIN_RATE,
        buffer_memory: BUFFER_MEMORY,
        buffer_disk: BUFFER_DISK,
        max_header_bytes: MAX_HEADER_BYTES as usize,
        max_headers: MAX_HEADERS,
        max_body: MAX_BODY,
        max_connections: MAX_CONNECTIONS,
        h2_streams: H2_STREAMS,
        trusted_proxies: Vec::new(),
        trusted_headers: Vec::new(),
        trusted_headers_from: Vec::new(),
    }
}

pub(super) fn log(root: &Section<'_>, inputs: &Inputs<'_>) -> Log {
    let mut log = Log {
        access: AccessLog::Stdout,
        sample_refusals: SAMPLE_REFUSALS,
    };
    let Some(section) = root.section("log") else {
        return log;
    };
    match section.text("access").as_deref() {
        None | Some("stdout") => {}
        Some("off") => log.access = AccessLog::Off,
        Some("") => section.problem("access", "must be stdout, off or a file's path"),
        Some(path) => {
            let folder = Path::new(path)
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            let is_missing = folder.is_some_and(|folder| !(inputs.is_folder)(folder));
            if is_missing || (inputs.is_folder)(Path::new(path)) {
                section.problem("access", "must be a file in a folder that exists");
            }
            log.access = AccessLog::File(path.into());
        }
    }
    if let Some(one_in) = section.integer("sample_refusals", 1..=1_000_000) {
        log.sample_refusals = one_in;
    }
    section.finish();
    log
}

pub(super) fn listeners(root: &Section<'_>, inputs: &Inputs<'_>) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    for section in root.sections("listener") {
        let form = "address:port such as 0.0.0.0:8443";
        let address: Option<SocketAddr> = section.parsed("address", form, |text| text.parse().ok());
        if section.value("address").is_none() {
            section.missing("address", form);
        }
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
    if root.value("listener").is_none() {
        root.missing("listener", "at least one [[listener]]");
    }
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

/// The content of a file that a key names.
fn file(section: &Section<'_>, key: &'static str, inputs: &Inputs<'_>) -> Option<Vec<u8>> {
    if section.value(key).is_none() {
        section.missing(key, "a file's path");
        return None;
    }
    let path = section.text(key)?;
    match (inputs.read)(Path::new(&path)) {
        Ok(content) => Some(content),
        Err(error) => {
            section.problem(key, format_args!("cannot be read: {error}"));
            None
        }
    }
}

pub(super) fn admin(root: &Section<'_>, inputs: &Inputs<'_>) -> Admin {
    let mut admin = Admin {
        address: ADMIN_ADDRESS,
        token: None,
    };
    let Some(section) = root.section("admin") else {
        return admin;
    };
    let form = "address:port such as 127.0.0.1:9900";
    if let Some(address) = section.parsed("address", form, |text| text.parse().ok()) {
        admin.address = address;
    }
    if section.value("token_file").is_some() {
        let content = file(&section, "token_file", inputs);
        let token = content.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        match token.as_deref() {
            Some("") => section.problem("token_file", "is empty: must hold the token"),
            _ => admin.token = token,
        }
    }
    if !admin.address.ip().is_loopback() && section.value("token_file").is_none() {
        section.missing(
            "token_file",
            "set when the admin address is not a loopback one",
        );
    }
    section.finish();
    admin
}

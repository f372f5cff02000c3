//! `[server]`: limits and times of the edge as a whole.

use std::time::Duration;

use http::HeaderName;
use settings::{Inputs, Section};

use crate::http::{Cidr, MinRate};

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

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// `[server]`.
#[derive(Clone, Debug)]
pub struct Server {
    /// Data-plane cores; 0 in the file means one per core of the machine.
    pub workers: usize,
    /// How long a drain waits for requests in flight before it cuts them off.
    pub drain_deadline: Duration,
    /// How long a draining process still accepts, so that load balancers can see `/ready` fail first.
    pub drain_delay: Duration,
    /// From accept to the end of the first request's header; a TLS handshake gets as much again.
    pub header_timeout: Duration,
    /// A kept-alive connection without a request is closed after this.
    pub idle_timeout: Duration,
    /// The longest pause between two pieces of a request's body.
    pub body_timeout: Duration,
    /// The longest a client may leave a response unread. It has to take 64 KiB at most in this time to go on.
    pub send_timeout: Duration,
    /// Whether this process names itself in the `Via` of what it passes on; loops are found by it.
    pub via: bool,
    /// How slowly a client may send or read: who is behind it by more than `body_timeout` or `send_timeout` is cut off.
    pub min_rate: MinRate,
    /// What answers of slow readers may occupy in memory, per core.
    pub buffer_memory: u64,
    /// What more they may occupy in temporary files, per core.
    pub buffer_disk: u64,
    /// A tunnel (WebSocket) is closed after this without a byte in either direction.
    pub tunnel_timeout: Duration,
    /// The most bytes of a request's line and header.
    pub max_header_bytes: usize,
    /// The most header lines of a request.
    pub max_headers: usize,
    /// The most bytes of a request's body, unless the route says otherwise.
    pub max_body: u64,
    /// Client connections at a time, tunnels included, over all cores; above it the listening queue waits.
    pub max_connections: usize,
    /// Concurrent streams of one HTTP/2 connection.
    pub h2_streams: u32,
    /// Peers whose `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<Cidr>,
    /// Headers that say who somebody is; removed from the requests of all peers but [`trusted_headers_from`](Self::trusted_headers_from).
    pub trusted_headers: Vec<HeaderName>,
    /// Peers that log people in, and therefore set or remove the trusted headers of every request. A proxy that only passes requests
    /// on is none of them: it would pass on what a visitor claims.
    pub trusted_headers_from: Vec<Cidr>,
}

#[cfg(test)]
impl Server {
    /// The defaults, on one core.
    pub fn for_test() -> Self {
        defaults(&Inputs::none())
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

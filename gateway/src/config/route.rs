//! `[[route]]`: which request goes where.

use http::{HeaderValue, Method, StatusCode};
use settings::{Section, one_of};

use super::{
    Limit, Upstream,
    values::{self, name},
};
use crate::http::target::{is_authority, read_path};

/// Forms and JSON fit; what is longer streams on from there.
const REQUEST_BUFFER: u64 = 64 << 10;

/// A page with its pictures; what is longer holds its connection.
const RESPONSE_BUFFER: u64 = 16 << 20;

/// `[[route]]`.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name in metrics and log lines.
    pub name: String,
    /// `shop.example`, `*.shop.example`, or any.
    pub host: Option<String>,
    /// The path's prefix, on segment borders.
    pub path: String,
    /// Empty = all.
    pub methods: Vec<Method>,
    pub target: Target,
    /// Indexes into [`Config::limits`](super::Config::limits).
    pub limits: Vec<usize>,
    /// The most bytes of a request's body.
    pub max_body: u64,
    /// Origins whose pages may call it, as browsers send them, or `*`.
    pub allow_origins: Vec<HeaderValue>,
    /// How many bytes of a request's body are read before the upstream is asked; 0 streams it from its first byte.
    pub request_buffer: usize,
    /// How many bytes of an answer are taken off the upstream's connection for a client that reads it slowly.
    pub response_buffer: u64,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An index into [`Config::upstreams`](super::Config::upstreams).
    Upstream(usize),
    Sales,
    Payments,
    /// A redirect to the same path elsewhere.
    Redirect {
        /// `https` (same host) or a URL's beginning.
        to: String,
        /// 301, 302, 307 or 308.
        status: StatusCode,
    },
}

pub(super) fn routes(
    root: &Section<'_>,
    upstreams: &[Upstream],
    limits: &[Limit],
    max_body: u64,
) -> Vec<Route> {
    let read = |section| route(section, upstreams, limits, max_body);
    let routes: Vec<Route> = root.sections("route").into_iter().map(read).collect();
    root.require("route", "at least one [[route]]");
    routes
}

fn route(section: Section<'_>, upstreams: &[Upstream], limits: &[Limit], max_body: u64) -> Route {
    let form = "a path that starts with /, without ? # ; % spaces, empty segments and dot segments";
    let path = section.parsed("path", form, |text| {
        let is_path = text.starts_with('/') && !text.contains(['?', '#', '%', ' ']);
        // As requests' paths are read, or no request would ever have it.
        let is_plain = is_path && read_path(text).as_deref() == Some(text);
        is_plain.then(|| text.to_owned())
    });
    section.require("path", "a path that starts with /");
    // What is wrong stays as it is, so that it is not taken for another route's.
    let path = path
        .or_else(|| section.text("path"))
        .unwrap_or_else(|| "/".to_owned());
    let host = section.parsed("host", "a host name, or *.NAME", |text| {
        let plain = text.strip_prefix("*.").unwrap_or(text);
        let is_name = values::is_token(plain) && !plain.starts_with('.') && !plain.ends_with('.');
        is_name.then(|| text.to_ascii_lowercase())
    });
    // What is wrong stays as it is, so that it is not taken for another route's.
    let host = host.or_else(|| section.text("host"));
    let default_name = match &host {
        Some(host) => format!("{host}{path}"),
        None => path.clone(),
    };
    let mut route_limits = Vec::new();
    for wanted in section.texts("limits").unwrap_or_default() {
        match limits.iter().position(|limit| limit.name == wanted) {
            Some(at) if route_limits.contains(&at) => {
                section.problem(
                    "limits",
                    format_args!("{wanted:?} is listed twice: must be listed once"),
                );
            }
            Some(at) => route_limits.push(at),
            None => {
                let names: Vec<&str> = limits.iter().map(|limit| limit.name.as_str()).collect();
                let allowed = match names.is_empty() {
                    true => "this file has no [[limit]] at all".to_owned(),
                    false => one_of(&wanted, &names),
                };
                section.problem("limits", format_args!("no [[limit]] {wanted:?}: {allowed}"));
            }
        }
    }
    let route = Route {
        name: name(&section, Some(default_name)).unwrap_or_default(),
        host,
        methods: methods(&section),
        target: target(&section, upstreams).unwrap_or(NOWHERE),
        limits: route_limits,
        allow_origins: origins(&section),
        max_body: section.size("max_body", 0..=1 << 40).unwrap_or(max_body),
        request_buffer: section
            .size("request_buffer", 0..=16 << 20)
            .unwrap_or(REQUEST_BUFFER) as usize,
        response_buffer: section
            .size("response_buffer", 0..=1 << 40)
            .unwrap_or(RESPONSE_BUFFER),
        path,
    };
    section.finish();
    route
}

/// `https://shop.example`, as a browser sends it: no path, no capital letters, no default port.
fn origins(section: &Section<'_>) -> Vec<HeaderValue> {
    let mut origins = Vec::new();
    // The shop answers for its own pages, with its own methods, headers and cookies.
    if section.has("allow_origins") && section.text("handler").as_deref() != Some("sales") {
        section.problem(
            "allow_origins",
            "has a meaning with handler = \"sales\" only",
        );
    }
    for text in section.texts("allow_origins").unwrap_or_default() {
        let host = ["https://", "http://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme));
        // A browser leaves the scheme's own port out, and compares the rest literally.
        let has_own_port = text.starts_with("https://") && text.ends_with(":443")
            || text.starts_with("http://") && text.ends_with(":80");
        let is_origin = text == "*"
            || !has_own_port
                && !text.contains('*')
                && host.is_some_and(|host| {
                    !host.is_empty() && is_authority(host.as_bytes()) && !host.ends_with(':')
                })
                && !text.contains(|c: char| c.is_ascii_uppercase());
        match HeaderValue::from_str(&text) {
            Ok(value) if is_origin => origins.push(value),
            _ => section.problem(
                "allow_origins",
                format_args!("{text:?} must be * or an origin such as https://shop.example"),
            ),
        }
    }
    origins
}

fn methods(section: &Section<'_>) -> Vec<Method> {
    let mut methods = Vec::new();
    if section.texts("methods").is_some_and(|list| list.is_empty()) {
        section.problem("methods", "must list at least one; leave it out for all");
    }
    for text in section.texts("methods").unwrap_or_default() {
        let is_upper = text.chars().all(|c| c.is_ascii_uppercase());
        match Method::from_bytes(text.as_bytes()) {
            Ok(Method::CONNECT | Method::TRACE) => section.problem(
                "methods",
                format_args!("{text:?} is refused before any route: must be another method"),
            ),
            Ok(method) if is_upper => methods.push(method),
            _ => section.problem(
                "methods",
                format_args!("{text:?} must be a method such as GET"),
            ),
        }
    }
    methods
}

/// Stands where a route's target is a problem of its own: nothing else is found wrong with it.
const NOWHERE: Target = Target::Redirect {
    to: String::new(),
    status: StatusCode::PERMANENT_REDIRECT,
};

/// `None` with a problem noted.
fn target(section: &Section<'_>, upstreams: &[Upstream]) -> Option<Target> {
    let (upstream, handler) = (section.text("upstream"), section.text("handler"));
    let is_redirect = handler.as_deref() == Some("redirect");
    let is_given = section.value("to").is_some() | section.value("status").is_some();
    if is_given && !is_redirect {
        section.problem("to", "has a meaning with handler = \"redirect\" only");
    }
    match (upstream, handler.as_deref()) {
        (Some(name), None) => {
            let at = upstreams.iter().position(|known| known.name == name);
            if at.is_none() {
                let names: Vec<&str> = upstreams.iter().map(|known| known.name.as_str()).collect();
                let known = one_of(&name, &names);
                section.problem("upstream", format_args!("no such [[upstream]]: {known}"));
            }
            at.map(Target::Upstream)
        }
        (None, Some("sales")) => Some(Target::Sales),
        (None, Some("payments")) => Some(Target::Payments),
        (None, Some("redirect")) => redirect(section),
        (None, Some(other)) => {
            section.problem("handler", one_of(other, &["sales", "payments", "redirect"]));
            None
        }
        (None, None) | (Some(_), Some(_)) => {
            section.problem("upstream", "a route needs either upstream or handler");
            None
        }
    }
}

fn redirect(section: &Section<'_>) -> Option<Target> {
    let form = "https, or http(s)://host";
    section.require("to", form);
    let to = section.parsed("to", form, |text| {
        let is_url = text.starts_with("https://") || text.starts_with("http://");
        let is_fine = text == "https" || (is_url && text.parse::<http::Uri>().is_ok());
        is_fine.then(|| text.trim_end_matches('/').to_owned())
    });
    let status = match section.integer("status", 301..=308_u16) {
        Some(301) => StatusCode::MOVED_PERMANENTLY,
        Some(302) => StatusCode::FOUND,
        Some(307) => StatusCode::TEMPORARY_REDIRECT,
        None | Some(308) => StatusCode::PERMANENT_REDIRECT,
        Some(_) => {
            section.problem("status", "must be 301, 302, 307 or 308");
            return None;
        }
    };
    to.map(|to| Target::Redirect { to, status })
}

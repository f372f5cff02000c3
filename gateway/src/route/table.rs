//! Which route a request takes. Pure: host, path (as [`read_path`](crate::http::target::read_path) reads it) and method in, an index out.
//!
//! The order of preference: the longest path prefix; then a full host over a wildcard over any; then a route with methods over
//! one without; then the order of the file. Routes are sorted by it once, so the first that fits is the one. A
//! shop has a few dozen routes at most, and comparing a prefix costs a nanosecond, so a list beats a tree.

use http::Method;

use crate::config;

/// All routes in order of preference.
#[derive(Clone, Debug)]
pub(crate) struct RouteTable {
    rules: Box<[Rule]>,
    /// Skips finding out the host when no route asks for one.
    any_host: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The route of this index in the configuration.
    Route(usize),
    /// Some route has the host and path, but none with this method.
    OtherMethod,
    Nothing,
}

#[derive(Clone, Debug)]
struct Rule {
    /// Without the slash at its end, so that `/shop/` has `/shop` too; empty for `/`.
    prefix: Box<str>,
    host: HostRule,
    /// Empty = all.
    methods: Box<[Method]>,
    index: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum HostRule {
    Exact(Box<str>),
    /// What follows the `*`, dot included.
    Under(Box<str>),
    Any,
}

impl RouteTable {
    /// The methods that some route has for this host and path, as `Allow` lists them.
    pub(crate) fn allowed(&self, host: &str, path: &str) -> String {
        let host = without_port(host);
        let mut names: Vec<&str> = self
            .rules
            .iter()
            .filter(|rule| has_prefix(path, &rule.prefix) && rule.host.matches(host))
            .flat_map(|rule| rule.methods.iter().map(Method::as_str))
            .collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    }

    /// Sorts the routes of a configuration.
    pub(crate) fn new(routes: &[config::Route]) -> Self {
        let rule = |(index, route): (usize, &config::Route)| Rule {
            prefix: route.path.trim_end_matches('/').into(),
            host: HostRule::new(route.host.as_deref()),
            methods: with_head(&route.methods),
            index,
        };
        let mut rules: Vec<Rule> = routes.iter().enumerate().map(rule).collect();
        // Longer wildcards are closer, so both parts of the host count; sorting is stable.
        rules.sort_by_key(|rule| {
            (
                std::cmp::Reverse(rule.prefix.len()),
                rule.host.rank(),
                rule.methods.is_empty(),
            )
        });
        Self {
            any_host: rules.iter().all(|rule| rule.host == HostRule::Any),
            rules: rules.into(),
        }
    }

    /// Finds the route of a request. `host` may carry a port; it is asked for only if a route needs it.
    pub(crate) fn find<'h>(
        &self,
        host: impl FnOnce() -> &'h str,
        path: &str,
        method: &Method,
    ) -> Found {
        let host = if self.any_host {
            ""
        } else {
            without_port(host())
        };
        let mut found = Found::Nothing;
        for rule in &self.rules {
            if has_prefix(path, &rule.prefix) && rule.host.matches(host) {
                if rule.methods.is_empty() || rule.methods.contains(method) {
                    return Found::Route(rule.index);
                }
                found = Found::OtherMethod;
            }
        }
        found
    }
}

/// Where GET is, HEAD is too (RFC 9110 9.3.2).
fn with_head(methods: &[Method]) -> Box<[Method]> {
    let mut methods = methods.to_vec();
    if methods.contains(&Method::GET) && !methods.contains(&Method::HEAD) {
        methods.push(Method::HEAD);
    }
    methods.into()
}

impl HostRule {
    fn new(host: Option<&str>) -> Self {
        match host {
            None => Self::Any,
            Some(host) => match host.strip_prefix('*') {
                Some(under) => Self::Under(under.into()),
                None => Self::Exact(host.into()),
            },
        }
    }

    fn rank(&self) -> (u8, std::cmp::Reverse<usize>) {
        match self {
            Self::Exact(_) => (0, std::cmp::Reverse(0)),
            Self::Under(under) => (1, std::cmp::Reverse(under.len())),
            Self::Any => (2, std::cmp::Reverse(0)),
        }
    }

    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name.eq_ignore_ascii_case(host),
            Self::Under(under) => host
                .len()
                .checked_sub(under.len())
                .filter(|at| *at > 0)
                .and_then(|at| host.get(at..))
                .is_some_and(|end| end.eq_ignore_ascii_case(under)),
        }
    }
}

/// `/shop` has `/shop` and `/shop/cart`, not `/shopping`.
fn has_prefix(path: &str, prefix: &str) -> bool {
    match path.as_bytes().get(prefix.len()) {
        None => path == prefix,
        Some(next) => *next == b'/' && path.starts_with(prefix) || prefix.is_empty(),
    }
}

/// `shop.example:8443` → `shop.example`; `[::1]:80` → `[::1]`; a root dot at the end goes too.
fn without_port(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Route, Target};

    fn route(host: Option<&str>, path: &str, methods: &[Method]) -> Route {
        Route {
            name: String::new(),
            host: host.map(str::to_owned),
            path: path.to_owned(),
            methods: methods.to_vec(),
            target: Target::Sales,
            limits: Vec::new(),
            max_body: 0,
            allow_origins: Vec::new(),
            request_buffer: 0,
            response_buffer: 0,
        }
    }

    fn find(table: &RouteTable, host: &str, path: &str) -> Found {
        table.find(|| host, path, &Method::GET)
    }

    #[test]
    fn the_longest_prefix_wins_on_segment_borders() {
        let table = RouteTable::new(&[
            route(None, "/", &[]),
            route(None, "/v1/sales", &[]),
            route(None, "/v1/", &[]),
        ]);
        assert_eq!(find(&table, "", "/v1/sales/x/orders"), Found::Route(1));
        assert_eq!(find(&table, "", "/v1/sales"), Found::Route(1));
        assert_eq!(find(&table, "", "/v1/salesman"), Found::Route(2));
        assert_eq!(find(&table, "", "/v1"), Found::Route(2));
        assert_eq!(find(&table, "", "/v10"), Found::Route(0));
        assert_eq!(find(&table, "", "*"), Found::Route(0));
    }

    #[test]
    fn a_full_host_is_preferred_to_a_wildcard_and_to_any() {
        let table = RouteTable::new(&[
            route(None, "/", &[]),
            route(Some("*.shop.example"), "/", &[]),
            route(Some("www.shop.example"), "/", &[]),
        ]);
        assert_eq!(find(&table, "WWW.shop.example:8443", "/"), Found::Route(2));
        assert_eq!(find(&table, "img.shop.example.", "/"), Found::Route(1));
        assert_eq!(find(&table, "shop.example", "/"), Found::Route(0));
        assert_eq!(find(&table, "[::1]:80", "/"), Found::Route(0));
    }

    #[test]
    fn another_method_falls_to_a_shorter_prefix_or_says_so() {
        let posts = [route(None, "/a", &[Method::POST])];
        assert_eq!(find(&RouteTable::new(&posts), "", "/a"), Found::OtherMethod);
        assert_eq!(RouteTable::new(&posts).allowed("", "/a"), "POST");
        let gets = RouteTable::new(&[route(None, "/a", &[Method::GET])]);
        assert_eq!(
            gets.find(|| "", "/a", &Method::HEAD),
            Found::Route(0),
            "HEAD is allowed where GET is"
        );
        assert_eq!(gets.allowed("", "/a"), "GET, HEAD");
        assert_eq!(find(&RouteTable::new(&posts), "", "/b"), Found::Nothing);
        let both = [posts[0].clone(), route(None, "/", &[])];
        assert_eq!(find(&RouteTable::new(&both), "", "/a"), Found::Route(1));
    }

    /// The same by the words of the module's first paragraph: keep what fits, take the most preferred.
    fn naive(routes: &[Route], host: &str, path: &str, method: &Method) -> Option<usize> {
        let segments = |path: &str| -> Vec<String> {
            path.split('/')
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let fits = |route: &Route| {
            let host_fits = match route.host.as_deref() {
                None => true,
                Some(rule) => match rule.strip_prefix("*.") {
                    Some(parent) => host.ends_with(&format!(".{parent}")),
                    None => rule == host,
                },
            };
            segments(path).starts_with(&segments(&route.path))
                && host_fits
                && (route.methods.is_empty() || route.methods.contains(method))
        };
        let host_rank = |route: &Route| match route.host.as_deref() {
            None => 0,
            Some(rule) if rule.starts_with('*') => rule.len(),
            Some(_) => usize::MAX,
        };
        let mut best: Option<usize> = None;
        for (at, route) in routes.iter().enumerate().filter(|(_, route)| fits(route)) {
            let rank = |route: &Route| {
                let length = route.path.trim_end_matches('/').len();
                (length, host_rank(route), !route.methods.is_empty())
            };
            if best.is_none_or(|best| rank(route) > rank(&routes[best])) {
                best = Some(at);
            }
        }
        best
    }

    fn any_route() -> impl Strategy<Value = Route> {
        let hosts = prop::option::of(prop::sample::select(vec![
            "a.test", "b.a.test", "*.test", "*.a.test",
        ]));
        let paths = prop::collection::vec(prop::sample::select(vec!["x", "y", "xy"]), 0..3);
        let methods = prop::sample::subsequence(vec![Method::GET, Method::POST], 0..=2);
        (hosts, paths, methods).prop_map(|(host, path, methods)| {
            route(host, &format!("/{}", path.join("/")), &methods)
        })
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_a_naive_search(
            routes in prop::collection::vec(any_route(), 0..8),
            host in prop::sample::select(vec!["a.test", "b.a.test", "c.b.a.test", "test", ""]),
            path in prop::collection::vec(prop::sample::select(vec!["x", "y", "xy"]), 0..4),
        ) {
            let path = format!("/{}", path.join("/"));
            let found = RouteTable::new(&routes).find(|| host, &path, &Method::GET);
            let expected = naive(&routes, host, &path, &Method::GET);
            match found {
                Found::Route(at) => prop_assert_eq!(Some(at), expected),
                Found::OtherMethod | Found::Nothing => prop_assert_eq!(None, expected),
            }
        }
    }
}

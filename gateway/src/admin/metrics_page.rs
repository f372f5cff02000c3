//! `GET /metrics` in the format and the coding that the scraper asks for.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, VARY},
};
use zlib_rs::{DeflateConfig, compress_bound, compress_slice};

use crate::{http::headers::tokens, meters};

/// Prometheus's text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// gzip around a window of 32 KiB, in zlib's way of saying so.
const GZIP: i32 = 15 + 16;
/// gzip's header and trailer, above those of zlib.
const GZIP_FRAME: usize = 12;

/// The answer with this page, which is in Prometheus's text format.
pub(super) fn answer(asked: &HeaderMap, page: String) -> Response {
    let (kind, page) = match wants_open_metrics(asked) {
        true => (OPEN_METRICS, meters::open_metrics(&page)),
        false => (TEXT, page),
    };
    let packed = wants_gzip(asked).then(|| gzip(page.as_bytes())).flatten();
    let is_packed = packed.is_some();
    let mut response = Body::from(packed.unwrap_or_else(|| page.into_bytes())).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    if is_packed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// Whether the scraper names OpenMetrics, in the version spoken here, and does not prefer the text format. A browser's `*/*` is none.
fn wants_open_metrics(asked: &HeaderMap) -> bool {
    let weight = |wanted: &str, is_version: fn(&str) -> bool| {
        let named = elements(asked, ACCEPT);
        named
            .filter(|one| one.name == wanted && is_version(&one.version))
            .map(|one| one.weight)
            .fold(0.0, f32::max)
    };
    let open_metrics = weight("application/openmetrics-text", |version| {
        version.is_empty() || version == "1.0.0"
    });
    open_metrics > 0.0 && open_metrics >= weight("text/plain", |_| true)
}

/// Whether gzip is acceptable: named, or meant by `*`, and not with the weight 0.
fn wants_gzip(asked: &HeaderMap) -> bool {
    let weight = |names: &[&str]| {
        let mut codings = elements(asked, ACCEPT_ENCODING);
        let found = codings.find(|one| names.contains(&one.name.as_str()));
        found.map(|one| one.weight)
    };
    weight(&["gzip", "x-gzip"])
        .or_else(|| weight(&["*"]))
        .is_some_and(|weight| weight > 0.0)
}

/// One element of a header of preferences (RFC 9110 12.5).
struct Element {
    name: String,
    version: String,
    weight: f32,
}

fn elements(asked: &HeaderMap, header: HeaderName) -> impl Iterator<Item = Element> {
    let read = |token: &[u8]| {
        let token = String::from_utf8_lossy(token).to_ascii_lowercase();
        let mut parts = token.split(';').map(str::trim);
        let mut element = Element {
            name: parts.next().unwrap_or_default().to_owned(),
            version: String::new(),
            weight: 1.0,
        };
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            match key.trim() {
                "q" => element.weight = value.trim().parse().unwrap_or(0.0),
                "version" => element.version = value.trim().trim_matches('"').to_owned(),
                _ => {}
            }
        }
        element
    };
    let elements: Vec<_> = tokens(asked, &header).map(read).collect();
    elements.into_iter()
}

/// Fast rather than small: the page repeats itself, and the first tenth of the work saves most of it.
fn gzip(page: &[u8]) -> Option<Vec<u8>> {
    let mut packed = vec![0; compress_bound(page.len()) + GZIP_FRAME];
    let config = DeflateConfig {
        window_bits: GZIP,
        ..DeflateConfig::best_speed()
    };
    let (written, code) = compress_slice(&mut packed, page, config);
    let length = written.len();
    packed.truncate(length);
    (code as i32 == 0).then_some(packed)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use zlib_rs::{InflateConfig, decompress_slice};

    use super::*;

    const PAGE: &str = "# TYPE a_total counter\na_total 3\n";

    async fn answered(accept: &str, encoding: &str) -> (String, Option<String>, Vec<u8>) {
        let mut asked = HeaderMap::new();
        asked.insert(ACCEPT, HeaderValue::try_from(accept).unwrap());
        asked.insert(ACCEPT_ENCODING, HeaderValue::try_from(encoding).unwrap());
        let response = answer(&asked, PAGE.to_owned());
        assert_eq!(response.headers()[VARY], "accept, accept-encoding");
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        let kind = text(&response.headers()[CONTENT_TYPE]);
        let coding = response.headers().get(CONTENT_ENCODING).map(text);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (kind, coding, body.to_vec())
    }

    #[tokio::test]
    async fn the_format_is_what_the_scraper_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, is_open) in [
            (prometheus, true),
            ("application/openmetrics-text", true),
            (
                "Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8",
                true,
            ),
            ("*/*", false),
            ("", false),
            ("text/html,application/xhtml+xml,*/*;q=0.8", false),
            ("text/plain", false),
            ("text/plain, application/openmetrics-text;q=0.5", false),
            ("application/openmetrics-text;q=0", false),
            ("application/openmetrics-text;version=2.0.0", false),
        ] {
            let (kind, coding, body) = answered(accept, "").await;
            let (wanted, text) = match is_open {
                true => (OPEN_METRICS, "# TYPE a counter\na_total 3\n# EOF\n"),
                false => (TEXT, PAGE),
            };
            assert_eq!(kind, wanted, "{accept}");
            assert_eq!(coding, None, "{accept}");
            assert_eq!(body, text.as_bytes(), "{accept}");
        }
    }

    #[tokio::test]
    async fn the_page_is_packed_for_who_can_unpack_it() {
        for (encoding, is_packed) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("x-gzip", true),
            ("*", true),
            ("", false),
            ("identity", false),
            ("gzip;q=0", false),
            ("gzip;q=0, *", false),
            ("deflate, br", false),
        ] {
            let (_, coding, body) = answered("", encoding).await;
            assert_eq!(coding.is_some(), is_packed, "{encoding}");
            let mut unpacked = vec![0; 1024];
            let body = match is_packed {
                false => &body[..],
                true => {
                    let config = InflateConfig { window_bits: GZIP };
                    let (unpacked, code) = decompress_slice(&mut unpacked, &body, config);
                    assert_eq!(code as i32, 0, "{encoding}");
                    &*unpacked
                }
            };
            assert_eq!(body, PAGE.as_bytes(), "{encoding}");
        }
    }

    #[test]
    fn what_does_not_shrink_is_packed_all_the_same() {
        // A page of noise needs more room than it had.
        let noise: Vec<u8> = (0..100_000u32)
            .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        for page in [&noise[..], &[][..]] {
            let packed = gzip(page).unwrap();
            let mut unpacked = vec![0; page.len()];
            let config = InflateConfig { window_bits: GZIP };
            let (unpacked, code) = decompress_slice(&mut unpacked, &packed, config);
            assert_eq!(code as i32, 0);
            assert_eq!(unpacked, page);
        }
    }
}

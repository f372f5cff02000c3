//! The Pingora side of the comparison: the same job as every other peer, written the way Pingora's own examples are.
//!
//! One worker thread, a plain and a TLS 1.3 listener, a ketama ring over two endpoints keyed by `x-user-id`, a request rate per
//! client address that is observed and compared on every request, and counters of what was answered.

use std::{
    env,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use pingora::{
    lb::{LoadBalancer, selection::consistent::KetamaHashing},
    listeners::tls::TlsSettings,
    prelude::*,
    server::configuration::ServerConf,
    tls::ssl::SslVersion,
};
use pingora_limits::rate::Rate;

/// Requests a second and client: never reached, always evaluated.
const LIMIT: isize = 1_000_000;

static RATE: LazyLock<Rate> = LazyLock::new(|| Rate::new(Duration::from_secs(1)));

/// Answers by the first digit of their status; 0 for none.
static ANSWERS: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];

struct Gateway {
    endpoints: Arc<LoadBalancer<KetamaHashing>>,
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn request_filter(&self, session: &mut Session, _: &mut ()) -> Result<bool> {
        let client = session
            .client_addr()
            .and_then(|address| address.as_inet())
            .map(|address| address.ip());
        if RATE.observe(&client, 1) > LIMIT {
            session.respond_error(429).await?;
            return Ok(true);
        }
        Ok(false)
    }

    async fn upstream_peer(&self, session: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        let key = session.req_header().headers.get("x-user-id");
        let key = key.map_or(&b""[..], |value| value.as_bytes());
        let endpoint = self
            .endpoints
            .select(key, 256)
            .ok_or_else(|| Error::new_str("no endpoint"))?;
        Ok(Box::new(HttpPeer::new(endpoint, false, String::new())))
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, _: &mut ()) {
        let class = session
            .response_written()
            .map_or(0, |answer| usize::from(answer.status.as_u16() / 100));
        ANSWERS[class.min(5)].fetch_add(1, Ordering::Relaxed);
    }
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [plain, tls, certificate, key, endpoints @ ..] = arguments.as_slice() else {
        eprintln!("usage: pingora-peer PLAIN_ADDR TLS_ADDR CERT KEY ENDPOINT...");
        std::process::exit(2);
    };
    let conf = ServerConf {
        threads: 1,
        // Stop at once on SIGTERM: the load is over by then.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();

    let endpoints = LoadBalancer::try_from_iter(endpoints).expect("endpoints are addresses");
    let gateway = Gateway {
        endpoints: Arc::new(endpoints),
    };
    let mut service = http_proxy_service(&server.configuration, gateway);
    service.add_tcp(plain);
    let mut settings = TlsSettings::intermediate(certificate, key).expect("certificate and key");
    settings
        .set_min_proto_version(Some(SslVersion::TLS1_3))
        .expect("openssl knows TLS 1.3");
    service.add_tls_with_settings(tls, None, settings);
    server.add_service(service);
    server.run_forever();
}

//! A small sale server with faults to switch on: enough of the wire to test the generator, nothing of the product.

mod runs;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

pub use self::runs::{constant, run, run_and_check, scenario, spike};

/// What the server does wrong, or slowly.
#[derive(Clone, Default)]
pub struct Faults {
    /// Nothing is answered between these instants.
    pub stall: Option<(Instant, Instant)>,
    /// The connection closes without notice after this many answers.
    pub close_after: Option<u64>,
    /// Every n-th request is answered by closing its connection.
    pub drop_every: Option<u64>,
    /// HTTP/2: GOAWAY after this many requests of a connection.
    pub goaway_after: Option<u64>,
    /// A buyer's requests beyond this many are limited.
    pub limit_per_buyer: Option<u64>,
    /// Every n-th purchase is never answered.
    pub swallow_every: Option<u64>,
    /// Every n-th purchase is answered "unknown" and settles at the second question.
    pub unknown_every: Option<u64>,
    /// Sells this many units more than it has.
    pub oversell: u64,
    /// The admin API wants this bearer token.
    pub admin_token: Option<String>,
    /// Every n-th accepted order never reaches the ledger.
    pub lose_every: Option<u64>,
    /// A cart of which not everything is left gets what is left.
    pub tears_carts: bool,
}

#[derive(Clone)]
struct Order {
    id: String,
    sku: String,
    buyer: String,
    request_id: String,
    status: &'static str,
    in_ledger: bool,
}

#[derive(Default)]
struct Books {
    orders: Vec<Order>,
    /// Of a cart an order a line, of a single purchase one.
    by_request: HashMap<String, Vec<usize>>,
    per_buyer: HashMap<String, u64>,
    asked: HashMap<String, u64>,
    purchases: u64,
    pages: u64,
}

impl Books {
    /// Orders of a sku.
    fn made(&self, sku: &str) -> u64 {
        self.orders.iter().filter(|order| order.sku == sku).count() as u64
    }

    /// The orders of a request as the sale API tells them.
    fn told(&self, is_cart: bool, known: &[usize]) -> Value {
        let one = |at: &usize| json!({ "id": self.orders[*at].id, "sku": self.orders[*at].sku });
        match is_cart {
            true => {
                json!({ "object": "cart", "orders": known.iter().map(one).collect::<Vec<_>>() })
            }
            false => one(&known[0]),
        }
    }
}

/// The server's state.
pub struct Shop {
    /// Of each sku.
    stock: u64,
    skus: &'static [&'static str],
    faults: Faults,
    books: Mutex<Books>,
    connections: AtomicU64,
}

/// A running server.
pub struct Running {
    pub shop: Arc<Shop>,
    pub address: SocketAddr,
    /// PEM of its certificate, if it speaks TLS.
    pub ca_pem: Option<String>,
}

impl Running {
    pub fn url(&self) -> String {
        let scheme = if self.ca_pem.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://localhost:{}", self.address.port())
    }

    pub fn connections(&self) -> u64 {
        self.shop.connections.load(Ordering::Relaxed)
    }

    /// Purchases that reached the server, copies counted.
    pub fn purchases(&self) -> u64 {
        self.shop.books.lock().unwrap().purchases
    }

    pub fn pages(&self) -> u64 {
        self.shop.books.lock().unwrap().pages
    }
}

/// HTTP/1.1 without TLS.
pub async fn serve(stock: u64, faults: Faults) -> Running {
    start(stock, &["shoe"], faults, None).await
}

/// The same with several skus, so many units of each, and carts.
pub async fn serve_skus(stock: u64, skus: &'static [&'static str], faults: Faults) -> Running {
    start(stock, skus, faults, None).await
}

/// HTTP/2 over TLS, with a certificate made on the spot.
pub async fn serve_h2_tls(stock: u64, faults: Faults) -> Running {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let tls = Some((acceptor, made.cert.pem()));
    start(stock, &["shoe"], faults, tls).await
}

async fn start(
    stock: u64,
    skus: &'static [&'static str],
    faults: Faults,
    tls: Option<(TlsAcceptor, String)>,
) -> Running {
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shop = Arc::new(Shop {
        stock,
        skus,
        faults,
        books: Mutex::default(),
        connections: AtomicU64::new(0),
    });
    let ca_pem = tls.as_ref().map(|(_, pem)| pem.clone());
    let accepting = Arc::clone(&shop);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let shop = Arc::clone(&accepting);
            shop.connections.fetch_add(1, Ordering::Relaxed);
            let tls = tls.clone();
            tokio::spawn(async move { connection(shop, stream, tls).await });
        }
    });
    Running {
        shop,
        address,
        ca_pem,
    }
}

async fn connection(shop: Arc<Shop>, stream: TcpStream, tls: Option<(TlsAcceptor, String)>) {
    stream.set_nodelay(true).unwrap();
    match tls {
        None => speak_h1(shop, stream).await,
        Some((acceptor, _)) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                speak_h2(shop, stream).await;
            }
        }
    }
}

async fn speak_h1(shop: Arc<Shop>, stream: TcpStream) {
    let answered = Arc::new(AtomicU64::new(0));
    let close_after = shop.faults.close_after;
    let drop_every = shop.faults.drop_every;
    let count = Arc::clone(&answered);
    let service = service_fn(move |request| {
        let (shop, count) = (Arc::clone(&shop), Arc::clone(&count));
        async move {
            let answer = shop.answer(request).await;
            let number = count.fetch_add(1, Ordering::Relaxed) + 1;
            if drop_every.is_some_and(|n| number.is_multiple_of(n)) {
                return Err(std::io::Error::other("dropped"));
            }
            Ok(answer)
        }
    });
    let serving =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let mut look = tokio::time::interval(Duration::from_millis(5));
    loop {
        tokio::select! {
            _ = &mut serving => return,
            // Dropping the connection closes it without any notice, as a server does whose idle timeout is over.
            _ = look.tick(), if close_after.is_some() => {
                if close_after.is_some_and(|n| answered.load(Ordering::Relaxed) >= n) {
                    return;
                }
            }
        }
    }
}

async fn speak_h2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(shop: Arc<Shop>, stream: S) {
    let asked = Arc::new(AtomicU64::new(0));
    let goaway_after = shop.faults.goaway_after;
    let count = Arc::clone(&asked);
    let service = service_fn(move |request| {
        let (shop, count) = (Arc::clone(&shop), Arc::clone(&count));
        async move {
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(shop.answer(request).await)
        }
    });
    let serving = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let mut look = tokio::time::interval(Duration::from_millis(5));
    let mut leaving = false;
    loop {
        tokio::select! {
            _ = &mut serving => return,
            _ = look.tick(), if goaway_after.is_some() && !leaving => {
                if goaway_after.is_some_and(|n| asked.load(Ordering::Relaxed) >= n) {
                    leaving = true;
                    serving.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

fn reply(status: u16, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn problem(status: u16, code: &str) -> Response<Full<Bytes>> {
    reply(
        status,
        &json!({ "status": status, "code": code, "title": code }),
    )
}

fn query<'a>(request: &'a Request<Incoming>, key: &str) -> Option<&'a str> {
    request.uri().query()?.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        (name == key).then_some(value)
    })
}

impl Shop {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if let Some((from, until)) = self.faults.stall
            && !request.uri().path().starts_with("/admin/")
            && Instant::now() >= from
        {
            tokio::time::sleep_until(until).await;
        }
        let path = request.uri().path().to_owned();
        if let Some(token) = &self.faults.admin_token
            && path.starts_with("/admin/")
            && request
                .headers()
                .get("authorization")
                .is_none_or(|value| value != token.as_str())
        {
            return problem(401, "unauthorized");
        }
        match (request.method(), path.as_str()) {
            (&Method::POST, "/v1/sales/drop/orders" | "/v1/sales/drop/carts") => {
                self.buy(request).await
            }
            (&Method::GET, "/v1/sales/drop/orders" | "/v1/sales/drop/carts") => self.poll(&request),
            (&Method::POST, "/v1/payment_intents") => self.pay(request).await,
            (&Method::GET, "/admin/v1/sales/drop") => reply(200, &self.document()),
            (&Method::GET, "/admin/v1/sales/drop/report") => self.report(),
            (&Method::GET, "/admin/v1/sales/drop/orders") => self.rows(&request),
            (&Method::GET, "/" | "/shoes") => {
                self.books.lock().unwrap().pages += 1;
                Response::new(Full::new(Bytes::from_static(&[b'x'; 3000])))
            }
            _ => problem(404, "not_found"),
        }
    }

    async fn buy(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let header = |name: &str| {
            let value = request.headers().get(name).expect("the generator sends it");
            value.to_str().unwrap().to_owned()
        };
        let (buyer, request_id) = (header("x-buyer-id"), header("idempotency-key"));
        let is_cart = request.uri().path().ends_with("/carts");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let lines = match is_cart {
            true => body["lines"].as_array().unwrap().clone(),
            false => vec![body],
        };
        assert!(lines.iter().all(|line| line["quantity"] == 1));
        let skus = lines.iter().map(|line| line["sku"].as_str().unwrap());
        let mut skus: Vec<String> = skus.map(str::to_owned).collect();

        let faults = &self.faults;
        let every = |n: Option<u64>, count: u64| n.is_some_and(|n| count.is_multiple_of(n));
        let (swallow, answer) = {
            let mut books = self.books.lock().unwrap();
            books.purchases += 1;
            let count = books.purchases;
            let tried = books.per_buyer.entry(buyer.clone()).or_default();
            *tried += 1;
            if faults.limit_per_buyer.is_some_and(|limit| *tried > limit) {
                return problem(429, "limited");
            }
            let swallow = every(faults.swallow_every, count);
            let unknown = every(faults.unknown_every, count);
            let is_left = |sku: &String| books.made(sku) < self.stock + faults.oversell;
            if is_cart && faults.tears_carts {
                skus.retain(|sku| is_left(sku));
            }
            let answer = if let Some(known) = books.by_request.get(&request_id) {
                reply(200, &books.told(is_cart, known))
            } else if skus.is_empty() || !skus.iter().all(is_left) {
                problem(409, "sold_out")
            } else {
                let first = books.orders.len();
                for sku in skus {
                    let number = books.orders.len() as u64;
                    books.orders.push(Order {
                        id: format!("ord_{number:026}"),
                        sku,
                        buyer: buyer.clone(),
                        request_id: request_id.clone(),
                        status: "reserved",
                        in_ledger: !every(faults.lose_every, number + 1),
                    });
                }
                let made: Vec<usize> = (first..books.orders.len()).collect();
                let told = books.told(is_cart, &made);
                books.by_request.insert(request_id, made);
                match unknown {
                    true => reply(202, &json!({ "object": "order", "status": "unknown" })),
                    false => reply(201, &told),
                }
            };
            (swallow, answer)
        };
        if swallow {
            std::future::pending::<()>().await;
        }
        answer
    }

    fn poll(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let id = query(request, "request_id").unwrap().to_owned();
        let mut books = self.books.lock().unwrap();
        let asked = books.asked.entry(id.clone()).or_default();
        *asked += 1;
        if *asked < 2 {
            return reply(202, &json!({ "status": "unknown" }));
        }
        match books.by_request.get(&id) {
            Some(known) => {
                let is_cart = request.uri().path().ends_with("/carts");
                reply(200, &books.told(is_cart, known))
            }
            None => problem(404, "not_found"),
        }
    }

    async fn pay(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        assert_eq!(request.headers()["authorization"], "Bearer sk_test");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let form = String::from_utf8(body.to_vec()).unwrap();
        assert!(form.contains("amount=4900&currency=usd"), "{form}");
        let (_, order) = form.split_once("metadata[order]=").unwrap();
        if form.contains("pm_card_chargeDeclined") {
            return reply(402, &json!({ "error": { "code": "card_declined" } }));
        }
        let mut books = self.books.lock().unwrap();
        let order = books.orders.iter_mut().find(|one| one.id == order).unwrap();
        order.status = "paid";
        reply(200, &json!({ "status": "succeeded" }))
    }

    fn document(&self) -> Value {
        let sku = |sku: &&str| json!({ "sku": sku, "stock": self.stock, "price_minor": 4900 });
        json!({
            "id": "drop", "buyer_limit": 2, "starts_at_ms": 0, "ends_at_ms": u64::MAX >> 16,
            "skus": self.skus.iter().map(sku).collect::<Vec<_>>(),
        })
    }

    fn report(&self) -> Response<Full<Bytes>> {
        let books = self.books.lock().unwrap();
        let made = books.orders.len() as u64;
        let paid = books.orders.iter().filter(|o| o.status == "paid").count() as u64;
        let sku = |sku: &&str| {
            let of = || books.orders.iter().filter(|order| order.sku == *sku);
            let made = of().count() as u64;
            let paid = of().filter(|order| order.status == "paid").count() as u64;
            json!({
                "sku": sku, "stock": self.stock, "restocked": 0, "available": self.stock.saturating_sub(made),
                "reserved": made.min(self.stock) - paid.min(self.stock), "sold": paid,
                "ledger_sold": of().filter(|order| order.in_ledger).count(),
            })
        };
        reply(
            200,
            &json!({
                "sale": "drop", "state": "open", "skus": self.skus.iter().map(sku).collect::<Vec<_>>(),
                "accepted": made, "settled": made, "paid": paid, "returned": 0, "refused": 0,
                "dead_letters": 0, "queue_depth": 0, "outbox_pending": 0,
            }),
        )
    }

    fn rows(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        // Pages of seven, whatever the limit: the client must follow the cursor.
        let after: usize = query(request, "after").map_or(0, |text| text.parse().unwrap());
        let books = self.books.lock().unwrap();
        let orders: Vec<Value> = books
            .orders
            .iter()
            .skip(after)
            .take(7)
            .filter(|order| order.in_ledger)
            .map(|order| {
                json!({
                    "id": order.id, "object": "order", "sale": "drop", "sku": order.sku, "buyer": order.buyer,
                    "quantity": 1, "status": order.status, "created_at_ms": 0,
                    "request_id": order.request_id,
                })
            })
            .collect();
        let next = (after + 7 < books.orders.len()).then(|| (after + 7).to_string());
        reply(200, &json!({ "orders": orders, "next": next }))
    }
}

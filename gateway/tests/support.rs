//! A gateway, origins and clients for tests.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use gateway::{
    compose::edge::{Addresses, App, Handlers},
    compose::reload::Reloader,
    config::{Config, ConfigError, Inputs},
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

/// Longer than anything here takes, shorter than a person's patience.
const LIMIT: Duration = Duration::from_secs(20);

/// A body of an origin's answer.
pub type AnyBody = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// A running gateway.
pub struct Gateway {
    pub addresses: Addresses,
    pub certificates: Vec<CertificateDer<'static>>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl Gateway {
    /// Starts a gateway with a plain listener and this configuration, in which `{origin}` was replaced by the caller.
    pub async fn start(text: &str) -> Self {
        Self::start_with(text, Handlers::default()).await
    }

    pub async fn start_with(text: &str, handlers: Handlers) -> Self {
        let text = format!(
            "{text}\n[admin]\naddress = \"127.0.0.1:0\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n"
        );
        let text = if text.contains("[log]") {
            text
        } else {
            format!("[log]\naccess = \"off\"\n{text}")
        };
        Self::start_as_is(&text, handlers).await
    }

    pub async fn start_as_is(text: &str, handlers: Handlers) -> Self {
        Self::start_app(App::try_new(config(text), handlers).unwrap())
    }

    /// The same, with a configuration that can be read again.
    pub async fn start_reloading(text: &str, handlers: Handlers, reloader: Reloader) -> Self {
        let mut app = App::try_new(config(text), handlers).unwrap();
        app.reload_by(reloader);
        Self::start_app(app)
    }

    fn start_app(mut app: App) -> Self {
        let (stop, stopped) = oneshot::channel();
        let addresses = app.addresses().clone();
        let certificates = app.certificates();
        let running = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            app.run(shutdown).await.unwrap();
            tokio::task::block_in_place(|| drop(app));
        });
        Self {
            addresses,
            certificates,
            stop: Some(stop),
            running,
        }
    }

    /// The last plain listener.
    pub fn address(&self) -> SocketAddr {
        *self.addresses.listeners.last().unwrap()
    }

    /// Asks it to stop; it drains.
    pub fn stop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
    }

    /// Waits until it has stopped.
    pub async fn stopped(mut self) {
        self.stop();
        within(&mut self.running).await.unwrap();
    }

    /// Sends bytes and reads the answer until the connection closes.
    pub async fn raw(&self, request: &str) -> String {
        raw(self.address(), request).await
    }

    /// A GET on a connection of its own.
    pub async fn get(&self, path: &str) -> String {
        self.raw(&format!(
            "GET {path} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n"
        ))
        .await
    }

    /// A page of the admin listener.
    pub async fn admin(&self, path: &str) -> String {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        raw(self.addresses.admin, &request).await
    }

    /// Waits until `/metrics` has a line that begins so, with this value.
    pub async fn eventually_metric(&self, series: &str, value: f64) {
        self.eventually(series, &format!("{value}"), |seen| seen == value)
            .await;
    }

    /// The same for a counter that tests beside this one count up too: all metrics are the process's.
    pub async fn eventually_metric_from(&self, series: &str, least: f64) {
        self.eventually(series, &format!("{least} or more"), |seen| seen >= least)
            .await;
    }

    /// What a series shows now; 0 if it is not there.
    pub async fn metric(&self, series: &str) -> f64 {
        let page = self.admin("/metrics").await;
        let line = page.lines().find(|line| line.starts_with(series));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.unwrap_or(0.0)
    }

    async fn eventually(&self, series: &str, wanted: &str, is_so: impl Fn(f64) -> bool) {
        let mut last = 0.0;
        for _ in 0..200 {
            last = self.metric(series).await;
            if is_so(last) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{series} never was {wanted}; last seen: {last}");
    }
}

pub fn config(text: &str) -> Config {
    try_config(text).unwrap()
}

pub fn try_config(text: &str) -> Result<Config, ConfigError> {
    let inputs = Inputs {
        read: &|path| std::fs::read(path),
        is_folder: &std::path::Path::is_dir,
        env: &|_| Some("sk_test_0123456789".to_owned()),
        cores: 2,
    };
    Config::try_parse(text, &inputs)
}

/// One upstream named `shop` with these endpoints, and a route to it from everywhere.
pub fn shop(endpoints: &[SocketAddr], extra: &str) -> String {
    let endpoints: Vec<String> = endpoints
        .iter()
        .map(|address| format!("{{ address = \"{address}\" }}"))
        .collect();
    format!(
        "[[route]]\npath = \"/\"\nname = \"shop\"\nupstream = \"shop\"\n\
         [[upstream]]\nname = \"shop\"\nendpoints = [{}]\n{extra}\n",
        endpoints.join(", ")
    )
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future)
        .await
        .expect("took too long")
}

pub async fn raw(address: SocketAddr, request: &str) -> String {
    within(async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is an end too.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    })
    .await
}

/// Reads one HTTP/1.1 response with a Content-Length from a connection that stays open.
pub async fn read_response(stream: &mut (impl AsyncRead + Unpin)) -> String {
    within(async {
        let mut answer = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&answer).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length: usize =
                    header(head, "content-length").map_or(0, |text| text.parse().unwrap());
                if body.len() >= length {
                    return text;
                }
            }
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece).await.unwrap();
            assert!(count > 0, "closed in mid-response: {text:?}");
            answer.extend_from_slice(&piece[..count]);
        }
    })
    .await
}

/// A header's value in a raw message.
pub fn header<'m>(message: &'m str, name: &str) -> Option<&'m str> {
    message
        .split("\r\n\r\n")
        .next()?
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

pub fn status(message: &str) -> u16 {
    let line = message.lines().next().unwrap_or_default();
    line.split(' ')
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("no status: {message:?}"))
}

pub fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// A server behind the gateway.
pub struct Origin {
    pub address: SocketAddr,
    served: Arc<AtomicUsize>,
}

impl Origin {
    /// Answers every request with a function of it.
    pub async fn start<F, A>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<AnyBody>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&served);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, counter) = (answer.clone(), Arc::clone(&counter));
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        counter.fetch_add(1, Ordering::SeqCst);
                        let answer = answer(request);
                        async move { Ok::<_, std::convert::Infallible>(answer.await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades()
                        .await;
                });
            }
        });
        Self { address, served }
    }

    /// Answers with what it got: request line, header lines, and the body's length.
    pub async fn echo() -> Self {
        Self::start(|request| async {
            let (head, body) = request.into_parts();
            let mut text = format!("{} {} {:?}\n", head.method, head.uri, head.version);
            for (name, value) in &head.headers {
                text.push_str(&format!("{name}: {}\n", value.to_str().unwrap_or("?")));
            }
            let length = body.collect().await.map_or(0, |body| body.to_bytes().len());
            text.push_str(&format!("length: {length}\n"));
            reply(200, text)
        })
        .await
    }

    /// Answers `name`.
    pub async fn named(name: &'static str) -> Self {
        Self::start(move |_| async move { reply(200, name) }).await
    }

    /// A script per connection, below HTTP.
    pub async fn scripted<F, A>(script: F) -> Self
    where
        F: Fn(usize, TcpStream) -> A + Send + Sync + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&served);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(script(counter.fetch_add(1, Ordering::SeqCst), stream));
            }
        });
        Self { address, served }
    }

    /// Requests (or, when scripted, connections) so far.
    pub fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }

    /// An address where nobody listens.
    pub async fn nobody() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
    }
}

pub fn reply(status: u16, text: impl Into<Bytes>) -> Response<AnyBody> {
    let mut response = Response::new(Full::new(text.into()).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// Reads a request's header off a scripted connection.
pub async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// A TLS connection to the gateway's first listener that trusts its certificate.
pub async fn tls(gateway: &Gateway, alpn: &[&[u8]]) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(gateway.certificates[0].clone()).unwrap();
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(gateway::tls::provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(gateway.addresses.listeners[0])
        .await
        .unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector
        .connect("localhost".try_into().unwrap(), stream)
        .await
        .unwrap()
}

/// An HTTP/2 client over any connection.
pub async fn h2(
    io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
) -> hyper::client::conn::http2::SendRequest<Empty<Bytes>> {
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, connection) = hyper::client::conn::http2::handshake(executor, TokioIo::new(io))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

pub async fn text(response: Response<Incoming>) -> String {
    let body = within(response.into_body().collect())
        .await
        .unwrap()
        .to_bytes();
    String::from_utf8_lossy(&body).into_owned()
}

/// A TLS connection to `shop.example` at this address, if its certificate is this one.
pub async fn trusting(
    address: SocketAddr,
    certificate: &CertificateDer<'static>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(gateway::tls::provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = "shop.example".try_into().unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

//! The webhook over TLS, against a server with certificates made for the test.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use delivery::{DeliveryError, Event, Sink};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{memory_outbox::MemoryOutbox, outbox::configured};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// An authority, whose certificate lies in a folder for `ca_file`.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// The configuration of a server whose certificate is for `name`.
    fn server(&self, name: &str, adjust: impl FnOnce(&mut CertificateParams)) -> ServerConfig {
        self.server_that(name, adjust, WebPkiClientVerifier::no_client_auth())
    }

    fn server_that(
        &self,
        name: &str,
        adjust: impl FnOnce(&mut CertificateParams),
        verifier: Arc<dyn ClientCertVerifier>,
    ) -> ServerConfig {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        adjust(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap()
    }

    /// The key of the table that trusts it.
    fn trusted(&self) -> String {
        format!("ca_file = {:?}\n", self.folder.path().join("ca.pem"))
    }

    /// Makes a certificate for a client, and gives the keys of the table that show it.
    fn client(&self) -> String {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["penstock".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let at = |name: &str| self.folder.path().join(name);
        std::fs::write(at("client.pem"), cert.pem()).unwrap();
        std::fs::write(at("client.key"), key.serialize_pem()).unwrap();
        let (cert, key) = (at("client.pem"), at("client.key"));
        format!("client_cert_file = {cert:?}\nclient_key_file = {key:?}\n")
    }
}

/// What a server has seen.
#[derive(Clone, Default)]
struct Seen {
    connections: Arc<AtomicUsize>,
    /// The event ids, in the order of their requests.
    ids: Arc<Mutex<Vec<String>>>,
}

/// Serves on a port: every connection carries `answers` requests and is then closed, without an answer if a request is on its way.
async fn serve(config: ServerConfig, answers: usize) -> (u16, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (acceptor, seen) = (TlsAcceptor::from(Arc::new(config)), Seen::default());
    let told = seen.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, told) = (acceptor.clone(), told.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                told.connections.fetch_add(1, Ordering::SeqCst);
                for _ in 0..answers {
                    let Some(id) = read_request(&mut stream).await else {
                        return;
                    };
                    told.ids.lock().unwrap().push(id);
                    stream.write_all(OK).await.unwrap();
                }
                if let Some(id) = read_request(&mut stream).await {
                    told.ids.lock().unwrap().push(id);
                }
            });
        }
    });
    (port, seen)
}

/// Reads one request and answers its event id; `None` when the other side has closed.
async fn read_request(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<String> {
    let (mut seen, mut chunk) = (Vec::new(), [0; 4096]);
    // The body is one JSON document with nothing after it.
    while !seen.ends_with(b"}}}") {
        let read = stream.read(&mut chunk).await.unwrap_or(0);
        if read == 0 {
            return None;
        }
        seen.extend_from_slice(&chunk[..read]);
    }
    let text = String::from_utf8(seen).unwrap();
    let id = text
        .lines()
        .find_map(|line| line.strip_prefix("penstock-event-id: "));
    Some(id.unwrap().trim().to_owned())
}

fn sink(port: u16, more: &str) -> Arc<dyn Sink> {
    let url = format!("url = \"https://localhost:{port}/hook\"");
    configured(&format!("{url}\nsecret_env = \"S\"\n{more}"))
}

async fn events(count: usize) -> Vec<Event> {
    let test = MemoryOutbox::default();
    test.settle(0, count as u64);
    test.lease(count).await
}

async fn deliver_one(sink: &Arc<dyn Sink>) -> Result<(), DeliveryError> {
    sink.deliver(&events(1).await).await.remove(0)
}

/// One after the other, each over the connection of the one before.
async fn deliver_each(sink: &Arc<dyn Sink>, events: &[Event]) {
    for event in events {
        let outcomes = sink.deliver(std::slice::from_ref(event)).await;
        assert_eq!(outcomes, [Ok(())]);
        // The connection is put back by a task of its own, which runs on this thread as soon as this task lets it.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
}

/// Why nothing was sent.
async fn unreachable(port: u16, more: &str) -> String {
    match deliver_one(&sink(port, more)).await {
        Err(DeliveryError::Unreachable(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn events_go_over_one_kept_tls_connection_to_a_server_of_a_trusted_authority() {
    let authority = Authority::new();
    let (port, seen) = serve(authority.server("localhost", |_| {}), usize::MAX).await;
    deliver_each(&sink(port, &authority.trusted()), &events(3).await).await;
    assert_eq!(seen.connections.load(Ordering::SeqCst), 1);
    assert_eq!(seen.ids.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_server_that_cannot_be_trusted_gets_nothing_and_is_named() {
    let authority = Authority::new();
    let trusted = authority.trusted();
    let (port, seen) = serve(authority.server("localhost", |_| {}), 1).await;
    let unknown = unreachable(port, "").await;
    let (other_port, _) = serve(authority.server("shop.example", |_| {}), 1).await;
    let wrong_name = unreachable(other_port, &trusted).await;
    let past = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
    let (past_port, _) = serve(authority.server("localhost", past), 1).await;
    let expired = unreachable(past_port, &trusted).await;
    for (port, why, says) in [
        (
            port,
            unknown,
            "certificate comes from an authority that is not trusted",
        ),
        (other_port, wrong_name, "not valid for name \"localhost\""),
        (past_port, expired, "expired"),
    ] {
        assert!(why.starts_with(&format!("localhost:{port}: ")), "{why}");
        assert!(why.contains(says), "{why}");
    }
    assert_eq!(*seen.ids.lock().unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_port_without_tls_is_told_from_one_with_a_wrong_certificate() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut first = [0; 1];
            stream.read_exact(&mut first).await.unwrap();
            let refusal = b"HTTP/1.1 400 Bad Request\r\n\r\n";
            stream.write_all(refusal).await.unwrap();
            // Until the other side has read it: closing with unread bytes would reset the connection.
            while stream.read(&mut first).await.is_ok_and(|read| read > 0) {}
        }
    });
    let why = unreachable(port, &Authority::new().trusted()).await;
    assert!(why.contains("does not speak TLS"), "{why}");
}

// The request may have arrived, so the same event is sent again: with the same id, on a new connection, and it costs no try.
#[tokio::test]
async fn a_kept_connection_that_the_server_drops_costs_no_try() {
    let authority = Authority::new();
    let (port, seen) = serve(authority.server("localhost", |_| {}), 1).await;
    let events = events(3).await;
    deliver_each(&sink(port, &authority.trusted()), &events).await;
    assert_eq!(seen.connections.load(Ordering::SeqCst), 3);
    let mut ids = seen.ids.lock().unwrap().clone();
    ids.dedup();
    let expected: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
    assert_eq!(ids, expected, "an event keeps its id");
}

// A server that never answers is asked once for each try, however it ends the connection.
#[tokio::test]
async fn a_new_connection_that_the_server_drops_is_a_failed_try() {
    let authority = Authority::new();
    let (port, seen) = serve(authority.server("localhost", |_| {}), 0).await;
    let sink = sink(port, &authority.trusted());
    let outcome = deliver_one(&sink).await;
    assert!(
        matches!(outcome, Err(DeliveryError::Broken(_))),
        "{outcome:?}"
    );
    assert_eq!(seen.ids.lock().unwrap().len(), 1);
}

// The body says nothing that is needed, so the event is delivered; what was read of it is bounded.
#[tokio::test]
async fn an_endless_answer_is_cut_off_and_the_event_is_delivered() {
    let authority = Authority::new();
    let acceptor = TlsAcceptor::from(Arc::new(authority.server("localhost", |_| {})));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        read_request(&mut stream).await.unwrap();
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head).await.unwrap();
        let chunk = [&b"400\r\n"[..], &[b'x'; 0x400], b"\r\n"].concat();
        // Ends when the other side has closed the connection.
        while stream.write_all(&chunk).await.is_ok() {}
    });
    let sink = sink(port, &authority.trusted());
    assert_eq!(deliver_one(&sink).await, Ok(()));
    server.await.unwrap();
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_ours() {
    let authority = Authority::new();
    let mut roots = RootCertStore::empty();
    roots.add(authority.issuer.der().clone()).unwrap();
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let config = authority.server_that("localhost", |_| {}, verifier.build().unwrap());
    let (port, _) = serve(config, 1).await;
    let with = format!("{}{}", authority.trusted(), authority.client());
    assert_eq!(deliver_one(&sink(port, &with)).await, Ok(()));
    let refused = deliver_one(&sink(port, &authority.trusted())).await;
    let told = refused.unwrap_err().to_string();
    assert!(told.contains("CertificateRequired"), "{told}");
}

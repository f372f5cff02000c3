//! From an accepted socket to the protocol that is spoken on it: TLS and ALPN, or the first bytes of a plain connection.

use std::net::SocketAddr;

use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit, time::timeout};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::{Answer, Listening, preface, serve::serve};
use crate::http::Protocol;

/// Speaks TLS, then what ALPN has chosen.
pub(super) async fn tls<A: Answer + 'static>(
    listening: &Listening<A>,
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    permit: Option<OwnedSemaphorePermit>,
) {
    let connections = &listening.connections;
    let limit = connections.server.read().header_timeout;
    let shaken = tokio::select! {
        biased;
        shaken = timeout(limit, acceptor.accept(stream)) => shaken,
        () = connections.crowded() => return connections.meters.handshakes_failed.add(),
    };
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        failed => {
            debug!(%peer, failed = ?failed.map(|result| result.err()), "tls handshake failed");
            connections.meters.handshakes_failed.add();
            return;
        }
    };
    connections.meters.handshakes_ok.add();
    let protocol = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::H2,
        // A client without ALPN speaks HTTP/1.1 or nothing we have.
        _ if listening.config.h1 => Protocol::H1,
        _ => Protocol::H2,
    };
    serve(listening, TokioIo::new(stream), peer, protocol, permit).await;
}

/// Speaks HTTP/1.1, or HTTP/2 with clients that begin with its preface.
pub(super) async fn plain<A: Answer + 'static>(
    listening: &Listening<A>,
    stream: TcpStream,
    peer: SocketAddr,
    permit: Option<OwnedSemaphorePermit>,
) {
    let protocol = match (listening.config.h1, listening.config.h2) {
        (_, false) => Protocol::H1,
        (false, true) => Protocol::H2,
        (true, true) => {
            let connections = &listening.connections;
            let limit = connections.server.read().header_timeout;
            let looked = tokio::select! {
                biased;
                looked = timeout(limit, preface::look(stream)) => looked,
                () = connections.crowded() => return,
            };
            let Ok(Ok((is_h2, io))) = looked else {
                return;
            };
            let protocol = if is_h2 { Protocol::H2 } else { Protocol::H1 };
            return serve(listening, io, peer, protocol, permit).await;
        }
    };
    serve(listening, TokioIo::new(stream), peer, protocol, permit).await;
}

//! Connecting by name: all addresses of it are tried, none of them alone may take the whole time. Or to a server on this machine,
//! by the path of its socket.
//!
//! The next address is tried when one fails, or has not answered for 250 ms, beside it; the first that answers wins (RFC 8305,
//! section 5). Connects begin at different addresses in turn, so that a name of several servers spreads over them.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    net::{TcpStream, UnixStream, lookup_host},
    time::sleep,
};
use tokio_util::either::Either;

use crate::config::UNIX;

/// RFC 8305's recommendation.
const STAGGER: Duration = Duration::from_millis(250);

/// How soon a Unix socket whose queue of connections is full is tried again: at first, and at most. The kernel does that for TCP.
const AGAIN: Duration = Duration::from_millis(1);
const AGAIN_MAX: Duration = Duration::from_millis(32);

static TURN: AtomicUsize = AtomicUsize::new(0);

/// What carries the bytes between this program and an endpoint.
pub(crate) type Stream = Either<TcpStream, UnixStream>;

/// Connects to `host:port` or `unix:/path`. The caller bounds the time. Names are looked up each time, so a server that moved is
/// found.
pub(crate) async fn connect(address: &str) -> io::Result<Stream> {
    if let Some(path) = address.strip_prefix(UNIX) {
        return connect_unix(path).await.map(Either::Right);
    }
    let stream = connect_tcp(address).await?;
    // Requests and messages are written whole; waiting to fill a packet only adds latency.
    stream.set_nodelay(true)?;
    Ok(Either::Left(stream))
}

async fn connect_unix(path: &str) -> io::Result<UnixStream> {
    let mut pause = AGAIN;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(pause).await,
            done => return done,
        }
        pause = (pause * 2).min(AGAIN_MAX);
    }
}

async fn connect_tcp(address: &str) -> io::Result<TcpStream> {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return TcpStream::connect(address).await;
    }
    let mut addresses: Vec<SocketAddr> = lookup_host(address).await?.collect();
    if !addresses.is_empty() {
        let first = TURN.fetch_add(1, Ordering::Relaxed) % addresses.len();
        addresses.rotate_left(first);
    }
    connect_any(&addresses).await
}

async fn connect_any(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut attempts = FuturesUnordered::new();
    let mut left = addresses.iter();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        if attempts.is_empty() {
            match left.next() {
                Some(address) => attempts.push(TcpStream::connect(*address)),
                None => return Err(failure),
            }
        }
        tokio::select! {
            ended = attempts.next() => match ended {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => {
                    failure = error;
                    attempts.extend(left.next().map(|address| TcpStream::connect(*address)));
                }
                None => {}
            },
            () = sleep(STAGGER), if left.len() > 0 => {
                attempts.extend(left.next().map(|address| TcpStream::connect(*address)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket, UnixSocket};

    use super::*;

    /// An address that does not answer: its queue of connections is full.
    async fn silent() -> (SocketAddr, Vec<TcpStream>, TcpListener) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        for _ in 0..8 {
            let connecting = TcpStream::connect(address);
            match tokio::time::timeout(Duration::from_millis(100), connecting).await {
                Ok(stream) => queue.push(stream.unwrap()),
                Err(_full) => break,
            }
        }
        (address, queue, listener)
    }

    #[tokio::test]
    async fn an_address_that_refuses_or_is_silent_does_not_hide_the_next() {
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = (good.local_addr().unwrap(), good);
        let refusing = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let (silent, _queue, _listener) = silent().await;
        let begun = tokio::time::Instant::now();
        let stream = connect_any(&[refusing, silent, good.0]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good.0);
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{:?}",
            begun.elapsed()
        );
        assert!(connect_any(&[refusing]).await.is_err());
        assert!(connect_any(&[]).await.is_err());
    }

    #[tokio::test]
    async fn a_full_queue_of_a_unix_socket_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.sock");
        let address = format!("{UNIX}{}", path.display());
        assert_eq!(
            connect(&address).await.unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        let socket = UnixSocket::new_stream().unwrap();
        socket.bind(&path).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut queue = Vec::new();
        let full = loop {
            match UnixStream::connect(&path).await {
                Ok(stream) => queue.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let mut connecting = Box::pin(connect(&address));
        assert!(futures_util::poll!(&mut connecting).is_pending());
        listener.accept().await.unwrap();
        connecting.await.unwrap();
    }
}

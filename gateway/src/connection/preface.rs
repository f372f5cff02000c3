//! Tells HTTP/2 with prior knowledge (RFC 9113 3.3) from HTTP/1.1 by a connection's first bytes, and hands them on unread.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncReadExt, net::TcpStream};

/// What no HTTP/1.1 request begins with.
const PREFACE: &[u8; 4] = b"PRI ";

/// A connection whose first bytes have been looked at.
#[derive(Debug)]
pub(super) struct Rewound {
    first: [u8; PREFACE.len()],
    /// What of `first` has still to be read.
    unread: std::ops::Range<usize>,
    io: TokioIo<TcpStream>,
}

/// Whether an HTTP/2 client is at the other end, and the connection from its first byte on. An end within the first bytes is an error.
pub(super) async fn look(mut stream: TcpStream) -> io::Result<(bool, Rewound)> {
    let mut first = [0; PREFACE.len()];
    let mut count = 0;
    while count < PREFACE.len() && PREFACE.starts_with(&first[..count]) {
        // Read and not peeked at: a byte that stays in the socket hides the connection's end behind it.
        count += match stream.read(&mut first[count..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => more,
        };
    }
    let rewound = Rewound {
        first,
        unread: 0..count,
        io: TokioIo::new(stream),
    };
    Ok((first == *PREFACE, rewound))
}

impl Read for Rewound {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.unread.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let count = this.unread.len().min(buf.remaining());
        let from = this.unread.start;
        buf.put_slice(&this.first[from..from + count]);
        this.unread.start += count;
        Poll::Ready(Ok(()))
    }
}

impl Write for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    async fn looked(pieces: &[&[u8]]) -> io::Result<(bool, Vec<u8>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let server = listener.accept().await.unwrap().0;
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let sending = tokio::spawn(async move {
            for piece in pieces {
                client.write_all(&piece).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        });
        let (is_h2, rewound) = look(server).await?;
        let mut all = Vec::new();
        let mut io = TokioIo::new(rewound);
        io.read_to_end(&mut all).await?;
        sending.await.unwrap();
        Ok((is_h2, all))
    }

    #[tokio::test]
    async fn the_first_bytes_decide_and_stay() {
        let whole = b"PRI * HTTP/2.0\r\n";
        let cases: [(&[&[u8]], bool); 4] = [
            (&[whole], true),
            (&[b"P", b"R", b"I * HTTP/2.0\r\n"], true),
            (&[b"GET / HTTP/1.1\r\n"], false),
            (&[b"P", b"OST / HTTP/1.1\r\n"], false),
        ];
        for (pieces, is_h2) in cases {
            assert_eq!(looked(pieces).await.unwrap(), (is_h2, pieces.concat()));
        }
    }

    /// Broke: a closed connection that had sent `P` was looked at every 5 ms until `header_timeout`.
    #[tokio::test]
    async fn an_end_within_the_first_bytes_ends_the_connection() {
        for piece in [&b""[..], b"P", b"PRI"] {
            let error = looked(&[piece]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}

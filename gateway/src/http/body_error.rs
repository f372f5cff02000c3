//! Why a response ends before its last byte. The client sees a broken answer (INV-EDGE-3).

/// Why a response's body broke off. The client sees a cut connection or stream.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream's connection failed in mid-body.
    #[error("upstream broke off: {0}")]
    Upstream(#[from] hyper::Error),
    /// The upstream paused for too long.
    #[error("upstream paused for longer than body_timeout")]
    UpstreamTimeout,
    /// The client took nothing for longer than `server.send_timeout`.
    #[error("client did not read for longer than send_timeout")]
    ClientStalled,
    /// What was kept of it for a slow reader was lost.
    #[error("temporary file: {0}")]
    Spool(#[source] std::io::Error),
    /// The handler's body failed.
    #[error("handler broke off: {0}")]
    Handler(#[from] axum::Error),
}

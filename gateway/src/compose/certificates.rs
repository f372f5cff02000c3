//! The certificates of the listeners: read with the configuration or made on the spot, and shown in `/metrics`.

use std::sync::Arc;

use metrics::gauge;
use rustls::ServerConfig;

use super::edge::AppError;
use crate::{
    config,
    tls::{self, Certificate, CertificateError, Store},
};

/// The certificates of a listener; one is made when the configuration says `self-signed`.
pub(super) fn certificates(tls: &config::Tls) -> Result<Vec<Arc<Certificate>>, CertificateError> {
    match tls {
        config::Tls::Files(certificates) => Ok(certificates.clone()),
        config::Tls::SelfSigned => {
            let names = ["localhost", "127.0.0.1", "::1"];
            Ok(vec![Arc::new(Certificate::try_self_signed(&names)?)])
        }
    }
}

/// The store by which the certificates of a listener are replaced, and what its handshakes need.
pub(super) type ListenerTls = (Arc<Store>, Arc<ServerConfig>);

pub(super) fn listener_tls(listener: &config::Listener) -> Result<Option<ListenerTls>, AppError> {
    let Some(tls) = &listener.tls else {
        return Ok(None);
    };
    let store = Arc::new(Store::new(certificates(tls)?));
    show_ends(&store);
    let h2 = listener.h2.then_some(&b"h2"[..]);
    let h1 = listener.h1.then_some(&b"http/1.1"[..]);
    let protocols: Vec<&[u8]> = h2.into_iter().chain(h1).collect();
    let config = tls::server_config(Arc::clone(&store), &protocols)?;
    Ok(Some((store, config)))
}

/// Shows in `/metrics` until when each certificate is valid.
pub(super) fn show_ends(store: &Store) {
    for certificate in store.all().iter() {
        if let Some(end) = certificate.not_after_s() {
            let name = certificate.label().to_owned();
            gauge!("penstock_tls_cert_not_after_timestamp_seconds", "server_name" => name)
                .set(end as f64);
        }
    }
}

//! TLS of a listener: certificates by server name, ALPN, session tickets; and certificates made on the spot. Knows no configuration.

mod certificate;
mod server;
mod store;

use rustls::crypto::{CryptoProvider, ring};

pub use self::{
    certificate::{Certificate, CertificateError},
    server::server_config,
    store::Store,
};

/// The one provider of cryptography in this program.
pub fn provider() -> CryptoProvider {
    ring::default_provider()
}

//! The certificates of a listener, found by server name; swapped whole while connections go on.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::Certificate;

/// The certificates of a listener as they are now.
///
/// A client gets the certificate whose names match best and whose key it can check, so that RSA may stand beside ECDSA for one name; of
/// several alike the first. The first of all for everybody else, as browsers without SNI and health checks expect.
#[derive(Debug)]
pub struct Store(ArcSwap<Vec<Arc<Certificate>>>);

impl Store {
    /// These certificates, in the order of the configuration.
    pub fn new(certificates: Vec<Arc<Certificate>>) -> Self {
        Self(ArcSwap::from_pointee(certificates))
    }

    /// Puts others in their place, for handshakes from now on.
    pub fn replace(&self, certificates: Vec<Arc<Certificate>>) {
        self.0.store(Arc::new(certificates));
    }

    /// Those in force.
    pub fn all(&self) -> Arc<Vec<Arc<Certificate>>> {
        self.0.load_full()
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.0.load();
        let schemes = hello.signature_schemes();
        let is_known =
            |certificate: &Arc<Certificate>| certificate.key.key.choose_scheme(schemes).is_some();
        let by_name = hello.server_name().and_then(|name| {
            let fits = certificates.iter().filter_map(|certificate| {
                let fit = certificate.fit(name)?;
                Some(((!is_known(certificate), fit), certificate))
            });
            // The first of those that are equally good.
            fits.min_by_key(|(rank, _)| *rank)
        });
        let certificate = by_name
            .map(|(_, certificate)| certificate)
            .or_else(|| {
                let mut all = certificates.iter();
                all.find(|certificate| is_known(certificate))
            })
            .or(certificates.first())?;
        Some(Arc::clone(&certificate.key))
    }
}

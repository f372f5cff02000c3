//! `[admin]`: the admin listener.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use settings::{Inputs, Section};

const ADMIN_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9900);

/// `[admin]`.
#[derive(Clone, Debug)]
pub struct Admin {
    pub address: SocketAddr,
    /// If set, `/admin/*` needs this as a bearer token.
    pub token: Option<String>,
}

pub(super) fn admin(root: &Section<'_>, inputs: &Inputs<'_>) -> Admin {
    let mut admin = Admin {
        address: ADMIN_ADDRESS,
        token: None,
    };
    let Some(section) = root.section("admin") else {
        return admin;
    };
    let form = "address:port such as 127.0.0.1:9900";
    if let Some(address) = section.parsed("address", form, |text| text.parse().ok()) {
        admin.address = address;
    }
    if section.value("token_file").is_some() {
        let content = section.file("token_file", inputs);
        let token = content.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        match token.as_deref() {
            Some("") => section.problem("token_file", "is empty: must hold the token"),
            _ => admin.token = token,
        }
    }
    if !admin.address.ip().is_loopback() {
        section.require(
            "token_file",
            "set when the admin address is not a loopback one",
        );
    }
    section.finish();
    admin
}

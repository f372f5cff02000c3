//! NATS JetStream: a stream and the beginning of its subjects.

use std::fmt;

use settings::{Inputs, Section};

use super::{
    Address, Credentials,
    credentials::{credentials, text},
    names::{NAME, host_port, name},
};
use crate::tls::Tls;

/// Who publishes to NATS.
#[derive(Clone, PartialEq, Eq)]
pub enum NatsLogin {
    /// Nobody in particular.
    Anonymous,
    /// A user with a password.
    Password(Credentials),
    /// A token.
    Token(String),
    /// The text of a `.creds` file: a JWT and the seed of its key.
    Creds(String),
}

impl fmt::Debug for NatsLogin {
    /// Without anything secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Password(_) => "Password",
            Self::Token(_) => "Token",
            Self::Creds(_) => "Creds",
        })
    }
}

/// A stream of NATS JetStream.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// `nats://HOST:PORT` or `tls://HOST:PORT`, one or more.
    pub servers: Vec<String>,
    /// For `tls`.
    pub tls: Option<Tls>,
    /// Who publishes.
    pub login: NatsLogin,
    /// The stream that must take the events. It is not made.
    pub stream: String,
    /// What their subjects begin with; `.settled`, `.paid`, `.released` or `.refused` follows.
    pub subject: String,
}

pub(super) fn read(
    section: &Section<'_>,
    address: &Address<'_>,
    inputs: &Inputs<'_>,
) -> Option<NatsOptions> {
    // One URL for each server of the cluster; the scheme may be left out after the first.
    let mut servers = Vec::new();
    for server in address.hosts.split(',') {
        let prefix = format!("{}://", address.scheme);
        let place = server
            .strip_prefix(&prefix)
            .unwrap_or(server)
            .trim_end_matches('/');
        if host_port(place, 4222).is_none() {
            let what = "must be nats://HOST:PORT,HOST:PORT (or tls://…)";
            section.item_problem("url", server, what);
        }
        servers.push(format!("{prefix}{place}"));
    }
    section.require("stream", NAME);
    let has_dot = section
        .text("stream")
        .is_some_and(|name| name.contains('.'));
    if has_dot {
        let what = "must not hold a dot: it is the stream's name, not a subject";
        section.problem("stream", what);
    }
    let stream = section.parsed("stream", NAME, name);
    section.require("subject", NAME);
    let subject = section.text("subject");
    if subject.is_some_and(|text| !text.is_empty() && text.split('.').any(str::is_empty)) {
        section.problem("subject", "must not have empty parts between its dots");
    }
    let subject = section.parsed("subject", NAME, name);
    let login = login(section, inputs);
    let tls = Tls::read(address.scheme == "tls", section, inputs);
    Some(NatsOptions {
        servers,
        tls,
        login: login?,
        stream: stream?,
        subject: subject?,
    })
}

fn login(section: &Section<'_>, inputs: &Inputs<'_>) -> Option<NatsLogin> {
    let token = section.secret("token", 1, inputs);
    let creds = section.file("credentials_file", inputs);
    if creds.as_ref().is_some_and(|creds| creds.is_empty()) {
        section.problem("credentials_file", "must hold what NATS gave, and is empty");
    }
    let password = credentials(section, inputs)?;
    match (password, token, creds) {
        (None, None, None) => Some(NatsLogin::Anonymous),
        (Some(password), None, None) => Some(NatsLogin::Password(password)),
        (None, Some(token), None) => Some(NatsLogin::Token(text(token))),
        (None, None, Some(creds)) => Some(NatsLogin::Creds(text(creds))),
        _ => {
            section.problem(
                "username",
                "one of a user with a password, a token and credentials_file, not several",
            );
            None
        }
    }
}

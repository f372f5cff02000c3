//! RabbitMQ: a queue or an exchange.

use percent_encoding::percent_decode_str;
use settings::{Inputs, Section};

use super::{
    Address, Credentials,
    credentials::credentials,
    names::{NAME, host_port, name},
};
use crate::tls::Tls;

const KINDS: [(&str, QueueType); 2] = [
    ("quorum", QueueType::Quorum),
    ("classic", QueueType::Classic),
];

/// What RabbitMQ keeps a queue in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueType {
    /// Replicated by Raft; the default.
    Quorum,
    /// On one node.
    Classic,
}

impl QueueType {
    /// The value of `x-queue-type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
        }
    }
}

/// Where in RabbitMQ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AmqpTarget {
    /// A durable queue, made if it is not there.
    Queue {
        /// Its name.
        name: String,
        /// What it is kept in.
        kind: QueueType,
    },
    /// An exchange that is there already; the routing key is the event's type.
    Exchange(String),
}

/// A queue or an exchange of RabbitMQ.
#[derive(Debug, Clone)]
pub struct AmqpOptions {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Virtual host.
    pub vhost: String,
    /// For `amqps`.
    pub tls: Option<Tls>,
    /// Who publishes; `guest` if not said.
    pub credentials: Option<Credentials>,
    /// Queue or exchange.
    pub target: AmqpTarget,
}

pub(super) fn read(
    section: &Section<'_>,
    address: &Address<'_>,
    inputs: &Inputs<'_>,
) -> Option<AmqpOptions> {
    let is_tls = address.scheme == "amqps";
    let place = host_port(address.hosts, if is_tls { 5671 } else { 5672 });
    // As RabbitMQ's own URIs: no path is the default virtual host, `/` alone would be one without a name.
    let vhost = match address.path {
        "" => Some("/".to_owned()),
        path if path[1..].contains('/') => None,
        path => percent_decode_str(&path[1..])
            .decode_utf8()
            .ok()
            .map(String::from)
            .filter(|name| !name.is_empty()),
    };
    if place.is_none() || vhost.is_none() {
        section.problem(
            "url",
            "must be amqp://HOST:PORT/VHOST; a / in the name of the virtual host is written %2f",
        );
    }
    let target = target(section);
    let credentials = credentials(section, inputs);
    let tls = Tls::read(is_tls, section, inputs);
    let (host, port) = place?;
    Some(AmqpOptions {
        host,
        port,
        vhost: vhost?,
        tls,
        credentials: credentials?,
        target: target?,
    })
}

fn target(section: &Section<'_>) -> Option<AmqpTarget> {
    let kind = section.choice("queue_type", &KINDS);
    let queue = section.parsed("queue", NAME, name);
    let exchange = section.parsed("exchange", NAME, name);
    match (section.has("queue"), section.has("exchange")) {
        (true, false) => queue.map(|name| AmqpTarget::Queue {
            name,
            kind: kind.unwrap_or(QueueType::Quorum),
        }),
        (false, true) => {
            if section.has("queue_type") {
                section.problem("queue_type", "belongs to queue, not to exchange");
            }
            exchange.map(AmqpTarget::Exchange)
        }
        _ => {
            section.problem(
                "queue",
                "must name a queue, or exchange an exchange; one of them",
            );
            None
        }
    }
}

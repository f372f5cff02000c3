//! RabbitMQ: a queue or an exchange.

use settings::{Inputs, Section};

use super::{
    Address,
    credentials::credentials,
    values::{NAME, decode, host_port, name},
};
use crate::downstream::{AmqpOptions, AmqpTarget, QueueType};

const KINDS: [(&str, QueueType); 2] = [
    ("quorum", QueueType::Quorum),
    ("classic", QueueType::Classic),
];

pub(super) fn read(
    section: &Section<'_>,
    address: &Address<'_>,
    inputs: &Inputs<'_>,
) -> Option<AmqpOptions> {
    let tls = address.scheme == "amqps";
    let place = host_port(address.hosts, if tls { 5671 } else { 5672 });
    // As RabbitMQ's own URIs: no path is the default virtual host, `/` alone would be one without a name.
    let vhost = match address.path {
        "" => Some("/".to_owned()),
        path if path[1..].contains('/') => None,
        path => decode(&path[1..]).filter(|name| !name.is_empty()),
    };
    if place.is_none() || vhost.is_none() {
        section.problem(
            "url",
            "must be amqp://HOST:PORT/VHOST; a / in the name of the virtual host is written %2f",
        );
    }
    let target = target(section);
    let credentials = credentials(section, inputs);
    let (host, port) = place?;
    Some(AmqpOptions {
        host,
        port,
        vhost: vhost?,
        tls,
        ca_file: section.path("ca_file"),
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

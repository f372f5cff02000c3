//! The `[seckill.downstream]` table: who is told what became of the orders. Exactly one receiver: the outbox notes one delivery
//! for each event.

mod amqp;
mod credentials;
mod foreign;
mod http;
mod kafka;
mod nats;
mod values;

use std::time::Duration;

use settings::{Inputs, Section};

use crate::downstream::Target;

/// One delivery to the shop, or one batch to a broker, connecting included.
const TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT_LEAST: Duration = Duration::from_millis(100);
const TIMEOUT_MOST: Duration = Duration::from_secs(30);
const SCHEMES: &str = "http://HOST:PORT/PATH, amqp://HOST:PORT/VHOST (or amqps), nats://HOST:PORT (or tls) or kafka://HOST:PORT,HOST:PORT";

/// Who is told, and how long one delivery may take.
#[derive(Debug, Clone, PartialEq)]
pub struct DownstreamConfig {
    /// The receiver.
    pub target: Target,
    /// Longest wait for one call of the sink.
    pub timeout: Duration,
}

/// A URL taken apart: scheme, then what is between `//` and the first `/`, then the rest.
struct Address<'a> {
    scheme: &'a str,
    hosts: &'a str,
    path: &'a str,
}

/// Reads the table, and says why there cannot be several.
pub(super) fn downstream(seckill: &Section<'_>, inputs: &Inputs<'_>) -> Option<DownstreamConfig> {
    if seckill
        .value("downstream")
        .is_some_and(|value| value.is_array())
    {
        seckill.problem(
            "downstream",
            "must be one table [seckill.downstream]: an event has exactly one receiver, which may hand it on to others",
        );
        return None;
    }
    read(seckill.section("downstream")?, inputs)
}

fn read(section: Section<'_>, inputs: &Inputs<'_>) -> Option<DownstreamConfig> {
    let timeout = section.duration("timeout", TIMEOUT_LEAST..=TIMEOUT_MOST);
    section.require("url", SCHEMES);
    let url = section.text("url");
    let address = url.as_deref().and_then(|url| address(&section, url));
    let target = address.as_ref().and_then(|address| {
        let target = target(&section, address, inputs);
        foreign::check(&section, address.scheme);
        target
    });
    foreign::know_all(&section);
    let target = target.filter(|target| {
        let is_built = target.is_built();
        if !is_built {
            let feature = target.feature();
            let what = format!("needs a program built with the cargo feature {feature:?}");
            section.problem("url", what);
        }
        is_built
    });
    section.finish();
    Some(DownstreamConfig {
        target: target?,
        timeout: timeout.unwrap_or(TIMEOUT),
    })
}

fn target(section: &Section<'_>, address: &Address<'_>, inputs: &Inputs<'_>) -> Option<Target> {
    match address.scheme {
        "http" => http::read(section, address, inputs).map(Target::Http),
        "amqp" | "amqps" => amqp::read(section, address, inputs).map(Target::Amqp),
        "nats" | "tls" => nats::read(section, address, inputs).map(Target::Nats),
        "kafka" => kafka::read(section, address, inputs).map(Target::Kafka),
        _ => {
            section.problem("url", format_args!("must be {SCHEMES}"));
            None
        }
    }
}

/// A password in the URL would end in logs and in process lists, so none is taken there; nor is a user.
fn address<'a>(section: &Section<'_>, url: &'a str) -> Option<Address<'a>> {
    let Some((scheme, rest)) = url.split_once("://") else {
        section.problem("url", format_args!("must be {SCHEMES}"));
        return None;
    };
    if rest.contains('@') {
        section.problem(
            "url",
            "must not hold a user or a password; use username and password_file or password_env",
        );
        return None;
    }
    let (hosts, path) = match rest
        .find('/')
        .filter(|_| scheme != "nats" && scheme != "tls")
    {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    Some(Address {
        scheme,
        hosts,
        path,
    })
}

#[cfg(test)]
mod tests;

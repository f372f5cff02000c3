//! `[seckill.downstream]`: the one receiver of events, chosen by the scheme of its URL. Each kind of receiver has a file with what it
//! needs and the reader of its keys.
//!
//! There is exactly one, because the outbox notes one delivery for each event.

mod amqp;
mod credentials;
mod kafka;
mod names;
mod nats;
mod webhook;

use std::{collections::BTreeMap, time::Duration};

use settings::{Inputs, Section};

pub use self::{
    amqp::{AmqpOptions, AmqpTarget, QueueType},
    credentials::Credentials,
    kafka::KafkaOptions,
    nats::{NatsLogin, NatsOptions},
    webhook::WebhookOptions,
};

/// One delivery to the shop, or one batch to a broker, connecting included.
const TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT_LEAST: Duration = Duration::from_millis(100);
const TIMEOUT_MOST: Duration = Duration::from_secs(30);
const SCHEMES: [&str; 7] = ["http", "https", "amqp", "amqps", "nats", "tls", "kafka"];
const URLS: &str = "http://HOST:PORT/PATH (or https), amqp://HOST:PORT/VHOST (or amqps), nats://HOST:PORT (or tls) or kafka://HOST:PORT,HOST:PORT";

/// Who receives the events, and how long one delivery may take.
#[derive(Debug, Clone)]
pub struct DownstreamConfig {
    /// The receiver.
    pub receiver: Receiver,
    /// Longest wait for one call of the sink.
    pub timeout: Duration,
}

/// The one receiver of events.
#[derive(Debug, Clone)]
pub enum Receiver {
    /// The shop's own endpoint.
    Webhook(WebhookOptions),
    /// RabbitMQ, or another broker of AMQP 0.9.1.
    Amqp(AmqpOptions),
    /// NATS JetStream.
    Nats(NatsOptions),
    /// Kafka.
    Kafka(KafkaOptions),
}

impl Receiver {
    /// The cargo feature that its sink needs and this program was built without.
    pub fn missing_feature(&self) -> Option<&'static str> {
        let (feature, is_built) = match self {
            Self::Webhook(_) => return None,
            Self::Amqp(_) => ("amqp", cfg!(feature = "amqp")),
            Self::Nats(nats) if matches!(nats.login, NatsLogin::Creds(_)) => {
                ("nats-creds", cfg!(feature = "nats-creds"))
            }
            Self::Nats(_) => ("nats", cfg!(feature = "nats")),
            Self::Kafka(_) => ("kafka", cfg!(feature = "kafka")),
        };
        (!is_built).then_some(feature)
    }
}

/// A URL taken apart: scheme, then what is between `//` and the first `/`, then the rest.
struct Address<'a> {
    scheme: &'a str,
    hosts: &'a str,
    path: &'a str,
}

impl DownstreamConfig {
    /// Reads the table in `[seckill]`, and says why there cannot be several.
    pub fn read(seckill: &Section<'_>, inputs: &Inputs<'_>) -> Option<Self> {
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
}

fn read(section: Section<'_>, inputs: &Inputs<'_>) -> Option<DownstreamConfig> {
    let timeout = section.duration("timeout", TIMEOUT_LEAST..=TIMEOUT_MOST);
    section.require("url", URLS);
    let url = section.text("url");
    let address = url.as_deref().and_then(|url| address(&section, url));
    let receiver = address
        .as_ref()
        .and_then(|address| receiver(&section, address, inputs));
    refuse_foreign(&section, address.map(|address| address.scheme));
    let missing = receiver.as_ref().and_then(Receiver::missing_feature);
    if let Some(feature) = missing {
        let what = format!("needs a program built with the cargo feature {feature:?}");
        section.problem("url", what);
    }
    section.finish();
    Some(DownstreamConfig {
        receiver: receiver?,
        timeout: timeout.unwrap_or(TIMEOUT),
    })
}

/// Reads the keys of the receiver. Asks for all of them, whatever is wrong with one: see [`refuse_foreign`].
fn receiver(section: &Section<'_>, address: &Address<'_>, inputs: &Inputs<'_>) -> Option<Receiver> {
    match address.scheme {
        "http" | "https" => webhook::read(section, address, inputs).map(Receiver::Webhook),
        "amqp" | "amqps" => amqp::read(section, address, inputs).map(Receiver::Amqp),
        "nats" | "tls" => nats::read(section, address, inputs).map(Receiver::Nats),
        _ => kafka::read(section, address, inputs).map(Receiver::Kafka),
    }
}

/// A password in the URL would end in logs and in process lists, so none is taken there; nor is a user.
fn address<'a>(section: &Section<'_>, url: &'a str) -> Option<Address<'a>> {
    let known = url
        .split_once("://")
        .filter(|(scheme, _)| SCHEMES.contains(scheme));
    let Some((scheme, rest)) = known else {
        section.problem("url", format_args!("must be {URLS}"));
        return None;
    };
    if rest.contains('@') {
        section.problem(
            "url",
            "must not hold a user or a password; use username and password_file or password_env",
        );
        return None;
    }
    let is_list = matches!(scheme, "nats" | "tls");
    let (hosts, path) = match rest.find('/').filter(|_| !is_list) {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    Some(Address {
        scheme,
        hosts,
        path,
    })
}

/// The keys of a receiver: what its reader asks for.
fn keys_of(scheme: &str) -> Vec<String> {
    let (hosts, path) = ("", "");
    let address = Address {
        scheme,
        hosts,
        path,
    };
    settings::keys_of(|empty| {
        receiver(empty, &address, &Inputs::none());
    })
}

/// A key of another kind of receiver is a slip: an operator who sets a rate for a broker believes that it holds.
fn refuse_foreign(section: &Section<'_>, scheme: Option<&str>) {
    let mut readers: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for scheme in SCHEMES {
        for key in keys_of(scheme) {
            readers.entry(key).or_default().push(scheme);
        }
    }
    for (key, schemes) in readers {
        // It exists, for what a misspelt key may have meant.
        section.value(&key);
        let own = scheme.filter(|scheme| !schemes.contains(scheme));
        if let Some(own) = own.filter(|_| section.has(&key)) {
            let what = format!("belongs to a url of {}, not of {own}", schemes.join(", "));
            section.problem(&key, what);
        }
    }
}

#[cfg(test)]
mod tests;

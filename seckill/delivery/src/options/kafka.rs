//! Kafka: a topic.

use settings::{Inputs, Section};

use super::{
    Address, Credentials,
    credentials::credentials,
    names::{NAME, host_port, name},
};

/// A topic of Kafka.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// `HOST:PORT,HOST:PORT`.
    pub brokers: String,
    /// Who publishes, by SASL PLAIN.
    pub credentials: Option<Credentials>,
    /// The topic. It is not made.
    pub topic: String,
}

pub(super) fn read(
    section: &Section<'_>,
    address: &Address<'_>,
    inputs: &Inputs<'_>,
) -> Option<KafkaOptions> {
    let is_list = address
        .hosts
        .split(',')
        .all(|host| host_port(host, 9092).is_some());
    if !is_list || !address.path.is_empty() {
        section.problem("url", "must be kafka://HOST:PORT,HOST:PORT");
    }
    section.require("topic", NAME);
    let topic = section.parsed("topic", NAME, name);
    let credentials = credentials(section, inputs);
    Some(KafkaOptions {
        brokers: address.hosts.to_owned(),
        credentials: credentials?,
        topic: topic?,
    })
}

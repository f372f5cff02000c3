//! Keys that belong to another sink than the one that the url chooses.

use super::RawDownstream;
use crate::config::reader::Reader;

impl RawDownstream {
    /// A key of another sink is a slip: whoever set a rate for a broker believes that it holds.
    pub(super) fn check_foreign_keys(&self, reader: &mut Reader<'_>, scheme: &str) {
        let sink = match scheme {
            "amqps" => "amqp",
            "tls" => "nats",
            other => other,
        };
        let keys: [(&str, bool, &[&str]); 17] = [
            ("secret_file", self.secret_file.is_some(), &["http"]),
            ("secret_env", self.secret_env.is_some(), &["http"]),
            ("rate", self.rate.is_some(), &["http"]),
            ("burst", self.burst.is_some(), &["http"]),
            ("in_flight", self.in_flight.is_some(), &["http"]),
            (
                "username",
                self.username.is_some(),
                &["amqp", "nats", "kafka"],
            ),
            (
                "password_file",
                self.password_file.is_some(),
                &["amqp", "nats", "kafka"],
            ),
            (
                "password_env",
                self.password_env.is_some(),
                &["amqp", "nats", "kafka"],
            ),
            ("ca_file", self.ca_file.is_some(), &["amqp", "nats"]),
            ("queue", self.queue.is_some(), &["amqp"]),
            ("queue_type", self.queue_type.is_some(), &["amqp"]),
            ("exchange", self.exchange.is_some(), &["amqp"]),
            ("stream", self.stream.is_some(), &["nats"]),
            ("subject", self.subject.is_some(), &["nats"]),
            (
                "token_file",
                self.token_file.is_some() || self.token_env.is_some(),
                &["nats"],
            ),
            (
                "credentials_file",
                self.credentials_file.is_some(),
                &["nats"],
            ),
            ("topic", self.topic.is_some(), &["kafka"]),
        ];
        let is_known = keys.iter().any(|(_, _, sinks)| sinks.contains(&sink));
        for (key, is_set, sinks) in keys {
            if is_known && is_set && !sinks.contains(&sink) {
                let allowed = format!("belongs to a url of {}, not of {sink}", sinks.join(", "));
                reader.bad(&format!("downstream.{key}"), "…", &allowed);
            }
        }
        if self.ca_file.is_some() && matches!(scheme, "amqp" | "nats") {
            let secure = if scheme == "amqp" { "amqps" } else { "tls" };
            let allowed = format!("is read with a url of {secure}:// only");
            reader.bad("downstream.ca_file", "…", &allowed);
        }
    }
}

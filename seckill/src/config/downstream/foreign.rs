//! Keys that belong to another sink than the one that the url chooses.

use settings::Section;

const BROKERS: &[&str] = &["amqp", "nats", "kafka"];

/// Each key with the sinks that read it.
const KEYS: [(&str, &[&str]); 18] = [
    ("secret_file", &["http"]),
    ("secret_env", &["http"]),
    ("rate", &["http"]),
    ("burst", &["http"]),
    ("in_flight", &["http"]),
    ("username", BROKERS),
    ("password_file", BROKERS),
    ("password_env", BROKERS),
    ("ca_file", &["amqp", "nats"]),
    ("queue", &["amqp"]),
    ("queue_type", &["amqp"]),
    ("exchange", &["amqp"]),
    ("stream", &["nats"]),
    ("subject", &["nats"]),
    ("token_file", &["nats"]),
    ("token_env", &["nats"]),
    ("credentials_file", &["nats"]),
    ("topic", &["kafka"]),
];

/// A key of another sink is a slip: whoever set a rate for a broker believes that it holds.
pub(super) fn check(section: &Section<'_>, scheme: &str) {
    let sink = match scheme {
        "amqps" => "amqp",
        "tls" => "nats",
        other => other,
    };
    let is_known = KEYS.iter().any(|(_, sinks)| sinks.contains(&sink));
    for (key, sinks) in KEYS {
        if is_known && section.has(key) && !sinks.contains(&sink) {
            let what = format!("belongs to a url of {}, not of {sink}", sinks.join(", "));
            section.problem(key, what);
        }
    }
    if section.has("ca_file") && matches!(scheme, "amqp" | "nats") {
        let secure = if scheme == "amqp" { "amqps" } else { "tls" };
        section.problem(
            "ca_file",
            format_args!("is read with a url of {secure}:// only"),
        );
    }
}

/// The keys of all sinks exist, whichever the url chooses.
pub(super) fn know_all(section: &Section<'_>) {
    for (key, _) in KEYS {
        section.value(key);
    }
}

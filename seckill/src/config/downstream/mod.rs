//! The `[seckill.downstream]` table: who is told what became of the orders. Exactly one receiver: the outbox notes one delivery
//! for each event.

mod foreign;
mod values;

use std::{
    fmt,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use limiter::rate::RateQuota;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use self::values::{decode, host_port, name};
use super::{SECRET_MIN, SECRET_TOO_SHORT, reader::Reader};
use crate::downstream::{
    AmqpOptions, AmqpTarget, Credentials, HttpOptions, KafkaOptions, NatsLogin, NatsOptions,
    QueueType, Target,
};

/// One delivery to the shop, or one batch to a broker, connecting included.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A shop in a sale has its own visitors too; this many more requests should not be felt.
const RATE: &str = "100/s";
const BURST: u32 = 100;
/// At 100 ms an answer this is 160 a second, above the rate.
const IN_FLIGHT: usize = 16;
const IN_FLIGHT_MAX: usize = 1024;
const SCHEMES: &str = "must be http://HOST:PORT/PATH, amqp://HOST:PORT/VHOST (or amqps), nats://HOST:PORT (or tls) or kafka://HOST:PORT,HOST:PORT";

/// The table as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawDownstream {
    /// The receiver; its scheme chooses the sink.
    pub url: Option<String>,
    /// Longest wait for one delivery, or for one batch of a broker.
    pub timeout: Option<String>,

    /// http: file that holds the signing secret.
    pub secret_file: Option<PathBuf>,
    /// http: environment variable that holds the signing secret.
    pub secret_env: Option<String>,
    /// http: requests per time.
    pub rate: Option<String>,
    /// http: requests at once after a silence.
    pub burst: Option<u32>,
    /// http: requests on their way at once.
    pub in_flight: Option<usize>,

    /// Brokers: user of the password.
    pub username: Option<String>,
    /// Brokers: file that holds the password.
    pub password_file: Option<PathBuf>,
    /// Brokers: environment variable that holds the password.
    pub password_env: Option<String>,
    /// amqps, tls: file of certificates (PEM) to trust.
    pub ca_file: Option<PathBuf>,

    /// amqp: a durable queue, made if it is not there.
    pub queue: Option<String>,
    /// amqp: `quorum` or `classic`.
    pub queue_type: Option<String>,
    /// amqp: an exchange that is there, instead of a queue.
    pub exchange: Option<String>,

    /// nats: the stream.
    pub stream: Option<String>,
    /// nats: what the subjects begin with.
    pub subject: Option<String>,
    /// nats: file that holds a token.
    pub token_file: Option<PathBuf>,
    /// nats: environment variable that holds a token.
    pub token_env: Option<String>,
    /// nats: a `.creds` file.
    pub credentials_file: Option<PathBuf>,

    /// kafka: the topic.
    pub topic: Option<String>,
}

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
pub(super) fn one_receiver<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<RawDownstream>, D::Error> {
    struct OneTable;

    impl<'de> Visitor<'de> for OneTable {
        type Value = RawDownstream;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("one table [seckill.downstream]: an event has exactly one receiver, which may hand it on to others")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawDownstream, A::Error> {
            RawDownstream::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_map(OneTable).map(Some)
}

impl RawDownstream {
    pub(super) fn build(&self, reader: &mut Reader<'_>) -> Option<DownstreamConfig> {
        let text = self.timeout.as_deref();
        let timeout = reader.duration("downstream.timeout", text, TIMEOUT, 100..=30_000);
        let address = self.address(reader)?;
        let target = match address.scheme {
            "http" => self.http(reader, &address).map(Target::Http),
            "amqp" | "amqps" => self.amqp(reader, &address).map(Target::Amqp),
            "nats" | "tls" => self.nats(reader, &address).map(Target::Nats),
            "kafka" => self.kafka(reader, &address).map(Target::Kafka),
            _ => {
                let shown = format!("{}://…", address.scheme);
                reader.bad("downstream.url", &shown, SCHEMES);
                None
            }
        };
        self.check_foreign_keys(reader, address.scheme);
        let target = target?;
        if !target.is_built() {
            let feature = target.feature();
            let allowed = format!("needs a program built with the cargo feature {feature:?}");
            reader.bad(
                "downstream.url",
                &format!("{}://…", address.scheme),
                &allowed,
            );
            return None;
        }
        Some(DownstreamConfig { target, timeout })
    }

    /// A password in the URL would end in logs and in process lists, so none is taken there; nor is a user.
    fn address(&self, reader: &mut Reader<'_>) -> Option<Address<'_>> {
        let url = self.url.as_deref().unwrap_or_default();
        let Some((scheme, rest)) = url.split_once("://") else {
            // What comes before an `@` may be a password, here too.
            reader.bad(
                "downstream.url",
                url.rsplit('@').next().unwrap_or_default(),
                SCHEMES,
            );
            return None;
        };
        let (hosts, path) = match rest
            .find('/')
            .filter(|_| scheme != "nats" && scheme != "tls")
        {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        if rest.contains('@') {
            let shown = format!(
                "{scheme}://…@{}",
                rest.rsplit('@').next().unwrap_or_default()
            );
            let allowed = "must not hold a user or a password; use username and password_file or password_env";
            reader.bad("downstream.url", &shown, allowed);
            return None;
        }
        Some(Address {
            scheme,
            hosts,
            path,
        })
    }

    fn http(&self, reader: &mut Reader<'_>, address: &Address<'_>) -> Option<HttpOptions> {
        let url = format!("http://{}{}", address.hosts, address.path);
        let is_url = url
            .parse::<http::Uri>()
            .is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()));
        if !is_url {
            reader.bad("downstream.url", &url, SCHEMES);
        }
        if self.secret_file.is_none() && self.secret_env.is_none() {
            let allowed = "must name the file of the secret (or secret_env its variable)";
            reader.bad("downstream.secret_file", "", allowed);
        }
        let rate = self.rate.as_deref().unwrap_or(RATE);
        let burst = self.burst.unwrap_or(BURST);
        let quota = NonZeroU32::new(burst).and_then(|burst| {
            let rate = settings::units::rate(rate)?;
            RateQuota::try_new(rate.count, rate.per, burst).ok()
        });
        if quota.is_none() {
            let shown = format!("{rate} (burst {burst})");
            let allowed = "must be <count>/<time> such as 100/s or 10/m, with a burst from 1, full again within 366 days";
            reader.bad("downstream.rate", &shown, allowed);
        }
        let in_flight = self.in_flight.unwrap_or(IN_FLIGHT);
        if !(1..=IN_FLIGHT_MAX).contains(&in_flight) {
            let allowed = format!("must be from 1 to {IN_FLIGHT_MAX}");
            reader.bad("downstream.in_flight", &in_flight.to_string(), &allowed);
        }
        let secret = reader.secret(
            "downstream.secret",
            self.secret_file.as_deref(),
            self.secret_env.as_deref(),
        )?;
        if secret.len() < SECRET_MIN {
            reader.bad("downstream.secret", "…", SECRET_TOO_SHORT);
        }
        Some(HttpOptions {
            url,
            secret,
            quota: quota?,
            in_flight: NonZeroUsize::new(in_flight)?,
        })
    }

    fn amqp(&self, reader: &mut Reader<'_>, address: &Address<'_>) -> Option<AmqpOptions> {
        let tls = address.scheme == "amqps";
        let place = host_port(address.hosts, if tls { 5671 } else { 5672 });
        // As RabbitMQ's own URIs: no path is the default virtual host, `/` alone would be one without a name.
        let vhost = match address.path {
            "" => Some("/".to_owned()),
            path if path[1..].contains('/') => None,
            path => decode(&path[1..]).filter(|name| !name.is_empty()),
        };
        if place.is_none() || vhost.is_none() {
            let shown = format!("{}://{}{}", address.scheme, address.hosts, address.path);
            let allowed = "must be amqp://HOST:PORT/VHOST; a / in the name of the virtual host is written %2f";
            reader.bad("downstream.url", &shown, allowed);
        }
        let kind = match self.queue_type.as_deref().unwrap_or("quorum") {
            "quorum" => QueueType::Quorum,
            "classic" => QueueType::Classic,
            other => {
                reader.bad("downstream.queue_type", other, "must be quorum or classic");
                QueueType::Quorum
            }
        };
        let target = match (&self.queue, &self.exchange) {
            (Some(queue), None) => {
                name(reader, "downstream.queue", queue).map(|name| AmqpTarget::Queue { name, kind })
            }
            (None, Some(exchange)) => {
                if self.queue_type.is_some() {
                    reader.bad(
                        "downstream.queue_type",
                        "…",
                        "belongs to queue, not to exchange",
                    );
                }
                name(reader, "downstream.exchange", exchange).map(AmqpTarget::Exchange)
            }
            _ => {
                reader.bad(
                    "downstream.queue",
                    "",
                    "must name a queue, or exchange an exchange; one of them",
                );
                None
            }
        };
        let credentials = self.credentials(reader);
        let (host, port) = place?;
        Some(AmqpOptions {
            host,
            port,
            vhost: vhost?,
            tls,
            ca_file: self.ca_file.clone(),
            credentials: credentials?,
            target: target?,
        })
    }

    fn nats(&self, reader: &mut Reader<'_>, address: &Address<'_>) -> Option<NatsOptions> {
        // One URL for each server of the cluster; the scheme may be left out after the first.
        let mut servers = Vec::new();
        for server in address.hosts.split(',') {
            let prefix = format!("{}://", address.scheme);
            let place = server
                .strip_prefix(&prefix)
                .unwrap_or(server)
                .trim_end_matches('/');
            if host_port(place, 4222).is_none() {
                reader.bad(
                    "downstream.url",
                    server,
                    "must be nats://HOST:PORT,HOST:PORT (or tls://…)",
                );
            }
            servers.push(format!("{prefix}{place}"));
        }
        let stream = self.stream.clone().unwrap_or_default();
        if stream.contains('.') {
            reader.bad(
                "downstream.stream",
                &stream,
                "must not hold a dot: it is the stream's name, not a subject",
            );
        }
        let stream = name(reader, "downstream.stream", &stream);
        let subject = self.subject.clone().unwrap_or_default();
        if subject.split('.').any(str::is_empty) && !subject.is_empty() {
            reader.bad(
                "downstream.subject",
                &subject,
                "must not have empty parts between its dots",
            );
        }
        let subject = name(reader, "downstream.subject", &subject);
        let (file, env) = (self.token_file.as_deref(), self.token_env.as_deref());
        let token = reader.secret("downstream.token", file, env);
        let creds = reader.secret(
            "downstream.credentials",
            self.credentials_file.as_deref(),
            None,
        );
        let password = self.credentials(reader)?;
        let text = |secret: Vec<u8>| String::from_utf8_lossy(&secret).into_owned();
        let login = match (password, token, creds) {
            (None, None, None) => NatsLogin::Anonymous,
            (Some(password), None, None) => NatsLogin::Password(password),
            (None, Some(token), None) => NatsLogin::Token(text(token)),
            (None, None, Some(creds)) => NatsLogin::Creds(text(creds)),
            _ => {
                let allowed =
                    "one of a user with a password, a token and credentials_file, not several";
                reader.bad("downstream.username", "…", allowed);
                NatsLogin::Anonymous
            }
        };
        Some(NatsOptions {
            servers,
            ca_file: self.ca_file.clone(),
            login,
            stream: stream?,
            subject: subject?,
        })
    }

    fn kafka(&self, reader: &mut Reader<'_>, address: &Address<'_>) -> Option<KafkaOptions> {
        let is_list = address
            .hosts
            .split(',')
            .all(|host| host_port(host, 9092).is_some());
        if !is_list || !address.path.is_empty() {
            let shown = format!("kafka://{}{}", address.hosts, address.path);
            reader.bad(
                "downstream.url",
                &shown,
                "must be kafka://HOST:PORT,HOST:PORT",
            );
        }
        let topic = name(
            reader,
            "downstream.topic",
            self.topic.as_deref().unwrap_or_default(),
        );
        let credentials = self.credentials(reader)?;
        Some(KafkaOptions {
            brokers: address.hosts.to_owned(),
            credentials,
            topic: topic?,
        })
    }

    /// The user of a broker, if one is named. `None` after a problem.
    fn credentials(&self, reader: &mut Reader<'_>) -> Option<Option<Credentials>> {
        let (file, env) = (self.password_file.as_deref(), self.password_env.as_deref());
        let has_password = file.is_some() || env.is_some();
        let password = reader.secret("downstream.password", file, env);
        match (&self.username, has_password) {
            (None, false) => Some(None),
            (Some(username), true) => Some(Some(Credentials {
                username: username.clone(),
                password: String::from_utf8_lossy(&password?).into_owned(),
            })),
            (given, _) => {
                let allowed = "needs both username and password_file (or password_env)";
                reader.bad(
                    "downstream.username",
                    given.as_deref().unwrap_or_default(),
                    allowed,
                );
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;

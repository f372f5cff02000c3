//! Where events go, as checked values: what the configuration makes and the sinks take.

use std::{fmt, num::NonZeroUsize, path::PathBuf};

use limiter::rate::RateQuota;

/// Why a sink cannot be made. The configuration is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The address cannot be used. It is told without what stands before the `@`.
    #[error("downstream url {0:?} must be {1}")]
    Url(String, &'static str),
    /// The program was built without this sink.
    #[error("this program was built without the cargo feature {0:?} that its downstream url needs")]
    NotBuilt(&'static str),
    /// A file of certificates cannot be used.
    #[error("downstream certificates: {0}")]
    Certificates(String),
}

/// The one receiver of events.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// The shop's own endpoint.
    Http(HttpOptions),
    /// RabbitMQ, or another broker of AMQP 0.9.1.
    Amqp(AmqpOptions),
    /// NATS JetStream.
    Nats(NatsOptions),
    /// Kafka.
    Kafka(KafkaOptions),
}

impl Target {
    /// The cargo feature that builds its sink; empty for the sink that is always there.
    pub fn feature(&self) -> &'static str {
        match self {
            Self::Http(_) => "",
            Self::Amqp(_) => "amqp",
            Self::Nats(nats) if matches!(nats.login, NatsLogin::Creds(_)) => "nats-creds",
            Self::Nats(_) => "nats",
            Self::Kafka(_) => "kafka",
        }
    }

    /// Whether this program has its sink.
    pub fn is_built(&self) -> bool {
        match self {
            Self::Http(_) => true,
            Self::Amqp(_) => cfg!(feature = "amqp"),
            Self::Nats(nats) if matches!(nats.login, NatsLogin::Creds(_)) => {
                cfg!(feature = "nats-creds")
            }
            Self::Nats(_) => cfg!(feature = "nats"),
            Self::Kafka(_) => cfg!(feature = "kafka"),
        }
    }
}

/// The shop's endpoint and how much it can take.
#[derive(Clone, PartialEq)]
pub struct HttpOptions {
    /// `http://HOST:PORT/PATH`.
    pub url: String,
    /// Key of the signature.
    pub secret: Vec<u8>,
    /// Requests per time and at once after a silence, of this process.
    pub quota: RateQuota,
    /// Requests on their way at once.
    pub in_flight: NonZeroUsize,
}

/// A user of a broker.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Its name.
    pub username: String,
    /// Its password.
    pub password: String,
}

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

/// RabbitMQ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmqpOptions {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Virtual host.
    pub vhost: String,
    /// With TLS.
    pub tls: bool,
    /// Certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Who publishes; `guest` if not said.
    pub credentials: Option<Credentials>,
    /// Queue or exchange.
    pub target: AmqpTarget,
}

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

/// NATS JetStream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsOptions {
    /// `nats://HOST:PORT` or `tls://HOST:PORT`, one or more.
    pub servers: Vec<String>,
    /// Certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Who publishes.
    pub login: NatsLogin,
    /// The stream that must take the events. It is not made.
    pub stream: String,
    /// What their subjects begin with; `.settled`, `.paid`, `.released` or `.refused` follows.
    pub subject: String,
}

/// Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaOptions {
    /// `HOST:PORT,HOST:PORT`.
    pub brokers: String,
    /// Who publishes, by SASL PLAIN.
    pub credentials: Option<Credentials>,
    /// The topic. It is not made.
    pub topic: String,
}

impl fmt::Debug for HttpOptions {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpOptions")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
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

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use super::*;

    #[test]
    fn what_is_printed_for_debugging_holds_no_secret() {
        let credentials = Credentials {
            username: "shop".to_owned(),
            password: "hunter2".to_owned(),
        };
        let login = NatsLogin::Password(credentials.clone());
        let http = HttpOptions {
            url: "http://shop".to_owned(),
            secret: b"hunter2".to_vec(),
            quota: RateQuota::try_new(NonZeroU32::MIN, Duration::from_secs(1), NonZeroU32::MIN)
                .unwrap(),
            in_flight: NonZeroUsize::MIN,
        };
        let printed = format!(
            "{credentials:?} {login:?} {:?} {http:?}",
            NatsLogin::Token("hunter2".into())
        );
        assert!(
            printed.contains("shop") && !printed.contains("hunter2"),
            "{printed}"
        );
        assert!(!printed.contains("104, 117"), "{printed}");
    }
}

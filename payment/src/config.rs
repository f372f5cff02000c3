//! Payment's configuration: [`RawConfig`] as the file has it, [`Config`] as the rest of the crate uses it.

use std::{
    collections::BTreeSet,
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::{
    channels::simulator::SimulatorConfig,
    money::Currency,
    secret::{ApiKey, PREFIX as SECRET_PREFIX, Secret},
};

/// Card networks give up well before; who waits longer only holds the buyer's page open.
const CHANNEL_TIMEOUT: Duration = Duration::from_secs(10);
const CHANNEL_TIMEOUT_RANGE: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_secs(120));

/// How soon a charge in doubt is noticed. The question itself is cheap.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(1);
const RESOLVE_INTERVAL_RANGE: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_secs(600));

/// Stripe keeps keys for at least a day, and clients count on it.
const IDEMPOTENCY_RETENTION: Duration = Duration::from_secs(24 * 3600);
const IDEMPOTENCY_RETENTION_RANGE: (Duration, Duration) =
    (Duration::from_secs(60), Duration::from_secs(90 * 24 * 3600));

/// Fifty metadata values of their full length, percent-encoded, fit twice.
const BODY_LIMIT: usize = 512 * 1024;

const ORDER_METADATA_KEY: &str = "order";

const CURRENCIES: &[&str] = &["usd", "eur", "gbp", "cny", "jpy"];

const SECRET_LEN: (usize, usize) = (8, 255);

/// Ten minutes of simulated latency is surely a mistake of units.
const MAX_LATENCY_MS: u64 = 60_000;

/// The `[payment]` table as written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// `{ file = "…" }` or `{ env = "…" }`: where the secret key is. Required.
    pub api_key: Option<RawSecret>,
    /// Accepted currencies, ISO 4217 codes.
    pub currencies: Option<Vec<String>>,
    /// How long a channel may take to answer before its answer counts as unknown.
    pub channel_timeout: Option<String>,
    /// How often the resolver looks for charges in doubt.
    pub resolve_interval: Option<String>,
    /// How long answers are kept under their idempotency key.
    pub idempotency_retention: Option<String>,
    /// The metadata entry that names the order an intent pays for.
    pub order_metadata_key: Option<String>,
    /// The simulated channel.
    pub simulator: Option<RawSimulator>,
}

/// Where a secret is; the file of the configuration itself never holds one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSecret {
    /// A file whose only content it is; white space around it is ignored.
    pub file: Option<PathBuf>,
    /// The name of an environment variable.
    pub env: Option<String>,
    /// With `file`: make the file, with a random key, when the service starts and it is not there.
    #[serde(default)]
    pub create: bool,
}

/// The `[payment.simulator]` table as written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSimulator {
    /// See [`SimulatorConfig::latency`].
    pub latency_ms: Option<u64>,
    /// See [`SimulatorConfig::seed`].
    pub seed: Option<u64>,
    /// See [`SimulatorConfig::decline_percent`].
    pub decline_percent: Option<u8>,
    /// See [`SimulatorConfig::unknown_percent`].
    pub unknown_percent: Option<u8>,
}

/// What the crate runs on. Every value is in range.
#[derive(Clone, Debug)]
pub struct Config {
    /// Opens the API.
    pub api_key: ApiKey,
    /// Accepted currencies; at least one.
    pub currencies: Vec<Currency>,
    /// See [`RawConfig::channel_timeout`].
    pub channel_timeout: Duration,
    /// See [`RawConfig::resolve_interval`].
    pub resolve_interval: Duration,
    /// See [`RawConfig::idempotency_retention`].
    pub idempotency_retention: Duration,
    /// See [`RawConfig::order_metadata_key`].
    pub order_metadata_key: String,
    /// Longest request body read, in bytes.
    pub body_limit: usize,
    /// The simulated channel.
    pub simulator: SimulatorConfig,
}

impl Config {
    /// The defaults, with this secret key.
    pub fn for_key(api_key: &str) -> Self {
        Self {
            api_key: ApiKey::Known(Secret::new(api_key.to_owned())),
            currencies: default_currencies(),
            channel_timeout: CHANNEL_TIMEOUT,
            resolve_interval: RESOLVE_INTERVAL,
            idempotency_retention: IDEMPOTENCY_RETENTION,
            order_metadata_key: ORDER_METADATA_KEY.to_owned(),
            body_limit: BODY_LIMIT,
            simulator: SimulatorConfig::default(),
        }
    }

    /// Checks a written configuration. `env` looks up an environment variable, `read` reads a file. On failure: all problems,
    /// each as `key = value: what is allowed`.
    pub fn try_from_raw(
        raw: RawConfig,
        env: &dyn Fn(&str) -> Option<String>,
        read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> Result<Self, Vec<String>> {
        let mut problems = Problems::default();
        let api_key = raw.api_key.unwrap_or_default();
        let api_key = problems.secret("api_key", &api_key, env, read);
        let currencies = problems.currencies(raw.currencies);
        let channel_timeout = problems.duration(
            "channel_timeout",
            raw.channel_timeout,
            CHANNEL_TIMEOUT,
            CHANNEL_TIMEOUT_RANGE,
        );
        let resolve_interval = problems.duration(
            "resolve_interval",
            raw.resolve_interval,
            RESOLVE_INTERVAL,
            RESOLVE_INTERVAL_RANGE,
        );
        let idempotency_retention = problems.duration(
            "idempotency_retention",
            raw.idempotency_retention,
            IDEMPOTENCY_RETENTION,
            IDEMPOTENCY_RETENTION_RANGE,
        );
        let order_metadata_key = raw
            .order_metadata_key
            .unwrap_or_else(|| ORDER_METADATA_KEY.to_owned());
        if !(1..=40).contains(&order_metadata_key.chars().count()) {
            problems.add(
                "order_metadata_key",
                &order_metadata_key,
                "1 to 40 characters",
            );
        }
        let simulator = problems.simulator(raw.simulator.unwrap_or_default());
        match (api_key, problems.list.is_empty()) {
            (Some(api_key), true) => Ok(Self {
                api_key,
                currencies,
                channel_timeout,
                resolve_interval,
                idempotency_retention,
                order_metadata_key,
                body_limit: BODY_LIMIT,
                simulator,
            }),
            _ => Err(problems.list),
        }
    }
}

#[derive(Default)]
struct Problems {
    list: Vec<String>,
}

impl Problems {
    fn add(&mut self, key: &str, value: impl fmt::Debug, allowed: &str) {
        self.list
            .push(format!("{key} = {value:?}: allowed: {allowed}"));
    }

    fn secret(
        &mut self,
        key: &str,
        raw: &RawSecret,
        env: &dyn Fn(&str) -> Option<String>,
        read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> Option<ApiKey> {
        let (place, found) = match (&raw.file, &raw.env) {
            (Some(file), None) => {
                let place = format!("file {}", file.display());
                match read(file) {
                    // What is no text is no key either; it is refused below.
                    Ok(bytes) => (place, String::from_utf8(bytes).ok()),
                    Err(error) if raw.create && error.kind() == std::io::ErrorKind::NotFound => {
                        return Some(ApiKey::ToCreate(file.clone()));
                    }
                    Err(error) => {
                        self.add(key, &place, &format!("a readable file ({error})"));
                        return None;
                    }
                }
            }
            (None, Some(name)) => (format!("env {name}"), env(name)),
            _ => {
                self.list.push(format!(
                    "{key}: required, as one of {{ file = \"…\" }} and {{ env = \"…\" }}"
                ));
                return None;
            }
        };
        let text = found.unwrap_or_default().trim().to_owned();
        let is_fine = text.starts_with(SECRET_PREFIX)
            && (SECRET_LEN.0..=SECRET_LEN.1).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b':');
        if is_fine {
            return Some(ApiKey::Known(Secret::new(text)));
        }
        // The place, not the text: this message is printed.
        let allowed = format!(
            "a secret key there: {SECRET_PREFIX}… of {} to {} visible ASCII characters without a colon",
            SECRET_LEN.0, SECRET_LEN.1
        );
        self.add(key, place, &allowed);
        None
    }

    fn currencies(&mut self, raw: Option<Vec<String>>) -> Vec<Currency> {
        let Some(codes) = raw else {
            return default_currencies();
        };
        if codes.is_empty() {
            self.add("currencies", &codes, "at least one ISO 4217 code");
        }
        let mut currencies = BTreeSet::new();
        for code in codes {
            match Currency::from_code(&code) {
                Some(currency) => {
                    currencies.insert(currency);
                }
                None => self.add("currencies", code, "ISO 4217 codes such as \"usd\""),
            }
        }
        currencies.into_iter().collect()
    }

    fn duration(
        &mut self,
        key: &str,
        raw: Option<String>,
        default: Duration,
        (least, most): (Duration, Duration),
    ) -> Duration {
        let Some(text) = raw else { return default };
        match parse_duration(&text) {
            Some(duration) if (least..=most).contains(&duration) => duration,
            _ => {
                self.add(
                    key,
                    text,
                    &format!(
                        "{least:?} to {most:?}, such as \"250ms\", \"30s\", \"5m\" or \"24h\""
                    ),
                );
                default
            }
        }
    }

    fn simulator(&mut self, raw: RawSimulator) -> SimulatorConfig {
        let default = SimulatorConfig::default();
        let mut percent = |key, value: Option<u8>, default| match value {
            Some(value) if value > 100 => {
                self.add(key, value, "0 to 100");
                default
            }
            value => value.unwrap_or(default),
        };
        let decline_percent = percent(
            "simulator.decline_percent",
            raw.decline_percent,
            default.decline_percent,
        );
        let unknown_percent = percent(
            "simulator.unknown_percent",
            raw.unknown_percent,
            default.unknown_percent,
        );
        let latency = match raw.latency_ms {
            Some(ms) if ms > MAX_LATENCY_MS => {
                self.add(
                    "simulator.latency_ms",
                    ms,
                    &format!("0 to {MAX_LATENCY_MS}"),
                );
                default.latency
            }
            Some(ms) => Duration::from_millis(ms),
            None => default.latency,
        };
        SimulatorConfig {
            latency,
            seed: raw.seed.unwrap_or(default.seed),
            decline_percent,
            unknown_percent,
        }
    }
}

fn default_currencies() -> Vec<Currency> {
    CURRENCIES
        .iter()
        .filter_map(|code| Currency::from_code(code))
        .collect()
}

/// `250ms`, `30s`, `5m`, `24h`, `7d`.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let unit_ms = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit_ms).map(Duration::from_millis)
}

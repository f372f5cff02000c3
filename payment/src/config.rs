//! The `[payment]` table of the configuration: types, defaults and reader.

use std::{collections::BTreeSet, io, time::Duration};

use settings::{Inputs, Section};

use crate::{
    channels::simulator::SimulatorConfig,
    money::Currency,
    secret::{ApiKey, PREFIX as SECRET_PREFIX, Secret},
};

/// Card networks give up well before; who waits longer only holds the buyer's page open.
const CHANNEL_TIMEOUT: Duration = Duration::from_secs(10);
const CHANNEL_TIMEOUT_MOST: Duration = Duration::from_secs(120);

/// How soon a charge in doubt is noticed. The question itself is cheap.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(1);
const RESOLVE_INTERVAL_MOST: Duration = Duration::from_secs(600);

/// Below this a timeout or an interval is surely a mistake of units.
const LEAST: Duration = Duration::from_millis(10);

/// Stripe keeps keys for at least a day, and clients count on it.
const IDEMPOTENCY_RETENTION: Duration = Duration::from_secs(24 * 3600);
const IDEMPOTENCY_RETENTION_LEAST: Duration = Duration::from_secs(60);
const IDEMPOTENCY_RETENTION_MOST: Duration = Duration::from_secs(90 * 24 * 3600);

/// Fifty metadata values of their full length, percent-encoded, fit twice.
const BODY_LIMIT: usize = 512 * 1024;

const ORDER_METADATA_KEY: &str = "order";

const CURRENCIES: &[&str] = &["usd", "eur", "gbp", "cny", "jpy"];

const SECRET_LEN: (usize, usize) = (8, 255);

/// A minute of simulated latency; more is surely a mistake of units.
const MAX_LATENCY_MS: u64 = 60_000;

/// What the crate runs on. Every value is in range.
#[derive(Clone, Debug)]
pub struct Config {
    /// Opens the API.
    pub api_key: ApiKey,
    /// Accepted currencies; at least one.
    pub currencies: Vec<Currency>,
    /// How long a channel may take to answer before its answer counts as unknown.
    pub channel_timeout: Duration,
    /// How often the resolver looks for charges in doubt.
    pub resolve_interval: Duration,
    /// How long answers are kept under their idempotency key.
    pub idempotency_retention: Duration,
    /// The metadata entry that names the order an intent pays for.
    pub order_metadata_key: String,
    /// Longest request body read, in bytes.
    pub body_limit: usize,
    /// The simulated channel.
    pub simulator: SimulatorConfig,
}

impl Config {
    /// The defaults, with this secret key.
    pub fn for_key(api_key: &str) -> Self {
        Self::with_key(ApiKey::Known(Secret::new(api_key.to_owned())))
    }

    fn with_key(api_key: ApiKey) -> Self {
        Self {
            api_key,
            currencies: default_currencies(),
            channel_timeout: CHANNEL_TIMEOUT,
            resolve_interval: RESOLVE_INTERVAL,
            idempotency_retention: IDEMPOTENCY_RETENTION,
            order_metadata_key: ORDER_METADATA_KEY.to_owned(),
            body_limit: BODY_LIMIT,
            simulator: SimulatorConfig::default(),
        }
    }

    /// Reads the table. The result counts only if no problem was noted: what is wrong is filled with its default.
    pub fn read(section: Section<'_>, inputs: &Inputs<'_>) -> Option<Self> {
        let key_form = "a table, { file = \"…\" } or { env = \"…\" }";
        section.require("api_key", key_form);
        let api_key = section.section("api_key").and_then(|table| {
            let key = api_key(&table, inputs);
            table.finish();
            key
        });
        let currencies = currencies(&section);
        let channel_timeout = section.duration("channel_timeout", LEAST..=CHANNEL_TIMEOUT_MOST);
        let resolve_interval = section.duration("resolve_interval", LEAST..=RESOLVE_INTERVAL_MOST);
        let idempotency_retention = section.duration(
            "idempotency_retention",
            IDEMPOTENCY_RETENTION_LEAST..=IDEMPOTENCY_RETENTION_MOST,
        );
        let order_metadata_key =
            section.parsed("order_metadata_key", "1 to 40 characters", |text| {
                (1..=40)
                    .contains(&text.chars().count())
                    .then(|| text.to_owned())
            });
        let simulator = section.section("simulator").map(simulator);
        section.finish();
        let defaults = Self::with_key(api_key?);
        Some(Self {
            currencies: currencies.unwrap_or(defaults.currencies),
            channel_timeout: channel_timeout.unwrap_or(defaults.channel_timeout),
            resolve_interval: resolve_interval.unwrap_or(defaults.resolve_interval),
            idempotency_retention: idempotency_retention.unwrap_or(defaults.idempotency_retention),
            order_metadata_key: order_metadata_key.unwrap_or(defaults.order_metadata_key),
            simulator: simulator.unwrap_or(defaults.simulator),
            ..defaults
        })
    }
}

/// `[payment.api_key]`: where the secret key is; the configuration itself never holds it.
fn api_key(section: &Section<'_>, inputs: &Inputs<'_>) -> Option<ApiKey> {
    // With `file`: make the file, with a random key, when the service starts and it is not there.
    let create = section.flag("create").unwrap_or(false);
    let (file, env) = (section.path("file"), section.text("env"));
    if section.has("file") == section.has("env") {
        section.problem("file", "must be given, or env in its place; one of them");
        return None;
    }
    let (place, text) = match (file, env) {
        (Some(path), _) => {
            if create && is_missing(&(inputs.read)(&path)) {
                return Some(ApiKey::ToCreate(path));
            }
            // What is no text is no key either; it is refused below.
            let bytes = section.file("file", inputs)?;
            ("file", String::from_utf8(bytes).ok())
        }
        (None, Some(name)) => ("env", (inputs.env)(&name)),
        (None, None) => return None,
    };
    let text = text.unwrap_or_default().trim().to_owned();
    let (least, most) = SECRET_LEN;
    let is_fine = text.starts_with(SECRET_PREFIX)
        && (least..=most).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    if is_fine {
        return Some(ApiKey::Known(Secret::new(text)));
    }
    // The place, not the text: this message is printed.
    section.problem(
        place,
        format_args!(
            "must name the place of a secret key: {SECRET_PREFIX}… of {least} to {most} visible ASCII characters without a colon"
        ),
    );
    None
}

fn is_missing(read: &io::Result<Vec<u8>>) -> bool {
    matches!(read, Err(error) if error.kind() == io::ErrorKind::NotFound)
}

fn currencies(section: &Section<'_>) -> Option<Vec<Currency>> {
    let form = "an ISO 4217 code such as \"usd\"";
    let listed = section.list("currencies", form, Currency::from_code)?;
    if section
        .texts("currencies")
        .is_some_and(|list| list.is_empty())
    {
        section.problem("currencies", "must list at least one ISO 4217 code");
    }
    let sorted: BTreeSet<Currency> = listed.into_iter().collect();
    Some(sorted.into_iter().collect())
}

fn simulator(section: Section<'_>) -> SimulatorConfig {
    let defaults = SimulatorConfig::default();
    let latency_ms = section.integer("latency_ms", 0..=MAX_LATENCY_MS);
    let config = SimulatorConfig {
        latency: latency_ms.map_or(defaults.latency, Duration::from_millis),
        seed: section.whole("seed").unwrap_or(defaults.seed),
        decline_percent: section
            .integer("decline_percent", 0..=100)
            .unwrap_or(defaults.decline_percent),
        unknown_percent: section
            .integer("unknown_percent", 0..=100)
            .unwrap_or(defaults.unknown_percent),
    };
    section.finish();
    config
}

fn default_currencies() -> Vec<Currency> {
    CURRENCIES
        .iter()
        .filter_map(|code| Currency::from_code(code))
        .collect()
}

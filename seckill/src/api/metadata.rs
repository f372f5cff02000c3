//! The `metadata` of a purchase, as a body has it: an object of texts. Each violation is a problem that names the key, and what is allowed.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;
use stock::{Metadata, metadata::InvalidMetadata};

use super::problem::{Code, Problem};

/// What a text may hold that must not be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secret {
    /// A card number.
    CardNumber,
    /// A secret key of an API.
    Key,
}

/// Finds what must not be kept in a text. The crates that know such things know no sales, so the program brings it.
pub type FindSecret = fn(&str) -> Option<Secret>;

/// The entries as they stand in the body, in their order.
#[derive(Debug)]
pub(super) struct Given(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Given;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("metadata to be an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Given(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// The metadata of a purchase; `None` without any entry.
pub(super) fn checked(
    given: Option<Given>,
    find_secret: FindSecret,
) -> Result<Option<Metadata>, Problem> {
    let Some(Given(given)) = given else {
        return Ok(None);
    };
    // First of all, because the other refusals repeat the key.
    for (key, value) in &given {
        if let Some(secret) = find_secret(key) {
            return Err(refused(secret, "a key of metadata"));
        }
        if let Some(secret) = value.as_str().and_then(find_secret) {
            return Err(refused(secret, &format!("metadata[{key:?}]")));
        }
    }
    let mut entries = Vec::with_capacity(given.len());
    for (key, value) in given {
        match value {
            Value::String(value) => entries.push((key, value)),
            other => return Err(not_a_string(&key, &other)),
        }
    }
    Metadata::try_new(entries).map_err(Problem::from)
}

impl From<InvalidMetadata> for Problem {
    fn from(error: InvalidMetadata) -> Self {
        Self::new(Code::InvalidMetadata, error.to_string())
    }
}

fn not_a_string(key: &str, value: &Value) -> Problem {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::Array(_) => "an array",
        Value::Object(_) | Value::String(_) => "an object",
    };
    let detail = format!("metadata[{key:?}]: is {kind}; values must be strings");
    Problem::new(Code::InvalidMetadata, detail)
}

/// What was found is not repeated.
fn refused(secret: Secret, place: &str) -> Problem {
    match secret {
        Secret::CardNumber => Problem::new(
            Code::CardDataRefused,
            format!("{place}: holds what looks like a card number; card numbers are not kept here"),
        ),
        Secret::Key => Problem::new(
            Code::SecretKeyRefused,
            format!("{place}: holds a secret key; roll it if others may have seen this request"),
        ),
    }
}

//! What a shop wants to know again of a purchase: texts by name, kept with the order as one text.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};

/// Most entries.
pub const MAX_KEYS: usize = 20;
/// Longest key, in characters.
pub const MAX_KEY_CHARS: usize = 40;
/// Longest value, in characters.
pub const MAX_VALUE_CHARS: usize = 500;
/// Longest form of all of it, in bytes: a JSON object in UTF-8, without spaces between its parts.
pub const MAX_BYTES: usize = 2048;

/// The metadata of an order; never empty. Held as a JSON object with sorted keys and no spaces between its parts, so that equal
/// metadata is equal text. Cloning shares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata(Arc<str>);

/// Why something cannot be the metadata of an order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMetadata {
    /// Too many entries.
    #[error("metadata: has {0} keys; at most {MAX_KEYS} are allowed")]
    Keys(usize),
    /// A key without a character, or a long one. The key is cut.
    #[error("metadata[{key:?}…]: the key has {chars} characters; allowed are 1 to {MAX_KEY_CHARS}")]
    Key {
        /// Its beginning.
        key: String,
        /// Its length.
        chars: usize,
    },
    /// The same key twice.
    #[error("metadata[{0:?}]: stands twice; each key may stand once")]
    Twice(String),
    /// A long value.
    #[error("metadata[{key:?}]: has {chars} characters; at most {MAX_VALUE_CHARS} are allowed")]
    Value {
        /// Its key.
        key: String,
        /// Its length.
        chars: usize,
    },
    /// A control character in a key or its value.
    #[error(
        "metadata[{key:?}]: holds the control character {found:?}; none is allowed, in keys and in values"
    )]
    Control {
        /// The key.
        key: String,
        /// The first of them.
        found: char,
    },
    /// Too much of all.
    #[error("metadata: has {0} bytes as JSON; at most {MAX_BYTES} are allowed")]
    Bytes(usize),
}

fn check(key: &str, value: &str) -> Result<(), InvalidMetadata> {
    let chars = key.chars().count();
    if !(1..=MAX_KEY_CHARS).contains(&chars) {
        let key = key.chars().take(MAX_KEY_CHARS).collect();
        return Err(InvalidMetadata::Key { key, chars });
    }
    let mut all = key.chars().chain(value.chars());
    if let Some(found) = all.find(|c| c.is_control()) {
        let key = key.to_owned();
        return Err(InvalidMetadata::Control { key, found });
    }
    match value.chars().count() {
        0..=MAX_VALUE_CHARS => Ok(()),
        chars => {
            let key = key.to_owned();
            Err(InvalidMetadata::Value { key, chars })
        }
    }
}

impl Metadata {
    /// Checks the entries. `None` without any.
    pub fn try_new(
        entries: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Option<Self>, InvalidMetadata> {
        let mut sorted = BTreeMap::new();
        let mut count = 0;
        for (key, value) in entries {
            count += 1;
            check(&key, &value)?;
            if sorted.contains_key(&key) {
                return Err(InvalidMetadata::Twice(key));
            }
            sorted.insert(key, value);
        }
        if count > MAX_KEYS {
            return Err(InvalidMetadata::Keys(count));
        }
        let text = serde_json::to_string(&sorted).expect("texts are valid JSON");
        match text.len() {
            _ if sorted.is_empty() => Ok(None),
            0..=MAX_BYTES => Ok(Some(Self(text.into()))),
            bytes => Err(InvalidMetadata::Bytes(bytes)),
        }
    }

    /// Reads what was stored once. The bounds are not looked at: they may have been others when it was.
    pub fn from_stored(text: &str) -> Result<Self, String> {
        let entries = entries(text).map_err(|error| format!("metadata: {error}"))?;
        let text = serde_json::to_string(&entries).expect("texts are valid JSON");
        Ok(Self(text.into()))
    }

    /// The same for a text that this process has read or checked before.
    pub(crate) fn known(text: &str) -> Self {
        Self(text.into())
    }

    /// The JSON object.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn entries(text: &str) -> serde_json::Result<BTreeMap<Cow<'_, str>, Cow<'_, str>>> {
    serde_json::from_str(text)
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        entries(&self.0)
            .map_err(S::Error::custom)?
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = BTreeMap::<String, String>::deserialize(deserializer)?;
        let text = serde_json::to_string(&entries).map_err(D::Error::custom)?;
        Ok(Self(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(entries: &[(&str, &str)]) -> Result<Option<Metadata>, InvalidMetadata> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Metadata::try_new(entries.iter().map(owned))
    }

    #[test]
    fn equal_metadata_is_equal_text() {
        let one = of(&[("b", "2 \"x\""), ("a", "ä")]).unwrap().unwrap();
        let other = of(&[("a", "ä"), ("b", "2 \"x\"")]).unwrap().unwrap();
        assert_eq!(one, other);
        assert_eq!(one.as_str(), r#"{"a":"ä","b":"2 \"x\""}"#);
        // However it was spelled where it was kept.
        let spelled = r#" { "b": "2\u0020\"x\"", "a": "\u00e4" }"#;
        assert_eq!(Metadata::from_stored(spelled), Ok(one.clone()));
        let json = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Metadata>(&json).unwrap(), one);
        assert_eq!(of(&[]), Ok(None));
        for stored in ["", "[]", r#"{"a":1}"#, r#"{"a":"#] {
            assert!(Metadata::from_stored(stored).is_err(), "{stored}");
        }
    }

    #[test]
    fn each_bound_holds_to_the_character() {
        let text = |length: usize| "ä".repeat(length);
        let keys = |count: usize| -> Vec<(String, String)> {
            (0..count).map(|n| (n.to_string(), String::new())).collect()
        };
        assert!(Metadata::try_new(keys(MAX_KEYS)).is_ok());
        let refused = Metadata::try_new(keys(MAX_KEYS + 1));
        assert_eq!(refused, Err(InvalidMetadata::Keys(21)));

        assert!(of(&[(&text(MAX_KEY_CHARS), &text(MAX_VALUE_CHARS))]).is_ok());
        for key in ["", &text(MAX_KEY_CHARS + 1)] {
            assert!(matches!(of(&[(key, "")]), Err(InvalidMetadata::Key { .. })));
        }
        let refused = of(&[("a", &text(MAX_VALUE_CHARS + 1))]);
        assert!(matches!(
            refused,
            Err(InvalidMetadata::Value { chars: 501, .. })
        ));

        // `{"a":"…","b":"…",…}`: seven bytes an entry and one more.
        let entries = |last: usize| {
            let value = |key: &str| match key {
                "e" => "x".repeat(last),
                _ => "x".repeat(MAX_VALUE_CHARS),
            };
            let entries = ["a", "b", "c", "d", "e"].map(|key| (key.to_owned(), value(key)));
            Metadata::try_new(entries)
        };
        let fits = MAX_BYTES - (4 * (7 + MAX_VALUE_CHARS) + 7) - 1;
        assert_eq!(entries(fits).unwrap().unwrap().as_str().len(), MAX_BYTES);
        assert_eq!(
            entries(fits + 1),
            Err(InvalidMetadata::Bytes(MAX_BYTES + 1))
        );

        for bad in [("a\n", ""), ("a", "x\0"), ("a", "\u{7f}"), ("a", "\u{85}")] {
            assert!(matches!(of(&[bad]), Err(InvalidMetadata::Control { .. })));
        }
        let twice = InvalidMetadata::Twice("a".to_owned());
        assert_eq!(of(&[("a", "1"), ("a", "1")]), Err(twice));
    }

    #[test]
    fn an_order_without_metadata_has_room_for_two_words() {
        assert_eq!(size_of::<Option<Metadata>>(), 16);
    }
}

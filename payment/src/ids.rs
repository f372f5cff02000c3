//! Ids: a type for each kind, and where they and client secrets come from. An id is a prefix, the time it was made, and eighty random
//! bits.

use std::{fmt, sync::Mutex};

use rand::{Rng, SeedableRng, rngs::StdRng};

/// Crockford's base 32, lower case: no i, l, o, u, and its order is ASCII's.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Milliseconds in ten digits last until the year 37648.
const TIME_DIGITS: u32 = 10;
const RANDOM_DIGITS: usize = 16;
const SECRET_DIGITS: usize = 32;

/// The id of a payment intent, `pi_…`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct IntentId(String);

/// The id of one charge of an intent, `ch_…`; also the reference its channel knows it by.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct ChargeId(String);

/// The id of one refund of a charge, `re_…`; also the reference its channel knows it by.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct RefundId(String);

/// Longer than any id we make; what is longer or stranger is not looked up at all.
const MAX_ID: usize = 64;

macro_rules! id {
    ($name:ident, $prefix:literal) => {
        impl $name {
            /// A new one.
            pub(crate) fn draw(ids: &IdSource, now_ms: i64) -> Self {
                Self(ids.id($prefix, now_ms))
            }

            /// An id this crate stored.
            pub(crate) fn trusted(text: String) -> Self {
                Self(text)
            }

            pub(crate) fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(IntentId, "pi_");
id!(ChargeId, "ch_");
id!(RefundId, "re_");

impl IntentId {
    /// The id as text, if it can be one: the prefix, then letters, digits and underscores.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("pi_")?;
        let is_plausible = !rest.is_empty()
            && text.len() <= MAX_ID
            && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        is_plausible.then(|| Self(text.to_owned()))
    }
}

/// Makes ids. One per service; the seed comes from the operating system in production and from the test in tests.
pub(crate) struct IdSource {
    /// Held for a few random draws only, never across an await.
    rng: Mutex<StdRng>,
}

impl IdSource {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self {
            rng: Mutex::new(StdRng::from_seed(seed)),
        }
    }

    /// `prefix` + ten digits of time + sixteen random ones: ids of one moment lie side by side in an index.
    pub(crate) fn id(&self, prefix: &str, now_ms: i64) -> String {
        let mut id = first_of(prefix, now_ms);
        self.push_random(&mut id, RANDOM_DIGITS);
        id
    }

    /// The random half of a client secret.
    pub(crate) fn secret(&self) -> String {
        let mut secret = String::with_capacity(SECRET_DIGITS);
        self.push_random(&mut secret, SECRET_DIGITS);
        secret
    }

    fn push_random(&self, text: &mut String, digits: usize) {
        // A panic elsewhere while drawing leaves the generator usable: its state is plain numbers.
        let mut rng = match self.rng.lock() {
            Ok(rng) => rng,
            Err(poisoned) => poisoned.into_inner(),
        };
        text.extend((0..digits).map(|_| symbol(rng.random::<u8>())));
    }
}

/// What comes before every id of this instant and after every earlier one.
pub(crate) fn first_of(prefix: &str, now_ms: i64) -> String {
    let mut id = String::with_capacity(prefix.len() + TIME_DIGITS as usize + RANDOM_DIGITS);
    id.push_str(prefix);
    for digit in (0..TIME_DIGITS).rev() {
        id.push(symbol((now_ms >> (5 * digit)) as u8));
    }
    id
}

fn symbol(bits: u8) -> char {
    char::from(ALPHABET[usize::from(bits & 31)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_distinct_and_ordered_by_time() {
        let ids = IdSource::new([7; 32]);
        let early = ids.id("pi_", 1_700_000_000_000);
        let late = ids.id("pi_", 1_700_000_000_001);
        assert!(early < late, "{early} {late}");
        assert_eq!(early.len(), 3 + 26);
        assert_ne!(ids.id("pi_", 5), ids.id("pi_", 5));
    }

    #[test]
    fn an_id_is_its_prefix_and_plain_text() {
        let ids = IdSource::new([1; 32]);
        let id = IntentId::draw(&ids, 5);
        assert_eq!(IntentId::parse(id.as_str()), Some(id));
        let long = format!("pi_{}", "x".repeat(62));
        for bad in ["", "pi_", "ch_1", "pi_%00", "pi_ä", long.as_str()] {
            assert_eq!(IntentId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let draw = || IdSource::new([1; 32]).secret();
        assert_eq!(draw(), draw());
        assert_ne!(draw(), IdSource::new([2; 32]).secret());
    }
}

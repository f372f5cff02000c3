//! Where ids and client secrets come from: a prefix, the creation time, and eighty random bits.

use std::sync::Mutex;

use rand::{Rng, SeedableRng, rngs::StdRng};

/// Crockford's base 32, lower case: no i, l, o, u, and its order is ASCII's.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Milliseconds in ten digits last until the year 37648.
const TIME_DIGITS: u32 = 10;
const RANDOM_DIGITS: usize = 16;
const SECRET_DIGITS: usize = 32;

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
    fn one_seed_gives_one_sequence() {
        let draw = || IdSource::new([1; 32]).secret();
        assert_eq!(draw(), draw());
        assert_ne!(draw(), IdSource::new([2; 32]).secret());
    }
}

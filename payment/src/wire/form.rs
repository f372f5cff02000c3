//! `application/x-www-form-urlencoded`, strictly: what cannot be read is refused here, so that nothing behind meets half a value.

use std::collections::BTreeMap;

use percent_encoding::percent_decode;

use super::{WireError, echo::echo};

/// Pairs in one body or query. Metadata may have fifty; nothing else comes in numbers.
const MAX_PAIRS: usize = 200;

/// The decoded pairs; of a repeated key the last one counts, but for `name[]`, which is one more of a list each time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Form {
    pairs: BTreeMap<String, String>,
}

impl Form {
    /// Reads a body or a query.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, WireError> {
        let malformed = |message| WireError::Malformed { message };
        let mut pairs = BTreeMap::new();
        for (n, pair) in body
            .split(|b| *b == b'&')
            .filter(|pair| !pair.is_empty())
            .enumerate()
        {
            if n == MAX_PAIRS {
                return Err(malformed("The request has too many parameters."));
            }
            let split = pair.iter().position(|b| *b == b'=');
            let (key, value) = match split {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &[][..]),
            };
            let (Some(key), Some(value)) = (decode(key), decode(value)) else {
                return Err(malformed(
                    "The request is not valid application/x-www-form-urlencoded UTF-8 text.",
                ));
            };
            let key = numbered(key, &pairs);
            pairs.insert(key, value);
        }
        Ok(Self { pairs })
    }

    /// All pairs, sorted by key.
    pub(crate) fn sorted(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Takes one value out. An empty one is as good as none, which is how Stripe's clients clear a field.
    pub(crate) fn take(&mut self, key: &str) -> Option<String> {
        self.pairs.remove(key).filter(|value| !value.is_empty())
    }

    /// Takes a value that must be one of a few.
    pub(crate) fn take_choice(
        &mut self,
        key: &str,
        choices: &[&str],
    ) -> Result<Option<String>, WireError> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        if choices.contains(&value.as_str()) {
            return Ok(Some(value));
        }
        let message = format!("Invalid {key}: must be one of {}", choices.join(", "));
        Err(WireError::param(None, key, message))
    }

    /// Takes a decimal integer.
    pub(crate) fn take_integer(&mut self, key: &str) -> Result<Option<i64>, WireError> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let digits = value.strip_prefix('-').unwrap_or(&value);
        let number = value
            .parse()
            .ok()
            .filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
        number.map(Some).ok_or_else(|| {
            let message = format!("Invalid integer: {}", echo(&value));
            WireError::param(Some("parameter_invalid_integer"), key, message)
        })
    }

    /// Takes `true` or `false`.
    pub(crate) fn take_bool(&mut self, key: &str) -> Result<Option<bool>, WireError> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => {
                let message = format!("Invalid boolean: {}", echo(other));
                Err(WireError::param(None, key, message))
            }
        }
    }

    /// Takes text of at most `max` characters.
    pub(crate) fn take_text(&mut self, key: &str, max: usize) -> Result<Option<String>, WireError> {
        match self.take(key) {
            Some(value) if value.chars().count() > max => {
                let message = format!("Invalid string: must be at most {max} characters");
                Err(WireError::param(Some("parameter_invalid"), key, message))
            }
            value => Ok(value),
        }
    }

    /// Takes `name`, `name[…]` and all below: what follows the name, with its brackets, and the value.
    pub(crate) fn take_all(&mut self, name: &str) -> Vec<(String, String)> {
        let keys: Vec<String> = self
            .pairs
            .range(name.to_owned()..)
            .map(|(key, _)| key)
            .take_while(|key| key.starts_with(name))
            .filter(|key| matches!(key[name.len()..].bytes().next(), None | Some(b'[')))
            .cloned()
            .collect();
        keys.into_iter()
            .filter_map(|key| {
                let value = self.pairs.remove(&key)?;
                Some((key[name.len()..].to_owned(), value))
            })
            .collect()
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(self) -> Result<(), WireError> {
        match self.pairs.into_keys().next() {
            None => Ok(()),
            Some(key) => {
                let key = echo(&key);
                let message = format!("Received unknown parameter: {key}");
                Err(WireError::param(Some("parameter_unknown"), key, message))
            }
        }
    }
}

/// `name[]` with the number that it has among its like.
fn numbered(key: String, taken: &BTreeMap<String, String>) -> String {
    let Some(name) = key.strip_suffix("[]") else {
        return key;
    };
    let numbers = 0..=taken.len();
    let mut free = numbers.map(|number| format!("{name}[{number}]"));
    free.find(|key| !taken.contains_key(key)).unwrap_or(key)
}

/// The one name in `[name]`.
pub(crate) fn bracketed(rest: &str) -> Option<&str> {
    let name = rest.strip_prefix('[')?.strip_suffix(']')?;
    (!name.contains(['[', ']'])).then_some(name)
}

/// `%XX` and `+`; `None` if it is not UTF-8 or holds a NUL, which PostgreSQL's text cannot.
fn decode(raw: &[u8]) -> Option<String> {
    // The library leaves a `%` that two hexadecimal digits do not follow as it is; here that is a mistake.
    let mut percents = raw.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    let is_whole = percents.all(|(at, _)| {
        let digits = raw.get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    let spaced: Vec<u8> = raw
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    let text = percent_decode(&spaced).decode_utf8().ok()?;
    (is_whole && !text.contains('\0')).then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn brackets_come_raw_or_encoded() {
        let mut form =
            Form::parse(b"metadata[order]=ord_1&metadata%5Bnote%5D=a+b%26c&expand[]=x").unwrap();
        let mut metadata = form.take_all("metadata");
        metadata.sort();
        assert_eq!(
            metadata,
            [
                ("[note]".into(), "a b&c".into()),
                ("[order]".into(), "ord_1".into())
            ]
        );
        assert_eq!(form.take_all("expand"), [("[0]".into(), "x".into())]);
        form.finish().unwrap();
    }

    /// Broke: of `expand[]=a&expand[]=b` the second alone was read.
    #[test]
    fn a_list_keeps_all_that_is_in_it() {
        let mut form = Form::parse(b"expand[]=a&expand[]=b&expand%5B%5D=c&expand[7]=d").unwrap();
        let values = form.take_all("expand").into_iter().map(|(_, value)| value);
        assert_eq!(values.collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_name_does_not_take_its_longer_neighbours() {
        let mut form = Form::parse(b"payment_method=pm_1&payment_method_types[0]=card").unwrap();
        assert_eq!(form.take_all("payment_method").len(), 1);
        assert_eq!(form.take_all("payment_method_types").len(), 1);
    }

    #[test]
    fn what_nobody_took_is_unknown() {
        let form = Form::parse(b"amuont=1").unwrap();
        let error = form.finish().unwrap_err().to_string();
        assert_eq!(error, "Received unknown parameter: amuont");
    }

    #[test]
    fn broken_encodings_are_refused() {
        for body in [
            &b"a=%"[..],
            b"a=%4",
            b"a=%zz",
            b"a=%ff",
            b"a=%00",
            b"a=\0",
            b"\xff=1",
        ] {
            assert!(Form::parse(body).is_err(), "{body:?}");
        }
        let many = "a=1&".repeat(MAX_PAIRS + 1);
        assert!(Form::parse(many.as_bytes()).is_err());
    }

    #[test]
    fn a_percent_sign_stands_for_itself_only_when_it_is_encoded() {
        let mut form = Form::parse(b"a=%2541+%2B&b=100%25").unwrap();
        assert_eq!(form.take("a").unwrap(), "%41 +");
        assert_eq!(form.take("b").unwrap(), "100%");
        for body in [&b"a=%%41"[..], b"a=%2", b"a=%+1", b"a=%1g", b"a=\xe7%A7"] {
            assert!(Form::parse(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn integers_are_plain_decimal() {
        for bad in ["1.5", "+1", "0x1", "1e3", "9223372036854775808", "-", "one"] {
            let mut form =
                Form::parse(format!("n={}", bad.replace('+', "%2B")).as_bytes()).unwrap();
            assert!(form.take_integer("n").is_err(), "{bad}");
        }
        let mut form = Form::parse(b"n=-12").unwrap();
        assert_eq!(form.take_integer("n").unwrap(), Some(-12));
    }

    #[test]
    fn names_in_brackets_are_single() {
        assert_eq!(bracketed("[order]"), Some("order"));
        assert_eq!(bracketed("[a][b]"), None);
        assert_eq!(bracketed("[a"), None);
        assert_eq!(bracketed(""), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Form::parse(&body);
        }
    }
}

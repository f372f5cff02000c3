//! What a message may show of a value: never what may be a secret, in its own place or in a wrong one.

use toml::Value;

/// Words of a key's name that say that its value is a secret.
const SECRET_WORDS: [&str; 7] = [
    "secret",
    "password",
    "passwd",
    "passphrase",
    "token",
    "credentials",
    "apikey",
];

/// Longer than any path that a person writes.
const PLACE_MAX: usize = 256;

/// The value as a message shows it; `None` if it may hold a secret.
pub(crate) fn shown(key: &str, value: &Value) -> Option<String> {
    let name = key.rsplit('.').next().unwrap_or(key);
    match value {
        // Anything may stand in a table that is in the wrong place.
        Value::Table(_) => None,
        Value::Array(list) => {
            let is_plain = |item: &Value| !item.is_table() && !item.is_array();
            let items: Option<Vec<String>> = list
                .iter()
                .map(|item| is_plain(item).then(|| shown(key, item)).flatten())
                .collect();
            Some(format!("[{}]", items?.join(", ")))
        }
        Value::String(text) if is_named(name, "env") => is_variable(text).then(|| quoted(text)),
        Value::String(text) if is_named(name, "file") => is_path(text).then(|| quoted(text)),
        Value::String(_) if is_secret(name) => None,
        Value::String(text) => Some(quoted(&host_only(text))),
        _ => Some(value.to_string()),
    }
}

/// A path as a message shows it. Who writes a secret where its file belongs writes no slash and no dot.
pub(crate) fn shown_path(path: &str) -> Option<String> {
    is_path(path).then(|| quoted(path))
}

/// Whether the key is `file` or ends in `_file`, for this word.
fn is_named(name: &str, word: &str) -> bool {
    name.strip_suffix(word)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('_'))
}

fn is_secret(name: &str) -> bool {
    let has_word = name.split('_').any(|word| SECRET_WORDS.contains(&word));
    has_word || name.ends_with("api_key") || name.ends_with("private_key")
}

fn is_variable(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    text.bytes().all(is_part)
}

fn is_path(text: &str) -> bool {
    text.len() <= PLACE_MAX && text.contains(['/', '.']) && !text.contains(char::is_control)
}

/// An address without what may be a secret in it: a user and a password before an `@`, a token in the path of a webhook.
fn host_only(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => ("…@", rest),
        None => ("", rest),
    };
    match rest.find(['/', '?']) {
        Some(at) if !scheme.is_empty() && at + 1 < rest.len() => {
            format!("{scheme}{user}{}…", &rest[..=at])
        }
        _ => format!("{scheme}{user}{rest}"),
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_values_are_shown_as_they_stand() {
        let text = |key: &str, text: &str| shown(key, &text.into());
        assert_eq!(text("upstream[0].name", "a b").as_deref(), Some("\"a b\""));
        assert_eq!(
            text("limit[0].key", "cookie").as_deref(),
            Some("\"cookie\"")
        );
        assert_eq!(shown("workers", &Value::Integer(-1)).as_deref(), Some("-1"));
        let list = Value::Array(vec!["a".into(), "b".into()]);
        assert_eq!(shown("limits", &list).as_deref(), Some("[\"a\", \"b\"]"));
    }

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        for key in ["payment.api_key", "a.password", "x.token", "a.secret"] {
            assert_eq!(shown(key, &"hunter2".into()), None, "{key}");
        }
        let table: toml::Table = "x = 'hunter2'".parse().unwrap();
        assert_eq!(shown("jwt", &Value::Table(table.clone())), None);
        assert_eq!(shown("jwt", &Value::Array(vec![table.into()])), None);
    }

    #[test]
    fn a_secret_where_its_place_belongs_is_not_shown() {
        assert_eq!(shown("a.password_file", &"hunter2".into()), None);
        assert_eq!(shown("a.password_env", &"hunter2".into()), None);
        assert_eq!(shown("payment.api_key.env", &"sk_live_abc".into()), None);
        assert_eq!(shown("payment.api_key.file", &"sk_live_abc".into()), None);
        assert_eq!(shown_path("-----BEGIN KEY-----\na/b"), None);
        let file = shown("a.password_file", &"/run/secrets/p".into());
        assert_eq!(file.as_deref(), Some("\"/run/secrets/p\""));
        let env = shown("a.password_env", &"PG_PASSWORD".into());
        assert_eq!(env.as_deref(), Some("\"PG_PASSWORD\""));
    }

    #[test]
    fn a_secret_in_an_address_is_left_out() {
        for (text, told) in [
            ("mysql://u:hunter2@h/d", "\"mysql://…@h/…\""),
            ("u:hunter2@h", "\"…@h\""),
            ("https://hooks.test/hunter2", "\"https://hooks.test/…\""),
            ("http://h?token=hunter2", "\"http://h?…\""),
            ("ftp://x", "\"ftp://x\""),
            ("http://x/", "\"http://x/\""),
            ("/a/path", "\"/a/path\""),
        ] {
            assert_eq!(shown("url", &text.into()).as_deref(), Some(told));
        }
    }
}

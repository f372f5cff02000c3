//! `[seckill]` and `[payment]`: tables that their own crates read and check; their problems join the list.

use serde::de::DeserializeOwned;
use toml::Value;

use super::{Inputs, section::Section};

pub(super) fn seckill(root: &Section<'_>, inputs: &Inputs<'_>) -> Option<seckill::config::Config> {
    let raw: seckill::config::RawConfig = table(root, "seckill")?;
    listed(root, raw.build(inputs.env, inputs.read), "")
}

pub(super) fn payment(root: &Section<'_>, inputs: &Inputs<'_>) -> Option<payment::Config> {
    let raw: payment::RawConfig = table(root, "payment")?;
    listed(
        root,
        payment::Config::try_from_raw(raw, inputs.env, inputs.read),
        "payment.",
    )
}

fn table<T: DeserializeOwned>(root: &Section<'_>, key: &'static str) -> Option<T> {
    let table = root.raw(key)?;
    match Value::Table(table).try_into() {
        Ok(raw) => Some(raw),
        Err(error) => {
            // The first line says what is wrong; the lines below show the value, which may be a secret in the wrong place.
            root.problem(key, secretless(error.message()));
            None
        }
    }
}

/// serde quotes the value it did not expect.
fn secretless(message: &str) -> String {
    match (message.find("string \""), message.find("\", expected")) {
        (Some(from), Some(to)) if from < to => {
            format!("{}a string{}", &message[..from], &message[to + 1..])
        }
        _ => message.to_owned(),
    }
}

fn listed<T>(root: &Section<'_>, built: Result<T, Vec<String>>, prefix: &str) -> Option<T> {
    match built {
        Ok(config) => Some(config),
        Err(problems) => {
            for problem in problems {
                let (key, what) = problem.split_once(": ").unwrap_or(("", &problem));
                root.note(format_args!("{prefix}{key}"), what);
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::secretless;

    #[test]
    fn a_secret_in_the_wrong_place_is_not_repeated() {
        let told = secretless("invalid type: string \"sk_live_abc\", expected struct RawSecret");
        assert_eq!(told, "invalid type: a string, expected struct RawSecret");
    }
}

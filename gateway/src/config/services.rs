//! `[seckill]` and `[payment]`: tables that their own crates read and check; their problems join the list.

use serde::de::DeserializeOwned;
use settings::{Problem, Section, one_of};
use toml::{Table, Value};

use super::Inputs;

pub(super) fn seckill(root: &Section<'_>, inputs: &Inputs<'_>) -> Option<seckill::config::Config> {
    seckill::config::Config::read(root.section("seckill")?, inputs)
}

pub(super) fn payment(root: &Section<'_>, inputs: &Inputs<'_>) -> Option<payment::Config> {
    let (raw, bad): (payment::RawConfig, _) = table(root, "payment")?;
    let built = payment::Config::try_from_raw(raw, inputs.env, inputs.read);
    listed(root, built, "payment.", &bad)
}

/// The table as its crate reads it, without the keys that are unknown or of a wrong type. Those are noted, and named in the second
/// part. serde stops at the first problem, so each key is tried alone: all of them may be left out.
fn table<T: DeserializeOwned>(root: &Section<'_>, key: &'static str) -> Option<(T, Vec<String>)> {
    let table = match root.value(key)? {
        Value::Table(table) => table.clone(),
        _ => {
            note(root, key, "must be a table");
            return None;
        }
    };
    let reads = |table: Table| Value::Table(table).try_into::<T>().err();
    let mut bad = Vec::new();
    let kept = sound(
        Value::Table(table),
        key,
        &mut bad,
        root,
        &|value| match value {
            Value::Table(table) => reads(table),
            _ => None,
        },
    );
    match kept
        .unwrap_or_else(|| Value::Table(Table::new()))
        .try_into()
    {
        Ok(raw) => Some((raw, bad)),
        // Each key is right by itself, and the table is still refused: its crate has a rule over several keys.
        Err(error) => {
            note(root, key, secretless(error.message()));
            None
        }
    }
}

/// What is left of a value without its unsound parts. `check` reads the whole table with this value at its place.
fn sound(
    value: Value,
    path: &str,
    bad: &mut Vec<String>,
    root: &Section<'_>,
    check: &dyn Fn(Value) -> Option<toml::de::Error>,
) -> Option<Value> {
    let Some(error) = check(value.clone()) else {
        return Some(value);
    };
    let before = bad.len();
    let kept = match value {
        Value::Table(table) => {
            let parts = table.into_iter().filter_map(|(key, part)| {
                let place = format!("{path}.{key}");
                let alone =
                    |part: Value| check(Value::Table(Table::from_iter([(key.clone(), part)])));
                sound(part, &place, bad, root, &alone).map(|part| (key.clone(), part))
            });
            Some(Value::Table(parts.collect()))
        }
        Value::Array(list) if list.iter().all(Value::is_table) => {
            let parts = list.into_iter().enumerate().filter_map(|(at, part)| {
                let alone = |part: Value| check(Value::Array(vec![part]));
                sound(part, &format!("{path}[{at}]"), bad, root, &alone)
            });
            Some(Value::Array(parts.collect()))
        }
        _ => None,
    };
    if bad.len() > before {
        return kept;
    }
    // Never the value itself: it may be a secret in the wrong place.
    note(root, path, told(&secretless(error.message()), path));
    bad.push(path.to_owned());
    None
}

fn note(root: &Section<'_>, key: &str, what: impl ToString) {
    root.problems().add(Problem {
        key: key.to_owned(),
        value: None,
        what: what.to_string(),
    });
}

/// The words of [`Section`] for an unknown key; other messages stay.
fn told(message: &str, path: &str) -> String {
    match message.split_once(", expected ") {
        Some((unknown, names)) if unknown.starts_with("unknown field") => {
            let names: Vec<&str> = names.split('`').skip(1).step_by(2).collect();
            let key = path.rsplit('.').next().unwrap_or_default();
            format!("unknown key: {}", one_of(key, &names))
        }
        _ => match message.split_once(", expected struct ") {
            Some((what, _)) => format!("{what}: must be a table: {{ key = value }}"),
            None => message.to_owned(),
        },
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

/// What a crate has to say of its table, except of keys that were found bad before.
fn listed<T>(
    root: &Section<'_>,
    built: Result<T, Vec<String>>,
    prefix: &str,
    bad: &[String],
) -> Option<T> {
    match built {
        Ok(config) => Some(config),
        Err(problems) => {
            for problem in problems {
                let (key, what) = problem.split_once(": ").unwrap_or(("", &problem));
                let place = format!("{prefix}{key}");
                let name = place.split(" = ").next().unwrap_or_default();
                if !bad.iter().any(|bad| bad.starts_with(name)) {
                    note(root, &place, what);
                }
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

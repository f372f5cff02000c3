//! What a running process cannot change: it holds sockets, files, stores or threads that were made for it at the start. Pure.

use toml::{Table, Value};

/// Everything below these keys. All other keys may change while the process runs.
const FIXED: &[&str] = &[
    "admin",
    "log.access",
    "payment",
    "seckill",
    "server.buffer_disk",
    "server.buffer_memory",
    "server.max_connections",
    "server.workers",
];
/// Of each listener. Its certificates may change.
const OF_A_LISTENER: &[&str] = &["address", "protocols"];

/// The keys that differ and cannot change, sorted.
pub(crate) fn changed(before: &Table, after: &Table) -> Vec<String> {
    let mut found = Vec::new();
    for key in FIXED {
        differences(key, get(before, key), get(after, key), &mut found);
    }
    let listeners = |table: &Table| match table.get("listener") {
        Some(Value::Array(listeners)) => listeners.clone(),
        _ => Vec::new(),
    };
    let (before, after) = (listeners(before), listeners(after));
    if before.len() != after.len() {
        found.push("listener".to_owned());
    }
    for (at, (before, after)) in before.iter().zip(&after).enumerate() {
        for key in OF_A_LISTENER {
            let path = format!("listener[{at}].{key}");
            differences(&path, before.get(key), after.get(key), &mut found);
        }
        if before.get("tls").is_some() != after.get("tls").is_some() {
            found.push(format!("listener[{at}].tls"));
        }
    }
    found.sort();
    found
}

fn get<'t>(table: &'t Table, path: &str) -> Option<&'t Value> {
    let (first, rest) = match path.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    };
    let value = table.get(first)?;
    match rest {
        None => Some(value),
        Some(rest) => get(value.as_table()?, rest),
    }
}

/// Names the leaves in which two values differ.
fn differences(path: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<String>) {
    match (before, after) {
        (Some(Value::Table(before)), Some(Value::Table(after))) => {
            let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                let path = format!("{path}.{key}");
                differences(&path, before.get(key), after.get(key), found);
            }
        }
        (before, after) if before == after => {}
        _ => found.push(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "[server]\nworkers = 2\nvia = true\n[seckill]\nstore = \"a\"\n[seckill.waiting]\nper_node = 1\n\
         [[listener]]\naddress = \"a:1\"\ntls = [{ cert = \"old\" }]\n[[route]]\npath = \"/\"\n";

    fn changes(after: &str) -> Vec<String> {
        changed(&BEFORE.parse().unwrap(), &after.parse().unwrap())
    }

    #[test]
    fn what_may_change_is_no_change() {
        let after = BEFORE
            .replace("via = true", "via = false")
            .replace("old", "new")
            .replace("\"/\"", "\"/shop\"");
        assert_eq!(changes(&after), [""; 0]);
    }

    #[test]
    fn every_fixed_key_that_differs_is_named() {
        let after = BEFORE
            .replace("workers = 2", "workers = 3")
            .replace("per_node = 1", "per_node = 2\nmax = 3")
            .replace("store = \"a\"\n", "")
            .replace("a:1", "a:2")
            .replace("tls = [{ cert = \"old\" }]\n", "");
        let expected = [
            "listener[0].address",
            "listener[0].tls",
            "seckill.store",
            "seckill.waiting.max",
            "seckill.waiting.per_node",
            "server.workers",
        ];
        assert_eq!(changes(&after), expected);
        assert_eq!(
            changes(&format!(
                "{BEFORE}[[listener]]\naddress = \"b:1\"\n[admin]\naddress = \"c:1\"\n"
            )),
            ["admin", "listener"]
        );
    }
}

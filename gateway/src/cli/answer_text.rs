//! An answer of the admin API as text for people: aligned names and values, and tables where it has lists.
//!
//! It knows no answer in particular: what the API adds is shown, too. Programs read the JSON (see `client.rs`).

use std::fmt::Write;

use serde_json::{Map, Value};

/// Unix milliseconds from here on (2001) are moments; below they are lengths of time.
const MOMENTS_FROM_MS: u64 = 1_000_000_000_000;
/// Between two columns.
const GAP: usize = 2;
/// What says which thing it is, and how it stands, comes before the rest.
const FIRST: [&str; 6] = ["ok", "id", "sale", "sku", "order", "state"];

/// The text of an answer, with a line break at its end.
pub(crate) fn text(answer: &Value) -> String {
    let mut lines = String::new();
    match answer {
        Value::Object(fields) => object(&mut lines, fields, 0),
        Value::Array(items) => list(&mut lines, items, 0),
        scalar => line(&mut lines, 0, &value("", scalar)),
    }
    lines
}

/// First what is a plain value, then what has a heading of its own.
fn object(lines: &mut String, fields: &Map<String, Value>, indent: usize) {
    let plain: Vec<(String, String)> = in_order(fields)
        .into_iter()
        .filter(|(_, field)| is_plain(field))
        .map(|(key, field)| (name(key, field), value(key, field)))
        .collect();
    let widest = widest(plain.iter().map(|(name, _)| name.as_str()));
    for (name, value) in &plain {
        line(lines, indent, &format!("{name:widest$}{:GAP$}{value}", ""));
    }
    for (key, field) in fields.iter().filter(|(_, field)| !is_plain(field)) {
        if !lines.is_empty() {
            lines.push('\n');
        }
        line(lines, indent, &name(key, field));
        match field {
            Value::Object(fields) => object(lines, fields, indent + GAP),
            Value::Array(items) => list(lines, items, indent + GAP),
            _ => {}
        }
    }
}

/// A table if all items have plain fields only, otherwise one block an item.
fn list(lines: &mut String, items: &[Value], indent: usize) {
    let rows: Vec<&Map<String, Value>> = items.iter().filter_map(Value::as_object).collect();
    let is_table = rows.iter().all(|row| row.values().all(is_plain));
    if is_table && rows.len() == items.len() {
        return table(lines, &rows, indent);
    }
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            lines.push('\n');
        }
        match item {
            Value::Object(fields) => object(lines, fields, indent),
            Value::Array(items) => list(lines, items, indent + GAP),
            scalar => line(lines, indent, &value("", scalar)),
        }
    }
}

fn table(lines: &mut String, rows: &[&Map<String, Value>], indent: usize) {
    let mut columns: Vec<&String> = Vec::new();
    for key in rows
        .iter()
        .flat_map(|row| in_order(row))
        .map(|(key, _)| key)
    {
        if !columns.contains(&key) {
            columns.push(key);
        }
    }
    let cells: Vec<(bool, Vec<String>)> = columns
        .iter()
        .map(|key| {
            let fields: Vec<Option<&Value>> = rows.iter().map(|row| row.get(*key)).collect();
            let is_number = fields.iter().flatten().all(|field| field.is_number());
            let heading = fields.iter().flatten().next();
            let heading = heading.map_or_else(|| (*key).clone(), |field| name(key, field));
            let values = fields
                .iter()
                .map(|field| field.map_or_else(String::new, |field| value(key, field)));
            (is_number, std::iter::once(heading).chain(values).collect())
        })
        .collect();
    for row in 0..=rows.len() {
        let mut text = String::new();
        for (is_number, column) in &cells {
            let (cell, widest) = (&column[row], widest(column.iter().map(String::as_str)));
            let _ = match is_number {
                true => write!(text, "{cell:>widest$}{:GAP$}", ""),
                false => write!(text, "{cell:widest$}{:GAP$}", ""),
            };
        }
        line(lines, indent, text.trim_end());
    }
}

/// The fields in their own order, but those that say which thing it is first.
fn in_order(fields: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut fields: Vec<_> = fields.iter().collect();
    let rank = |key: &str| FIRST.iter().position(|first| *first == key);
    fields.sort_by_key(|(key, _)| rank(key).unwrap_or(FIRST.len()));
    fields
}

/// Shown beside its name: a single value, nothing, or a list of single values.
fn is_plain(value: &Value) -> bool {
    match value {
        Value::Array(items) => items
            .iter()
            .all(|item| !item.is_array() && !item.is_object()),
        Value::Object(fields) => fields.is_empty(),
        _ => true,
    }
}

fn name(key: &str, field: &Value) -> String {
    let key = match (key.strip_suffix("_ms"), field.is_u64()) {
        (Some(key), true) => key,
        _ => key,
    };
    visible(key)
}

fn value(key: &str, field: &Value) -> String {
    match field {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => visible(text),
        Value::Number(number) => match number.as_u64() {
            Some(ms) if key.ends_with("_ms") && ms >= MOMENTS_FROM_MS => moment(ms),
            Some(ms) if key.ends_with("_ms") => length(ms),
            _ => number.to_string(),
        },
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| value(key, item)).collect();
            items.join(", ")
        }
        Value::Object(_) => "none".to_owned(),
    }
}

fn moment(ms: u64) -> String {
    let since = std::time::Duration::from_millis(ms);
    httpdate::fmt_http_date(std::time::SystemTime::UNIX_EPOCH + since)
}

/// As it would stand in the configuration.
fn length(ms: u64) -> String {
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
    let unit = units
        .iter()
        .find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit));
    unit.map_or_else(
        || "0".to_owned(),
        |(unit, name)| format!("{}{name}", ms / unit),
    )
}

/// Buyers choose some of these texts: none may move a terminal's cursor.
fn visible(text: &str) -> String {
    text.chars()
        .map(|one| if one.is_control() { '\u{fffd}' } else { one })
        .collect()
}

fn widest<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts.map(|text| text.chars().count()).max().unwrap_or(0)
}

fn line(lines: &mut String, indent: usize, text: &str) {
    let _ = writeln!(lines, "{:indent$}{text}", "");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_values_are_aligned_and_moments_are_dates() {
        let answer = json!({"id": "spring", "pay_within_ms": 900_000, "starts_at_ms": 1_795_953_214_396_u64, "warm": true, "slots": null});
        let expected = "id          spring\n\
                        pay_within  15m\n\
                        slots       -\n\
                        starts_at   Sun, 29 Nov 2026 11:53:34 GMT\n\
                        warm        yes\n";
        assert_eq!(text(&answer), expected);
    }

    #[test]
    fn lists_of_objects_are_tables_with_numbers_on_the_right() {
        let answer = json!({"skus": [{"sku": "shoe", "stock": 100}, {"sku": "sandal", "stock": 7, "note": "new"}]});
        let expected = "skus\n  sku     stock  note\n  shoe      100\n  sandal      7  new\n";
        assert_eq!(text(&answer), expected);
    }

    #[test]
    fn what_is_nested_deeper_is_a_block_of_its_own() {
        let answer = json!({"ok": false, "sales": [{"sale": "a", "findings": [{"what": "x"}]}, {"sale": "b", "findings": []}]});
        let expected = "ok  no\n\nsales\n  sale  a\n\n  findings\n    what\n    x\n\n  sale      b\n  findings  none\n";
        assert_eq!(text(&answer), expected);
    }

    #[test]
    fn a_text_moves_no_cursor() {
        assert!(!text(&json!({"buyer": "a\u{1b}[2Jb\nc"})).contains(['\u{1b}', '\r']));
        assert_eq!(text(&json!({"buyer": "a\nb"})).lines().count(), 1);
    }
}

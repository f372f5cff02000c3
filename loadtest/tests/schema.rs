//! The published schema and the report say the same: every key of the one is a key of the other.

use serde_json::Value;

use crate::support::{Faults, constant, run_and_check, scenario, serve};

const SCHEMA: &str = include_str!("../schema/report.schema.json");

/// Follows a `$ref` into `$defs`.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(path) => root
            .pointer(path.trim_start_matches('#'))
            .expect("the reference leads somewhere"),
        None => schema,
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() || number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn compare(root: &Value, schema: &Value, value: &Value, path: &str, wrong: &mut Vec<String>) {
    let schema = resolve(root, schema);
    if let Some(choices) = schema["anyOf"].as_array() {
        let any = choices.iter().any(|choice| {
            let mut tried = Vec::new();
            compare(root, choice, value, path, &mut tried);
            tried.is_empty()
        });
        if !any {
            wrong.push(format!("{path}: none of the choices fits {value}"));
        }
        return;
    }
    if let Some(allowed) = schema["enum"].as_array() {
        if !allowed.contains(value) {
            wrong.push(format!("{path}: {value} is not in the list"));
        }
        return;
    }
    let wanted = schema["type"]
        .as_str()
        .unwrap_or_else(|| panic!("{path}: schema without type"));
    let is = type_of(value);
    if !(is == wanted || (wanted == "number" && is == "integer")) {
        wrong.push(format!("{path}: {is} instead of {wanted}"));
        return;
    }
    match value {
        Value::Object(object) => {
            let properties = schema["properties"]
                .as_object()
                .expect("objects list their keys");
            for key in properties.keys().filter(|key| !object.contains_key(*key)) {
                wrong.push(format!("{path}.{key}: in the schema only"));
            }
            let required = schema["required"]
                .as_array()
                .expect("objects list what is required");
            assert_eq!(
                required.len(),
                properties.len(),
                "{path}: every key is always there"
            );
            assert_eq!(schema["additionalProperties"], false, "{path}");
            for (key, child) in object {
                match properties.get(key) {
                    Some(schema) => compare(root, schema, child, &format!("{path}.{key}"), wrong),
                    None => wrong.push(format!("{path}.{key}: in the report only")),
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                compare(root, &schema["items"], item, &format!("{path}[]"), wrong);
            }
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_and_the_report_have_the_same_keys() {
    let faults = Faults {
        oversell: 1, // so that there is a finding to compare
        ..Faults::default()
    };
    let server = serve(10, faults).await;
    let mut s = scenario(&server, constant(200.0, 300));
    s.thresholds.max_error_share = Some(0.5);
    s.thresholds
        .p99
        .insert(loadtest::Outcome::Paid, std::time::Duration::from_secs(1));
    let report = run_and_check(&s).await;
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let value: Value = serde_json::from_str(&loadtest::render::json(&report)).unwrap();
    let mut wrong = Vec::new();
    compare(&schema, &schema, &value, "report", &mut wrong);
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(
        !value["reconciliation"]["findings"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert!(!value["timeline"].as_array().unwrap().is_empty());

    let outcomes = &schema["$defs"]["outcome"]["properties"]["outcome"]["enum"];
    let names: Vec<&str> = loadtest::Outcome::ALL
        .iter()
        .map(|one| one.name())
        .collect();
    assert_eq!(outcomes, &serde_json::json!(names));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_stands_alone_and_the_text_tells_the_verdict() {
    let server = serve(10, Faults::default()).await;
    let mut report = run_and_check(&scenario(&server, constant(200.0, 300))).await;
    report.notes.push("<script>alert(1)</script>".into());
    let page = loadtest::render::html(&report);
    for outside in ["<script", "src=", "href=", "@import", "url(", "{{"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("<svg") && page.contains("polyline"));
    let text = loadtest::render::text(&report, false);
    assert!(
        text.contains("verdict: valid") && text.contains("oversold 0"),
        "{text}"
    );
    assert!(!text.contains('\x1b'));
    assert!(loadtest::render::text(&report, true).contains("\x1b["));
}

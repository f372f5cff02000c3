//! What a section notes, and in which words.

use std::time::Duration;

use super::*;

fn problems_of(text: &str, read: impl FnOnce(Section<'_>)) -> Vec<String> {
    let problems = Problems::default();
    read(Section::root(parse(text.as_bytes()).unwrap(), &problems));
    problems.into_lines()
}

#[test]
fn an_unknown_key_names_the_nearest_allowed_one() {
    let found = problems_of("adress = \"x\"", |section| {
        section.text("address");
        section.finish();
    });
    assert_eq!(
        found,
        ["adress: unknown key: must be one of address (did you mean \"address\"?)"]
    );
}

#[test]
fn every_problem_is_noted_with_key_and_value() {
    let text = "workers = -1\nwait = \"soon\"\nlong = \"2s\"\nbytes = \"64 parsecs\"\nshare = 2.0\nrate = 'fast'\n\
         names = [\"a\", \"b c\"]\nlevel = \"hihg\"\nnumber = \"1\"";
    let found = problems_of(text, |section| {
        section.integer("workers", 0..=64_u32);
        section.duration("wait", Duration::ZERO..=Duration::from_secs(1));
        section.duration("long", Duration::ZERO..=Duration::from_secs(1));
        section.size("bytes", 0..=1024);
        section.ratio("share");
        section.rate("rate");
        section.list("names", "one word", |text| {
            (!text.contains(' ')).then_some(())
        });
        section.choice("level", &[("high", 1), ("low", 0)]);
        section.number("number");
        section.require("name", "a name");
        section.finish();
    });
    assert_eq!(
        found,
        [
            "workers = -1: must be 0 to 64",
            "wait = \"soon\": must be a time such as \"250ms\" or \"30s\"",
            "long = \"2s\": must be 0s to 1s",
            "bytes = \"64 parsecs\": must be a size such as \"64KiB\", 0B to 1KiB",
            "share = 2.0: must be above 0.0, at most 1.0",
            "rate = \"fast\": must be <count>/<time> such as 100/s or 30/m",
            "names = [\"a\", \"b c\"]: \"b c\" must be one word",
            "level = \"hihg\": must be one of high, low (did you mean \"high\"?)",
            "number = \"1\": must be a number",
            "name: missing: must be a name",
        ]
    );
}

#[test]
fn a_key_asked_for_twice_has_its_problem_once() {
    let found = problems_of("name = 7", |section| {
        section.text("name");
        section.text("name");
        section.finish();
    });
    assert_eq!(found, ["name = 7: must be a text in quotes"]);
}

#[test]
fn a_secret_where_a_table_belongs_is_not_repeated() {
    let found = problems_of(
        "key = \"sk_live_abc\"\nkeys = [\"sk_live_abc\"]",
        |section| {
            section.section("key");
            section.sections("keys");
            section.finish();
        },
    );
    assert_eq!(
        found,
        [
            "key: must be a table: { key = value }",
            "keys: must be a list of tables"
        ]
    );
}

#[test]
fn what_is_no_toml_names_its_line() {
    let told = |text: &[u8]| parse(text).unwrap_err().to_string();
    assert!(told(b"a = 1\nb = \n").starts_with("line 2: not TOML: "));
    assert_eq!(told(b"a = 1\n# caf\xE9"), "line 2: not UTF-8: must be text");
}

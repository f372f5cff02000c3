//! Scenario files: the shipped ones are valid, and a wrong one is told everything that is wrong with it.

use std::path::PathBuf;

use loadtest::Scenario;

fn shipped() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/scenarios");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn key(name: &str) -> Option<String> {
    (name == "PENSTOCK_PAYMENT_KEY").then(|| "sk_test_x".to_owned())
}

#[test]
fn every_shipped_scenario_is_valid() {
    let files = shipped();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        Scenario::from_toml(&text, &key).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
}

#[test]
fn a_misspelt_key_in_any_shipped_scenario_is_refused() {
    for file in shipped() {
        let text = std::fs::read_to_string(&file).unwrap();
        let wrong = text.replace("[profile]", "[profile]\ndurration = \"1s\"");
        let problems = Scenario::from_toml(&wrong, &key).unwrap_err().0;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].key, "profile.durration");
        assert!(problems[0].what.contains("did you mean \"duration\""));
    }
}

#[test]
fn every_problem_is_told_at_once_with_key_value_and_what_is_allowed() {
    let text = r#"
        colour = "red"
        [target]
        url = "ftp://x"
        protocol = "h3"
        [generator]
        threads = 0
        request_timeout = 10
        [profile]
        kind = "constant"
        rate = -5
        [sale]
        id = "a/b"
        skus = []
        [page_views]
        share = 1.5
        [pay]
        api_key_env = "MISSING"
        amount_minor = 0
        currency = "USD"
        [thresholds.p99]
        acepted = "1s"
    "#;
    let problems = Scenario::from_toml(text, &|_| None).unwrap_err();
    let keys: Vec<&str> = problems.0.iter().map(|p| p.key.as_str()).collect();
    for wanted in [
        "colour",
        "target.url",
        "target.protocol",
        "generator.threads",
        "generator.request_timeout",
        "profile.rate",
        "profile.duration",
        "sale.id",
        "sale.skus",
        "page_views.share",
        "pay.api_key_env",
        "pay.amount_minor",
        "pay.currency",
        "thresholds.p99.acepted",
    ] {
        assert!(keys.contains(&wanted), "{wanted} missing in {keys:?}");
    }
    assert_eq!(keys.len(), 14, "{problems}");
    let rate = problems.0.iter().find(|p| p.key == "profile.rate").unwrap();
    assert_eq!(rate.value.as_deref(), Some("-5"));
    assert!(rate.what.contains("10000000"), "{rate}");
}

#[test]
fn carts_are_made_of_several_skus_of_the_sale() {
    let told = |sale: &str| {
        let text = format!(
            "target.url = \"http://127.0.0.1:1\"\nprofile = {{ kind = \"constant\", rate = 5, duration = \"1s\" }}\n\
             sale = {{ id = \"s\", {sale} }}"
        );
        match Scenario::from_toml(&text, &|_| None) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.0.iter().map(ToString::to_string).collect(),
        }
    };
    let none: [String; 0] = [];
    assert_eq!(
        told(r#"skus = ["a", "b", "c"], cart_percent = 50, cart_skus = 3"#),
        none
    );
    assert_eq!(told(r#"skus = ["a", "b"], cart_percent = 50"#), none);
    // Without carts nothing is asked of them.
    assert_eq!(told(r#"skus = ["a"], cart_skus = 9"#), none);
    for (sale, problem) in [
        (
            r#"skus = ["a", "b"], cart_percent = 50, cart_skus = 3"#,
            "sale.cart_skus = 3: must be 2 to 2, of the 2 skus of the sale",
        ),
        (
            r#"skus = ["a", "b"], cart_percent = 50, cart_skus = 1"#,
            "sale.cart_skus = 1: must be 2 to 2, of the 2 skus of the sale",
        ),
        (
            r#"skus = ["a"], cart_percent = 50"#,
            "sale.cart_skus = 2: must be made of two skus or more in sale.skus",
        ),
        (
            r#"skus = ["a", "b", "a"], cart_percent = 50"#,
            "sale.skus: \"a\" twice: must name each sku once, where carts are made of them",
        ),
        (
            r#"skus = ["a", "b"], cart_percent = 150"#,
            "sale.cart_percent = 150: must be 0 to 100",
        ),
    ] {
        assert_eq!(told(sale), [problem], "{sale}");
    }
}

#[test]
fn a_key_of_another_profile_kind_is_refused() {
    let text = r#"
        target.url = "http://127.0.0.1:1"
        page_views.share = 1
        [profile]
        kind = "constant"
        rate = 5
        duration = "1s"
        from = 3
    "#;
    let problems = Scenario::from_toml(text, &|_| None).unwrap_err().0;
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].key, "profile.from");
}

#[test]
fn the_api_key_never_shows_in_a_problem() {
    let text = r#"
        target.url = "http://127.0.0.1:1"
        profile = { kind = "constant", rate = 5, duration = "1s" }
        page_views.share = 1
        pay = { api_key_env = "KEY", amount_minor = 1, currency = "usd" }
    "#;
    let secret = "sk_\u{1}secret";
    let problems = Scenario::from_toml(text, &|_| Some(secret.into())).unwrap_err();
    assert!(!problems.to_string().contains("secret"));
}

#[test]
fn https_trusts_whom_the_system_trusts_unless_told_otherwise() {
    let text = r#"
        target.url = "https://127.0.0.1:1"
        profile = { kind = "constant", rate = 5, duration = "1s" }
        page_views.share = 1
    "#;
    let trust = |text: &str| Scenario::from_toml(text, &|_| None).unwrap().target.trust;
    assert_eq!(trust(text), loadtest::scenario::Trust::System);
    let insecure = text.replace("profile =", "target.insecure = true\nprofile =");
    assert_eq!(trust(&insecure), loadtest::scenario::Trust::Insecure);
}

#[test]
fn text_that_is_no_toml_is_one_problem() {
    let problems = Scenario::from_toml("= = =", &|_| None).unwrap_err().0;
    assert_eq!(problems.len(), 1);
}

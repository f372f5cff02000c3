//! Payment's configuration: defaults, every problem at once, and no unknown keys.

use std::{io::Write, time::Duration};

use payment::Config;
use settings::Inputs;

fn parse(text: &str) -> Result<Config, Vec<String>> {
    let inputs = Inputs {
        env: &|name| match name {
            "PENSTOCK_KEY" => Some("sk_test_from_env\n".to_owned()),
            "SHORT" => Some("sk_1".to_owned()),
            _ => None,
        },
        ..Inputs::of_this_machine()
    };
    settings::read_at("payment", text, |section| Config::read(section, &inputs))
}

#[test]
fn a_key_is_enough() {
    let config = parse("api_key = { env = 'PENSTOCK_KEY' }").unwrap();
    assert_eq!(
        config.api_key.ensure(0).unwrap().expose(),
        "sk_test_from_env"
    );
    assert_eq!(config.channel_timeout, Duration::from_secs(10));
    assert_eq!(config.order_metadata_key, "order");
    assert!(config.currencies.iter().any(|c| c.code() == "usd"));
    assert!(!format!("{config:?}").contains("from_env"));
}

#[test]
fn a_key_comes_from_a_file_too() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "sk_test_from_file").unwrap();
    let text = format!("api_key = {{ file = '{}' }}", file.path().display());
    assert_eq!(
        parse(&text).unwrap().api_key.ensure(0).unwrap().expose(),
        "sk_test_from_file"
    );
}

#[test]
fn values_are_taken() {
    let config = parse(
        "api_key = { env = 'PENSTOCK_KEY' }
         currencies = ['USD', 'jpy', 'usd']
         channel_timeout = '250ms'
         resolve_interval = '5m'
         idempotency_retention = '2d'
         order_metadata_key = 'order_id'
         [simulator]
         latency_ms = 0
         seed = 7
         decline_percent = 5
         unknown_percent = 1",
    )
    .unwrap();
    let codes: Vec<_> = config.currencies.iter().map(|c| c.code()).collect();
    assert_eq!(codes, ["jpy", "usd"]);
    assert_eq!(config.channel_timeout, Duration::from_millis(250));
    assert_eq!(config.resolve_interval, Duration::from_secs(300));
    assert_eq!(config.idempotency_retention, Duration::from_secs(172_800));
    assert_eq!(config.simulator.latency, Duration::ZERO);
    assert_eq!(config.simulator.seed, 7);
}

#[test]
fn all_problems_are_named_at_once() {
    let problems = parse(
        "currencies = ['usd', 'dollar']
         channel_timeout = '10'
         resolve_interval = '0s'
         order_metadata_key = ''
         [simulator]
         decline_percent = 101
         latency_ms = 3600000",
    )
    .unwrap_err();
    for start in [
        "payment.api_key: missing: must be a table",
        "payment.currencies = [\"usd\", \"dollar\"]: \"dollar\" must be an ISO 4217",
        "payment.channel_timeout = \"10\": must be a time such as",
        "payment.resolve_interval = \"0s\": must be 10ms to 10m",
        "payment.order_metadata_key = \"\": must be 1 to 40 characters",
        "payment.simulator.decline_percent = 101: must be 0 to 100",
        "payment.simulator.latency_ms = 3600000: must be 0 to 60000",
    ] {
        assert!(
            problems.iter().any(|p| p.starts_with(start)),
            "{start}: {problems:#?}"
        );
    }
    assert_eq!(problems.len(), 7);
}

#[test]
fn a_bad_key_is_not_shown() {
    for text in [
        "api_key = { env = 'SHORT' }",
        "api_key = { env = 'UNSET' }",
        "api_key = { file = '/nonexistent/key' }",
        "api_key = { env = 'SHORT', file = 'x' }",
    ] {
        let problems = parse(text).unwrap_err();
        assert_eq!(problems.len(), 1, "{text}");
        assert!(problems[0].starts_with("payment.api_key"), "{problems:?}");
        assert!(!problems[0].contains("sk_1"), "{problems:?}");
    }
}

#[test]
fn a_misspelt_key_fails() {
    let key = "api_key = { env = 'PENSTOCK_KEY' }";
    for (text, problem) in [
        (
            format!("{key}\ncurencies = ['usd']"),
            "payment.curencies: unknown key: must be one of ",
        ),
        (
            "api_key = 'sk_test_in_the_file'".to_owned(),
            "payment.api_key: must be a table",
        ),
        (
            "api_key = { env = 'sk_test_in_the_file' }".to_owned(),
            "payment.api_key.env: must name the place of a secret key",
        ),
        (
            format!("{key}\n[simulator]\nlatency = 1"),
            "payment.simulator.latency: unknown key: must be one of ",
        ),
    ] {
        let problems = parse(&text).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(problem), "{problems:?}");
        assert!(!problems[0].contains("in_the_file"), "{problems:?}");
    }
}

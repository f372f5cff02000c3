//! The table as it may be written, and what is told of the rest.

use super::*;

fn build(text: &str) -> Result<Config, Vec<String>> {
    build_with(text, &Inputs::none())
}

fn build_with(text: &str, inputs: &Inputs<'_>) -> Result<Config, Vec<String>> {
    settings::read_at("seckill", text, |section| Config::read(section, inputs))
}

#[test]
fn an_empty_table_is_the_embedded_default() {
    let config = build("").unwrap();
    assert_eq!(config.store, StoreConfig::Embedded("data".into()));
    assert!(matches!(config.buyer, Identity::Header(name) if name == "x-buyer-id"));
    assert_eq!(config.durability, Durability::Durable);
    // What was measured to be faster: docs/adr/0002-io-uring-for-the-journal-only.md.
    assert_eq!(config.journal, embedded::WriteMode::Plain);
}

#[test]
fn all_problems_are_told_at_once_with_key_and_value() {
    let problems = build(
        "store = \"mysql:x\"\nledger = \"x\"\nbuyer = \"cookie:a\"\ndurability = \"high\"\npurchase_deadline = \"1d\"\n\
         [downstream]\nurl = \"http://\"",
    )
    .unwrap_err();
    assert_eq!(problems.len(), 7, "{problems:#?}");
    assert!(problems[0].starts_with("seckill.store = \"mysql:x\": must be"));
}

#[test]
fn the_bounds_of_waiting_are_read_and_checked() {
    let waiting = build("[waiting]\nmax_wait = \"1m\"\nper_node = 5\nper_buyer = 1")
        .unwrap()
        .waiting;
    assert_eq!(
        (waiting.max_wait, waiting.per_node, waiting.per_buyer),
        (Duration::from_secs(60), 5, 1)
    );
    let problems = build("[waiting]\nmax_wait = \"1h\"\nper_node = 0\nper_buyer = -1").unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:#?}");
    assert!(problems[1].starts_with("seckill.waiting.per_node = 0: must be"));
}

#[test]
fn replicated_needs_redis() {
    assert!(build("durability = \"replicated\"").is_err());
    assert!(build("store = \"redis://h:1\"\ndurability = \"replicated\"").is_ok());
}

#[test]
fn a_replicated_ledger_needs_postgresql() {
    assert_eq!(
        build("").unwrap().ledger_durability,
        LedgerDurability::Local
    );
    let level = |ledger: &str, level: &str| {
        let text = format!("ledger = \"{ledger}\"\nledger_durability = \"{level}\"");
        build(&text).map(|config| config.ledger_durability)
    };
    let postgres = "postgres://shop@h/shop";
    assert_eq!(
        level(postgres, "replicated"),
        Ok(LedgerDurability::Replicated)
    );
    assert_eq!(level(postgres, "local"), Ok(LedgerDurability::Local));
    let problems = level("sqlite:l.db", "replicated").unwrap_err();
    assert!(
        problems[0].starts_with("seckill.ledger_durability = \"replicated\": needs"),
        "{problems:?}"
    );
    assert!(level(postgres, "high").unwrap_err()[0].contains("must be one of local, replicated"));
}

#[test]
fn a_store_elsewhere_is_not_filled_unless_told() {
    assert_eq!(
        build("").unwrap().rebuild_elsewhere,
        RebuildElsewhere::Refused
    );
    let told = build("store = \"redis://h:1\"\nrebuild_elsewhere = true").unwrap();
    assert_eq!(told.rebuild_elsewhere, RebuildElsewhere::Allowed);
    assert_eq!(told.store.address().to_string(), "h:1");
}

#[test]
fn a_misspelt_key_is_an_error() {
    let told = build("stor = \"embedded:x\"").unwrap_err();
    assert!(told[0].starts_with("seckill.stor: unknown key"), "{told:?}");
    assert!(told[0].ends_with("(did you mean \"store\"?)"), "{told:?}");
}

#[test]
fn token_keys_are_read_and_all_their_problems_told() {
    let public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAnOh5H8Fb1f4rKYR9rICBZ3YvdiAX9OrPZ+eRgH+nv/4=\n-----END PUBLIC KEY-----\n";
    let build = |text: &str| {
        let inputs = Inputs {
            env: &|name| (name == "SECRET").then(|| "0123456789abcdef".to_owned()),
            read: &|path| match path.to_str() {
                Some("ed.pem") => Ok(public.as_bytes().to_vec()),
                _ => Err(std::io::ErrorKind::NotFound.into()),
            },
            ..Inputs::none()
        };
        build_with(text, &inputs)
    };
    let config = build(
        "[[token_keys]]\nkid = \"shop\"\nalgorithm = \"EdDSA\"\nkey_file = \"ed.pem\"\n\
         [[token_keys]]\nkid = \"2026-11\"\nkey_env = \"SECRET\"",
    )
    .unwrap();
    assert!(!config.token_keys.is_empty());
    let problems = build(
        "[[token_keys]]\nkid = \"a b\"\nalgorithm = \"RS256\"\n\
         [[token_keys]]\nkid = \"x\"\nkey_env = \"SECRET\"\n[[token_keys]]\nkid = \"x\"\nkey_env = \"NONE\"\n\
         [[token_keys]]\nkid = \"y\"\nalgorithm = \"ES256\"\nkey_file = \"ed.pem\"",
    )
    .unwrap_err();
    assert_eq!(problems.len(), 6, "{problems:#?}");
    assert!(problems[0].starts_with("seckill.token_keys[0].kid = \"a b\": must be"));
}

#[test]
fn a_token_needs_its_key() {
    let problems = build("buyer = \"jwt:sub\"").unwrap_err();
    assert!(
        problems[0].starts_with("seckill.jwt: missing: must be a table with key_file"),
        "{problems:?}"
    );
    assert!(build("buyer = \"jwt:sub\"\n[jwt]\nalgorithm = \"none\"\nkey_env = \"X\"").is_err());
    let with = |secret: &str| {
        let inputs = Inputs {
            env: &|_| Some(secret.to_owned()),
            ..Inputs::none()
        };
        build_with("buyer = \"jwt:sub\"\n[jwt]\nkey_env = \"X\"", &inputs)
    };
    assert!(matches!(
        with("0123456789abcdef").unwrap().buyer,
        Identity::Jwt(_)
    ));
    assert!(with("short").is_err());
}

#[test]
fn the_embedded_store_is_tuned_within_its_ranges() {
    let config = build("snapshot_every = \"64MiB\"\nretain_ended = \"2d\"").unwrap();
    assert_eq!(config.snapshot_every, 64 << 20);
    assert_eq!(config.retain_ended, Duration::from_secs(2 * 24 * 3600));
    for bad in ["0MiB", "64", "63KiB", "2048GiB", "-1MiB", "64MB"] {
        let problems = build(&format!("snapshot_every = \"{bad}\"")).unwrap_err();
        assert!(
            problems[0].starts_with("seckill.snapshot_every = ")
                && problems[0].contains("64KiB to 1024GiB"),
            "{problems:?}"
        );
    }
}

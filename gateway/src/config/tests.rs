//! What a configuration may say, and what is said about one that is wrong.

use std::time::Duration;

use super::*;

const GOOD: &str = r#"
[[listener]]
address = "127.0.0.1:0"
tls = "self-signed"

[[upstream]]
name = "shop"
policy = "ring-hash"
hash_on = "header:x-user-id"
endpoints = [{ address = "127.0.0.1:3000", weight = 2 }, { address = "127.0.0.1:3001" }]
breaker = { window = "5s", open_for = "2s" }

[[limit]]
name = "per-ip"
key = "ip"
rate = "100/s"

[[route]]
path = "/"
upstream = "shop"
limits = ["per-ip"]
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    let inputs = Inputs {
        read: &|_| Err(io::ErrorKind::NotFound.into()),
        is_folder: &std::path::Path::is_dir,
        env: &|_| None,
        cores: 3,
    };
    Config::try_parse(text, &inputs)
}

fn problems(text: &str) -> Vec<String> {
    match parse(text) {
        Err(ConfigError::Problems(list)) => list,
        other => panic!("expected problems, got {other:?}"),
    }
}

#[test]
fn a_small_configuration_gets_defaults() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.server.workers, 3);
    assert_eq!(config.routes[0].name, "/");
    assert_eq!(config.routes[0].target, Target::Upstream(0));
    assert_eq!(config.limits[0].quota.burst().get(), 100);
    assert_eq!(config.upstreams[0].endpoints[0].weight, 2);
    assert_eq!(
        config.upstreams[0].breaker.unwrap().window(),
        Duration::from_secs(5)
    );
    assert_eq!(config.admin.address.port(), 9900);
}

#[test]
fn a_misspelt_key_is_refused_with_the_nearest_name() {
    let found = problems(&GOOD.replace("hash_on", "hash_no"));
    assert!(
        found
            .iter()
            .any(|line| line.starts_with("upstream[0].hash_no: unknown key")
                && line.contains("did you mean \"hash_on\"")),
        "{found:?}"
    );
    assert!(!problems(&format!("{GOOD}\n[severs]\n")).is_empty());
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = GOOD
        .replace("127.0.0.1:3001", "foo")
        .replace("100/s", "fast")
        .replace("[\"per-ip\"]", "[\"per-pi\"]")
        .replace("upstream = \"shop\"", "upstream = \"ship\"");
    let found = problems(&text);
    let has = |start: &str| found.iter().any(|line| line.starts_with(start));
    assert!(
        has("upstream[0].endpoints[1].address = \"foo\": must be host:port"),
        "{found:?}"
    );
    assert!(has("limit[0].rate = \"fast\": must be"), "{found:?}");
    assert!(has("route[0].limits"), "{found:?}");
    assert!(
        has("route[0].upstream = \"ship\": no such [[upstream]]"),
        "{found:?}"
    );
    assert_eq!(found.len(), 4, "{found:?}");
}

#[test]
fn an_empty_file_says_what_is_needed() {
    let found = problems("");
    assert!(
        found
            .iter()
            .any(|line| line.starts_with("listener: missing"))
    );
    assert!(found.iter().any(|line| line.starts_with("route: missing")));
}

#[test]
fn an_unknown_policy_is_told_which_there_are() {
    let found = problems(&GOOD.replace("ring-hash", "maglev"));
    assert!(
        found[0].contains("must be one of round-robin, ring-hash"),
        "{found:?}"
    );
}

#[test]
fn certificates_that_are_not_there_are_named() {
    let text = GOOD.replace("\"self-signed\"", "[{ cert = \"a.pem\", key = \"a.key\" }]");
    let found = problems(&text);
    assert!(
        found[0].starts_with("listener[0].tls[0].cert = \"a.pem\": cannot be read"),
        "{found:?}"
    );
    assert_eq!(found.len(), 2);
}

#[test]
fn names_must_be_unique() {
    let again = "[[upstream]]\nname = \"shop\"\nendpoints = [{ address = \"a:1\" }]\n";
    let found = problems(&format!("{GOOD}{again}"));
    assert_eq!(
        found,
        ["upstream[1].name: \"shop\" is taken: must be unique"]
    );
}

#[test]
fn a_handler_needs_its_section() {
    let text = GOOD.replace("upstream = \"shop\"\nlimits", "handler = \"sales\"\nlimits");
    assert_eq!(
        problems(&text),
        ["seckill: missing: must be present, because route[0] hands requests to it"]
    );
    assert!(parse(&format!("{text}\n[seckill]\nstore = \"embedded:data\"\n")).is_ok());
}

#[test]
fn an_open_admin_address_needs_a_token() {
    let found = problems(&format!("{GOOD}\n[admin]\naddress = \"0.0.0.0:9900\"\n"));
    assert!(
        found[0].starts_with("admin.token_file: missing"),
        "{found:?}"
    );
}

#[test]
fn broken_toml_names_the_line() {
    let found = problems("[server]\nworkers = \n");
    assert!(found[0].starts_with("line 2: not TOML"), "{found:?}");
}

#[test]
fn the_buyers_header_is_taken_from_trusted_proxies_only() {
    let config = parse(&format!("{GOOD}\n[seckill]\nbuyer = \"header:x-member\"\n")).unwrap();
    assert!(
        config
            .server
            .trusted_headers
            .iter()
            .any(|name| name == "x-member")
    );
}

#[test]
fn what_may_be_a_mistake_is_a_warning() {
    let warnings = |server: &str| {
        let text = format!("{GOOD}\n[seckill]\n{server}");
        parse(&text).unwrap().warnings
    };
    let nobody = warnings("");
    assert!(
        nobody[0].starts_with("server.trusted_headers_from: missing, so x-buyer-id is removed"),
        "{nobody:?}"
    );
    assert_eq!(nobody.len(), 1);
    let separate =
        "[server]\ntrusted_proxies = [\"10.0.0.0/8\"]\ntrusted_headers_from = [\"10.1.0.0/24\"]\n";
    assert!(warnings(separate)[0].contains("overlaps trusted_proxies"));
    assert!(warnings(&separate.replace("10.1.0.0/24", "192.168.1.1")).is_empty());
    assert!(
        warnings(&separate.replace("10.0.0.0/8", "0.0.0.0/0"))
            .iter()
            .any(|w| w.contains("all addresses"))
    );
    let nowhere = GOOD.replace(
        "path = \"/\"\nupstream = \"shop\"",
        "path = \"/shop\"\nhandler = \"sales\"",
    );
    let found = parse(&format!(
        "{nowhere}\n[seckill]\n[server]\ntrusted_headers_from = [\"10.0.0.1\"]\n"
    ))
    .unwrap();
    assert!(
        found.warnings[0].starts_with("route[0].path: the handler serves /v1/sales"),
        "{:?}",
        found.warnings
    );
    let removed = GOOD.replace("header:x-user-id", "header:x_user_id");
    assert!(
        parse(&removed).unwrap().warnings[0]
            .starts_with("upstream[0].hash_on: x_user_id is removed")
    );
    let text = GOOD.replace("127.0.0.1:0", "0.0.0.0:443");
    assert!(parse(&text).unwrap().warnings[0].starts_with("listener[0].tls = \"self-signed\""));
}

#[test]
fn a_limit_by_buyer_needs_to_know_who_buyers_are() {
    let text = GOOD.replace("key = \"ip\"", "key = \"buyer\"");
    let found = problems(&text);
    assert!(
        found[0].starts_with("limit[0].key: \"buyer\" needs [seckill]"),
        "{found:?}"
    );
    assert!(parse(&format!("{text}\n[seckill]\n")).is_ok());
}

#[test]
fn payments_without_a_sale_are_refused() {
    let text = format!("{GOOD}\n[payment]\napi_key = {{ env = \"KEY\" }}\n");
    let inputs = Inputs {
        read: &|_| Err(io::ErrorKind::NotFound.into()),
        is_folder: &std::path::Path::is_dir,
        env: &|_| Some("sk_test_0123456789abcdef".to_owned()),
        cores: 1,
    };
    match Config::try_parse(&text, &inputs) {
        Err(ConfigError::Problems(found)) => assert_eq!(
            found,
            ["seckill: missing: must be present, because [payment] takes the money of its orders"]
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_can_never_work_is_found_before_it_is_tried() {
    let listener = "[[listener]]\naddress = \"0.0.0.0:8080\"\n";
    let base = format!("{GOOD}{listener}");
    let route =
        |more: &str| format!("{base}[[route]]\nname = \"again\"\nupstream = \"shop\"\n{more}");
    for (text, problem) in [
        (
            route("path = \"/\""),
            "route[1].path: route[0] has the same host, path and methods",
        ),
        (
            route("path = \"/a/../b\""),
            "route[1].path = \"/a/../b\": must be a path",
        ),
        (
            route("path = \"//a\""),
            "route[1].path = \"//a\": must be a path",
        ),
        (
            route("path = \"/a\"\nmethods = []"),
            "route[1].methods = []: must list at least one",
        ),
        (
            route("path = \"/a\"\nallow_origins = [\"https://a.test\"]"),
            "route[1].allow_origins = [\"https://a.test\"]: has a meaning with handler",
        ),
        (
            route("path = \"/a\"\nmethods = [\"TRACE\"]"),
            "route[1].methods = [\"TRACE\"]: \"TRACE\" is refused before any route",
        ),
        (
            route("path = \"/a b\""),
            "route[1].path = \"/a b\": must be a path",
        ),
        (
            route("path = \"/\"\nhost = \"*\""),
            "route[1].host = \"*\": must be a host name",
        ),
        (
            route("path = \"/a\"\nlimits = [\"per-ip\", \"per-ip\"]"),
            "route[1].limits = [\"per-ip\", \"per-ip\"]: \"per-ip\" is listed twice",
        ),
        (
            base.replace("127.0.0.1:3001", "127.0.0.1:9900"),
            "upstream[0].endpoints[1].address: 127.0.0.1:9900 is the admin listener",
        ),
        (
            base.replace("breaker =", "health = { path = \"/a b\" }\nbreaker ="),
            "upstream[0].health.path = \"/a b\": must be a path",
        ),
        (
            format!("{base}[log]\naccess = \"/tmp\"\n"),
            "log.access = \"/tmp\": must be a file",
        ),
        (
            format!("{base}[server]\nidle_timeout = \"2h\"\n"),
            "server.idle_timeout = \"2h\": must be 1ms to 1h",
        ),
        (
            format!("{base}[seckill]\nbuyer = \"header:host\"\n"),
            "seckill.buyer: host belongs to the connection",
        ),
        (
            format!("{base}[[listener]]\naddress = \"127.0.0.1:8080\"\n"),
            "listener[2].address: 127.0.0.1:8080 is part of listener[1]'s 0.0.0.0:8080",
        ),
        (
            format!("{base}[admin]\naddress = \"127.0.0.1:8080\"\n"),
            "listener[1].address: 0.0.0.0:8080 is the admin listener's",
        ),
        (
            base.replace("127.0.0.1:3001", "localhost:8080"),
            "upstream[0].endpoints[1].address: localhost:8080 is a listener of this file",
        ),
        (
            base.replace(
                "breaker =",
                "health = { interval = \"1s\", timeout = \"2s\" }\nbreaker =",
            ),
            "upstream[0].health.timeout = \"2s\": must not be longer than interval",
        ),
        (
            format!("{base}[log]\naccess = \"/no/such/folder/access.log\"\n"),
            "log.access = \"/no/such/folder/access.log\": must be a file in a folder that exists",
        ),
    ] {
        let found = problems(&text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(problem), "{found:?}");
    }
    // One for some methods and one for the rest, and other methods of one path, are both chosen.
    assert!(parse(&route("path = \"/\"\nmethods = [\"POST\"]")).is_ok());
}

#[test]
fn a_file_that_is_no_text_names_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("penstock.toml");
    std::fs::write(&path, b"[server]\nworkers = 1 # caf\xE9\n").unwrap();
    let error = Config::try_load(&path).unwrap_err();
    assert!(error.to_string().contains("line 2: not UTF-8"), "{error}");
}

#[test]
fn a_certificate_that_ends_soon_and_paths_alike_are_warnings() {
    let mut made = rcgen::CertificateParams::new(vec!["shop.test".to_owned()]).unwrap();
    made.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = made.self_signed(&key).unwrap();
    let (cert, key) = (cert.pem(), key.serialize_pem());
    let text = GOOD.replace("\"self-signed\"", "[{ cert = \"a.pem\", key = \"a.key\" }]");
    let text = format!(
        "{text}[[route]]\nname = \"a\"\npath = \"/Shoes\"\nupstream = \"shop\"\n\
         [[route]]\nname = \"b\"\npath = \"/shoes\"\nupstream = \"shop\"\n"
    );
    let inputs = Inputs {
        read: &|path| {
            let is_key = path.extension().is_some_and(|end| end == "key");
            Ok(if is_key { key.clone() } else { cert.clone() }.into_bytes())
        },
        is_folder: &std::path::Path::is_dir,
        env: &|_| None,
        cores: 1,
    };
    let warnings = Config::try_parse(&text, &inputs).unwrap().warnings;
    assert_eq!(warnings[0], "listener[0].tls[0].cert: has ended");
    assert!(warnings[1].starts_with("route[2].path: differs from route[1]'s in case only"));
}

/// The first of them hid the others, with the whole table before it, secrets in the wrong place included.
#[test]
fn every_problem_of_a_sales_or_payments_table_is_told_and_no_value_with_it() {
    let text = format!(
        "{GOOD}\n[seckill]\ndurabilty = 'fast'\nsnapshot_every = 256\nledger = 'mysql://x'\nredis_password = 'hunter2'\n\
         [seckill.downstream]\nurl = 'http://a:1/x'\nsecret = 'hunter2'\nin_flight = -1\n\
         [[seckill.token_keys]]\nkid = 7\n\
         [payment]\napi_key = 'sk_live_hunter2'\nsimulator = {{ seeed = 1 }}\n"
    );
    let found = problems(&text);
    for line in [
        "seckill.durabilty: unknown key: must be one of ",
        "seckill.redis_password: unknown key: must be one of ",
        "seckill.snapshot_every = 256: must be a size such as",
        "seckill.downstream.secret: unknown key: must be one of ",
        "seckill.downstream.in_flight = -1: must be 1 to 1024",
        "seckill.token_keys[0].kid = 7: must be a text in quotes",
        "seckill.ledger = \"mysql://x\": must be sqlite:FILE",
        "payment.api_key: must be a table",
        "payment.simulator.seeed: unknown key: must be one of ",
    ] {
        assert!(
            found.iter().any(|told| told.starts_with(line)),
            "{line}: {found:#?}"
        );
    }
    assert!(
        found
            .iter()
            .any(|line| line.ends_with("(did you mean \"durability\"?)")),
        "{found:#?}"
    );
    assert!(
        !found.iter().any(|line| line.contains("hunter2")),
        "{found:#?}"
    );
    let of_the_key = found
        .iter()
        .filter(|line| line.starts_with("payment.api_key"));
    assert_eq!(of_the_key.count(), 1, "{found:#?}");
}

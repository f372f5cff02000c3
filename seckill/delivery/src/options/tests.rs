//! What may stand in the table, and what is said about what may not.

use super::{names::NAME, *};

fn build(text: &str) -> Result<DownstreamConfig, Vec<String>> {
    let inputs = Inputs {
        env: &|name| (name != "UNSET").then(|| format!("the long secret of {name}")),
        ..Inputs::none()
    };
    settings::read_at("seckill.downstream", text, |section| read(section, &inputs))
}

fn problem(text: &str) -> String {
    let problems = build(text).expect_err(text);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.into_iter().next().unwrap()
}

#[test]
fn the_shop_has_a_limit_of_its_own() {
    let text = "url = \"http://shop:3000/hooks?a=1\"\nsecret_env = \"S\"";
    let Receiver::Webhook(http) = build(text).unwrap().receiver else {
        panic!("not http");
    };
    assert_eq!(http.url, "http://shop:3000/hooks?a=1");
    assert_eq!(http.secret, b"the long secret of S");
    assert_eq!(http.quota.to_string(), "100/1s burst 100");
    assert_eq!(http.in_flight.get(), 16);
    let text = format!("{text}\nrate = \"10/m\"\nburst = 3\nin_flight = 2\ntimeout = \"2s\"");
    let config = build(&text).unwrap();
    assert_eq!(config.timeout, Duration::from_secs(2));
    let Receiver::Webhook(http) = config.receiver else {
        panic!("not http");
    };
    assert_eq!(http.quota.to_string(), "10/60s burst 3");
    assert_eq!(http.in_flight.get(), 2);
}

#[test]
fn a_limit_that_is_none_is_refused() {
    let with = |line: &str| {
        problem(&format!(
            "url = \"http://shop:3000/\"\nsecret_env = \"S\"\n{line}"
        ))
    };
    assert!(
        with("rate = \"fast\"")
            .starts_with("seckill.downstream.rate = \"fast\": must be <count>/<time>")
    );
    assert!(with("burst = 0").ends_with("burst = 0: must be 1 to 4294967295"));
    assert!(with("rate = \"1/d\"\nburst = 400").contains("must fill within 366 days"));
    assert!(with("in_flight = 0").ends_with("must be 1 to 1024"));
    assert!(with("timeout = \"1h\"").ends_with("must be 100ms to 30s"));
}

#[cfg(feature = "amqp")]
#[test]
fn a_queue_of_rabbitmq() {
    let text =
        "url = \"amqp://rabbit\"\nqueue = \"orders\"\nusername = \"shop\"\npassword_env = \"P\"";
    let Receiver::Amqp(amqp) = build(text).unwrap().receiver else {
        panic!("not amqp");
    };
    assert_eq!(
        (amqp.host.as_str(), amqp.port, amqp.vhost.as_str()),
        ("rabbit", 5672, "/")
    );
    assert_eq!(amqp.credentials.unwrap().password, "the long secret of P");
    let kind = QueueType::Quorum;
    assert_eq!(
        amqp.target,
        AmqpTarget::Queue {
            name: "orders".into(),
            kind
        }
    );
    let text = "url = \"amqps://[::1]:1234/a%2fb%20c\"\nexchange = \"events\"";
    let Receiver::Amqp(amqp) = build(text).unwrap().receiver else {
        panic!("not amqp");
    };
    assert_eq!(
        (amqp.host.as_str(), amqp.port, amqp.vhost.as_str()),
        ("::1", 1234, "a/b c")
    );
    assert!(amqp.tls.is_some());
    assert_eq!(amqp.target, AmqpTarget::Exchange("events".into()));
}

#[cfg(feature = "nats")]
#[test]
fn a_stream_of_nats() {
    let keys = "stream = \"ORDERS\"\nsubject = \"shop.orders\"";
    let text = format!("url = \"nats://a:1,nats://b,c:3\"\n{keys}\ntoken_env = \"T\"");
    let Receiver::Nats(nats) = build(&text).unwrap().receiver else {
        panic!("not nats");
    };
    assert_eq!(nats.servers, ["nats://a:1", "nats://b", "nats://c:3"]);
    assert_eq!(nats.login, NatsLogin::Token("the long secret of T".into()));
    let two = format!("{text}\nusername = \"u\"\npassword_env = \"P\"");
    assert!(problem(&two).contains("not several"));
    assert!(
        problem("url = \"nats://a\"\nstream = \"OR.DERS\"\nsubject = \"x\"")
            .contains("must not hold a dot")
    );
    assert!(problem("url = \"nats://a\"\nstream = \"ORDERS\"\nsubject = \"x.*\"").contains(NAME));
}

#[test]
fn a_password_in_the_url_is_refused_and_not_shown() {
    for url in [
        "amqp://shop:hunter2@rabbit/x",
        "nats://hunter2@a:1,nats://hunter2@b:2",
        "kafka://u:hunter2@k:1",
        "shop:hunter2@rabbit",
    ] {
        let problem = problem(&format!("url = \"{url}\""));
        assert!(!problem.contains("hunter2"), "{problem}");
        assert!(problem.starts_with("seckill.downstream.url"), "{problem}");
    }
}

#[test]
fn a_user_needs_a_password_and_a_password_a_user() {
    let with = |line: &str| problem(&format!("url = \"amqp://r\"\nqueue = \"q\"\n{line}"));
    assert!(with("username = \"u\"").contains("needs both"));
    assert!(with("password_env = \"P\"").contains("needs both"));
    assert!(with("username = \"u\"\npassword_env = \"UNSET\"").contains("empty or not set"));
}

#[test]
fn all_problems_are_told_at_once() {
    let problems = build("url = \"amqp://r:0\"\nqueue = \"a b\"\nqueue_type = \"big\"\nrate = \"1/s\"\ntimeout = \"0s\"\nca_file = \"x\"").unwrap_err();
    let keys: Vec<_> = problems
        .iter()
        .map(|problem| problem.split([' ', ':']).next().unwrap())
        .collect();
    let expected = ["timeout", "url", "queue_type", "queue", "ca_file", "rate"];
    assert_eq!(
        keys,
        expected.map(|key| format!("seckill.downstream.{key}"))
    );
}

#[test]
fn an_unknown_scheme_names_the_known_ones() {
    for url in ["ftp://x", "HTTP://shop", "shop:80", ""] {
        assert!(
            problem(&format!("url = \"{url}\"")).ends_with(URLS),
            "{url:?}"
        );
    }
}

#[test]
fn two_receivers_are_refused_with_the_reason() {
    let text = "[[downstream]]\nurl = \"http://a\"\n[[downstream]]\nurl = \"http://b\"";
    let told = settings::read_at("seckill", text, |seckill| {
        DownstreamConfig::read(&seckill, &Inputs::none())
    })
    .unwrap_err();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("exactly one receiver"), "{told:?}");
}

#[cfg(all(feature = "nats", not(feature = "nats-creds")))]
#[test]
fn a_creds_file_needs_a_program_that_can_sign_with_it() {
    let keys = "url = \"nats://a\"\nstream = \"ORDERS\"\nsubject = \"shop.orders\"";
    let text = format!("{keys}\ncredentials_file = \"penstock.creds\"");
    let inputs = Inputs {
        read: &|_| Ok(b"what nats gave".to_vec()),
        ..Inputs::none()
    };
    let problems = settings::read_at("seckill.downstream", &text, |section| {
        read(section, &inputs)
    })
    .unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    let said = problems[0].contains("cargo feature \"nats-creds\"");
    assert!(said, "{problems:#?}");
}

#[test]
fn a_key_of_another_receiver_is_named_as_such() {
    let with = |line: &str| {
        problem(&format!(
            "url = \"http://shop:3000/\"\nsecret_env = \"S\"\n{line}"
        ))
    };
    for (line, told) in [
        (
            "queue = \"orders\"",
            "seckill.downstream.queue = \"orders\": belongs to a url of amqp, amqps, not of http",
        ),
        (
            "password_file = \"/run/p\"",
            "seckill.downstream.password_file = \"/run/p\": belongs to a url of amqp, amqps, nats, tls, kafka, not of http",
        ),
        (
            "ca_file = \"ca.pem\"",
            "seckill.downstream.ca_file = \"ca.pem\": belongs to a url of https, amqps, tls, not of http",
        ),
        (
            "token_env = \"hunter2\"",
            "seckill.downstream.token_env: belongs to a url of nats, tls, not of http",
        ),
    ] {
        assert_eq!(with(line), told);
    }
    // What it may have meant is looked for among the keys of all receivers.
    assert!(with("quue = \"orders\"").ends_with("(did you mean \"queue\"?)"));
}

/// The table in docs/configuration.md says the same.
#[test]
fn the_keys_of_each_receiver_are_those_that_its_reader_asks_for() {
    const TLS: [&str; 3] = ["ca_file", "client_cert_file", "client_key_file"];
    const USER: [&str; 3] = ["username", "password_file", "password_env"];
    const AMQP: [&str; 3] = ["queue_type", "queue", "exchange"];
    const HTTP: [&str; 5] = ["rate", "burst", "in_flight", "secret_file", "secret_env"];
    const NATS: [&str; 5] = [
        "stream",
        "subject",
        "token_file",
        "token_env",
        "credentials_file",
    ];
    for (scheme, expected) in [
        ("http", HTTP.to_vec()),
        ("https", [&HTTP[..], &TLS].concat()),
        ("amqp", [AMQP, USER].concat()),
        ("amqps", [AMQP, USER, TLS].concat()),
        ("nats", [&NATS[..], &USER].concat()),
        ("tls", [&NATS[..], &USER, &TLS].concat()),
        ("kafka", [&["topic"][..], &USER].concat()),
    ] {
        let (mut keys, mut expected) = (keys_of(scheme), expected);
        keys.sort_unstable();
        expected.sort_unstable();
        assert_eq!(keys, expected, "{scheme}");
    }
}

#[test]
fn certificates_are_read_with_the_configuration() {
    let own = rcgen::generate_simple_self_signed(["shop".to_owned()]).unwrap();
    let other = rcgen::KeyPair::generate().unwrap();
    let pems = [
        ("/ca.pem", own.cert.pem()),
        ("/key.pem", own.signing_key.serialize_pem()),
        ("/other.pem", other.serialize_pem()),
        ("/empty.pem", String::new()),
    ];
    let inputs = Inputs {
        env: &|_| Some("the long secret of the test".to_owned()),
        read: &|path| {
            let found = pems.iter().find(|(name, _)| path.ends_with(&name[1..]));
            found
                .map(|(_, pem)| pem.clone().into_bytes())
                .ok_or_else(|| std::io::ErrorKind::NotFound.into())
        },
        ..Inputs::none()
    };
    let with = |lines: &str| {
        let text = format!("url = \"https://shop/x\"\nsecret_env = \"S\"\n{lines}");
        let read = settings::read_at("seckill.downstream", &text, |section| {
            read(section, &inputs)
        });
        read.err().unwrap_or_default().join("; ")
    };
    let mine = "client_cert_file = \"/ca.pem\"\nclient_key_file = \"/key.pem\"";
    assert_eq!(with(&format!("ca_file = \"/ca.pem\"\n{mine}")), "");
    for (lines, told) in [
        ("ca_file = \"/none.pem\"", "cannot be read"),
        (
            "ca_file = \"/empty.pem\"",
            "must hold certificates of authorities in PEM",
        ),
        (
            "ca_file = \"/key.pem\"",
            "must hold certificates of authorities in PEM",
        ),
        (
            "client_cert_file = \"/ca.pem\"",
            "needs client_key_file too",
        ),
        (
            "client_key_file = \"/key.pem\"",
            "needs client_cert_file too",
        ),
        (
            "client_cert_file = \"/ca.pem\"\nclient_key_file = \"/other.pem\"",
            "must hold a certificate in PEM, and client_key_file its key",
        ),
    ] {
        let problems = with(lines);
        assert!(problems.contains(told), "{lines}: {problems}");
    }
}

#[test]
fn what_is_printed_for_debugging_holds_no_secret() {
    let webhook = "url = \"https://shop/hunter2\"\nsecret_env = \"hunter2\"";
    let nats = "url = \"nats://a\"\nstream = \"s\"\nsubject = \"s\"\ntoken_env = \"hunter2\"";
    let amqp = "url = \"amqp://a\"\nqueue = \"q\"\nusername = \"u\"\npassword_env = \"hunter2\"";
    for text in [webhook, nats, amqp] {
        let config = settings::read_at("seckill.downstream", text, |section| {
            let inputs = Inputs {
                env: &|name| Some(name.repeat(3)),
                ..Inputs::none()
            };
            let url = section.text("url").unwrap();
            let address = address(&section, &url).unwrap();
            receiver(&section, &address, &inputs)
        });
        let printed = format!("{config:?}");
        assert!(!printed.contains("hunter2"), "{printed}");
        assert!(!printed.contains("104, 117"), "{printed}");
    }
}

#[cfg(not(feature = "kafka"))]
#[test]
fn a_sink_that_was_not_built_is_a_problem() {
    let problem = problem("url = \"kafka://k:1\"\ntopic = \"orders\"");
    assert!(problem.contains("cargo feature \"kafka\""), "{problem}");
}

//! What may stand in the table, and what is said about what may not.

use super::{values::NAME, *};
#[cfg(feature = "nats")]
use crate::downstream::NatsLogin;
#[cfg(feature = "amqp")]
use crate::downstream::{AmqpTarget, QueueType};

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
    let Target::Http(http) = build(text).unwrap().target else {
        panic!("not http");
    };
    assert_eq!(http.url, "http://shop:3000/hooks?a=1");
    assert_eq!(http.secret, b"the long secret of S");
    assert_eq!(http.quota.to_string(), "100/1s burst 100");
    assert_eq!(http.in_flight.get(), 16);
    let text = format!("{text}\nrate = \"10/m\"\nburst = 3\nin_flight = 2\ntimeout = \"2s\"");
    let config = build(&text).unwrap();
    assert_eq!(config.timeout, Duration::from_secs(2));
    let Target::Http(http) = config.target else {
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
    let Target::Amqp(amqp) = build(text).unwrap().target else {
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
    let text =
        "url = \"amqps://[::1]:1234/a%2fb%20c\"\nexchange = \"events\"\nca_file = \"ca.pem\"";
    let Target::Amqp(amqp) = build(text).unwrap().target else {
        panic!("not amqp");
    };
    assert_eq!(
        (amqp.host.as_str(), amqp.port, amqp.vhost.as_str()),
        ("::1", 1234, "a/b c")
    );
    assert!(amqp.tls);
    assert_eq!(amqp.target, AmqpTarget::Exchange("events".into()));
}

#[cfg(feature = "nats")]
#[test]
fn a_stream_of_nats() {
    let keys = "stream = \"ORDERS\"\nsubject = \"shop.orders\"";
    let text = format!("url = \"nats://a:1,nats://b,c:3\"\n{keys}\ntoken_env = \"T\"");
    let Target::Nats(nats) = build(&text).unwrap().target else {
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
    let expected = ["timeout", "url", "queue_type", "queue", "rate", "ca_file"];
    assert_eq!(
        keys,
        expected.map(|key| format!("seckill.downstream.{key}"))
    );
}

#[test]
fn an_unknown_scheme_names_the_known_ones() {
    for url in ["ftp://x", "https://shop/x", "shop:80", ""] {
        assert!(
            problem(&format!("url = \"{url}\"")).ends_with(SCHEMES),
            "{url:?}"
        );
    }
}

#[test]
fn two_receivers_are_refused_with_the_reason() {
    let text = "[[downstream]]\nurl = \"http://a\"\n[[downstream]]\nurl = \"http://b\"";
    let told = settings::read_at("seckill", text, |seckill| {
        downstream(&seckill, &Inputs::none())
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

#[cfg(not(feature = "kafka"))]
#[test]
fn a_sink_that_was_not_built_is_a_problem() {
    let problem = problem("url = \"kafka://k:1\"\ntopic = \"orders\"");
    assert!(problem.contains("cargo feature \"kafka\""), "{problem}");
}

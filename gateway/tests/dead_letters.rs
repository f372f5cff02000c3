//! `penstock dead-letters` against a running gateway: what an operator types, and the exit codes.

use std::process::{Command, Output};

use seckill::ledger::DeadLetter;
use serde_json::Value;

use crate::telling::Shop;

fn penstock(shop: &Shop, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(["dead-letters", "--admin"])
        .arg(format!("http://{}", shop.gateway.addresses.admin))
        .args(arguments)
        .output()
        .unwrap()
}

fn printed(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn letters_are_listed_and_replayed_from_the_command_line() {
    let shop = Shop::open().await;
    let order = shop.buy("ann").await;
    let order = order.trim_start_matches("/v1/orders/").parse().unwrap();
    let ledger = shop.engine.ledger();
    let sale = shop.engine.catalogue().sales()[0].clone();
    let letter = |position: &str, order| DeadLetter {
        segment: sale.segments().next().unwrap().id.clone(),
        position: position.to_owned(),
        order,
        reason: "why".to_owned(),
        raw: "raw".to_owned(),
        held: None,
    };
    ledger
        .once_settled(order, std::time::Duration::from_secs(10))
        .await
        .expect("it is settled");
    let letters = [letter("1-0", Some(order)), letter("2-0", None)];
    ledger.set_aside(&letters, 7).await.unwrap();

    let listed = penstock(&shop, &["list", "spring"]);
    assert_eq!(listed.status.code(), Some(0));
    assert_eq!(
        printed(&listed)["dead_letters"].as_array().unwrap().len(),
        2
    );

    let one = penstock(&shop, &["replay", "spring", "shoe:0:1-0"]);
    assert_eq!(one.status.code(), Some(0));
    assert_eq!(printed(&one)["replays"][0]["outcome"], "duplicate");
    let all = penstock(&shop, &["replay", "spring", "--all"]);
    assert_eq!(all.status.code(), Some(1), "one entry stays");
    assert_eq!(printed(&all)["stay"], 1);
    assert_eq!(printed(&all)["replays"][0]["outcome"], "unreadable");

    let events = penstock(&shop, &["replay-events", "spring"]);
    assert_eq!(
        (events.status.code(), printed(&events)["due"].as_u64()),
        (Some(0), Some(0))
    );
    let unknown = penstock(&shop, &["replay", "spring", "shoe:0:7-7"]);
    assert_eq!(unknown.status.code(), Some(1));
    let told = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(told.contains("no_such_letter"), "{told}");
    let neither = penstock(&shop, &["replay", "spring"]);
    assert_eq!(neither.status.code(), Some(2));
    shop.close().await;
}

//! A purchase that is sent again: what it is told, and that this is never less than was told before.

use super::*;

// The store knows nothing of a payment that is under way; asked again for the purchase, it said reserved.
#[tokio::test]
async fn a_purchase_sent_again_never_tells_less_than_was_told() {
    let shop = shop().await;
    let (_, order) = shop.buy("ann", "k1", 1).await;
    shop.settle().await;
    let ledger = shop.parts.engine.ledger();
    let id = order["id"].as_str().unwrap();
    let mut tx = ledger.pool().begin().await.unwrap();
    let held = ledger.hold(&mut tx, id.parse().unwrap(), "pi_1", START);
    held.await.unwrap();
    tx.commit().await.unwrap();
    let path = format!("/v1/orders/{id}");
    let (_, told, response) = shop.send(get(&path, "ann")).await;
    assert_eq!(told["status"], "paying");
    let body = json!({"sku": "shoe", "quantity": 1}).to_string();
    let again = post("spring", Some("ann"), Some("k1"), &body);
    let (status, told, replayed) = shop.send(again).await;
    assert_eq!(
        (status, told["status"].as_str()),
        (StatusCode::OK, Some("paying"))
    );
    assert_eq!(replayed.headers()["etag"], response.headers()["etag"]);
}

/// A chaos run found the retry of a cancelled purchase answered "reserved", by another node, until the store had heard of it.
#[tokio::test]
async fn a_retry_is_told_where_the_ledger_has_its_order() {
    let shop = shop().await;
    let (_, order) = shop.buy("ann", "k1", 1).await;
    shop.settle().await;
    // Another node has cancelled it: this one has told nobody, and nothing tells the store here.
    let ledger = shop.parts.engine.ledger();
    let id = order["id"].as_str().unwrap().parse().unwrap();
    ledger
        .cancel(id, &"ann".parse().unwrap(), START)
        .await
        .unwrap();
    assert_eq!(shop.parts.available().await, 2);
    let (status, replay) = shop.buy("ann", "k1", 1).await;
    assert_eq!((status, &replay["id"]), (StatusCode::OK, &order["id"]));
    assert_eq!(replay["status"], "released");
}

/// Broke: the store knew the order, and its buyer was told that nobody knew whether they had bought.
#[tokio::test]
async fn a_retry_while_the_ledger_is_away_is_told_what_the_store_knows_for_sure() {
    let shop = shop().await;
    let (_, held) = shop.buy("ann", "k1", 1).await;
    let (_, released) = shop.buy("bob", "k2", 1).await;
    let store = shop.parts.engine.store();
    let open = shop.parts.engine.catalogue().sales()[0].clone();
    let segment = open.segments().next().unwrap().id.clone();
    let order = released["id"].as_str().unwrap().parse().unwrap();
    store.release_many(&segment, &[order]).await.unwrap();
    shop.parts.engine.ledger().pool().close().await;
    shop.parts.engine.ledger().readers().close().await;

    // Whether it was paid or cancelled meanwhile only the ledger can say (INV-ORDER-5).
    let (status, told) = shop.buy("ann", "k1", 1).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{told}");
    assert_eq!(
        (&told["id"], &told["status"]),
        (&held["id"], &json!("unknown"))
    );
    // Nothing comes after this.
    let (status, told) = shop.buy("bob", "k2", 1).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    assert_eq!(
        (&told["id"], &told["status"]),
        (&released["id"], &json!("released"))
    );
    // What has not been bought before still can be.
    assert_eq!(shop.buy("cat", "k3", 1).await.0, StatusCode::CREATED);
}

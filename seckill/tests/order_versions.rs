//! What a buyer is told never goes back (INV-ORDER-5): overlapping readers, two nodes over one ledger, a store that lags behind.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::FutureExt;
use seckill::ledger::{OrderStatus, Standing, WatchKey};

use crate::support::{
    ledger::{Engine, T0, TestLedger, on_both_engines, order, segment},
    memory_store::MemoryStore,
    node::{Node, Pay, json, order_path},
};

on_both_engines! {
    an_order_released_while_the_store_was_asked_is_not_reserved_again,
    the_first_order_of_a_request_stands,
    readers_of_two_nodes_never_see_an_order_go_back,
    versions_grow_with_every_change_and_only_then,
    a_change_between_reading_and_following_is_not_lost,
}

// The store was read after the ledger: an order that was settled and released in between was told as reserved.
async fn an_order_released_while_the_store_was_asked_is_not_reserved_again(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    let store = MemoryStore::new(test.clock());
    let node = Node::start(&test, &store).await;
    let order = order(1, 1);
    store.accept(&segment(), order.clone());
    let (ledger, settled) = (test.ledger.clone(), order.clone());
    *store.meanwhile.lock().unwrap() = Some(
        async move {
            let batch = std::slice::from_ref(&settled);
            ledger.settle(&segment(), 1, batch, T0).await.unwrap();
            ledger
                .cancel(settled.order, &settled.buyer, T0)
                .await
                .unwrap();
        }
        .boxed(),
    );
    let response = node.get(&order_path(order.order), 1, &[]).await;
    assert_eq!(response.headers()["etag"], "W/\"2\"");
    assert_eq!(json(response).await["status"], "released");
}

// A store that lost its last writes takes a request up again under another id. The buyer was told the new order by the store's
// word while the ledger had the old one.
async fn the_first_order_of_a_request_stands(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    let store = MemoryStore::new(test.clock());
    let node = Node::start(&test, &store).await;
    let first = order(1, 1);
    node.settle(&test, std::slice::from_ref(&first)).await;
    let mut second = order(2, 1);
    second.buyer = first.buyer.clone();
    second.request = first.request.clone();
    store.accept(&segment(), second);
    let path = "/v1/sales/spring/orders?sku=shoe&request_id=request-1";
    let told = json(node.get(path, 1, &[]).await).await;
    assert_eq!(told["id"], first.order.to_string());
}

async fn readers_of_two_nodes_never_see_an_order_go_back(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    let store = MemoryStore::new(test.clock());
    let nodes = [
        Arc::new(Node::start(&test, &store).await),
        Arc::new(Node::start(&test, &store).await),
    ];
    let order = order(1, 1);
    store.accept(&segment(), order.clone());
    let path = order_path(order.order);
    let by_request = "/v1/sales/spring/orders?sku=shoe&request_id=request-1".to_owned();
    // The latest version that anybody, at either node, has been answered.
    let heard = Arc::new(AtomicU64::new(1));
    let readers: Vec<_> = (0..8usize)
        .map(|n| {
            let (node, heard) = (nodes[n % 2].clone(), heard.clone());
            let path = if n % 4 < 2 {
                path.clone()
            } else {
                by_request.clone()
            };
            tokio::spawn(async move {
                loop {
                    let before = heard.load(Ordering::SeqCst);
                    let response = node.get(&path, 1, &[]).await;
                    assert_eq!(response.status(), 200);
                    let tag = response.headers()["etag"].to_str().unwrap().to_owned();
                    let version: u64 = tag[3..tag.len() - 1].parse().unwrap();
                    let status = json(response).await["status"].as_str().unwrap().to_owned();
                    assert!(version >= before, "{version} {status} after {before}");
                    heard.fetch_max(version, Ordering::SeqCst);
                    if status == "paid" {
                        return version;
                    }
                }
            })
        })
        .collect();
    nodes[0].settle(&test, std::slice::from_ref(&order)).await;
    for round in 0..10 {
        let node = &nodes[round % 2];
        node.pay(&test, order.order, Pay::Hold).await;
        node.pay(&test, order.order, Pay::Drop).await;
    }
    nodes[1].pay(&test, order.order, Pay::Paid).await;
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 22, "1, twenty changes, paid");
    }
}

async fn versions_grow_with_every_change_and_only_then(engine: Engine) {
    let test = TestLedger::with_sale(engine, 1).await;
    let store = MemoryStore::new(test.clock());
    let node = Node::start(&test, &store).await;
    let standing = async |n| {
        let order = test.ledger.order(order(n, 1).order).await.unwrap().unwrap();
        (order.version, order.status)
    };
    node.settle(&test, &[order(1, 1)]).await;
    assert_eq!(standing(1).await, (1, OrderStatus::Reserved));
    node.settle(&test, &[order(1, 1), order(2, 1)]).await;
    assert_eq!(
        standing(1).await,
        (1, OrderStatus::Reserved),
        "a duplicate changes nothing"
    );
    assert_eq!(
        standing(2).await,
        (2, OrderStatus::Refused),
        "it was told as reserved before"
    );
    let id = order(1, 1).order;
    node.pay(&test, id, Pay::Hold).await;
    node.pay(&test, id, Pay::Hold).await;
    assert_eq!(
        standing(1).await,
        (2, OrderStatus::Paying),
        "held twice by one intent"
    );
    node.pay(&test, id, Pay::Drop).await;
    assert_eq!(standing(1).await, (3, OrderStatus::Reserved));
    let due = order(1, 1).pay_by_ms;
    test.ledger.expire_due(due, 10).await.unwrap();
    assert_eq!(standing(1).await, (4, OrderStatus::Released));
    node.cancel(&test, &order(1, 1)).await;
    node.pay(&test, id, Pay::Paid).await;
    assert_eq!(standing(1).await, (4, OrderStatus::Released));
}

async fn a_change_between_reading_and_following_is_not_lost(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    let store = MemoryStore::new(test.clock());
    let node = Node::start(&test, &store).await;
    let order = order(1, 1);
    node.settle(&test, std::slice::from_ref(&order)).await;
    node.cancel(&test, &order).await;
    let known = Standing {
        version: 1,
        status: OrderStatus::Reserved,
    };
    let mut follower = node
        .ledger()
        .subscribe(WatchKey::Order(order.order), Some(known));
    let news = follower.after(Some(known)).await;
    assert_eq!((news.version, news.status), (2, OrderStatus::Released));
    // One who knows less comes to the same entry later.
    let mut other = node.ledger().subscribe(WatchKey::Order(order.order), None);
    assert_eq!(other.after(None).await.version, 2);
}

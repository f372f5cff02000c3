//! What the Redis store says when Redis holds, or is, something it should not.

use std::time::Duration;

use stock::{
    CartLine, Gate, Moves, OrderQueue, Position, SegmentSpec, Segments, Selling, StockError,
    Verdict, ids::SegmentId,
};
use testkit::{
    rebuild::rebuild,
    redis::{Server, connect, purchase, shared, spec},
};

fn key(segment: &SegmentId, part: &str) -> String {
    format!("penstock:{{{segment}}}:{part}")
}

#[tokio::test]
async fn a_key_of_a_foreign_type_is_corrupt_and_sells_nothing() {
    let store = connect(&shared().url()).await;
    for part in ["meta", "buyers", "requests", "orders", "stream"] {
        let spec = spec(5, 5);
        let epoch = store.open(&spec).await.unwrap().epoch;
        shared().cli(&["del", &key(&spec.id, part)]);
        shared().cli(&["set", &key(&spec.id, part), "somebody else's"]);
        let result = store
            .buy_many(&spec.id, epoch, vec![purchase(&spec.id, "ann", "r1")])
            .await;
        assert!(
            matches!(&result, Err(StockError::Corrupt(why)) if why.contains("WRONGTYPE")),
            "{part}: {result:?}"
        );
        if part != "meta" {
            let counts = store.snapshot(&spec.id).await.unwrap();
            assert_eq!(
                (counts.available, counts.gate),
                (5, Gate::Open),
                "{part}: nothing was half done"
            );
        }
    }
}

#[tokio::test]
async fn orders_without_their_meta_are_corrupt_and_never_opened_anew() {
    let store = connect(&shared().url()).await;
    let spec = spec(5, 5);
    let epoch = store.open(&spec).await.unwrap().epoch;
    store
        .buy_many(&spec.id, epoch, vec![purchase(&spec.id, "ann", "r1")])
        .await
        .unwrap();
    shared().cli(&["del", &key(&spec.id, "meta")]);
    let lost = store
        .buy_many(&spec.id, epoch, vec![purchase(&spec.id, "ann", "r2")])
        .await;
    assert!(matches!(lost, Err(StockError::NotOpen(_))), "{lost:?}");
    let opened = store.open(&spec).await;
    assert!(matches!(opened, Err(StockError::Corrupt(_))), "{opened:?}");
}

#[tokio::test]
async fn a_segment_that_was_left_half_written_is_frozen() {
    let store = connect(&shared().url()).await;
    let spec = spec(5, 5);
    let epoch = store.open(&spec).await.unwrap().epoch;
    let first = purchase(&spec.id, "ann", "r1");
    store
        .buy_many(&spec.id, epoch, vec![first.clone()])
        .await
        .unwrap();
    shared().cli(&["hset", &key(&spec.id, "meta"), "state", "D"]);

    let batch = vec![purchase(&spec.id, "bob", "r1"), first.clone()];
    let verdicts = store.buy_many(&spec.id, epoch, batch).await.unwrap();
    assert_eq!(verdicts[0], Verdict::Frozen);
    assert!(matches!(&verdicts[1], Verdict::Replayed(order) if order.order == first.order));
    let refusals = [
        store.set_gate(&spec.id, Gate::Open).await.map(drop),
        store.release_many(&spec.id, &[first.order]).await.map(drop),
    ];
    for refusal in refusals {
        assert!(
            matches!(refusal, Err(StockError::AwaitsRebuild(_))),
            "{refusal:?}"
        );
    }
    let counts = store.snapshot(&spec.id).await.unwrap();
    assert_eq!((counts.gate, counts.needs_rebuild), (Gate::Frozen, true));

    let rebuilt = rebuild(&store, &spec, epoch + 1, &mut Vec::new()).await;
    assert_eq!(rebuilt.unwrap().available, 4);
    let wish = purchase(&spec.id, "bob", "r1");
    let verdicts = store.buy_many(&spec.id, epoch + 1, vec![wish, first]).await;
    let [Verdict::Accepted { .. }, Verdict::Replayed(_)] = &verdicts.unwrap()[..] else {
        panic!("a rebuilt segment sells")
    };
}

#[tokio::test]
async fn counters_that_do_not_add_up_are_corrupt() {
    let store = connect(&shared().url()).await;
    let spec = spec(5, 5);
    let epoch = store.open(&spec).await.unwrap().epoch;
    for (field, value) in [("available", "6"), ("available", "many"), ("available", "")] {
        shared().cli(&["hset", &key(&spec.id, "meta"), field, value]);
        let result = store
            .buy_many(&spec.id, epoch, vec![purchase(&spec.id, "ann", "r1")])
            .await;
        assert!(
            matches!(result, Err(StockError::Corrupt(_))),
            "{value:?}: {result:?}"
        );
    }
}

#[tokio::test]
async fn a_poison_entry_is_handed_out_with_its_reason_and_can_be_acknowledged() {
    let store = connect(&shared().url()).await;
    let spec = spec(5, 5);
    let epoch = store.open(&spec).await.unwrap().epoch;
    let stream = key(&spec.id, "stream");
    shared().cli(&["xadd", &stream, "*", "something", "else"]);
    shared().cli(&["xadd", &stream, "*", "o", "ord_00000000000000000000000000"]);
    let purchase = purchase(&spec.id, "ann", "r1");
    store
        .buy_many(&spec.id, epoch, vec![purchase.clone()])
        .await
        .unwrap();

    let entries = store
        .pull(&spec.id, "c1", 10, Duration::from_secs(60))
        .await
        .unwrap();
    assert_eq!(entries.len(), 3);
    assert!(
        entries[0]
            .order
            .as_ref()
            .unwrap_err()
            .contains("no order id"),
        "{entries:?}"
    );
    assert!(
        entries[1]
            .order
            .as_ref()
            .unwrap_err()
            .contains("does not hold"),
        "{entries:?}"
    );
    assert_eq!(entries[2].order.as_ref().unwrap().order, purchase.order);
    let accepted = store
        .accepted_after(&spec.id, Position::default(), 2)
        .await
        .unwrap();
    assert_eq!(accepted.len(), 1, "a poison entry is no accepted order");

    let positions: Vec<_> = entries.iter().map(|entry| entry.position).collect();
    store.ack(&spec.id, &positions).await.unwrap();
    assert_eq!(store.depth(&spec.id).await.unwrap().entries, 0);
}

#[tokio::test]
async fn an_unreadable_answer_leaves_unknown_what_was_executed() {
    let server = Server::start(&[]);
    let store = connect(&server.url()).await;
    let mut stranger = "#!lua name=penstock_v3\n".to_owned();
    for name in [
        "open", "buy", "release", "confirm", "set_gate", "restock", "snapshot",
    ] {
        stranger += &format!(
            "redis.register_function('penstock_v3_{name}', function() return 'nonsense' end)\n"
        );
    }
    let loaded = server.cli(&["function", "load", "replace", &stranger]);
    assert_eq!(loaded, "penstock_v3");
    let spec = spec(5, 5);
    let id = &spec.id;
    let wish = purchase(id, "ann", "r1");
    let errors = [
        store.open(&spec).await.err(),
        store.buy_many(id, 1, vec![wish.clone()]).await.err(),
        store.release_many(id, &[wish.order]).await.err(),
        store.confirm_many(id, &[wish.order]).await.err(),
        store.set_gate(id, Gate::Paused).await.err(),
        store.restock(id, "pallet", 1).await.err(),
    ];
    for error in errors {
        assert!(
            matches!(&error, Some(StockError::Unknown(why)) if why.contains("nonsense")),
            "{error:?}"
        );
    }
    // Nothing was changed by a look, so here an operator is all that is missing.
    let read = store.snapshot(id).await;
    assert!(matches!(read, Err(StockError::Corrupt(_))), "{read:?}");
}

#[tokio::test]
async fn a_cart_names_the_line_whose_segment_is_lost() {
    let store = connect(&shared().url()).await;
    let spec = spec(5, 5);
    let lines: Vec<_> = ["shoe", "lace"]
        .map(|sku| SegmentId::of_cart(spec.id.sale.clone(), sku.parse().unwrap()))
        .map(|segment| CartLine {
            purchase: purchase(&segment, "ann", "r1"),
            segment,
            epoch: 1,
        })
        .into();
    let id = lines[0].segment.clone();
    store.open(&SegmentSpec { id, ..spec }).await.unwrap();
    let refused = store.buy_cart(lines.clone()).await;
    assert!(
        matches!(&refused, Err(StockError::NotOpen(lost)) if *lost == lines[1].segment),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_lost_consumer_group_is_corrupt() {
    let store = connect(&shared().url()).await;
    let spec = spec(5, 5);
    store.open(&spec).await.unwrap();
    shared().cli(&["xgroup", "destroy", &key(&spec.id, "stream"), "settlement"]);
    let pulled = store
        .pull(&spec.id, "c1", 10, Duration::from_secs(60))
        .await;
    assert!(matches!(pulled, Err(StockError::Corrupt(_))), "{pulled:?}");
    let depth = store.depth(&spec.id).await;
    assert!(matches!(depth, Err(StockError::Corrupt(_))), "{depth:?}");
}

#[tokio::test]
async fn numbers_that_redis_cannot_count_are_refused() {
    let store = connect(&shared().url()).await;
    let largest = SegmentSpec {
        stock: 1 << 53,
        ..spec(0, 1)
    };
    assert_eq!(store.open(&largest).await.unwrap().available, 1 << 53);
    assert!(matches!(
        store.restock(&largest.id, "s1", 1).await,
        Err(StockError::Unavailable(_))
    ));
    let epoch = 1;
    let verdicts = store
        .buy_many(&largest.id, epoch, vec![purchase(&largest.id, "ann", "r1")])
        .await
        .unwrap();
    assert!(
        matches!(verdicts[0], Verdict::Accepted { remaining, .. } if remaining == (1 << 53) - 1),
        "{verdicts:?}"
    );
    for stock in [(1 << 53) + 1, u64::MAX] {
        let too_large = SegmentSpec {
            stock,
            ..spec(0, 1)
        };
        assert!(matches!(
            store.open(&too_large).await,
            Err(StockError::Unavailable(_))
        ));
    }
}

#[tokio::test]
async fn a_full_server_refuses_to_sell_and_still_takes_units_back() {
    let server = Server::start(&[]);
    let store = connect(&server.url()).await;
    let spec = spec(5, 5);
    let epoch = store.open(&spec).await.unwrap().epoch;
    let first = purchase(&spec.id, "ann", "r1");
    store
        .buy_many(&spec.id, epoch, vec![first.clone()])
        .await
        .unwrap();
    server.cli(&["config", "set", "maxmemory", "1"]);
    let refused = store
        .buy_many(&spec.id, epoch, vec![purchase(&spec.id, "ann", "r2")])
        .await;
    assert!(
        matches!(refused, Err(StockError::Unavailable(_))),
        "{refused:?}"
    );
    store.release_many(&spec.id, &[first.order]).await.unwrap();
    assert_eq!(store.snapshot(&spec.id).await.unwrap().available, 5);
    server.cli(&["config", "set", "maxmemory", "0"]);
    store
        .buy_many(&spec.id, epoch, vec![purchase(&spec.id, "ann", "r2")])
        .await
        .unwrap();
}

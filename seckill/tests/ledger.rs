//! Sales, restocks and reads of the order ledger, the same facts on SQLite and on PostgreSQL.

use std::time::Duration;

use seckill::{
    ids::SkuId,
    ledger::{self, Created, LedgerError, Restock, Restocked, Settled},
    store::Gate,
};

use crate::support::ledger::{
    Engine, T0, TestLedger, on_both_engines, order, order_id, sale, sale_id, segment,
};

on_both_engines! {
    a_restock_adds_once_and_makes_room,
    a_sale_is_created_once_and_read_back,
    pages_show_every_order_once,
    waiting_for_an_order_ends_when_it_is_settled,
    the_report_counts_by_status,
    connecting_twice_keeps_the_data,
}

async fn a_restock_adds_once_and_makes_room(engine: Engine) {
    let test = TestLedger::with_sale(engine, 1).await;
    let settled = test
        .ledger
        .settle(&segment(), &[order(1, 2)], T0)
        .await
        .unwrap();
    assert_eq!(settled, [Settled::Refused]);
    let restock = Restock {
        sku: segment().sku,
        id: "pallet-7".to_owned(),
        units: 4,
    };
    assert_eq!(
        test.ledger.restock(&sale_id(), &restock, T0).await.unwrap(),
        Restocked::Added
    );
    assert_eq!(
        test.ledger.restock(&sale_id(), &restock, T0).await.unwrap(),
        Restocked::Repeated
    );
    let other = Restock {
        units: 5,
        ..restock.clone()
    };
    assert_eq!(
        test.ledger.restock(&sale_id(), &other, T0).await.unwrap(),
        Restocked::Conflict
    );
    let unknown = Restock {
        sku: SkuId::try_new("hat").unwrap(),
        ..restock.clone()
    };
    assert_eq!(
        test.ledger.restock(&sale_id(), &unknown, T0).await.unwrap(),
        Restocked::UnknownSku
    );
    assert_eq!(test.ledger.restocks(&sale_id()).await.unwrap(), [restock]);
    let settled = test
        .ledger
        .settle(&segment(), &[order(2, 5), order(3, 1)], T0)
        .await
        .unwrap();
    assert_eq!(settled, [Settled::Settled, Settled::Refused]);
    let line = test.shoe().await;
    assert_eq!((line.stock, line.restocked, line.sold), (1, 4, 5));
}

async fn a_sale_is_created_once_and_read_back(engine: Engine) {
    let test = TestLedger::new(engine).await;
    assert_eq!(
        test.ledger.create_sale(&sale(7), T0).await.unwrap(),
        Created::New
    );
    assert!(
        test.ledger
            .set_gate(&sale_id(), Gate::Paused)
            .await
            .unwrap()
    );
    assert_eq!(
        test.ledger.create_sale(&sale(7), T0).await.unwrap(),
        Created::Same
    );
    assert_eq!(
        test.ledger.create_sale(&sale(8), T0).await.unwrap(),
        Created::Conflict
    );
    let mut paused = sale(7);
    paused.gate = Gate::Paused;
    assert_eq!(
        test.ledger.sale(&sale_id()).await.unwrap(),
        Some(paused.clone())
    );
    assert_eq!(test.ledger.sales().await.unwrap(), [paused]);
    let other = "winter".parse().unwrap();
    assert_eq!(test.ledger.sale(&other).await.unwrap(), None);
    assert!(!test.ledger.set_gate(&other, Gate::Open).await.unwrap());
}

async fn pages_show_every_order_once(engine: Engine) {
    let test = TestLedger::with_sale(engine, 100).await;
    test.settle_new(0, 25).await;
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = test
            .ledger
            .orders_page(&sale(100), after, 10)
            .await
            .unwrap();
        seen.extend(page.orders.iter().map(|order| order.order));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..25).map(order_id).collect::<Vec<_>>());
}

async fn waiting_for_an_order_ends_when_it_is_settled(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    assert_eq!(
        test.ledger
            .await_order(order_id(1), Duration::from_millis(20))
            .await
            .unwrap(),
        None
    );
    let waiting = {
        let ledger = test.ledger.clone();
        tokio::spawn(async move {
            ledger
                .await_order(order_id(1), Duration::from_secs(30))
                .await
        })
    };
    test.settle_new(1, 1).await;
    assert_eq!(waiting.await.unwrap().unwrap().unwrap().order, order_id(1));
}

async fn the_report_counts_by_status(engine: Engine) {
    let test = TestLedger::with_sale(engine, 5).await;
    let orders = test.settle_new(1, 6).await;
    test.ledger
        .cancel(order_id(1), &orders[0].buyer, T0)
        .await
        .unwrap();
    let mut connection = test.ledger.pool().acquire().await.unwrap();
    test.ledger
        .mark_paid(&mut connection, order_id(2), "pi_1", T0)
        .await
        .unwrap();
    test.ledger
        .hold(&mut connection, order_id(3), "pi_2", T0)
        .await
        .unwrap();
    drop(connection);
    let report = test.ledger.report(&sale_id()).await.unwrap().unwrap();
    assert_eq!(
        (report.settled, report.paid, report.returned, report.refused),
        (6, 1, 1, 1)
    );
    assert_eq!(
        (
            report.outbox_pending,
            report.effects_pending,
            report.outside_window
        ),
        (8, 3, 0)
    );
    let line = &report.skus[0];
    assert_eq!((line.sold, line.reserved_units, line.paid_units), (4, 3, 1));
    assert_eq!(report.skus[1].sku.as_str(), "boot");
}

async fn connecting_twice_keeps_the_data(engine: Engine) {
    let test = TestLedger::with_sale(engine, 5).await;
    test.ledger.pool().close().await;
    let error = test.ledger.sales().await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    let again = ledger::connect(&test.url).await.unwrap();
    assert_eq!(
        ledger::OrderLedger::new(again).sales().await.unwrap(),
        [sale(5)]
    );
}

#[tokio::test]
async fn an_address_of_another_kind_is_refused() {
    for url in [
        "mysql://x",
        "",
        "/var/lib/ledger.db",
        "sqlite:/dev/null/x.db",
    ] {
        assert!(
            matches!(ledger::connect(url).await, Err(LedgerError::Address(_))),
            "{url:?}"
        );
    }
}

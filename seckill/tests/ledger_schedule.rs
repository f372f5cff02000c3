//! Drafts, publishing and moved windows in the ledger: versions decide, whichever node asks.

use seckill::{
    ids::SkuId,
    ledger::{Created, Edited, GateMoved, Published},
    sale::{Sale, SaleState, SkuOnSale, Stage},
};
use stock::Gate;

use crate::support::ledger::{Engine, T0, TestLedger, on_both_engines, sale, sale_id};

on_both_engines! {
    a_draft_is_replaced_whole_and_published_once,
    of_two_edits_of_one_version_one_is_stale,
    a_closed_draft_is_neither_edited_nor_published,
    a_window_moves_only_from_the_version_in_force,
}

fn draft() -> Sale {
    let mut draft = sale(7);
    draft.rules.stage = Stage::Draft;
    draft.rules.order_limit = Some(2);
    draft
}

async fn with_draft(engine: Engine) -> TestLedger {
    let test = TestLedger::new(engine).await;
    assert_eq!(
        test.ledger.create_sale(&draft(), T0).await.unwrap(),
        Created::New
    );
    test
}

async fn a_draft_is_replaced_whole_and_published_once(engine: Engine) {
    let test = with_draft(engine).await;
    let mut other = draft();
    other.buyer_limit = 5;
    other.rules.order_limit = None;
    other.skus = vec![SkuOnSale {
        sku: SkuId::try_new("cap").unwrap(),
        stock: 3,
        price_minor: 1,
    }];
    let edited = test.ledger.edit_draft(&other, 1, T0).await.unwrap();
    other.rules.version = 2;
    assert_eq!(edited, Edited::Done(Box::new(other.clone())));
    assert_eq!(
        test.ledger
            .move_gate(&sale_id(), Gate::Paused)
            .await
            .unwrap(),
        GateMoved::Draft
    );
    other.rules.stage = Stage::Published;
    other.rules.version = 3;
    assert_eq!(
        test.ledger.publish(&sale_id(), T0).await.unwrap(),
        Published::Done(Box::new(other.clone()))
    );
    assert_eq!(
        test.ledger.publish(&sale_id(), T0).await.unwrap(),
        Published::Already(Box::new(other.clone()))
    );
    assert_eq!(
        test.ledger.edit_draft(&draft(), 3, T0).await.unwrap(),
        Edited::Forbidden(SaleState::Open)
    );
    assert_eq!(test.ledger.sales().await.unwrap(), [other]);
}

async fn of_two_edits_of_one_version_one_is_stale(engine: Engine) {
    let test = with_draft(engine).await;
    let with_limit = |limit| {
        let mut edit = draft();
        edit.buyer_limit = limit;
        edit
    };
    let (one, other) = (with_limit(3), with_limit(4));
    let (one, other) = tokio::join!(
        test.ledger.edit_draft(&one, 1, T0),
        test.ledger.edit_draft(&other, 1, T0)
    );
    let edits = [one.unwrap(), other.unwrap()];
    let done = edits.iter().filter(|edit| matches!(edit, Edited::Done(_)));
    assert_eq!(done.count(), 1, "{edits:?}");
    assert!(edits.contains(&Edited::Stale { version: 2 }), "{edits:?}");
}

async fn a_closed_draft_is_neither_edited_nor_published(engine: Engine) {
    let test = with_draft(engine).await;
    let closed = test.ledger.move_gate(&sale_id(), Gate::Closed).await;
    assert_eq!(closed.unwrap(), GateMoved::Set);
    assert_eq!(
        test.ledger.edit_draft(&draft(), 1, T0).await.unwrap(),
        Edited::Forbidden(SaleState::Ended)
    );
    assert_eq!(
        test.ledger.publish(&sale_id(), T0).await.unwrap(),
        Published::Ended
    );
    let other = "winter".parse().unwrap();
    assert_eq!(
        test.ledger.publish(&other, T0).await.unwrap(),
        Published::Unknown
    );
}

async fn a_window_moves_only_from_the_version_in_force(engine: Engine) {
    let test = TestLedger::with_sale(engine, 1).await;
    let moved = async |version| {
        let ledger = &test.ledger;
        ledger
            .move_window(&sale_id(), version, T0 + 1, T0 + 99, T0)
            .await
            .unwrap()
    };
    assert_eq!(moved(9).await, Edited::Stale { version: 1 });
    let Edited::Done(sale) = moved(1).await else {
        panic!("the version was right");
    };
    assert_eq!(
        (sale.starts_at_ms, sale.ends_at_ms, sale.rules.version),
        (T0 + 1, T0 + 99, 2)
    );
    test.ledger
        .move_gate(&sale_id(), Gate::Closed)
        .await
        .unwrap();
    assert_eq!(moved(2).await, Edited::Forbidden(SaleState::Ended));
}

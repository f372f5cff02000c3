//! The lists of a sale in the ledger: changed in pages, read by what is new.

use std::collections::BTreeSet;

use seckill::{
    admission::{AdmissionBook, Refused},
    ids::BuyerId,
    ledger::{ListChanged, ListCursor, ListName, ListSize},
    sale::Admission,
};

use crate::support::ledger::{Engine, TestLedger, on_both_engines, sale, sale_id};

on_both_engines! {
    a_list_counts_who_came_and_who_went,
    a_reader_gets_only_what_is_new,
    pages_written_at_once_are_all_read,
    a_node_follows_what_another_changed,
}

fn buyer(n: u64) -> BuyerId {
    BuyerId::try_new(&format!("buyer-{n}")).unwrap()
}

fn buyers(range: std::ops::Range<u64>) -> Vec<BuyerId> {
    range.map(buyer).collect()
}

async fn change(
    test: &TestLedger,
    add: std::ops::Range<u64>,
    remove: std::ops::Range<u64>,
) -> (ListSize, u64, u64) {
    let (add, remove) = (buyers(add), buyers(remove));
    let ledger = &test.ledger;
    match ledger
        .change_list(&sale_id(), ListName::Block, &add, &remove)
        .await
        .unwrap()
    {
        ListChanged::Done {
            size,
            added,
            removed,
        } => (size, added, removed),
        other => panic!("{other:?}"),
    }
}

async fn a_list_counts_who_came_and_who_went(engine: Engine) {
    let test = TestLedger::with_sale(engine, 1).await;
    let size = |version, entries| ListSize { version, entries };
    assert_eq!(change(&test, 0..10, 0..0).await, (size(1, 10), 10, 0));
    assert_eq!(change(&test, 5..12, 0..3).await, (size(2, 9), 2, 3));
    assert_eq!(change(&test, 5..12, 0..3).await, (size(3, 9), 0, 0));
    assert_eq!(change(&test, 0..1, 0..0).await, (size(4, 10), 1, 0));
    let ledger = &test.ledger;
    assert_eq!(
        ledger.list_size(&sale_id(), ListName::Block).await.unwrap(),
        size(4, 10)
    );
    assert_eq!(
        ledger.list_size(&sale_id(), ListName::Allow).await.unwrap(),
        ListSize::default()
    );
}

async fn a_reader_gets_only_what_is_new(engine: Engine) {
    let test = TestLedger::with_sale(engine, 1).await;
    change(&test, 0..25, 0..0).await;
    let read = async |cursor: &mut ListCursor| {
        let mut told = Vec::new();
        loop {
            let page = test
                .ledger
                .list_changes(&sale_id(), ListName::Block, cursor, 10)
                .await
                .unwrap();
            let is_last = page.changes.len() < 10;
            told.extend(
                page.changes
                    .into_iter()
                    .map(|change| (change.buyer, change.is_listed)),
            );
            *cursor = page.read_up_to;
            if is_last {
                return told;
            }
        }
    };
    let mut cursor = ListCursor::default();
    let all: BTreeSet<_> = read(&mut cursor).await.into_iter().collect();
    assert_eq!(all, buyers(0..25).into_iter().map(|b| (b, true)).collect());
    assert_eq!(read(&mut cursor).await, []);
    change(&test, 30..31, 7..8).await;
    let mut news = read(&mut cursor).await;
    news.sort();
    assert_eq!(news, [(buyer(30), true), (buyer(7), false)]);
}

async fn pages_written_at_once_are_all_read(engine: Engine) {
    let test = TestLedger::with_sale(engine, 1).await;
    let book = AdmissionBook::default();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8u64 {
        let ledger = test.ledger.clone();
        writers.spawn(async move {
            for page in 0..5 {
                let first = (writer * 5 + page) * 20;
                let add = buyers(first..first + 20);
                ledger
                    .change_list(&sale_id(), ListName::Block, &add, &[])
                    .await
                    .unwrap();
            }
        });
    }
    // A reader that looks while versions are being written must not step over one.
    while !writers.is_empty() {
        book.refresh(&test.ledger).await.unwrap();
        if let Ok(Some(done)) =
            tokio::time::timeout(std::time::Duration::from_millis(1), writers.join_next()).await
        {
            done.unwrap();
        }
    }
    book.refresh(&test.ledger).await.unwrap();
    let missed: Vec<_> = buyers(0..800)
        .into_iter()
        .filter(|buyer| book.admits(&sale(1), buyer).is_ok())
        .collect();
    assert_eq!(missed, []);
}

async fn a_node_follows_what_another_changed(engine: Engine) {
    let test = TestLedger::with_sale(engine, 1).await;
    let book = AdmissionBook::default();
    let mut invited = sale(1);
    invited.rules.admission = Admission::AllowList;
    book.refresh(&test.ledger).await.unwrap();
    assert_eq!(
        book.admits(&invited, &buyer(1)),
        Err(Refused::NotAllowed),
        "nobody is on the list"
    );
    let put = async |list, add: Vec<BuyerId>, remove: Vec<BuyerId>| {
        test.ledger
            .change_list(&sale_id(), list, &add, &remove)
            .await
            .unwrap();
        book.refresh(&test.ledger).await.unwrap();
    };
    put(ListName::Allow, buyers(0..3), vec![]).await;
    assert_eq!(book.admits(&invited, &buyer(1)), Ok(()));
    assert_eq!(book.admits(&invited, &buyer(3)), Err(Refused::NotAllowed));
    assert_eq!(
        book.admits(&sale(1), &buyer(3)),
        Ok(()),
        "a sale that is open to all"
    );
    put(ListName::Block, buyers(1..2), vec![]).await;
    assert_eq!(book.admits(&invited, &buyer(1)), Err(Refused::Blocked));
    put(ListName::Block, vec![], buyers(1..2)).await;
    put(ListName::Allow, vec![], buyers(0..1)).await;
    assert_eq!(book.admits(&invited, &buyer(1)), Ok(()));
    assert_eq!(book.admits(&invited, &buyer(0)), Err(Refused::NotAllowed));
}

//! One draw, whichever nodes ask for it and wherever they die, on both engines.

use std::{sync::Arc, time::Duration};

use seckill::{
    engine::{DrawRefused, SaleEngine},
    ids::BuyerId,
    ledger::{Entered, Entry, ListName},
    lottery::{LotteryRules, Published, Round, Seed, entry_of, new_nonce, verify},
    sale::{Admission, Sale},
};

use crate::support::{
    ledger::{Engine, T0, TestLedger, on_both_engines, sale, sale_id},
    memory_store::MemoryStore,
};

on_both_engines! {
    a_buyer_enters_once_until_entries_are_sealed,
    no_entry_slips_in_while_it_is_sealed,
    the_seal_waits_for_an_entry_that_is_being_written,
    many_nodes_draw_one_draw,
    a_node_that_died_after_sealing_is_taken_over,
    the_reserve_takes_the_place_of_those_before,
}

const CLOSES: u64 = T0 + 1_000;

fn seed() -> Seed {
    Seed::new([7; 32])
}

fn lottery(winners: u64) -> Sale {
    let mut lottery = sale(10);
    lottery.skus.truncate(1);
    lottery.rules.admission = Admission::Lottery;
    lottery.rules.lottery = Some(LotteryRules {
        closes_at_ms: CLOSES,
        winners,
        commitment: seed().commitment(),
        beacon_source: String::new(),
    });
    lottery
}

fn buyer(n: u64) -> BuyerId {
    BuyerId::try_new(&format!("buyer-{n}")).unwrap()
}

fn entry(n: u64) -> Entry {
    let nonce = new_nonce(u128::from(n));
    Entry {
        entry: entry_of(&sale_id(), &buyer(n), &nonce),
        nonce,
        at_ms: T0,
    }
}

async fn with_entries(engine: Engine, winners: u64, entries: u64) -> TestLedger {
    let test = TestLedger::new(engine).await;
    test.ledger
        .create_sale(&lottery(winners), T0)
        .await
        .unwrap();
    for n in 0..entries {
        let entered = test.ledger.enter(&sale_id(), &buyer(n), &entry(n)).await;
        assert_eq!(entered.unwrap(), Entered::New(entry(n)));
    }
    test
}

/// A node over the ledger and a store of its own.
async fn node(test: &TestLedger) -> Arc<SaleEngine> {
    let store = MemoryStore::new(test.clock());
    let bell = Arc::default();
    let patience = Duration::from_secs(5);
    SaleEngine::start(store, test.ledger.clone(), test.clock(), patience, bell)
        .await
        .unwrap()
}

/// The draw as buyers see it, done again.
async fn check(test: &TestLedger) -> Vec<String> {
    let draw = test.ledger.draw(&sale_id()).await.unwrap().unwrap();
    let published = Published {
        sale: sale_id(),
        commitment: seed().commitment(),
        seed: draw.seed,
        beacon_source: String::new(),
        beacon: draw.beacon,
        entries: draw.entries,
        root: draw.root,
        rounds: test.ledger.draw_rounds(&sale_id()).await.unwrap(),
    };
    let entries = test.ledger.entries(&sale_id(), "", 10_000).await.unwrap();
    let verdict = verify(&published, entries.iter().map(String::as_str));
    assert_eq!(verdict.faults, Vec::<String>::new());
    verdict.winners
}

/// Who may buy on a node, out of the first `of` buyers.
fn drawn_on(node: &SaleEngine, of: u64) -> Vec<u64> {
    let drawn = (0..of).filter(|n| {
        node.admission()
            .is_on(&sale_id(), ListName::Drawn, &buyer(*n))
    });
    drawn.collect()
}

fn entries_of(buyers: &[u64]) -> Vec<String> {
    let mut entries: Vec<_> = buyers.iter().map(|n| entry(*n).entry).collect();
    entries.sort();
    entries
}

async fn a_buyer_enters_once_until_entries_are_sealed(engine: Engine) {
    let test = with_entries(engine, 1, 1).await;
    let again = Entry {
        nonce: "another".to_owned(),
        ..entry(0)
    };
    let entered = test.ledger.enter(&sale_id(), &buyer(0), &again).await;
    assert_eq!(entered.unwrap(), Entered::Before(entry(0)));
    let draw = test.ledger.seal(&sale_id(), "aa", "bb").await.unwrap();
    assert_eq!(draw.unwrap().beacon, "bb");
    let draw = test.ledger.seal(&sale_id(), "cc", "dd").await.unwrap();
    assert_eq!(draw.unwrap().beacon, "bb", "sealed is sealed");
    let entered = test.ledger.enter(&sale_id(), &buyer(1), &entry(1)).await;
    assert_eq!(entered.unwrap(), Entered::Closed);
    let entered = test.ledger.enter(&sale_id(), &buyer(0), &entry(0)).await;
    assert_eq!(entered.unwrap(), Entered::Before(entry(0)));
}

async fn no_entry_slips_in_while_it_is_sealed(engine: Engine) {
    let test = with_entries(engine, 1, 0).await;
    let mut entering = tokio::task::JoinSet::new();
    for n in 0..60 {
        let ledger = test.ledger.clone();
        entering.spawn(async move { ledger.enter(&sale_id(), &buyer(n), &entry(n)).await });
    }
    tokio::task::yield_now().await;
    test.ledger.seal(&sale_id(), "aa", "").await.unwrap();
    let sealed = test.ledger.entries(&sale_id(), "", 1000).await.unwrap();
    let answers = entering.join_all().await;
    let entered = answers
        .into_iter()
        .filter(|answer| matches!(answer.as_ref().unwrap(), Entered::New(_)))
        .count();
    let later = test.ledger.entries(&sale_id(), "", 1000).await.unwrap();
    assert_eq!(
        later, sealed,
        "what was read after the seal is all there is"
    );
    assert_eq!(entered, sealed.len());
}

async fn the_seal_waits_for_an_entry_that_is_being_written(engine: Engine) {
    let test = with_entries(engine, 1, 0).await;
    let mut writing = test.ledger.pool().begin().await.unwrap();
    let entered = test
        .ledger
        .enter_in(&mut writing, &sale_id(), &buyer(1), &entry(1))
        .await;
    assert!(entered.unwrap());
    let ledger = test.ledger.clone();
    let mut sealing = tokio::spawn(async move { ledger.seal(&sale_id(), "aa", "").await });
    let early = tokio::time::timeout(Duration::from_millis(300), &mut sealing).await;
    assert!(early.is_err(), "sealed beside an entry that is on its way");
    writing.commit().await.unwrap();
    sealing.await.unwrap().unwrap();
    let sealed = test.ledger.entries(&sale_id(), "", 10).await.unwrap();
    assert_eq!(sealed, [entry(1).entry]);
}

async fn many_nodes_draw_one_draw(engine: Engine) {
    let test = with_entries(engine, 3, 20).await;
    let early = node(&test).await.draw(&lottery(3), &seed(), "").await;
    let still_open = DrawRefused::StillOpen {
        closes_at_ms: CLOSES,
    };
    assert_eq!(early.unwrap(), Err(still_open));
    test.advance(1_000);
    let nodes = [node(&test).await, node(&test).await, node(&test).await];
    let wrong = nodes[0].draw(&lottery(3), &Seed::new([8; 32]), "").await;
    assert_eq!(wrong.unwrap(), Err(DrawRefused::WrongSeed));
    let beacon = nodes[0].draw(&lottery(3), &seed(), "42").await.unwrap();
    let unannounced = DrawRefused::Beacon {
        is_announced: false,
    };
    assert_eq!(beacon, Err(unannounced));

    let mut draws = tokio::task::JoinSet::new();
    for node in nodes.iter().cycle().take(9) {
        let node = node.clone();
        draws.spawn(async move { node.draw(&lottery(3), &seed(), "").await.unwrap() });
    }
    let first = Round {
        round: 1,
        first: 0,
        count: 3,
        at_ms: test.now_ms(),
    };
    for drawn in draws.join_all().await {
        assert_eq!(drawn, Ok(first.clone()));
    }
    let mut winners = check(&test).await;
    winners.sort();
    for node in &nodes {
        node.refresh().await.unwrap();
        assert_eq!(entries_of(&drawn_on(node, 20)), winners);
    }
    let size = test.ledger.list_size(&sale_id(), ListName::Drawn).await;
    assert_eq!(size.unwrap().entries, 3);
}

async fn a_node_that_died_after_sealing_is_taken_over(engine: Engine) {
    let test = with_entries(engine, 50, 5).await;
    test.advance(1_000);
    // What the dead node had done.
    let sealed = test.ledger.seal(&sale_id(), &seed().to_hex(), "").await;
    assert_eq!(sealed.unwrap().unwrap().drawn_at_ms, None);
    let drawn = node(&test).await.draw(&lottery(50), &seed(), "").await;
    assert_eq!(
        drawn.unwrap().unwrap().count,
        5,
        "fewer entered than may win"
    );
    assert_eq!(check(&test).await.len(), 5);
}

async fn the_reserve_takes_the_place_of_those_before(engine: Engine) {
    let test = with_entries(engine, 3, 9).await;
    test.advance(1_000);
    let node = node(&test).await;
    let again = async |round, winners| node.draw_again(&lottery(3), round, winners).await.unwrap();
    assert_eq!(again(2, 3).await, Err(DrawRefused::NotDrawn));
    node.draw(&lottery(3), &seed(), "").await.unwrap().unwrap();
    let first = drawn_on(&node, 9);
    assert_eq!(again(3, 2).await, Err(DrawRefused::Round { next: 2 }));
    // Ten units, two a buyer.
    assert_eq!(again(2, 6).await, Err(DrawRefused::Winners { most: 5 }));
    let second = again(2, 2).await.unwrap();
    assert_eq!((second.first, second.count), (3, 2));
    assert_eq!(again(2, 2).await, Ok(second), "asked again, drawn once");
    assert_eq!(again(2, 3).await, Err(DrawRefused::Round { next: 3 }));
    let now = drawn_on(&node, 9);
    assert_eq!(now.len(), 2);
    assert!(now.iter().all(|n| !first.contains(n)), "{first:?} {now:?}");
    let places = check(&test).await;
    assert_eq!(entries_of(&first), {
        let mut head = places[..3].to_vec();
        head.sort();
        head
    });
    assert_eq!(entries_of(&now), {
        let mut rest = places[3..].to_vec();
        rest.sort();
        rest
    });
}

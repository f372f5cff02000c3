//! A store that lost its data is rebuilt by itself; another store, that never had it, is not.

use seckill::rebuild::{self, RebuildElsewhere, StoreAddress};
use stock::StockError;
use tempfile::TempDir;

use crate::support::{
    ledger::{Engine, T0, TestLedger, on_both_engines, segment},
    world::{Kind, World, on_both_stores},
};

on_both_stores! {
    an_empty_store_is_filled_only_where_it_was_before,
    a_store_that_moved_with_its_data_needs_nobodys_word,
    a_store_that_moved_without_its_data_is_filled_when_the_operator_says_so,
}

on_both_engines! {
    a_second_installation_is_refused_by_the_ledger,
}

/// One look by a node that was configured with the store at `place`; how many segments it rebuilt.
async fn look(world: &World, place: &str, elsewhere: RebuildElsewhere) -> usize {
    let rebuilder = world.rebuilder(usize::MAX).await;
    let mut rebuilder = rebuilder.at(StoreAddress::of_redis(place), elsewhere);
    rebuilder.look(&[segment()]).await.unwrap()
}

const RIGHT: &str = "redis://stock.example";
const WRONG: &str = "redis://staging.example";

/// A sale with two settled orders, seen whole at [`RIGHT`].
async fn seen(kind: Kind) -> World {
    let world = World::new(kind, 5).await;
    world.take(1).await;
    world.take(2).await;
    world.settle(9).await;
    assert_eq!(look(&world, RIGHT, RebuildElsewhere::Refused).await, 0);
    world
}

// A node that was pointed at an empty Redis by mistake used to rebuild its sales there, and sold beside all others.
async fn an_empty_store_is_filled_only_where_it_was_before(kind: Kind) {
    let mut world = seen(kind).await;
    world.lose().await;
    for _ in 0..2 {
        assert_eq!(look(&world, WRONG, RebuildElsewhere::Refused).await, 0);
    }
    let counts = world.store.snapshot(&segment()).await;
    assert!(matches!(counts, Err(StockError::NotOpen(_))), "{counts:?}");
    let epochs = world.ledger().epochs_of(&[&segment().sale]).await.unwrap();
    assert_eq!(epochs[&segment()], 1, "nobody else was fenced off either");
    assert_eq!(look(&world, RIGHT, RebuildElsewhere::Refused).await, 1);
    world.agree().await;
    assert_eq!(world.counts().await.available, 3);
}

async fn a_store_that_moved_with_its_data_needs_nobodys_word(kind: Kind) {
    let mut world = seen(kind).await;
    let elsewhere = "redis://ten.example:7000";
    assert_eq!(look(&world, elsewhere, RebuildElsewhere::Refused).await, 0);
    world.lose().await;
    assert_eq!(look(&world, RIGHT, RebuildElsewhere::Refused).await, 0);
    let grown = "redis-cluster://ten.example:7001,ten.example:7000";
    assert_eq!(look(&world, grown, RebuildElsewhere::Refused).await, 1);
    world.agree().await;
}

async fn a_store_that_moved_without_its_data_is_filled_when_the_operator_says_so(kind: Kind) {
    let mut world = seen(kind).await;
    world.lose().await;
    let elsewhere = "redis://ten.example";
    assert_eq!(look(&world, elsewhere, RebuildElsewhere::Refused).await, 0);
    assert_eq!(look(&world, elsewhere, RebuildElsewhere::Allowed).await, 1);
    world.agree().await;
    world.lose().await;
    assert_eq!(
        look(&world, elsewhere, RebuildElsewhere::Refused).await,
        1,
        "it is there now"
    );
    world.agree().await;
}

/// INV-STOCK-1. Broke: two nodes with the same folder on two hosts and one ledger both started, and one was rebuilt over the other.
async fn a_second_installation_is_refused_by_the_ledger(engine: Engine) {
    let test = TestLedger::new(engine).await;
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let claim = async |folder: &TempDir, host: &str, elsewhere| {
        rebuild::claim(&test.ledger, folder.path(), host, elsewhere, T0).await
    };
    for _ in 0..2 {
        claim(&one, "ten", RebuildElsewhere::Refused).await.unwrap();
    }
    // The host's name may change, the folder may be moved.
    claim(&one, "eleven", RebuildElsewhere::Refused)
        .await
        .unwrap();
    let refused = claim(&two, "ten", RebuildElsewhere::Refused)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("eleven:") && refused.contains("rebuild_elsewhere"),
        "{refused}"
    );
    assert!(
        claim(&two, "eleven", RebuildElsewhere::Refused)
            .await
            .is_err(),
        "another folder"
    );

    // The disk is lost: the same place, empty.
    std::fs::remove_file(one.path().join("journal.install")).unwrap();
    claim(&one, "eleven", RebuildElsewhere::Refused)
        .await
        .unwrap();
    // Two hosts whose folders have one path.
    let elsewhere = claim(&one, "twelve", RebuildElsewhere::Refused).await;
    assert!(elsewhere.is_ok(), "the same store wherever its disk is");
    std::fs::remove_file(one.path().join("journal.install")).unwrap();
    assert!(
        claim(&one, "thirteen", RebuildElsewhere::Refused)
            .await
            .is_err()
    );
    // The operator says so, once.
    claim(&two, "ten", RebuildElsewhere::Allowed).await.unwrap();
    claim(&two, "ten", RebuildElsewhere::Refused).await.unwrap();
    assert!(
        claim(&one, "thirteen", RebuildElsewhere::Refused)
            .await
            .is_err()
    );
}

//! The memory of "sold out" alone: versions, epochs, known requests, all segments.

use super::*;

fn ids(n: u32) -> (BuyerId, RequestId) {
    (
        BuyerId::try_new(&format!("b{n}")).unwrap(),
        RequestId::try_new(&format!("r{n}")).unwrap(),
    )
}

fn refuses(flag: &SoldOut, n: u32) -> bool {
    let (buyer, request) = ids(n);
    flag.refuses(&buyer, &request)
}

fn remember(flag: &SoldOut, n: u32) {
    let (buyer, request) = ids(n);
    flag.remember(1, &buyer, &request);
}

#[test]
fn says_nothing_before_it_was_told() {
    assert!(!refuses(&SoldOut::default(), 1));
    let (buyer, request) = ids(1);
    assert!(!SoldOut::default().is_new(&buyer, &request));
}

#[test]
fn an_empty_segment_refuses_strangers_and_lets_known_requests_through() {
    let flag = SoldOut::default();
    remember(&flag, 1);
    flag.observe_empty(1, 2, 1);
    assert!(refuses(&flag, 2));
    assert!(
        !refuses(&flag, 1),
        "a retry of an accepted request must reach the store"
    );
}

#[test]
fn a_node_that_does_not_know_every_accepted_request_asks_the_store() {
    let flag = SoldOut::default();
    remember(&flag, 1);
    flag.observe_empty(1, 3, 2);
    assert!(!refuses(&flag, 9));
    remember(&flag, 2);
    assert!(refuses(&flag, 9));
}

#[test]
fn a_return_overrules_older_news_in_any_order() {
    let flag = SoldOut::default();
    assert!(flag.observe_stocked(1, 8));
    flag.observe_empty(1, 7, 0);
    assert!(
        !refuses(&flag, 1),
        "the empty answer was older than the return"
    );
    flag.observe_empty(1, 9, 0);
    assert!(refuses(&flag, 1));
    assert!(!flag.observe_stocked(1, 8), "that is old news");
    assert!(flag.observe_stocked(1, 10));
    assert!(!refuses(&flag, 1));
}

// Without the epoch in its key the memory took the rebuilt segment's version 3 for older than the version 900 at which the lost
// one was empty, and hid its units for ever.
#[test]
fn a_rebuilt_segment_is_not_judged_by_its_former_life() {
    let flag = SoldOut::default();
    flag.observe_empty(1, 900, 0);
    assert!(refuses(&flag, 1));
    assert!(
        flag.observe_stocked(2, 3),
        "units under a new epoch are news"
    );
    assert!(!refuses(&flag, 1));
    flag.observe_empty(1, 901, 0);
    assert!(
        !refuses(&flag, 1),
        "a late answer of the old epoch says nothing of the new one"
    );
    flag.observe_empty(2, 4, 0);
    assert!(refuses(&flag, 1));
}

// Otherwise requests that the failover lost would be counted in the place of others that this node has never read.
#[test]
fn requests_of_a_former_epoch_do_not_count_as_known() {
    let flag = SoldOut::default();
    remember(&flag, 1);
    remember(&flag, 2);
    flag.observe_empty(2, 5, 2);
    assert!(!refuses(&flag, 9), "nothing of the new epoch was read yet");
    assert!(!flag.is_known(&ids(1).0, &ids(1).1));
}

#[test]
fn what_is_forgotten_is_asked_again() {
    let flag = SoldOut::default();
    remember(&flag, 1);
    flag.observe_empty(1, 3, 1);
    flag.forget();
    assert!(!refuses(&flag, 9));
    assert!(!flag.is_known(&ids(1).0, &ids(1).1));
}

#[test]
fn news_during_a_look_outlive_it() {
    let sku = SkuSoldOut::default();
    assert!(!sku.is_empty());
    let look = sku.look();
    sku.news();
    sku.found_empty(look, 0);
    assert!(!sku.is_empty(), "a unit came while the look was made");
    let look = sku.look();
    sku.found_empty(look, 0);
    assert!(sku.is_empty());
    sku.news();
    assert!(!sku.is_empty());
}

#[test]
fn a_unit_that_changed_its_segment_is_news() {
    let sku = SkuSoldOut::default();
    let look = sku.look();
    sku.found_empty(look, 12);
    sku.observe_moved(12);
    assert!(sku.is_empty());
    sku.observe_moved(14);
    assert!(!sku.is_empty());
}

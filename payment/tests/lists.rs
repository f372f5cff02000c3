//! Listing intents as Stripe's SDKs page through them.

use crate::support::{Db, Stack, on_both_engines};

on_both_engines!(
    pages_join_to_the_whole_list_newest_first,
    a_page_before_a_cursor_ends_at_it,
    created_bounds_the_list,
);

async fn seven(stack: &Stack) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..7 {
        // Pairs share a millisecond, so that the order of equals matters.
        if n % 2 == 0 {
            stack.advance(1_000);
        }
        let reply = stack
            .api
            .post("/v1/payment_intents", "amount=100&currency=usd")
            .await;
        ids.push(reply.text("id"));
    }
    ids
}

async fn page(stack: &Stack, query: &str) -> (Vec<String>, bool) {
    let reply = stack.api.get(&format!("/v1/payment_intents?{query}")).await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    assert_eq!(reply.text("object"), "list");
    assert_eq!(reply.text("url"), "/v1/payment_intents");
    let ids = reply.json["data"].as_array().unwrap().iter();
    let ids = ids.map(|intent| intent["id"].as_str().unwrap().to_owned());
    (ids.collect(), reply.json["has_more"].as_bool().unwrap())
}

async fn pages_join_to_the_whole_list_newest_first(db: Db) {
    let stack = Stack::new(db).await;
    let made = seven(&stack).await;
    let (all, has_more) = page(&stack, "").await;
    assert!(!has_more);
    assert_eq!(all.first(), made.last());

    let (mut joined, mut query) = (Vec::new(), "limit=3".to_owned());
    loop {
        let (ids, has_more) = page(&stack, &query).await;
        query = format!("limit=3&starting_after={}", ids.last().unwrap());
        joined.extend(ids);
        if !has_more {
            break;
        }
    }
    assert_eq!(joined, all);
    let (mut sorted, mut expected) = (all, made);
    sorted.sort();
    expected.sort();
    assert_eq!(sorted, expected);
}

async fn a_page_before_a_cursor_ends_at_it(db: Db) {
    let stack = Stack::new(db).await;
    seven(&stack).await;
    let (all, _) = page(&stack, "").await;
    let before = |n: usize, limit| {
        let query = format!("limit={limit}&ending_before={}", all[n]);
        let stack = &stack;
        async move { page(stack, &query).await }
    };
    assert_eq!(before(5, 2).await, (all[3..5].to_vec(), true));
    assert_eq!(before(2, 2).await, (all[..2].to_vec(), false));
    assert_eq!(before(0, 2).await, (vec![], false));
}

async fn created_bounds_the_list(db: Db) {
    let stack = Stack::new(db).await;
    seven(&stack).await;
    let first = 1_760_000_001;
    let count = async |query: String| page(&stack, &query).await.0.len();
    assert_eq!(count(format!("created={first}")).await, 2);
    assert_eq!(count(format!("created[gt]={first}")).await, 5);
    assert_eq!(
        count(format!("created[gte]={first}&created[lt]={}", first + 2)).await,
        4
    );
    assert_eq!(count(format!("created[lte]={}", first - 1)).await, 0);
}

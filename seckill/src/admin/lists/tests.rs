//! Lists as an operator uploads them.

use super::*;
use crate::admin::tests::desk;

const BLOCK: &str = "/admin/v1/sales/spring/lists/block";

#[tokio::test]
async fn a_page_adds_and_removes() {
    let desk = desk().await;
    let page = json!({"add": ["ann", "bob", "ann"]}).to_string();
    let (status, shown) = desk.call("PUT", BLOCK, &page).await;
    assert_eq!(
        (status, &shown["entries"], &shown["added"]),
        (200, &json!(2), &json!(2))
    );
    let page = json!({"add": ["cat"], "remove": ["ann", "eve"]}).to_string();
    let (_, shown) = desk.call("PUT", BLOCK, &page).await;
    assert_eq!(
        (&shown["entries"], &shown["removed"], &shown["version"]),
        (&json!(2), &json!(1), &json!(2))
    );
    assert_eq!(desk.call("GET", BLOCK, "").await.1["entries"], 2);
    let sale = desk.parts.engine.catalogue().sales()[0].sale.clone();
    let admits = |buyer: &str| {
        let buyer = BuyerId::try_new(buyer).unwrap();
        desk.parts.engine.admission().admits(&sale, &buyer).is_ok()
    };
    assert_eq!(["ann", "bob", "cat"].map(admits), [true, false, false]);
}

#[tokio::test]
async fn a_wrong_page_changes_nothing() {
    let desk = desk().await;
    let many: Vec<String> = (0..=PAGE_MAX).map(|n| format!("b{n}")).collect();
    let cases = [
        (BLOCK, json!({"add": ["a b"]}), 422, "invalid_document"),
        (
            BLOCK,
            json!({"add": ["ann"], "remove": ["ann"]}),
            422,
            "invalid_document",
        ),
        (BLOCK, json!({"add": many}), 422, "invalid_document"),
        (BLOCK, json!({"adds": []}), 400, "invalid_body"),
        (
            "/admin/v1/sales/spring/lists/grey",
            json!({}),
            404,
            "not_found",
        ),
        (
            "/admin/v1/sales/none/lists/block",
            json!({}),
            404,
            "no_such_sale",
        ),
    ];
    for (path, page, status, code) in cases {
        let (answered, refused) = desk.call("PUT", path, &page.to_string()).await;
        assert_eq!(
            (answered, refused["code"].as_str()),
            (status, Some(code)),
            "{path}"
        );
    }
    assert_eq!(desk.call("GET", BLOCK, "").await.1["entries"], 0);
}

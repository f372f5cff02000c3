//! Documents of sales: what is taken, what is told of the rest.

use serde_json::json;

use super::*;

fn valid() -> serde_json::Value {
    json!({
        "id": "spring", "starts_at_ms": 1_000, "ends_at_ms": 2_000, "pay_within": "15m", "buyer_limit": 2,
        "currency": "usd", "skus": [{"sku": "shoe-42", "stock": 1000, "price_minor": 1999}]
    })
}

fn check(value: serde_json::Value) -> Result<Sale, Vec<FieldProblem>> {
    serde_json::from_value::<NewSale>(value)
        .expect("the form is right")
        .check()
}

#[test]
fn a_valid_sale_becomes_one_segment_per_sku() {
    let sale = check(valid()).unwrap();
    assert_eq!((sale.pay_within_ms, sale.gate), (900_000, Gate::Open));
    let specs = sale.segment_specs();
    assert_eq!(specs.len(), 1);
    assert_eq!(specs[0].id.to_string(), "spring:shoe-42:0");
    assert_eq!(specs[0].stock, 1000);
    assert_eq!(sale.segments_of(&SkuId::try_new("other").unwrap()), []);
}

#[test]
fn a_sale_in_segments_cuts_every_skus_stock() {
    let mut sale = valid();
    sale["segments"] = json!(3);
    sale["durability"] = json!("replicated");
    let specs = check(sale).unwrap().segment_specs();
    let stocks: Vec<_> = specs.iter().map(|spec| spec.stock).collect();
    assert_eq!(stocks, [334, 333, 333]);
    assert_eq!(specs[2].id.to_string(), "spring:shoe-42:2");
    assert_eq!(specs[0].durability, Some(Durability::Replicated));
}

#[test]
fn a_sale_has_a_bounded_number_of_segments() {
    let mut sale = valid();
    sale["segments"] = json!(64);
    let skus = |count: usize| -> serde_json::Value {
        (0..count)
            .map(|n| json!({"sku": format!("s{n}"), "stock": 1, "price_minor": 1}))
            .collect()
    };
    sale["skus"] = skus(64);
    assert_eq!(check(sale.clone()).unwrap().segment_specs().len(), 4_096);
    sale["skus"] = skus(65);
    let problems = check(sale.clone()).unwrap_err();
    assert_eq!(
        (problems[0].field.as_str(), problems[0].allowed.as_str()),
        ("segments", "at most 63 for so many skus")
    );
    sale["skus"] = skus(1);
    sale["segments"] = json!(65);
    assert_eq!(check(sale).unwrap_err()[0].field, "segments");
}

#[test]
fn a_sale_with_carts_is_not_cut() {
    let mut sale = valid();
    sale["carts"] = json!(true);
    assert!(
        check(sale.clone()).unwrap().segment_specs()[0]
            .id
            .is_of_cart()
    );
    sale["segments"] = json!(2);
    sale["durability"] = json!("safe");
    let fields: Vec<_> = check(sale)
        .unwrap_err()
        .into_iter()
        .map(|problem| problem.field)
        .collect();
    assert_eq!(fields, ["carts", "durability"]);
}

#[test]
fn a_sale_survives_its_document() {
    let mut document = valid();
    document["draft"] = json!(true);
    document["order_limit"] = json!(1);
    let sale = check(document).unwrap();
    assert_eq!(sale.rules.stage, Stage::Draft);
    assert_eq!(NewSale::from(&sale).check().unwrap(), sale);
}

#[test]
fn an_order_limit_lies_within_the_buyer_limit() {
    for (limit, is_valid) in [(0, false), (1, true), (2, true), (3, false)] {
        let mut document = valid();
        document["order_limit"] = json!(limit);
        assert_eq!(check(document).is_ok(), is_valid, "{limit}");
    }
}

#[test]
fn a_lottery_promises_no_more_than_there_is() {
    let lottery = |closes: u64, winners: u64, commitment: &str| {
        let mut document = valid();
        document["admission"] = json!("lottery");
        document["lottery"] =
            json!({"closes_at_ms": closes, "winners": winners, "commitment": commitment});
        check(document)
    };
    let hash = "0".repeat(64);
    let sale = lottery(1_000, 500, &hash).unwrap();
    assert_eq!(NewSale::from(&sale).check().unwrap(), sale);
    for (closes, winners, commitment, field) in [
        (1_001, 500, hash.as_str(), "lottery.closes_at_ms"),
        (1_000, 501, hash.as_str(), "lottery.winners"),
        (1_000, 0, hash.as_str(), "lottery.winners"),
        (1_000, 1, "seed", "lottery.commitment"),
    ] {
        let problems = lottery(closes, winners, commitment).unwrap_err();
        assert_eq!(problems[0].field, field);
    }
    let mut without = valid();
    without["admission"] = json!("lottery");
    assert_eq!(check(without).unwrap_err()[0].field, "lottery");
    let mut beside = valid();
    beside["lottery"] = json!({});
    assert_eq!(check(beside).unwrap_err()[0].field, "lottery");
}

#[test]
fn all_problems_are_told_at_once() {
    let problems = check(json!({
        "id": "a b", "starts_at_ms": 5, "ends_at_ms": 5, "pay_within": "0s", "buyer_limit": 0, "currency": "USD",
        "skus": [{"sku": "x", "stock": -1, "price_minor": -1}, {"sku": "x", "stock": 9007199254740993u64, "price_minor": 1}]
    }))
    .unwrap_err();
    let fields: Vec<_> = problems
        .iter()
        .map(|problem| problem.field.as_str())
        .collect();
    let expected = [
        "id",
        "ends_at_ms",
        "pay_within",
        "buyer_limit",
        "currency",
        "skus[0].stock",
        "skus[0].price_minor",
        "skus[1].stock",
        "skus[1].sku",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn an_empty_document_names_every_field() {
    let problems = check(json!({})).unwrap_err();
    assert_eq!(problems.len(), 7);
    assert!(problems.iter().all(|problem| !problem.allowed.is_empty()));
}

#[test]
fn more_than_a_thousand_skus_are_refused() {
    let mut sale = valid();
    sale["skus"] = (0..1001)
        .map(|n| json!({"sku": format!("s{n}"), "stock": 1, "price_minor": 1}))
        .collect();
    assert_eq!(check(sale).unwrap_err()[0].value, "1001");
}

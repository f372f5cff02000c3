//! What is asked of carts beyond their single orders.

use std::collections::{HashMap, HashSet};

use super::{Books, Judged, Rules, examples};

/// INV-ORDER-2 for carts: answered and recorded with all their lines, or not at all.
pub(super) fn partial(books: &Books<'_>, rules: &Rules, judged: &mut Judged) {
    let mut recorded: HashMap<u32, HashSet<&str>> = HashMap::new();
    for (purchase, row) in &books.ours {
        if books.ids.is_cart(*purchase) {
            recorded.entry(*purchase).or_default().insert(&row.sku);
        }
    }
    let is_torn = |purchase: &u32, skus: &HashSet<&str>| {
        let lines = books.ids.skus_of(*purchase);
        let lines: HashSet<&str> = lines
            .filter_map(|at| rules.skus.get(at).map(String::as_str))
            .collect();
        lines != *skus
    };
    let torn = recorded
        .iter()
        .filter(|(purchase, skus)| is_torn(purchase, skus));
    let mut torn: HashSet<u32> = torn.map(|(purchase, _)| *purchase).collect();
    let told = books.history.acknowledged();
    let short =
        told.filter(|(purchase, orders)| orders.len() < books.ids.skus_of(*purchase).count());
    torn.extend(short.map(|(purchase, _)| purchase));
    judged.partial_carts = torn.len() as u64;
    let mut torn: Vec<u32> = torn.into_iter().collect();
    torn.sort_unstable();
    judged.find(
        "partial_cart",
        "INV-ORDER-2",
        judged.partial_carts,
        examples(
            "carts answered or recorded without all their lines",
            torn.iter().map(|purchase| books.ids.request_id(*purchase)),
        ),
    );
}

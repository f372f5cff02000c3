//! Cases about carts: several skus of one sale, all or nothing.

use super::{Counter, Subject};
use stock::{CartLine, CartVerdict, StoredOrder, Verdict, ids::SaleId};

/// A cart of `buyer`: so many units of each sku. Other quantities, or more lines, are another fingerprint.
fn cart(lines: &[(&Counter<'_>, u32)], buyer: &str, request: &str) -> Vec<CartLine> {
    let fingerprint = lines.iter().fold(
        u64::MAX - ((lines.len() as u64) << 32),
        |hash, (_, quantity)| hash - u64::from(*quantity),
    );
    let line = |(counter, quantity): &(&Counter<'_>, u32)| {
        let mut purchase = counter.purchase(buyer, request, *quantity);
        purchase.fingerprint = fingerprint;
        CartLine {
            segment: counter.id().clone(),
            epoch: counter.epoch,
            purchase,
        }
    };
    lines.iter().map(line).collect()
}

async fn buy(lines: Vec<CartLine>, counter: &Counter<'_>) -> CartVerdict {
    counter
        .store()
        .buy_cart(lines)
        .await
        .expect("a store decides")
}

fn accepted(verdict: CartVerdict) -> Vec<StoredOrder> {
    let CartVerdict::Accepted(lines) = verdict else {
        panic!("the cart was not accepted: {verdict:?}")
    };
    let order = |line| match line {
        Verdict::Accepted { order, .. } => order,
        other => panic!("a line of an accepted cart is {other:?}"),
    };
    lines.into_iter().map(order).collect()
}

fn sale() -> SaleId {
    let name = format!("conformance-{:016x}", rand::random::<u64>());
    SaleId::try_new(&name).expect("hex digits are allowed")
}

/// Each line has an order, each order is on its segment's queue.
pub async fn a_cart_takes_all_its_lines(subject: &Subject) {
    let sale = sale();
    let shoe = Counter::open_of_cart(subject, &sale, "shoe", 5).await;
    let lace = Counter::open_of_cart(subject, &sale, "lace", 5).await;
    let orders = accepted(buy(cart(&[(&shoe, 1), (&lace, 2)], "b1", "r1"), &shoe).await);
    assert_eq!(
        orders
            .iter()
            .map(|order| order.quantity)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(shoe.snapshot().await.available, 4);
    assert_eq!(lace.snapshot().await.available, 3);
    for (counter, order) in [(&shoe, &orders[0]), (&lace, &orders[1])] {
        assert_eq!(
            counter.store().depth(counter.id()).await.unwrap().entries,
            1
        );
        let found = counter
            .store()
            .accepted_after(counter.id(), Default::default(), 10)
            .await
            .unwrap();
        assert_eq!(
            found
                .into_iter()
                .map(|(_, order)| order)
                .collect::<Vec<_>>(),
            std::slice::from_ref(order)
        );
    }
}

/// Whichever line it is, and whatever speaks against it.
pub async fn a_cart_with_one_refused_line_takes_nothing(subject: &Subject) {
    let sale = sale();
    let shoe = Counter::open_of_cart(subject, &sale, "shoe", 9).await;
    let lace = Counter::open_of_cart(subject, &sale, "lace", 1).await;
    let lines = [(&shoe, 1), (&lace, 2)];
    for (order, at) in [(lines, 1), ([lines[1], lines[0]], 0)] {
        let verdict = buy(cart(&order, "b1", "r1"), &shoe).await;
        let CartVerdict::Refused { line, verdict } = verdict else {
            panic!("not refused: {verdict:?}")
        };
        assert_eq!(line, at);
        assert!(
            matches!(verdict, Verdict::SoldOut { remaining: 1, .. }),
            "{verdict:?}"
        );
    }
    let verdict = buy(cart(&[(&lace, 1), (&shoe, 4)], "b1", "r2"), &shoe).await;
    assert!(
        matches!(
            verdict,
            CartVerdict::Refused {
                line: 1,
                verdict: Verdict::BuyerLimit { held: 0, limit: 3 }
            }
        ),
        "{verdict:?}"
    );
    let mut stale = cart(&[(&lace, 1), (&shoe, 1)], "b1", "r3");
    stale[1].epoch += 1;
    let verdict = buy(stale, &shoe).await;
    assert!(
        matches!(
            verdict,
            CartVerdict::Refused {
                line: 1,
                verdict: Verdict::StaleEpoch { .. }
            }
        ),
        "{verdict:?}"
    );
    assert_eq!(shoe.snapshot().await.available, 9);
    assert_eq!(lace.snapshot().await.available, 1);
    // A refusal leaves no trace: the same request may buy once there is enough.
    lace.store().restock(lace.id(), "more", 5).await.unwrap();
    accepted(buy(cart(&lines, "b1", "r1"), &shoe).await);
}

/// A replay says how the orders stand now.
pub async fn a_cart_is_replayed_whole_and_its_request_is_never_reused(subject: &Subject) {
    let sale = sale();
    let shoe = Counter::open_of_cart(subject, &sale, "shoe", 9).await;
    let lace = Counter::open_of_cart(subject, &sale, "lace", 9).await;
    let lines = [(&shoe, 1), (&lace, 1)];
    let orders = accepted(buy(cart(&lines, "b1", "r1"), &shoe).await);
    lace.store()
        .release_many(lace.id(), &[orders[1].order])
        .await
        .unwrap();
    let CartVerdict::Replayed(again) = buy(cart(&lines, "b1", "r1"), &shoe).await else {
        panic!("not replayed")
    };
    let ids = |orders: &[StoredOrder]| orders.iter().map(|order| order.order).collect::<Vec<_>>();
    assert_eq!(ids(&again), ids(&orders));
    assert_ne!(again[1].state, orders[1].state);
    for other in [
        cart(&[(&shoe, 1), (&lace, 2)], "b1", "r1"),
        cart(&[(&shoe, 2)], "b1", "r1"),
    ] {
        let verdict = buy(other, &shoe).await;
        assert!(
            matches!(
                verdict,
                CartVerdict::Refused {
                    verdict: Verdict::KeyReused,
                    ..
                }
            ),
            "{verdict:?}"
        );
    }
    assert_eq!(shoe.snapshot().await.available, 8);
    assert_eq!(lace.snapshot().await.available, 9);
}

/// Half a cart cannot be replayed, and must not be completed either.
pub async fn a_line_bought_alone_blocks_the_cart_of_the_same_request(subject: &Subject) {
    let sale = sale();
    let shoe = Counter::open_of_cart(subject, &sale, "shoe", 9).await;
    let lace = Counter::open_of_cart(subject, &sale, "lace", 9).await;
    lace.take("b1", "r1", 1).await;
    let verdict = buy(cart(&[(&shoe, 1), (&lace, 1)], "b1", "r1"), &shoe).await;
    assert!(
        matches!(
            verdict,
            CartVerdict::Refused {
                line: 1,
                verdict: Verdict::KeyReused
            }
        ),
        "{verdict:?}"
    );
    assert_eq!(shoe.snapshot().await.available, 9);
}

/// Many buyers, two skus of unequal stock: both sell the same number of units.
pub async fn concurrent_carts_are_all_or_nothing(subject: &Subject) {
    let sale = sale();
    let shoe = Counter::open_of_cart(subject, &sale, "shoe", 20).await;
    let lace = Counter::open_of_cart(subject, &sale, "lace", 13).await;
    let buyers = (0..40).map(|buyer| {
        let lines = cart(&[(&shoe, 1), (&lace, 1)], &format!("b{buyer}"), "r1");
        buy(lines, &shoe)
    });
    let verdicts = futures_util::future::join_all(buyers).await;
    let sold = verdicts
        .iter()
        .filter(|verdict| matches!(verdict, CartVerdict::Accepted(_)))
        .count();
    assert_eq!(sold, 13);
    assert_eq!(shoe.snapshot().await.reserved, 13);
    assert_eq!(lace.snapshot().await.reserved, 13);
}

//! The end of a run: what is left is sold, so that the oracle may take every unit that is free afterwards for one that was hidden.

use loadtest::{
    admin::AdminClient,
    ledger::{SaleReport, SkuReport},
};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    goods::{Goods, Kind, SALE},
    market::{Market, Purchase, Seen},
    plan::Plan,
};

/// Fresh buyers after the faults, at most: more than any stock that is below the demand.
const LATE_BUYERS: u64 = 200;
/// A node learns twice a second what others sold, if nothing keeps it from it.
const MEMORY: Duration = Duration::from_millis(700);
/// No machine is so busy that a node still speaks from an old memory after this: a node that says "sold out" then, of units that are
/// free, is judged by it.
const PATIENCE: Duration = Duration::from_secs(20);

/// New buyers come until "sold out" is the answer of every node: of carts first, where there are any, then of each sku.
pub async fn drain(
    plan: &Plan,
    market: &Market,
    admins: &[AdminClient],
    problems: &mut Vec<String>,
) -> bool {
    // By now what was said from memory before the last return is over, as a rule.
    sleep(MEMORY).await;
    if plan.goods.kind == Kind::Carts {
        let cart = |number| Purchase::late_cart(&plan.goods, number);
        sold_out(plan, market, admins, cart).await;
    }
    let mut is_drained = true;
    for sku in &plan.goods.skus {
        let purchase = |number| Purchase::late(&plan.goods, sku.name, number);
        let is_empty = sold_out(plan, market, admins, purchase).await;
        is_drained &= is_empty;
        // A stock above the demand is left over, and that is right.
        if !is_empty && sku.stock < LATE_BUYERS {
            problems.push(format!(
                "{LATE_BUYERS} buyers after the faults, and {} never sold out",
                sku.name
            ));
        }
    }
    is_drained
}

/// Whether buyers with these purchases were told "sold out" by every node before they were too many. While what they want could be there, a
/// node has only not looked yet, and more of them come.
async fn sold_out(
    plan: &Plan,
    market: &Market,
    admins: &[AdminClient],
    purchase: impl Fn(u64) -> Purchase,
) -> bool {
    let deadline = Instant::now() + PATIENCE;
    for number in 0..LATE_BUYERS {
        let purchase = purchase(number);
        let mut seen = Seen::Unknown;
        for front in 0..market.fronts.len() {
            seen = market.buy(97, front + number as usize, &purchase).await;
            if !seen.is_sold_out() {
                break;
            }
        }
        if !seen.is_sold_out() {
            continue;
        }
        // Orders that expire meanwhile bring units back for ever; what is left of such a sale says nothing.
        if !plan.keeps_orders() || Instant::now() > deadline || is_gone(admins, &purchase).await {
            return true;
        }
        // Seldom enough that the patience ends before the buyers do.
        sleep(PATIENCE * 2 / LATE_BUYERS as u32).await;
    }
    false
}

/// Whether, by every node's report, one of the things wished for is in orders to the last unit.
async fn is_gone(admins: &[AdminClient], purchase: &Purchase) -> bool {
    for admin in admins {
        let report = admin.report(SALE).await;
        if !report.is_ok_and(|report| lacks(&report, purchase)) {
            return false;
        }
    }
    true
}

/// What is in no order is free, or on its way from one segment to another and free soon.
fn lacks(report: &SaleReport, purchase: &Purchase) -> bool {
    let is_wanted = |sku: &str| purchase.lines.iter().any(|(name, _)| *name == sku);
    let mut skus = report.skus.iter().filter(|sku| is_wanted(&sku.sku));
    skus.any(|sku| sku.reserved + sku.sold >= sku.stock + sku.restocked)
}

#[test]
fn a_unit_in_no_order_is_still_to_be_sold_wherever_it_is() {
    let report = |available, reserved| {
        let sku = |sku: &str, available, reserved| SkuReport {
            sku: sku.to_owned(),
            stock: 5,
            restocked: 2,
            available,
            reserved,
            sold: 3,
            ledger_sold: None,
        };
        SaleReport {
            skus: vec![sku("shoe", available, reserved), sku("sock", 1, 3)],
            ..SaleReport::default()
        }
    };
    let shoe = Purchase::late(&Goods::plain(5), "shoe", 0);
    assert!(lacks(&report(0, 4), &shoe));
    assert!(!lacks(&report(1, 3), &shoe), "free");
    assert!(!lacks(&report(0, 3), &shoe), "between two segments");
    // Of a cart one line is enough.
    let mut cart = shoe;
    cart.lines.push(("sock", 1));
    assert!(lacks(&report(0, 4), &cart));
    assert!(!lacks(&report(1, 3), &cart));
}

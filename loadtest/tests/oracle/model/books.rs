//! The facts at the end: the sale's document, the ledger's rows and the account.

use loadtest::history::Event;
use loadtest::history::event::{End, SaleFacts, SkuFacts};
use loadtest::ledger::OrderStatus::{self, Paid, Released, Reserved};
use loadtest::ledger::{LedgerRow, SaleReport, SkuReport};

use super::{LIMIT, Model, Order, PAY_WITHIN_MS, SKUS, STARTS_MS};
use crate::oracle::tale::{SALE, T0_MS};

impl Model {
    pub(super) fn books(&mut self) {
        let sale = || SALE.to_owned();
        let skus = SKUS.iter().zip(self.stock);
        self.events.push(Event::Sale(SaleFacts {
            id: sale(),
            starts_at_ms: T0_MS + STARTS_MS,
            ends_at_ms: T0_MS + 1_000_000,
            buyer_limit: LIMIT,
            skus: skus
                .map(|(sku, stock)| SkuFacts {
                    sku: (*sku).into(),
                    stock,
                })
                .collect(),
        }));
        let recorded: Vec<&Order> = self.orders.iter().filter(|o| o.is_recorded).collect();
        for order in &recorded {
            let row = LedgerRow {
                id: order.name.clone(),
                sku: SKUS[order.sku].into(),
                buyer: order.buyer.clone(),
                quantity: order.units,
                status: order.status,
                request_id: Some(order.request.clone()),
                created_at_ms: Some(order.created_ms),
                pay_by_ms: Some(order.created_ms + PAY_WITHIN_MS),
            };
            self.events.push(Event::Row { sale: sale(), row });
        }
        let count = |status| {
            recorded
                .iter()
                .filter(|order| order.status == status)
                .count() as u64
        };
        let units = |at: usize, status: OrderStatus| -> u64 {
            let of = self.orders.iter().filter(|order| order.status == status);
            of.filter(|order| order.sku == at)
                .map(|order| order.units)
                .sum()
        };
        let skus = (0..2).map(|at| SkuReport {
            sku: SKUS[at].into(),
            stock: self.stock[at],
            restocked: self.restocked[at],
            available: self.free[at].max(0) as u64,
            reserved: units(at, Reserved),
            sold: units(at, Paid),
            ledger_sold: None,
        });
        let report = SaleReport {
            skus: skus.collect(),
            accepted: recorded.len() as u64,
            settled: recorded.len() as u64,
            paid: count(Paid),
            returned: count(Released),
            ..SaleReport::default()
        };
        self.events.push(Event::Report {
            sale: sale(),
            report,
        });
        self.events.push(Event::End(End {
            t_us: self.now_us,
            wall_ms: self.now_ms(),
            dropped: 0,
            drained: true,
        }));
    }
}

//! Sales in the ledger: created once, their gate, their restocks.

use std::collections::HashMap;

use sqlx::AnyConnection;
use stock::{Durability, Gate};

use super::{
    LedgerError, OrderLedger,
    query::{Columns, FromRow, Query, as_json, from_row, query},
    sql,
};
use crate::{
    ids::{SaleId, SegmentId, SkuId},
    sale::{Rules, Sale, SkuOnSale, shares},
    units::MAX_UNITS,
};

/// The answer to [`OrderLedger::create_sale`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It is new.
    New,
    /// The same sale was created before; nothing changed.
    Same,
    /// The id belongs to a sale with other content; nothing changed.
    Conflict,
}

/// Units added to a sku.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restock {
    /// The sku.
    pub sku: SkuId,
    /// The caller's id; the same id adds once.
    pub id: String,
    /// Units.
    pub units: u64,
}

impl Restock {
    /// Its units cut over the sku's segments, without those that get none. Always the same cut: repeated after a crash, by
    /// another node or by a rebuild, each segment gets its share under this restock's id once.
    pub fn shares(&self, sale: &Sale) -> Vec<(SegmentId, u64)> {
        let segments = sale.segments_of(&self.sku);
        let units = shares(self.units, segments.len());
        let cut = segments.into_iter().zip(units);
        cut.filter(|(_, units)| *units > 0).collect()
    }
}

/// The answer to [`OrderLedger::restock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restocked {
    /// The units were added now.
    Added,
    /// They had been added under this id before.
    Repeated,
    /// The id was used for another number of units; nothing changed.
    Conflict,
    /// No such sku.
    UnknownSku,
    /// With these units the sku would pass [`MAX_UNITS`]; nothing changed.
    TooMany {
        /// Units that may still be added.
        rest: u64,
    },
}

/// The answer to [`OrderLedger::move_gate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateMoved {
    /// The gate stands as wanted.
    Set,
    /// The sale is closed for good; nothing changed.
    Closed,
    /// The sale is a draft, which has nothing to pause; nothing changed.
    Draft,
    /// No such sale.
    Unknown,
}

const INSERT_SALE: &str = "INSERT INTO sale_sales \
    (starts_at_ms, ends_at_ms, pay_within_ms, buyer_limit, currency, segments, carts, durability, order_limit, admission, \
     lottery, slots, sale, gate, created_at_ms, stage) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) ON CONFLICT DO NOTHING";
const INSERT_SKU: &str = "INSERT INTO sale_skus (sale, sku, position, stock, total, price_minor, held_until_ms) \
    VALUES ($1, $2, $3, $4, $4, $5, $6)";
macro_rules! sale_columns {
    () => {
        "SELECT sale, starts_at_ms, ends_at_ms, pay_within_ms, buyer_limit, currency, gate, segments, carts, durability, \
         stage, version, order_limit, admission, lottery, slots FROM sale_sales WHERE "
    };
}
const SALES: [&str; 2] = [
    concat!(
        sale_columns!(),
        "$1 = '' OR sale = $1 ORDER BY created_at_ms, sale"
    ),
    "SELECT sku, stock, price_minor, sale FROM sale_skus WHERE $1 = '' OR sale = $1 ORDER BY sale, position",
];
/// What was audited at its end is over; the index of the others is all that is read.
const GOING_ON: [&str; 2] = [
    concat!(
        sale_columns!(),
        "audited_at_ms = 0 AND $1 = '' ORDER BY created_at_ms, sale"
    ),
    "SELECT sku, stock, price_minor, sale FROM sale_skus \
     WHERE $1 = '' AND sale IN (SELECT sale FROM sale_sales WHERE audited_at_ms = 0) ORDER BY sale, position",
];

impl OrderLedger {
    /// Creates a sale with its skus, all or nothing.
    pub async fn create_sale(&self, sale: &Sale, now_ms: u64) -> Result<Created, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let created = document(INSERT_SALE, sale)
            .bind(&sale.id)
            .bind(sale.gate)
            .bind(now_ms)
            .bind(sale.rules.stage.as_str());
        if created.run(&mut *tx).await? == 0 {
            let mut known = read_sales(&mut tx, sale.id.as_str()).await?;
            tx.rollback().await?;
            // Gate and version are what became of it, not part of what was asked for.
            let same = known.pop().is_some_and(|mut known| {
                known.gate = sale.gate;
                known.rules.version = sale.rules.version;
                known == *sale
            });
            return Ok(if same {
                Created::Same
            } else {
                Created::Conflict
            });
        }
        insert_skus(&mut tx, sale).await?;
        tx.commit().await?;
        Ok(Created::New)
    }

    /// All sales, oldest first.
    pub async fn sales(&self) -> Result<Vec<Sale>, LedgerError> {
        let mut connection = self.reads().acquire().await?;
        read_sales(&mut connection, "").await
    }

    /// The sales that are not known to be over.
    pub async fn sales_going_on(&self) -> Result<Vec<Sale>, LedgerError> {
        let mut connection = self.reads().acquire().await?;
        read_sales_by(&mut connection, GOING_ON, "").await
    }

    /// One sale.
    pub async fn sale(&self, sale: &SaleId) -> Result<Option<Sale>, LedgerError> {
        let mut connection = self.reads().acquire().await?;
        Ok(read_sales(&mut connection, sale.as_str()).await?.pop())
    }

    /// Moves the operator's gate. A closed sale is never opened again, whichever node asks; closing it again is no error.
    pub async fn move_gate(&self, sale: &SaleId, gate: Gate) -> Result<GateMoved, LedgerError> {
        const MOVE: &str = "UPDATE sale_sales SET gate = $1 WHERE sale = $2 \
            AND ($1 = 'closed' OR (gate <> 'closed' AND stage = 'published'))";
        let mut tx = self.pool.begin().await?;
        let moved = query!(MOVE, gate, sale);
        if moved.run(&mut *tx).await? == 1 {
            tx.commit().await?;
            return Ok(GateMoved::Set);
        }
        let known = read_sales(&mut tx, sale.as_str()).await?.pop();
        tx.rollback().await?;
        Ok(match known {
            None => GateMoved::Unknown,
            // One that was published since is told so the next time.
            Some(known) if known.gate != Gate::Closed => GateMoved::Draft,
            Some(_) => GateMoved::Closed,
        })
    }

    /// Adds units to what may be sold. Call it before the stock store's restock, so that the ledger never refuses a unit that
    /// the store already sells.
    pub async fn restock(
        &self,
        sale: &SaleId,
        restock: &Restock,
        now_ms: u64,
    ) -> Result<Restocked, LedgerError> {
        const INSERT: &str = "INSERT INTO sale_restocks (sale, sku, restock_id, units, at_ms) VALUES ($1, $2, $3, $4, $5) \
            ON CONFLICT DO NOTHING";
        const KNOWN: &str =
            "SELECT units FROM sale_restocks WHERE sale = $1 AND sku = $2 AND restock_id = $3";
        // The bound is compared with what was there before: a sum could overflow.
        const RAISE: &str =
            "UPDATE sale_skus SET total = total + $1 WHERE sale = $2 AND sku = $3 AND total <= $4";
        const TOTAL: &str = "SELECT total FROM sale_skus WHERE sale = $1 AND sku = $2";
        let (sku, id, units) = (&restock.sku, &restock.id, restock.units);
        let mut tx = self.pool.begin().await?;
        if query!(INSERT, sale, sku, id, units, now_ms)
            .run(&mut *tx)
            .await?
            == 0
        {
            let known: u64 = query!(KNOWN, sale, sku, id).one(&mut *tx).await?;
            tx.rollback().await?;
            return Ok(match known == units {
                true => Restocked::Repeated,
                false => Restocked::Conflict,
            });
        }
        let raised = query!(RAISE, units, sale, sku, sql(MAX_UNITS) - sql(units));
        if raised.run(&mut *tx).await? == 0 {
            let total: Option<u64> = query!(TOTAL, sale, sku).first(&mut *tx).await?;
            tx.rollback().await?;
            return Ok(match total {
                None => Restocked::UnknownSku,
                Some(total) => Restocked::TooMany {
                    rest: MAX_UNITS.saturating_sub(total),
                },
            });
        }
        tx.commit().await?;
        Ok(Restocked::Added)
    }

    /// Units that were ever added to each sku, for those that had some: what all segments of a sku together have to account for
    /// beside the first stock.
    pub async fn restocked_units(&self) -> Result<HashMap<(SaleId, SkuId), u64>, LedgerError> {
        const UNITS: &str = "SELECT sale, sku, total - stock FROM sale_skus \
            WHERE total > stock AND sale IN (SELECT sale FROM sale_sales WHERE audited_at_ms = 0)";
        query!(UNITS).all(self.reads()).await
    }

    /// The restocks of a sale, for a store that may have missed one: repeating them there is harmless.
    pub async fn restocks(&self, sale: &SaleId) -> Result<Vec<Restock>, LedgerError> {
        const ALL: &str = "SELECT sku, restock_id, units FROM sale_restocks WHERE sale = $1 ORDER BY at_ms, restock_id";
        query!(ALL, sale).all(self.reads()).await
    }
}

/// A statement that writes the document of a sale: its first twelve parameters.
pub(super) fn document<'q>(statement: &'static str, sale: &'q Sale) -> Query<'q> {
    query!(
        statement,
        sale.starts_at_ms,
        sale.ends_at_ms,
        sale.pay_within_ms,
        sale.buyer_limit,
        &sale.currency,
        sale.segments,
        sale.carts,
        sale.durability.map_or("", Durability::as_str),
        sale.rules.order_limit.unwrap_or(0),
        sale.rules.admission.as_str(),
        as_json(&sale.rules.lottery),
        as_json(&sale.rules.slots)
    )
}

/// The skus of a sale that has none yet.
pub(super) async fn insert_skus(
    connection: &mut AnyConnection,
    sale: &Sale,
) -> Result<(), LedgerError> {
    for (position, sku) in sale.skus.iter().enumerate() {
        let slots = sale.rules.slots.as_ref();
        let held = slots.and_then(|slots| Some(slots.held_until_ms(&slots.slot(&sku.sku)?)));
        let held = held.unwrap_or(0);
        query!(
            INSERT_SKU,
            &sale.id,
            &sku.sku,
            position,
            sku.stock,
            sku.price_minor,
            held
        )
        .run(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Reads one sale, or all for the empty id.
pub(super) async fn read_sales(
    connection: &mut AnyConnection,
    id: &str,
) -> Result<Vec<Sale>, LedgerError> {
    read_sales_by(connection, SALES, id).await
}

async fn read_sales_by(
    connection: &mut AnyConnection,
    [sales, skus]: [&'static str; 2],
    id: &str,
) -> Result<Vec<Sale>, LedgerError> {
    let mut sales: Vec<Sale> = query!(sales, id).all(&mut *connection).await?;
    let skus: Vec<(SkuOnSale, SaleId)> = query!(skus, id).all(connection).await?;
    let place: HashMap<SaleId, usize> = sales
        .iter()
        .enumerate()
        .map(|(place, sale)| (sale.id.clone(), place))
        .collect();
    for (sku, sale) in skus {
        // A sale created between the two reads has skus here and no row above; the next read has it.
        if let Some(&place) = place.get(&sale) {
            sales[place].skus.push(sku);
        }
    }
    Ok(sales)
}

from_row!(Restock: sku, id, units);
from_row!(SkuOnSale: sku, stock, price_minor);

/// Its skus are rows of their own.
impl FromRow for Sale {
    fn read(columns: &mut Columns<'_>) -> Result<Self, LedgerError> {
        Ok(Self {
            id: columns.take()?,
            starts_at_ms: columns.take()?,
            ends_at_ms: columns.take()?,
            pay_within_ms: columns.take()?,
            buyer_limit: columns.take()?,
            currency: columns.take()?,
            gate: columns.take()?,
            segments: columns.take()?,
            carts: columns.take()?,
            durability: columns.take::<String>()?.parse().ok(),
            rules: columns.take()?,
            skus: Vec::new(),
        })
    }
}

impl FromRow for Rules {
    fn read(columns: &mut Columns<'_>) -> Result<Self, LedgerError> {
        Ok(Self {
            stage: columns.take()?,
            version: columns.take()?,
            order_limit: Some(columns.take()?).filter(|limit| *limit > 0),
            admission: columns.take()?,
            lottery: columns.json()?,
            slots: columns.json()?,
        })
    }
}

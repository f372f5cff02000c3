//! Sales in the ledger: created once, their gate, their restocks.

use std::collections::HashMap;

use serde::{Serialize, de::DeserializeOwned};
use sqlx::{AnyConnection, Row, any::AnyRow};
use stock::{Durability, Gate};

use super::{
    LedgerError, OrderLedger,
    rows::{count, parsed},
    sql,
};
use crate::{
    ids::{SaleId, SegmentId, SkuId},
    sale::{Rules, Sale, SkuOnSale, Stage, shares},
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
    (sale, starts_at_ms, ends_at_ms, pay_within_ms, buyer_limit, currency, gate, created_at_ms, segments, carts, durability, \
     stage, order_limit, admission, lottery, slots) \
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
        let created = sqlx::query(INSERT_SALE)
            .bind(sale.id.as_str())
            .bind(sql(sale.starts_at_ms))
            .bind(sql(sale.ends_at_ms))
            .bind(sql(sale.pay_within_ms))
            .bind(i64::from(sale.buyer_limit))
            .bind(sale.currency.as_str())
            .bind(gate_word(sale.gate))
            .bind(sql(now_ms))
            .bind(i64::from(sale.segments))
            .bind(i64::from(sale.carts))
            .bind(sale.durability.map_or("", Durability::name))
            .bind(sale.rules.stage.as_str())
            .bind(sale.rules.order_limit.map_or(0, i64::from))
            .bind(sale.rules.admission.as_str())
            .bind(as_json(&sale.rules.lottery))
            .bind(as_json(&sale.rules.slots))
            .execute(&mut *tx)
            .await?;
        if created.rows_affected() == 0 {
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
        let moved = sqlx::query(MOVE)
            .bind(gate_word(gate))
            .bind(sale.as_str())
            .execute(&mut *tx)
            .await?;
        if moved.rows_affected() == 1 {
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
        let mut tx = self.pool.begin().await?;
        let insert = "INSERT INTO sale_restocks (sale, sku, restock_id, units, at_ms) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
        let inserted = sqlx::query(insert)
            .bind(sale.as_str())
            .bind(restock.sku.as_str())
            .bind(restock.id.as_str())
            .bind(sql(restock.units))
            .bind(sql(now_ms))
            .execute(&mut *tx)
            .await?;
        if inserted.rows_affected() == 0 {
            let known = sqlx::query(
                "SELECT units FROM sale_restocks WHERE sale = $1 AND sku = $2 AND restock_id = $3",
            )
            .bind(sale.as_str())
            .bind(restock.sku.as_str())
            .bind(restock.id.as_str())
            .fetch_one(&mut *tx)
            .await?;
            tx.rollback().await?;
            return Ok(if count(&known, 0)? == restock.units {
                Restocked::Repeated
            } else {
                Restocked::Conflict
            });
        }
        // The bound is compared with what was there before: a sum could overflow.
        let raised = sqlx::query(
            "UPDATE sale_skus SET total = total + $1 WHERE sale = $2 AND sku = $3 AND total <= $4",
        )
        .bind(sql(restock.units))
        .bind(sale.as_str())
        .bind(restock.sku.as_str())
        .bind(sql(MAX_UNITS) - sql(restock.units))
        .execute(&mut *tx)
        .await?;
        if raised.rows_affected() == 0 {
            let known = sqlx::query("SELECT total FROM sale_skus WHERE sale = $1 AND sku = $2")
                .bind(sale.as_str())
                .bind(restock.sku.as_str())
                .fetch_all(&mut *tx)
                .await?;
            tx.rollback().await?;
            return Ok(match known.first() {
                None => Restocked::UnknownSku,
                Some(row) => Restocked::TooMany {
                    rest: MAX_UNITS.saturating_sub(count(row, 0)?),
                },
            });
        }
        tx.commit().await?;
        Ok(Restocked::Added)
    }

    /// Units that were ever added to each sku, for those that had some: what all segments of a sku together have to account for
    /// beside the first stock.
    pub async fn restocked_units(&self) -> Result<HashMap<(SaleId, SkuId), u64>, LedgerError> {
        let rows =
            sqlx::query("SELECT sale, sku, total - stock FROM sale_skus WHERE total > stock AND sale IN (SELECT sale FROM sale_sales WHERE audited_at_ms = 0)")
                .fetch_all(self.reads())
                .await?;
        rows.iter()
            .map(|row| Ok(((parsed(row, 0)?, parsed(row, 1)?), count(row, 2)?)))
            .collect()
    }

    /// The restocks of a sale, for a store that may have missed one: repeating them there is harmless.
    pub async fn restocks(&self, sale: &SaleId) -> Result<Vec<Restock>, LedgerError> {
        let rows = sqlx::query("SELECT sku, restock_id, units FROM sale_restocks WHERE sale = $1 ORDER BY at_ms, restock_id")
            .bind(sale.as_str())
            .fetch_all(self.reads())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Restock {
                    sku: parsed(row, 0)?,
                    id: row.try_get(1)?,
                    units: count(row, 2)?,
                })
            })
            .collect()
    }
}

/// The skus of a sale that has none yet.
pub(super) async fn insert_skus(
    connection: &mut AnyConnection,
    sale: &Sale,
) -> Result<(), LedgerError> {
    for (position, sku) in sale.skus.iter().enumerate() {
        let slots = sale.rules.slots.as_ref();
        let held = slots.and_then(|slots| Some(slots.held_until_ms(&slots.slot(&sku.sku)?)));
        sqlx::query(INSERT_SKU)
            .bind(sale.id.as_str())
            .bind(sku.sku.as_str())
            .bind(position as i64)
            .bind(sql(sku.stock))
            .bind(sku.price_minor)
            .bind(sql(held.unwrap_or(0)))
            .execute(&mut *connection)
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
    let rows = sqlx::query(sales)
        .bind(id)
        .fetch_all(&mut *connection)
        .await?;
    let skus = sqlx::query(skus).bind(id).fetch_all(connection).await?;
    let mut sales = Vec::with_capacity(rows.len());
    for row in &rows {
        let buyer_limit = count(row, 4)?
            .try_into()
            .map_err(|_| LedgerError::Corrupt("buyer_limit above 2^32".to_owned()))?;
        sales.push(Sale {
            id: parsed(row, 0)?,
            starts_at_ms: count(row, 1)?,
            ends_at_ms: count(row, 2)?,
            pay_within_ms: count(row, 3)?,
            buyer_limit,
            currency: row.try_get(5)?,
            gate: read_gate(row.try_get(6)?)?,
            segments: count(row, 7)?
                .try_into()
                .map_err(|_| LedgerError::Corrupt("segments above 2^16".to_owned()))?,
            carts: count(row, 8)? != 0,
            durability: Durability::from_name(row.try_get(9)?),
            rules: read_rules(row, 10)?,
            skus: Vec::new(),
        });
    }
    let place: HashMap<SaleId, usize> = sales
        .iter()
        .enumerate()
        .map(|(place, sale)| (sale.id.clone(), place))
        .collect();
    for row in &skus {
        let sale: SaleId = parsed(row, 3)?;
        // A sale created between the two reads has skus here and no row above; the next read has it.
        if let Some(&place) = place.get(&sale) {
            let sku = SkuOnSale {
                sku: parsed(row, 0)?,
                stock: count(row, 1)?,
                price_minor: row.try_get(2)?,
            };
            sales[place].skus.push(sku);
        }
    }
    Ok(sales)
}

/// A part of a sale that SQL need not look into; '' if there is none.
pub(super) fn as_json<T: Serialize>(part: &Option<T>) -> String {
    part.as_ref().map_or_else(String::new, |part| {
        serde_json::to_string(part).expect("plain data is valid JSON")
    })
}

fn from_json<T: DeserializeOwned>(row: &AnyRow, column: usize) -> Result<Option<T>, LedgerError> {
    let text: &str = row.try_get(column)?;
    if text.is_empty() {
        return Ok(None);
    }
    let read = serde_json::from_str(text);
    read.map(Some)
        .map_err(|error| LedgerError::Corrupt(format!("{text:?}: {error}")))
}

/// Reads `stage, version, order_limit, admission, lottery, slots` from columns in a row.
fn read_rules(row: &AnyRow, first: usize) -> Result<Rules, LedgerError> {
    let stage: &str = row.try_get(first)?;
    let stages = [Stage::Draft, Stage::Published];
    let known = stages.into_iter().find(|known| known.as_str() == stage);
    let order_limit = u32::try_from(count(row, first + 2)?)
        .map_err(|_| LedgerError::Corrupt("order_limit above 2^32".to_owned()))?;
    Ok(Rules {
        stage: known.ok_or_else(|| LedgerError::Corrupt(format!("stage {stage:?}")))?,
        version: count(row, first + 1)?,
        order_limit: Some(order_limit).filter(|limit| *limit > 0),
        admission: parsed(row, first + 3)?,
        lottery: from_json(row, first + 4)?,
        slots: from_json(row, first + 5)?,
    })
}

fn gate_word(gate: Gate) -> &'static str {
    match gate {
        Gate::Open => "open",
        Gate::Paused => "paused",
        Gate::Closed => "closed",
        Gate::Frozen => "frozen",
    }
}

fn read_gate(word: &str) -> Result<Gate, LedgerError> {
    let all = [Gate::Open, Gate::Paused, Gate::Closed, Gate::Frozen];
    let found = all.into_iter().find(|gate| gate_word(*gate) == word);
    found.ok_or_else(|| LedgerError::Corrupt(format!("gate {word:?}")))
}

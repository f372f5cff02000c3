//! Queue entries that could not become an order: kept for an operator, so that nothing acknowledged is absent everywhere, and
//! taken up again when the operator says so.

use serde::Serialize;
use sqlx::AnyConnection;
use stock::{OrderState, StoredOrder, words};

use super::{
    LedgerError, LetterId, OrderLedger, Settled,
    query::{Columns, FromRow, as_json, query},
    rows::Page,
    settle::units_left,
};
use crate::ids::{OrderId, SaleId, SegmentId, SkuId};

/// Most letters in one page.
const MAX_PAGE: usize = 1_000;

/// One entry to set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The segment whose queue it was in.
    pub segment: SegmentId,
    /// Its place in that queue, or the id of its order; setting the same aside twice records it once.
    pub position: String,
    /// Its order, if it could be read.
    pub order: Option<OrderId>,
    /// Why.
    pub reason: String,
    /// What was found.
    pub raw: String,
    /// Its order, where the store holds units for it until an operator has decided.
    pub held: Option<StoredOrder>,
}

/// A letter as it lies there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredDeadLetter {
    /// Its id.
    pub id: LetterId,
    /// The sku.
    pub sku: SkuId,
    /// The part of its stock.
    pub segment: u16,
    /// Its order, if it could be read.
    pub order: Option<OrderId>,
    /// Why it is here, or why the last replay failed.
    pub reason: String,
    /// What was found in the queue.
    pub raw: String,
    /// When it was set aside first.
    pub at_ms: u64,
    /// How often it was replayed.
    pub replays: u64,
    /// How it ended; `None` while it waits for an operator.
    pub outcome: Option<String>,
    /// Its order as the store had it, if units were held for it.
    #[serde(skip)]
    pub held: Option<StoredOrder>,
}

words! {
    /// How one replay ended.
    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    pub enum ReplayOutcome {
        /// The order is in the ledger now. The letter is closed, as it is for the next three.
        Settled = "settled",
        /// It was there already.
        Duplicate = "duplicate",
        /// It is recorded as refused: no unit was left, and the operator said that this is enough.
        Refused = "refused",
        /// An earlier replay had closed the letter; nothing was changed.
        Before = "before",
        /// No unit is left for it; restock, or replay with `or_refuse`. The letter stays, as it does for all below.
        NoUnits = "no_units",
        /// Its request has another order, which stands.
        SecondOrder = "second_order",
        /// The ledger refuses the order for its own sake; the reason says why.
        Failed = "failed",
        /// The entry could not be read: there is no order to take up.
        Unreadable = "unreadable",
        /// The store no longer knows the order, so that nobody holds units for it: it was lost, and a rebuild found none left.
        Lost = "lost",
        /// There is no such letter.
        Unknown = "unknown",
    }
}

/// The answer to a replay: how it ended, and what an operator should know.
pub(crate) type Replayed = (ReplayOutcome, String);

const INSERT: &str = "INSERT INTO order_dead_letters (sale, sku, segment, position, reason, raw, at_ms, order_id, held) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING";
/// The columns of a [`StoredDeadLetter`].
macro_rules! letter_columns {
    () => {
        "sku, segment, position, order_id, reason, raw, at_ms, replays, outcome, held"
    };
}
const PAGE: &str = concat!(
    "SELECT ",
    letter_columns!(),
    " FROM order_dead_letters WHERE sale = $1 AND outcome = '' AND (sku, segment, position) > ($2, $3, $4) \
     ORDER BY sku, segment, position LIMIT $5"
);
/// Those that an operator can close: a second order and an unreadable entry are kept as evidence.
const OPEN: &str = "SELECT COUNT(*) FROM order_dead_letters WHERE outcome = '' AND order_id <> '' AND order_id <> position";
const ONE: &str = concat!(
    "SELECT ",
    letter_columns!(),
    " FROM order_dead_letters WHERE sale = $1 AND sku = $2 AND segment = $3 AND position = $4"
);
/// Counts the replay, and locks the row: of two at once, the second finds what the first has made of it.
const CLAIM: &str = "UPDATE order_dead_letters SET replays = replays + 1 \
    WHERE sale = $1 AND sku = $2 AND segment = $3 AND position = $4 AND outcome = '' RETURNING replays";
const CLOSE: &str = "UPDATE order_dead_letters SET outcome = $5 WHERE sale = $1 AND sku = $2 AND segment = $3 AND position = $4";
const BLAME: &str = "UPDATE order_dead_letters SET reason = $5 WHERE sale = $1 AND sku = $2 AND segment = $3 AND position = $4";

impl OrderLedger {
    /// Sets entries aside, all in one transaction.
    pub async fn set_aside(&self, letters: &[DeadLetter], now_ms: u64) -> Result<(), LedgerError> {
        let mut tx = self.pool.begin().await?;
        for letter in letters {
            insert(&mut tx, letter, now_ms).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// How many letters wait for an operator, over all sales.
    pub async fn letters_open(&self) -> Result<u64, LedgerError> {
        query!(OPEN).one(self.reads()).await
    }

    /// The letters of a sale that wait for an operator, after a cursor.
    pub async fn dead_letters(
        &self,
        sale: &SaleId,
        after: Option<&LetterId>,
        limit: usize,
    ) -> Result<Page<StoredDeadLetter, LetterId>, LedgerError> {
        let limit = limit.clamp(1, MAX_PAGE);
        let (sku, segment, position) = after.map_or(("", -1, ""), |id| {
            (id.sku.as_str(), i64::from(id.segment), id.position.as_str())
        });
        let page = query!(PAGE, sale, sku, segment, position, limit);
        let letters = page.all(self.reads()).await?;
        Ok(Page::of(letters, limit, |letter: &StoredDeadLetter| {
            letter.id.clone()
        }))
    }

    /// One letter, closed or not.
    pub async fn dead_letter(
        &self,
        sale: &SaleId,
        id: &LetterId,
    ) -> Result<Option<StoredDeadLetter>, LedgerError> {
        query!(ONE, sale, id).first(self.reads()).await
    }

    /// Takes up the order of a letter, as the store has it under this epoch, in one transaction with the letter: closed exactly once. With
    /// `or_refuse` an order that no unit is left for is recorded as refused, which is final, tells the buyer and gives the
    /// store's units back; without it the letter stays. Call it only of a segment that is whole: during a rebuild nobody knows
    /// what the store will hold.
    pub async fn replay(
        &self,
        sale: &SaleId,
        id: &LetterId,
        (epoch, order): (u64, &StoredOrder),
        or_refuse: bool,
        now_ms: u64,
    ) -> Result<Replayed, LedgerError> {
        let found = (epoch, order);
        match self.try_replay(sale, id, found, or_refuse, now_ms).await {
            // A rebuild has begun since the store was asked: it may have lost the order. Ask again.
            Err(error @ LedgerError::StaleEpoch { .. }) => Err(error),
            Err(error) if error.is_transient() => Err(error),
            Err(error) => {
                self.count_failed_replay(sale, id, &error.to_string())
                    .await?;
                Ok((ReplayOutcome::Failed, error.to_string()))
            }
            replayed => replayed,
        }
    }

    async fn try_replay(
        &self,
        sale: &SaleId,
        id: &LetterId,
        (epoch, order): (u64, &StoredOrder),
        or_refuse: bool,
        now_ms: u64,
    ) -> Result<Replayed, LedgerError> {
        let segment = id.segment_of(sale);
        let mut tx = self.begin_under(&segment, epoch, now_ms).await?;
        if let Some(done) = claim(&mut tx, sale, id).await? {
            tx.rollback().await?;
            return Ok(done);
        }
        if order.state != OrderState::Released
            && !or_refuse
            && !self.is_known(&mut tx, order).await?
        {
            let left = units_left(&mut tx, &segment).await?;
            if u64::from(order.quantity) > left {
                let reason = format!("{} units are wanted and {left} are left", order.quantity);
                query!(BLAME, sale, id, reason).run(&mut *tx).await?;
                tx.commit().await?;
                let detail = format!(
                    "order {} wants {} units and {left} are left: restock, or replay with or_refuse",
                    order.order, order.quantity
                );
                return Ok((ReplayOutcome::NoUnits, detail));
            }
        }
        let batch = std::slice::from_ref(order);
        let settled = self.settle_within(&mut tx, &segment, batch, now_ms).await?[0];
        // A second order has a letter under its own id now; two for one order would count it twice.
        let is_own = id.position == order.order.to_string();
        if settled != Settled::SecondOrder || !is_own {
            let close = query!(CLOSE, sale, id, settled.as_str());
            close.run(&mut *tx).await?;
        }
        tx.commit().await?;
        self.announce(&segment, batch);
        Ok(settled.replayed(order.order))
    }

    /// Closes a letter whose order the store has lost, so that no unit is held for it: recorded as refused, whatever is left.
    pub async fn refuse_lost(
        &self,
        sale: &SaleId,
        id: &LetterId,
        (epoch, order): (u64, &StoredOrder),
        now_ms: u64,
    ) -> Result<Replayed, LedgerError> {
        let segment = id.segment_of(sale);
        let mut tx = self.begin_under(&segment, epoch, now_ms).await?;
        if let Some(done) = claim(&mut tx, sale, id).await? {
            tx.rollback().await?;
            return Ok(done);
        }
        let refused = self.refuse_within(&mut tx, &segment, order, now_ms);
        let refused = refused.await?;
        let close = query!(CLOSE, sale, id, refused.as_str());
        close.run(&mut *tx).await?;
        tx.commit().await?;
        self.announce(&segment, std::slice::from_ref(order));
        Ok(refused.replayed(order.order))
    }

    /// Counts a replay that failed, and says why. A letter that was closed meanwhile is left alone.
    pub async fn count_failed_replay(
        &self,
        sale: &SaleId,
        id: &LetterId,
        reason: &str,
    ) -> Result<(), LedgerError> {
        let mut tx = self.pool.begin().await?;
        let claimed: Option<u64> = query!(CLAIM, sale, id).first(&mut *tx).await?;
        if claimed.is_some() {
            let blame = query!(BLAME, sale, id, clean(reason));
            blame.run(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}

impl Settled {
    fn replayed(self, order: OrderId) -> Replayed {
        use ReplayOutcome as Outcome;
        match self {
            Self::Settled => (Outcome::Settled, format!("order {order} is in the ledger")),
            Self::Duplicate => {
                let detail = format!("order {order} was in the ledger already");
                (Outcome::Duplicate, detail)
            }
            Self::Refused => {
                let detail = format!("order {order} is recorded as refused");
                (Outcome::Refused, detail)
            }
            Self::SecondOrder => {
                let detail =
                    format!("the request of order {order} has another order, which stands");
                (Outcome::SecondOrder, detail)
            }
        }
    }
}

/// Claims a letter for one replay. `Some`: there is nothing to claim.
async fn claim(
    connection: &mut AnyConnection,
    sale: &SaleId,
    id: &LetterId,
) -> Result<Option<Replayed>, LedgerError> {
    let claimed: Option<u64> = query!(CLAIM, sale, id).first(&mut *connection).await?;
    if claimed.is_some() {
        return Ok(None);
    }
    let known: Option<StoredDeadLetter> = query!(ONE, sale, id).first(connection).await?;
    Ok(Some(match known.and_then(|letter| letter.outcome) {
        Some(outcome) => closed_before(&outcome),
        None => (ReplayOutcome::Unknown, "the letter is gone".to_owned()),
    }))
}

pub(crate) fn closed_before(outcome: &str) -> Replayed {
    let detail = format!("an earlier replay closed it: {outcome}");
    (ReplayOutcome::Before, detail)
}

/// Sets one entry aside inside a transaction.
pub(super) async fn insert(
    connection: &mut AnyConnection,
    letter: &DeadLetter,
    now_ms: u64,
) -> Result<(), LedgerError> {
    let order = letter.order.map(|order| order.to_string());
    query!(
        INSERT,
        &letter.segment,
        clean(&letter.position),
        clean(&letter.reason),
        clean(&letter.raw),
        now_ms,
        order.unwrap_or_default(),
        as_json(&letter.held)
    )
    .run(connection)
    .await?;
    Ok(())
}

/// PostgreSQL takes no NUL in a text; whatever made the entry unreadable may well have put one there.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

impl FromRow for StoredDeadLetter {
    fn read(columns: &mut Columns<'_>) -> Result<Self, LedgerError> {
        let id = LetterId {
            sku: columns.take()?,
            segment: columns.take()?,
            position: columns.take()?,
        };
        Ok(Self {
            sku: id.sku.clone(),
            segment: id.segment,
            id,
            order: columns.if_any()?,
            reason: columns.take()?,
            raw: columns.take()?,
            at_ms: columns.take()?,
            replays: columns.take()?,
            outcome: columns.if_any()?,
            held: columns.json()?,
        })
    }
}

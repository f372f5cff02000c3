//! A sale before and around its window: drafts are edited and published, windows are moved. Every change names the version it
//! was made from, so that of two operators at once one is told to look again.

use super::{
    LedgerError, OrderLedger,
    query::query,
    sales::{document, insert_skus, read_sales},
};

use crate::{
    ids::SaleId,
    sale::{Sale, SaleState},
};

/// The answer to an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edited {
    /// Done; the sale as it is now.
    Done(Box<Sale>),
    /// It is another version by now; nothing changed.
    Stale {
        /// The version in force.
        version: u64,
    },
    /// Where it stands by now forbids it; nothing changed.
    Forbidden(SaleState),
    /// No such sale.
    Unknown,
}

/// The answer to [`OrderLedger::publish`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// It is published now.
    Done(Box<Sale>),
    /// It had been published before; nothing changed.
    Already(Box<Sale>),
    /// Its window would be over, or it is closed; nothing changed.
    Ended,
    /// No such sale.
    Unknown,
}

const EDIT: &str = "UPDATE sale_sales SET starts_at_ms = $1, ends_at_ms = $2, pay_within_ms = $3, buyer_limit = $4, currency = $5, \
    segments = $6, carts = $7, durability = $8, order_limit = $9, admission = $10, lottery = $11, slots = $12, version = version + 1 \
    WHERE sale = $13 AND version = $14 AND stage = 'draft' AND gate <> 'closed'";
const FORGET_SKUS: &str = "DELETE FROM sale_skus WHERE sale = $1";
const PUBLISH: &str = "UPDATE sale_sales SET stage = 'published', version = version + 1 \
    WHERE sale = $1 AND stage = 'draft' AND gate <> 'closed' AND ends_at_ms > $2";
const MOVE: &str = "UPDATE sale_sales SET starts_at_ms = $1, ends_at_ms = $2, version = version + 1 \
    WHERE sale = $3 AND version = $4 AND stage = 'published' AND gate <> 'closed'";

impl OrderLedger {
    /// Replaces a draft, if it is still this version of it.
    pub async fn edit_draft(
        &self,
        sale: &Sale,
        version: u64,
        now_ms: u64,
    ) -> Result<Edited, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let edited = document(EDIT, sale).bind(&sale.id).bind(version);
        let is_done = edited.run(&mut *tx).await? == 1;
        if is_done {
            // Nothing of a draft was ever sold, so its skus can be written anew.
            query!(FORGET_SKUS, &sale.id).run(&mut *tx).await?;
            insert_skus(&mut tx, sale).await?;
        }
        let known = read_sales(&mut tx, sale.id.as_str()).await?.pop();
        tx.commit().await?;
        Ok(outcome(is_done, known, version, now_ms))
    }

    /// Makes a draft visible to buyers. Repeating it changes nothing.
    pub async fn publish(&self, sale: &SaleId, now_ms: u64) -> Result<Published, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let published = query!(PUBLISH, sale, now_ms).run(&mut *tx).await?;
        let known = read_sales(&mut tx, sale.as_str()).await?.pop();
        tx.commit().await?;
        Ok(match known {
            None => Published::Unknown,
            Some(known) if published == 1 => Published::Done(Box::new(known)),
            Some(known) => match known.state_at(now_ms) {
                // Still a draft: its window lies in the past.
                SaleState::Draft | SaleState::Ended => Published::Ended,
                SaleState::Scheduled | SaleState::Open | SaleState::Paused => {
                    Published::Already(Box::new(known))
                }
            },
        })
    }

    /// Gives a published sale another window, if it is still this version of it. The caller has checked that it may.
    pub async fn move_window(
        &self,
        sale: &SaleId,
        version: u64,
        starts_at_ms: u64,
        ends_at_ms: u64,
        now_ms: u64,
    ) -> Result<Edited, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let moved = query!(MOVE, starts_at_ms, ends_at_ms, sale, version)
            .run(&mut *tx)
            .await?;
        let known = read_sales(&mut tx, sale.as_str()).await?.pop();
        tx.commit().await?;
        Ok(outcome(moved == 1, known, version, now_ms))
    }
}

fn outcome(is_done: bool, known: Option<Sale>, version: u64, now_ms: u64) -> Edited {
    match known {
        None => Edited::Unknown,
        Some(known) if is_done => Edited::Done(Box::new(known)),
        Some(known) if known.rules.version != version => Edited::Stale {
            version: known.rules.version,
        },
        Some(known) => Edited::Forbidden(known.state_at(now_ms)),
    }
}

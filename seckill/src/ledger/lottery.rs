//! Entries of a lottery and its one draw.
//!
//! An entry is written only while the sale's row says `draw = 'open'`; sealing changes that row and waits for the entries that
//! are being written. After it the entries stand, so every node draws the same, after any crash,
//! and the first who records it has done it for all.

use sqlx::AnyConnection;

use super::{
    LedgerError, ListName, OrderLedger,
    engine::{Statement, among, list, side_by_side},
    lists::{LAPSE, next_version, resize},
    query::{Columns, FromRow, from_row, query},
};
use crate::{
    ids::{BuyerId, SaleId},
    lottery::Round,
};

/// An entry as its buyer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its public form.
    pub entry: String,
    /// What makes it the buyer's.
    pub nonce: String,
    /// When it was made.
    pub at_ms: u64,
}

/// The answer to [`OrderLedger::enter`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entered {
    /// It is new.
    New(Entry),
    /// The buyer had entered before; nothing changed.
    Before(Entry),
    /// No entry is taken any more.
    Closed,
}

/// A draw that is sealed, and drawn or about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draw {
    /// The seed.
    pub seed: String,
    /// The beacon.
    pub beacon: String,
    /// How many entered; 0 until it is drawn.
    pub entries: u64,
    /// Root of the entries; empty until it is drawn.
    pub root: String,
    /// When it was drawn, if it was.
    pub drawn_at_ms: Option<u64>,
}

/// The answer to [`OrderLedger::record_round`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// Its winners may buy from now on, and those of the round before no longer.
    Done,
    /// The round was recorded before; nothing changed.
    Before(Round),
}

from_row!(Entry: entry, nonce, at_ms);
from_row!(Round: round, first, count, at_ms);

impl FromRow for Draw {
    fn read(columns: &mut Columns<'_>) -> Result<Self, LedgerError> {
        Ok(Self {
            seed: columns.take()?,
            beacon: columns.take()?,
            entries: columns.take()?,
            root: columns.take()?,
            drawn_at_ms: Some(columns.take()?).filter(|at| *at > 0),
        })
    }
}

const ENTER: Statement = side_by_side!("enter");
const ENTRY: &str = "SELECT entry, nonce, at_ms FROM sale_entries WHERE sale = $1 AND buyer = $2";
const SEAL: &str = "UPDATE sale_sales SET draw = 'sealed' WHERE sale = $1 AND stage = 'published' AND draw = 'open'";
const INSERT_DRAW: &str = "INSERT INTO sale_draws (sale, seed, beacon, entries, root, drawn_at_ms) VALUES ($1, $2, $3, 0, '', 0)";
const DRAW: &str =
    "SELECT seed, beacon, entries, root, drawn_at_ms FROM sale_draws WHERE sale = $1";
const ENTRIES: &str =
    "SELECT entry FROM sale_entries WHERE sale = $1 AND entry > $2 ORDER BY entry LIMIT $3";
const FINISH: &str = "UPDATE sale_draws SET entries = $2, root = $3, drawn_at_ms = $4 WHERE sale = $1 AND drawn_at_ms = 0";
const ROUNDS: &str =
    "SELECT round, first, count, at_ms FROM sale_draw_rounds WHERE sale = $1 ORDER BY round";
const INSERT_ROUND: &str = "INSERT INTO sale_draw_rounds (sale, round, first, count, at_ms) VALUES ($1, $2, $3, $4, $5) \
    ON CONFLICT DO NOTHING";
const WIN: Statement = among!(
    [
        "INSERT INTO sale_listed (sale, list, buyer, is_listed, version) \
      SELECT sale, 'drawn', buyer, 1, $2 FROM sale_entries WHERE sale = $1 AND entry"
    ],
    "$3"
);
/// Winners written by one statement.
const CHUNK: usize = 10_000;

impl OrderLedger {
    /// Enters a buyer, once.
    pub async fn enter(
        &self,
        sale: &SaleId,
        buyer: &BuyerId,
        entry: &Entry,
    ) -> Result<Entered, LedgerError> {
        let mut connection = self.pool.acquire().await?;
        let is_new = self.enter_in(&mut connection, sale, buyer, entry).await?;
        drop(connection);
        if is_new {
            return Ok(Entered::New(entry.clone()));
        }
        Ok(match self.entry(sale, buyer).await? {
            Some(known) => Entered::Before(known),
            None => Entered::Closed,
        })
    }

    /// [`OrderLedger::enter`] as part of the caller's transaction, which the seal waits for; false if it wrote nothing.
    pub async fn enter_in(
        &self,
        connection: &mut AnyConnection,
        sale: &SaleId,
        buyer: &BuyerId,
        entry: &Entry,
    ) -> Result<bool, LedgerError> {
        let entered = query!(
            ENTER.on(self.engine),
            sale,
            buyer,
            &entry.nonce,
            &entry.entry,
            entry.at_ms
        )
        .run(connection)
        .await?;
        Ok(entered == 1)
    }

    /// A buyer's entry.
    pub async fn entry(
        &self,
        sale: &SaleId,
        buyer: &BuyerId,
    ) -> Result<Option<Entry>, LedgerError> {
        query!(ENTRY, sale, buyer).first(self.reads()).await
    }

    /// Ends the entries of a published sale for good and notes what it will be drawn with. If they were ended before, nothing
    /// changes. Answers the draw as it is.
    pub async fn seal(
        &self,
        sale: &SaleId,
        seed: &str,
        beacon: &str,
    ) -> Result<Option<Draw>, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let sealed = query!(SEAL, sale).run(&mut *tx).await?;
        if sealed == 1 {
            query!(INSERT_DRAW, sale, seed, beacon)
                .run(&mut *tx)
                .await?;
        }
        let draw = query!(DRAW, sale).first(&mut *tx).await?;
        tx.commit().await?;
        Ok(draw)
    }

    /// The draw of a sale, if it was sealed.
    pub async fn draw(&self, sale: &SaleId) -> Result<Option<Draw>, LedgerError> {
        query!(DRAW, sale).first(self.reads()).await
    }

    /// The rounds of a draw, in their order.
    pub async fn draw_rounds(&self, sale: &SaleId) -> Result<Vec<Round>, LedgerError> {
        query!(ROUNDS, sale).all(self.reads()).await
    }

    /// Entries above one, ascending.
    pub async fn entries(
        &self,
        sale: &SaleId,
        after: &str,
        limit: usize,
    ) -> Result<Vec<String>, LedgerError> {
        query!(ENTRIES, sale, after, limit).all(self.reads()).await
    }

    /// Records what was drawn: the first time, for the first round, count and root as well. The winners come on the list of
    /// those who may buy, and those of the round before leave it, all in one transaction. Exactly one caller does it.
    pub async fn record_round(
        &self,
        sale: &SaleId,
        round: &Round,
        roll: (u64, &str),
        winners: &[String],
    ) -> Result<Recorded, LedgerError> {
        let mut tx = self.pool.begin().await?;
        // The list's lock comes first, so that two who record meet there and not in the middle.
        let version = next_version(&mut tx, sale, ListName::Drawn).await?.version;
        let recorded = query!(
            INSERT_ROUND,
            sale,
            round.round,
            round.first,
            round.count,
            round.at_ms
        )
        .run(&mut *tx)
        .await?;
        if recorded == 0 {
            let known: Vec<Round> = query!(ROUNDS, sale).all(&mut *tx).await?;
            tx.rollback().await?;
            let same = known.into_iter().find(|known| known.round == round.round);
            return same.map(Recorded::Before).ok_or_else(|| {
                LedgerError::Corrupt(format!("round {} of {sale} came and went", round.round))
            });
        }
        query!(FINISH, sale, roll.0, roll.1, round.at_ms)
            .run(&mut *tx)
            .await?;
        query!(LAPSE, sale, ListName::Drawn, version)
            .run(&mut *tx)
            .await?;
        let mut written = 0;
        for chunk in winners.chunks(CHUNK) {
            let done = query!(WIN.on(self.engine), sale, version, list(chunk))
                .run(&mut *tx)
                .await?;
            written += done;
        }
        if written != winners.len() as u64 {
            return Err(LedgerError::Corrupt(format!(
                "{} winners of {sale} and {written} buyers",
                winners.len()
            )));
        }
        resize(&mut tx, sale, ListName::Drawn, written).await?;
        tx.commit().await?;
        Ok(Recorded::Done)
    }
}

//! The allow and block lists of sales. Each change of a list has a version, and a buyer who was removed stays as a row that says
//! so: a node reads what came after the place it has read up to, never the whole list again.

use sqlx::AnyConnection;
use stock::words;

use super::{
    LedgerError, OrderLedger,
    engine::{self, Statement, among, from_list},
    query::{from_row, query},
};
use crate::ids::{BuyerId, SaleId};

/// Most buyers on one list: what every node keeps of them has 8 to 12 bytes each.
pub const MAX_LISTED: u64 = 20_000_000;

words! {
    /// Which list.
    pub enum ListName {
        /// The only buyers of a sale with `admission = allow_list`.
        Allow = "allow",
        /// Buyers who may not buy, whatever else is said.
        Block = "block",
        /// The winners of the last round of a lottery. Written by its draw alone.
        Drawn = "drawn",
    }
}

impl ListName {
    /// Those that operators upload.
    pub const UPLOADED: [Self; 2] = [Self::Allow, Self::Block];
}

/// One buyer put on a list or taken off it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListChange {
    /// Who.
    pub buyer: BuyerId,
    /// Whether the buyer is on the list now.
    pub is_listed: bool,
}

/// Up to where a reader knows a list: the version, and the last buyer read of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListCursor {
    version: u64,
    buyer: String,
}

/// Changes of a list after a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage {
    /// The changes, oldest first.
    pub changes: Vec<ListChange>,
    /// Where the next page starts.
    pub read_up_to: ListCursor,
}

/// A list as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListSize {
    /// Grows with every change.
    pub version: u64,
    /// Buyers on it.
    pub entries: u64,
}

/// The answer to [`OrderLedger::change_list`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListChanged {
    /// Done; what was asked for already changes nothing.
    Done {
        /// The list afterwards.
        size: ListSize,
        /// Buyers who were not on it before.
        added: u64,
        /// Buyers who were.
        removed: u64,
    },
    /// The list would pass [`MAX_LISTED`]; nothing changed.
    TooMany {
        /// How many there would be.
        entries: u64,
    },
}

from_row!(ListSize: version, entries);
from_row!(ListChange: buyer, is_listed);

const ENSURE: &str = "INSERT INTO sale_lists (sale, list, version, entries) VALUES ($1, $2, 0, 0) ON CONFLICT DO NOTHING";
/// Locks the list, so that versions are committed in their order and a reader misses none.
const NEXT: &str = "UPDATE sale_lists SET version = version + 1 WHERE sale = $1 AND list = $2 RETURNING version, entries";
const ADD: Statement = from_list!(
    texts["INSERT INTO sale_listed (sale, list, buyer, is_listed, version) SELECT $1, $2, value, 1, $3"],
    "$4",
    "WHERE TRUE \
     ON CONFLICT (sale, list, buyer) DO UPDATE SET is_listed = 1, version = excluded.version WHERE sale_listed.is_listed = 0"
);
const REMOVE: Statement = among!(
    [
        "UPDATE sale_listed SET is_listed = 0, version = $3 WHERE sale = $1 AND list = $2 AND is_listed = 1 AND buyer"
    ],
    "$4"
);
const RESIZE: &str = "UPDATE sale_lists SET entries = $3 WHERE sale = $1 AND list = $2";
/// Takes everybody off a list.
pub(super) const LAPSE: &str = "UPDATE sale_listed SET is_listed = 0, version = $3 WHERE sale = $1 AND list = $2 AND is_listed = 1";
const SIZE: &str = "SELECT version, entries FROM sale_lists WHERE sale = $1 AND list = $2";
const VERSIONS: &str = "SELECT sale, list, version FROM sale_lists";
const VERSIONS_GOING_ON: &str = "SELECT sale, list, version FROM sale_lists \
    WHERE sale IN (SELECT sale FROM sale_sales WHERE audited_at_ms = 0)";
const CHANGES: &str = "SELECT buyer, is_listed, version FROM sale_listed \
    WHERE sale = $1 AND list = $2 AND (version, buyer) > ($3, $4) ORDER BY version, buyer LIMIT $5";

impl OrderLedger {
    /// Puts buyers on a list and takes others off it, all or nothing. No buyer may stand in both.
    pub async fn change_list(
        &self,
        sale: &SaleId,
        list: ListName,
        add: &[BuyerId],
        remove: &[BuyerId],
    ) -> Result<ListChanged, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let ListSize {
            version,
            entries: before,
        } = next_version(&mut tx, sale, list).await?;
        let run = async |tx: &mut AnyConnection, statement: &Statement, buyers: &[BuyerId]| {
            if buyers.is_empty() {
                return Ok(0);
            }
            let buyers = engine::list(buyers);
            query!(statement.on(self.engine), sale, list, version, buyers)
                .run(tx)
                .await
        };
        let added = run(&mut tx, &ADD, add).await?;
        let removed = run(&mut tx, &REMOVE, remove).await?;
        let entries = (before + added).saturating_sub(removed);
        if entries > MAX_LISTED {
            tx.rollback().await?;
            return Ok(ListChanged::TooMany { entries });
        }
        resize(&mut tx, sale, list, entries).await?;
        tx.commit().await?;
        let size = ListSize { version, entries };
        Ok(ListChanged::Done {
            size,
            added,
            removed,
        })
    }

    /// How large a list is.
    pub async fn list_size(&self, sale: &SaleId, list: ListName) -> Result<ListSize, LedgerError> {
        let size = query!(SIZE, sale, list).first(self.reads()).await?;
        Ok(size.unwrap_or_default())
    }

    /// Every list that was ever changed, with its version.
    pub async fn list_versions(&self) -> Result<Vec<(SaleId, ListName, u64)>, LedgerError> {
        query!(VERSIONS).all(self.reads()).await
    }

    /// The same of sales that are not known to be over.
    pub async fn list_versions_going_on(
        &self,
    ) -> Result<Vec<(SaleId, ListName, u64)>, LedgerError> {
        query!(VERSIONS_GOING_ON).all(self.reads()).await
    }

    /// What changed in a list after a cursor, at most `limit` buyers. A buyer who changed several times is told once.
    pub async fn list_changes(
        &self,
        sale: &SaleId,
        list: ListName,
        after: &ListCursor,
        limit: usize,
    ) -> Result<ListPage, LedgerError> {
        let changes = query!(CHANGES, sale, list, after.version, &after.buyer, limit);
        let changes: Vec<(ListChange, u64)> = changes.all(self.reads()).await?;
        let read_up_to = match changes.last() {
            None => after.clone(),
            Some((last, version)) => ListCursor {
                version: *version,
                buyer: last.buyer.to_string(),
            },
        };
        Ok(ListPage {
            changes: changes.into_iter().map(|(change, _)| change).collect(),
            read_up_to,
        })
    }
}

/// Takes the lock of a list and its next version; answers that and the size so far.
pub(super) async fn next_version(
    connection: &mut AnyConnection,
    sale: &SaleId,
    list: ListName,
) -> Result<ListSize, LedgerError> {
    query!(ENSURE, sale, list).run(&mut *connection).await?;
    query!(NEXT, sale, list).one(connection).await
}

/// Notes how many are on a list.
pub(super) async fn resize(
    connection: &mut AnyConnection,
    sale: &SaleId,
    list: ListName,
    entries: u64,
) -> Result<(), LedgerError> {
    query!(RESIZE, sale, list, entries).run(connection).await?;
    Ok(())
}

//! The allow and block lists of sales. Each change of a list has a version, and a buyer who was removed stays as a row that says
//! so: a node reads what came after the place it has read up to, never the whole list again.

use std::{fmt, str::FromStr};

use sqlx::{AnyConnection, Row};

use super::{
    LedgerError, OrderLedger,
    engine::{self, Statement, among, from_list},
    rows::{count, parsed},
    sql,
};
use crate::ids::{BuyerId, SaleId};

/// Most buyers on one list: what every node keeps of them has 8 to 12 bytes each.
pub const MAX_LISTED: u64 = 20_000_000;

/// Which list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListName {
    /// The only buyers of a sale with `admission = allow_list`.
    Allow,
    /// Buyers who may not buy, whatever else is said.
    Block,
    /// The winners of the last round of a lottery. Written by its draw alone.
    Drawn,
}

impl ListName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Allow, Self::Block, Self::Drawn];
    /// Those that operators upload.
    pub const UPLOADED: [Self; 2] = [Self::Allow, Self::Block];

    /// The word in the ledger and in paths.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Block => "block",
            Self::Drawn => "drawn",
        }
    }
}

impl fmt::Display for ListName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ListName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|list| list.as_str() == text);
        found.ok_or_else(|| format!("list {text:?}"))
    }
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
            let done = sqlx::query(statement.on(self.engine))
                .bind(sale.as_str())
                .bind(list.as_str())
                .bind(sql(version))
                .bind(engine::list(buyers))
                .execute(tx)
                .await?;
            Ok::<_, LedgerError>(done.rows_affected())
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
        let row = sqlx::query(SIZE)
            .bind(sale.as_str())
            .bind(list.as_str())
            .fetch_optional(self.reads())
            .await?;
        row.map_or(Ok(ListSize::default()), |row| {
            Ok(ListSize {
                version: count(&row, 0)?,
                entries: count(&row, 1)?,
            })
        })
    }

    /// Every list that was ever changed, with its version.
    pub async fn list_versions(&self) -> Result<Vec<(SaleId, ListName, u64)>, LedgerError> {
        self.versions(VERSIONS).await
    }

    async fn versions(
        &self,
        statement: &'static str,
    ) -> Result<Vec<(SaleId, ListName, u64)>, LedgerError> {
        let rows = sqlx::query(statement).fetch_all(self.reads()).await?;
        rows.iter()
            .map(|row| Ok((parsed(row, 0)?, parsed(row, 1)?, count(row, 2)?)))
            .collect()
    }

    /// The same of sales that are not known to be over.
    pub async fn list_versions_going_on(
        &self,
    ) -> Result<Vec<(SaleId, ListName, u64)>, LedgerError> {
        self.versions(VERSIONS_GOING_ON).await
    }

    /// What changed in a list after a cursor, at most `limit` buyers. A buyer who changed several times is told once.
    pub async fn list_changes(
        &self,
        sale: &SaleId,
        list: ListName,
        after: &ListCursor,
        limit: usize,
    ) -> Result<ListPage, LedgerError> {
        let rows = sqlx::query(CHANGES)
            .bind(sale.as_str())
            .bind(list.as_str())
            .bind(sql(after.version))
            .bind(after.buyer.as_str())
            .bind(limit as i64)
            .fetch_all(self.reads())
            .await?;
        let read_up_to = match rows.last() {
            None => after.clone(),
            Some(row) => ListCursor {
                version: count(row, 2)?,
                buyer: row.try_get(0)?,
            },
        };
        let changes = rows.iter().map(|row| {
            Ok(ListChange {
                buyer: parsed(row, 0)?,
                is_listed: count(row, 1)? == 1,
            })
        });
        Ok(ListPage {
            changes: changes.collect::<Result<_, LedgerError>>()?,
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
    sqlx::query(ENSURE)
        .bind(sale.as_str())
        .bind(list.as_str())
        .execute(&mut *connection)
        .await?;
    let next = sqlx::query(NEXT)
        .bind(sale.as_str())
        .bind(list.as_str())
        .fetch_one(connection)
        .await?;
    Ok(ListSize {
        version: count(&next, 0)?,
        entries: count(&next, 1)?,
    })
}

/// Notes how many are on a list.
pub(super) async fn resize(
    connection: &mut AnyConnection,
    sale: &SaleId,
    list: ListName,
    entries: u64,
) -> Result<(), LedgerError> {
    sqlx::query(RESIZE)
        .bind(sale.as_str())
        .bind(list.as_str())
        .bind(sql(entries))
        .execute(connection)
        .await?;
    Ok(())
}

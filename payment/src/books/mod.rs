//! The books under watch: every invariant of payments that the database can show.
//!
//! [`Books::check`] proves all of it, and its work grows with all there ever was: for a request by hand. [`Books::check_next`] is for a
//! timer, and its work is bounded (INV-PAST-1): what is about a minute old, and one piece further of everything, again and again. Both
//! read only, so give them connections that payments do not wait for.

use sqlx::{Any, AnyConnection, AnyPool, Transaction};

use crate::{
    db::{self, LAST_ID, Page, page_after},
    ids,
    ledger::{self, Finding},
};

const DOUBLE_CHARGES: &str = include_str!("double_charges.sql");
const INTENTS: &str = "SELECT id FROM pay_intents WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3";
/// Rows of a kind in one statement of a whole check, and of the new ones that one piece reads.
const PAGE_SIZE: i64 = 10_000;
/// Rows of a kind that one piece reads of everything.
const PIECE_SIZE: i64 = 1_000;
/// New rows are looked at when they are this old: ids are made before their transaction commits, by clocks that differ, and most payments
/// are decided by then. What changes later is seen by the walk over everything.
const SETTLED_AFTER_MS: i64 = 60_000;

/// The lists that are walked, each in the order of its ids, which is that of time.
#[derive(Clone, Copy)]
enum List {
    Charges,
    Refunds,
    Intents,
}

impl List {
    const ALL: [Self; 3] = [Self::Charges, Self::Refunds, Self::Intents];

    /// What the ids of new rows begin with, before their time. Refunds of earlier releases carry their charge's.
    fn prefix(self) -> &'static str {
        match self {
            Self::Charges => "charge:ch_",
            Self::Refunds => "refund:re_",
            Self::Intents => "pi_",
        }
    }

    /// All of it lies after the first and before the second.
    fn bounds(self) -> (&'static str, &'static str) {
        match self {
            Self::Charges => ("", "refund:"),
            Self::Refunds => ("refund:", LAST_ID),
            Self::Intents => ("", LAST_ID),
        }
    }

    async fn check(
        self,
        conn: &mut AnyConnection,
        after: &str,
        last: &str,
        limit: i64,
    ) -> Result<(Page, Vec<Finding>), sqlx::Error> {
        match self {
            Self::Charges | Self::Refunds => {
                ledger::check_transfers(conn, after, last, limit).await
            }
            Self::Intents => check_intents(conn, after, last, limit).await,
        }
    }
}

/// How far a list has been read.
struct Walk {
    list: List,
    /// New rows: up to here. Empty before the first piece.
    new_after: String,
    /// All rows: up to here, in this round.
    all_after: String,
}

/// Keeps in memory how far it has read; after a restart it begins with what is new then.
pub struct Books {
    readers: AnyPool,
    walks: [Walk; 3],
}

impl Books {
    /// Books over a pool that need not be able to write.
    pub fn new(readers: AnyPool) -> Self {
        let walk = |list: List| Walk {
            list,
            new_after: String::new(),
            all_after: list.bounds().0.to_owned(),
        };
        Self {
            readers,
            walks: List::ALL.map(walk),
        }
    }

    /// All that is wrong, page by page in one snapshot. Reads every payment there ever was.
    pub async fn check(&self) -> Result<Vec<Finding>, sqlx::Error> {
        let mut tx = self.snapshot().await?;
        let mut findings = ledger::check(&mut tx).await?;
        let mut after = String::new();
        loop {
            let (page, found) = check_intents(&mut tx, &after, LAST_ID, PAGE_SIZE).await?;
            findings.extend(found);
            if page.is_last {
                break;
            }
            after = page.up_to;
        }
        tx.commit().await?;
        Ok(findings)
    }

    /// What is wrong in the next piece: rows that have become old enough, and the next ones of everything.
    pub async fn check_next(&mut self, now_ms: i64) -> Result<Vec<Finding>, sqlx::Error> {
        let mut conn = self.readers.acquire().await?;
        let mut findings = Vec::new();
        for walk in &mut self.walks {
            let list = walk.list;
            let settled = ids::first_of(list.prefix(), now_ms - SETTLED_AFTER_MS);
            if !walk.new_after.is_empty() {
                let after = &walk.new_after;
                let (page, found) = list.check(&mut conn, after, &settled, PAGE_SIZE).await?;
                findings.extend(found);
                walk.new_after = page.up_to;
            } else {
                walk.new_after = settled;
            }
            let (first, last) = list.bounds();
            let all = list.check(&mut conn, &walk.all_after, last, PIECE_SIZE);
            let (page, found) = all.await?;
            findings.extend(found);
            walk.all_after = match page.is_last {
                true => first.to_owned(),
                false => page.up_to,
            };
        }
        Ok(findings)
    }

    async fn snapshot(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        let is_sqlite = self.readers.connect_options().database_url.scheme() == "sqlite";
        match is_sqlite {
            true => self.readers.begin().await,
            false => {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                self.readers.begin_with(begin).await
            }
        }
    }
}

/// At most one succeeded charge per intent (INV-PAY-2).
async fn check_intents(
    conn: &mut AnyConnection,
    after: &str,
    last: &str,
    limit: i64,
) -> Result<(Page, Vec<Finding>), sqlx::Error> {
    let page = page_after(conn, INTENTS, after, last, limit).await?;
    let broken = sqlx::query(DOUBLE_CHARGES).bind(after).bind(&page.up_to);
    let finding = |row| {
        let detail = format!(
            "intent {} is {} with {} succeeded charges",
            db::text(row, "id")?,
            db::text(row, "status")?,
            db::int(row, "charges")?,
        );
        Ok(Finding {
            invariant: "INV-PAY-2",
            detail,
        })
    };
    let broken = broken.fetch_all(conn).await?;
    let findings: Result<_, sqlx::Error> = broken.iter().map(finding).collect();
    Ok((page, findings?))
}

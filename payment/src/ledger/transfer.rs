//! Moving money: pending → posted | voided. Every function runs inside the caller's transaction and is safe to repeat.

use sqlx::{AnyConnection, Row};

use super::{AccountId, LedgerError, Recorded, Resolved, TransferId};
use crate::{
    db,
    money::{Currency, Money},
};

const INSERT_PENDING: &str = include_str!("queries/insert_pending.sql");
const INSERT_RESOLUTION: &str = include_str!("queries/insert_resolution.sql");
const INSERT_ENTRIES: &str = include_str!("queries/insert_entries.sql");
const RESERVE: &str = include_str!("queries/reserve.sql");
const RELEASE: &str = include_str!("queries/release.sql");

/// Money from one account to another.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// The caller's id for it.
    pub id: TransferId,
    /// Gains if it is what others owe us, gives if it is what we owe.
    pub debit: AccountId,
    /// The other side.
    pub credit: AccountId,
    /// How much, above zero.
    pub money: Money,
    /// The intent it belongs to.
    pub reference: String,
}

/// Reserves money on both sides.
pub async fn pend(
    conn: &mut AnyConnection,
    transfer: &Transfer,
    now_ms: i64,
) -> Result<Recorded, LedgerError> {
    let inserted = sqlx::query(INSERT_PENDING)
        .bind(transfer.id.as_str())
        .bind(transfer.debit.as_str())
        .bind(transfer.credit.as_str())
        .bind(transfer.money.currency().code())
        .bind(transfer.money.minor())
        .bind(&transfer.reference)
        .bind(now_ms)
        .execute(&mut *conn)
        .await?;
    if inserted.rows_affected() == 0 {
        return same_as_stored(conn, transfer).await;
    }
    let amount = transfer.money.minor();
    // Only what leaves a guarded account is limited; what comes in counts once it is posted.
    if transfer.debit.is_guarded() {
        let reserved = sqlx::query(RESERVE)
            .bind(transfer.debit.as_str())
            .bind(amount)
            .execute(&mut *conn)
            .await?;
        if reserved.rows_affected() == 0 {
            return Err(LedgerError::OverLimit {
                account: transfer.debit.clone(),
            });
        }
    }
    let entry = Entry {
        pending: amount,
        posted: 0,
    };
    write_entries(conn, transfer.id.as_str(), &Sides::of(transfer), entry).await?;
    Ok(Recorded::Created)
}

/// Makes a pending transfer final.
pub async fn post(
    conn: &mut AnyConnection,
    pending: &TransferId,
    now_ms: i64,
) -> Result<Resolved, LedgerError> {
    let Some((sides, amount)) = insert_resolution(conn, pending, "post", now_ms).await? else {
        return resolved_before(conn, pending).await;
    };
    if sides.credit.is_guarded() {
        give(conn, &sides.credit, sides.currency, amount).await?;
    }
    let entry = Entry {
        pending: -amount,
        posted: amount,
    };
    write_entries(conn, &pending.resolution(), &sides, entry).await?;
    Ok(Resolved::Done)
}

/// Undoes a pending transfer.
pub async fn void(
    conn: &mut AnyConnection,
    pending: &TransferId,
    now_ms: i64,
) -> Result<Resolved, LedgerError> {
    let Some((sides, amount)) = insert_resolution(conn, pending, "void", now_ms).await? else {
        return resolved_before(conn, pending).await;
    };
    if sides.debit.is_guarded() {
        give(conn, &sides.debit, sides.currency, amount).await?;
    }
    let entry = Entry {
        pending: -amount,
        posted: 0,
    };
    write_entries(conn, &pending.resolution(), &sides, entry).await?;
    Ok(Resolved::Done)
}

/// What one transfer adds to the debit columns of one account and the credit columns of the other.
#[derive(Clone, Copy)]
struct Entry {
    pending: i64,
    posted: i64,
}

struct Sides {
    debit: AccountId,
    credit: AccountId,
    currency: Currency,
}

impl Sides {
    fn of(transfer: &Transfer) -> Self {
        Self {
            debit: transfer.debit.clone(),
            credit: transfer.credit.clone(),
            currency: transfer.money.currency(),
        }
    }
}

/// Inserts the one transfer that resolves `pending`; `None` if there is one already, or nothing to resolve.
async fn insert_resolution(
    conn: &mut AnyConnection,
    pending: &TransferId,
    kind: &str,
    now_ms: i64,
) -> Result<Option<(Sides, i64)>, LedgerError> {
    let row = sqlx::query(INSERT_RESOLUTION)
        .bind(pending.as_str())
        .bind(pending.resolution())
        .bind(kind)
        .bind(now_ms)
        .fetch_optional(conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let sides = Sides {
        debit: AccountId::stored(db::text(&row, "debit_account")?),
        credit: AccountId::stored(db::text(&row, "credit_account")?),
        currency: db::currency(&row)?,
    };
    Ok(Some((sides, db::int(&row, "amount_minor")?)))
}

async fn resolved_before(
    conn: &mut AnyConnection,
    pending: &TransferId,
) -> Result<Resolved, LedgerError> {
    let kind: Option<String> =
        sqlx::query_scalar("SELECT kind FROM pay_transfers WHERE pending_id = $1")
            .bind(pending.as_str())
            .fetch_optional(conn)
            .await?;
    match kind.as_deref() {
        Some("post") => Ok(Resolved::AlreadyPosted),
        Some(_) => Ok(Resolved::AlreadyVoided),
        None => Err(LedgerError::NoSuchPending {
            id: pending.clone(),
        }),
    }
}

async fn same_as_stored(
    conn: &mut AnyConnection,
    transfer: &Transfer,
) -> Result<Recorded, LedgerError> {
    let row = sqlx::query(
        "SELECT debit_account, credit_account, currency, amount_minor FROM pay_transfers WHERE id = $1",
    )
    .bind(transfer.id.as_str())
    .fetch_one(conn)
    .await?;
    let is_same = row.try_get::<&str, _>(0)? == transfer.debit.as_str()
        && row.try_get::<&str, _>(1)? == transfer.credit.as_str()
        && row.try_get::<&str, _>(2)? == transfer.money.currency().code()
        && row.try_get::<i64, _>(3)? == transfer.money.minor();
    if is_same {
        Ok(Recorded::Exists)
    } else {
        Err(LedgerError::ExistsDifferent {
            id: transfer.id.clone(),
        })
    }
}

/// Adds to what a guarded account can give; its row is made by the first money that comes in.
async fn give(
    conn: &mut AnyConnection,
    account: &AccountId,
    currency: Currency,
    amount: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(RELEASE)
        .bind(account.as_str())
        .bind(currency.code())
        .bind(amount)
        .execute(conn)
        .await?;
    Ok(())
}

async fn write_entries(
    conn: &mut AnyConnection,
    transfer: &str,
    sides: &Sides,
    entry: Entry,
) -> Result<(), sqlx::Error> {
    sqlx::query(INSERT_ENTRIES)
        .bind(transfer)
        .bind(sides.debit.as_str())
        .bind(sides.credit.as_str())
        .bind(sides.currency.code())
        .bind(entry.pending)
        .bind(entry.posted)
        .execute(conn)
        .await?;
    Ok(())
}

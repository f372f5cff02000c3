//! Rows of `pay_refunds`.

use sqlx::{AnyConnection, any::AnyRow};

use super::{Purpose, Refund};
use crate::{
    db,
    ids::{ChargeId, IntentId, RefundId},
    ledger::TransferId,
};

const INSERT: &str = include_str!("queries/insert_refund.sql");
const CLAIM: &str = include_str!("queries/claim_refunds.sql");

/// Records that money must go back. A second refund of late money is refused by its index. The resolver tries from `next_try_ms` on if
/// nobody did sooner.
pub(crate) async fn insert(
    conn: &mut AnyConnection,
    refund: &Refund,
    next_try_ms: i64,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(INSERT)
        .bind(refund.id.as_str())
        .bind(refund.charge.as_str())
        .bind(refund.intent.as_str())
        .bind(refund.purpose.as_str())
        .bind(refund.transfer.as_str())
        .bind(&refund.channel)
        .bind(&refund.payment_method)
        .bind(refund.amount.minor())
        .bind(refund.amount.currency().code())
        .bind(next_try_ms)
        .bind(now_ms)
        .execute(conn)
        .await?;
    Ok(())
}

/// The money is back, once: `false` if it was before.
pub(crate) async fn end(
    conn: &mut AnyConnection,
    refund: &Refund,
    now_ms: i64,
) -> Result<bool, sqlx::Error> {
    let updated = sqlx::query(
        "UPDATE pay_refunds SET status = 'succeeded', resolved_ms = $2 WHERE id = $1 AND status = 'pending'",
    )
    .bind(refund.id.as_str())
    .bind(now_ms)
    .execute(conn)
    .await?;
    Ok(updated.rows_affected() == 1)
}

/// The channel did not give the money back yet.
pub(crate) async fn put_off(
    conn: &mut AnyConnection,
    refund: &Refund,
    next_try_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE pay_refunds SET tries = tries + 1, next_try_ms = $2 WHERE id = $1")
        .bind(refund.id.as_str())
        .bind(next_try_ms)
        .execute(conn)
        .await?;
    Ok(())
}

/// Takes up to `limit` open refunds whose time has come; nobody else gets them before `until_ms`.
pub(crate) async fn claim(
    conn: &mut AnyConnection,
    now_ms: i64,
    until_ms: i64,
    limit: i64,
) -> Result<Vec<Refund>, sqlx::Error> {
    let rows = sqlx::query(CLAIM)
        .bind(now_ms)
        .bind(until_ms)
        .bind(limit)
        .fetch_all(conn)
        .await?;
    rows.iter().map(from_row).collect()
}

fn from_row(row: &AnyRow) -> Result<Refund, sqlx::Error> {
    let purpose = db::text(row, "purpose")?;
    Ok(Refund {
        id: RefundId::trusted(db::text(row, "id")?),
        purpose: Purpose::parse(&purpose).ok_or_else(|| db::corrupt("purpose", &purpose))?,
        transfer: TransferId::stored(db::text(row, "transfer")?),
        charge: ChargeId::trusted(db::text(row, "charge")?),
        intent: IntentId::trusted(db::text(row, "intent")?),
        channel: db::text(row, "channel")?,
        payment_method: db::text(row, "payment_method")?,
        amount: db::money(row, "amount_minor")?,
        tries: db::int(row, "tries")?,
    })
}

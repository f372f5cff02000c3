//! Rows of `pay_charges`.

use sqlx::{AnyConnection, Row, any::AnyRow};

use super::{Charge, Ended};
use crate::{
    db,
    ids::{ChargeId, IntentId},
};

const INSERT: &str = include_str!("queries/insert_charge.sql");
const CLAIM: &str = include_str!("queries/claim_charges.sql");
const COUNT_UNKNOWN: &str = include_str!("queries/count_unknown.sql");

/// Records a charge before its channel is asked. The resolver takes it for abandoned at `next_query_ms`.
pub(crate) async fn insert(
    conn: &mut AnyConnection,
    charge: &Charge,
    next_query_ms: i64,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(INSERT)
        .bind(charge.id.as_str())
        .bind(charge.intent.as_str())
        .bind(&charge.channel)
        .bind(&charge.payment_method)
        .bind(charge.amount.minor())
        .bind(charge.amount.currency().code())
        .bind(charge.idempotency_key.as_deref())
        .bind(next_query_ms)
        .bind(now_ms)
        .execute(conn)
        .await?;
    Ok(())
}

/// Ends a charge, once: `false` if it has ended before.
pub(crate) async fn end(
    conn: &mut AnyConnection,
    id: &ChargeId,
    ended: Ended,
    now_ms: i64,
) -> Result<bool, sqlx::Error> {
    let status = match ended {
        Ended::Succeeded => "succeeded",
        Ended::Failed => "failed",
    };
    let updated = sqlx::query(
        "UPDATE pay_charges SET status = $2, resolved_ms = $3 WHERE id = $1 AND status IN ('pending', 'unknown')",
    )
    .bind(id.as_str())
    .bind(status)
    .bind(now_ms)
    .execute(conn)
    .await?;
    Ok(updated.rows_affected() == 1)
}

/// Notes that the channel did not say; `false` if the charge has ended meanwhile.
pub(crate) async fn doubt(
    conn: &mut AnyConnection,
    id: &ChargeId,
    next_query_ms: i64,
) -> Result<bool, sqlx::Error> {
    let updated = sqlx::query(
        "UPDATE pay_charges SET status = 'unknown', queries = queries + 1, next_query_ms = $2 WHERE id = $1 AND status IN ('pending', 'unknown')",
    )
    .bind(id.as_str())
    .bind(next_query_ms)
    .execute(conn)
    .await?;
    Ok(updated.rows_affected() == 1)
}

/// Takes up to `limit` undecided charges whose time has come; nobody else gets them before `until_ms`.
pub(crate) async fn claim(
    conn: &mut AnyConnection,
    now_ms: i64,
    until_ms: i64,
    limit: i64,
) -> Result<Vec<Charge>, sqlx::Error> {
    let rows = sqlx::query(CLAIM)
        .bind(now_ms)
        .bind(until_ms)
        .bind(limit)
        .fetch_all(conn)
        .await?;
    rows.iter().map(from_row).collect()
}

/// How many charges nobody knows the outcome of.
pub(crate) async fn count_unknown(conn: &mut AnyConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(COUNT_UNKNOWN).fetch_one(conn).await
}

fn from_row(row: &AnyRow) -> Result<Charge, sqlx::Error> {
    Ok(Charge {
        id: ChargeId::trusted(db::text(row, "id")?),
        intent: IntentId::trusted(db::text(row, "intent")?),
        channel: db::text(row, "channel")?,
        payment_method: db::text(row, "payment_method")?,
        amount: db::money(row, "amount_minor")?,
        idempotency_key: row.try_get("idempotency_key")?,
        tries: db::int(row, "tries")?,
    })
}

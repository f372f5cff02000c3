//! Rows of `pay_charges` and `pay_refunds`: every try to move money, from before the channel is asked until it is known.

use sqlx::{AnyConnection, Row, any::AnyRow};

use super::{ChargeId, IntentId};
use crate::{
    channel::ChargeRequest,
    ledger::{AccountId, Transfer, TransferId},
    money::{Currency, Money},
    sql,
};

const INSERT: &str = include_str!("queries/insert_charge.sql");
const CLAIM: &str = include_str!("queries/claim_charges.sql");
const COUNT_UNKNOWN: &str = include_str!("queries/count_unknown.sql");
const INSERT_REFUND: &str = include_str!("queries/insert_refund.sql");
const CLAIM_REFUNDS: &str = include_str!("queries/claim_refunds.sql");

/// One charge of an intent, or the giving back of it.
#[derive(Clone, Debug)]
pub(crate) struct Charge {
    pub(crate) id: ChargeId,
    pub(crate) intent: IntentId,
    pub(crate) channel: String,
    pub(crate) payment_method: String,
    pub(crate) amount: Money,
    /// The key whose answer this charge decides.
    pub(crate) idempotency_key: Option<String>,
    /// How often the channel was asked in vain.
    pub(crate) tries: i64,
}

/// How a charge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Succeeded,
    Failed,
}

impl Charge {
    /// What the channel is asked.
    pub(crate) fn request(&self) -> ChargeRequest {
        ChargeRequest {
            reference: self.id.as_str().to_owned(),
            amount: self.amount,
            payment_method: self.payment_method.clone(),
        }
    }

    /// The buyer's money on its way to the merchant.
    pub(crate) fn transfer(&self) -> Transfer {
        let currency = self.amount.currency();
        Transfer {
            id: TransferId::charge(self.id.as_str()),
            debit: AccountId::channel(&self.channel, currency),
            credit: AccountId::merchant(self.intent.as_str(), currency),
            money: self.amount,
            reference: self.intent.as_str().to_owned(),
        }
    }

    /// The same money on its way back.
    pub(crate) fn refund_transfer(&self) -> Transfer {
        let there = self.transfer();
        Transfer {
            id: TransferId::refund(self.id.as_str()),
            debit: there.credit,
            credit: there.debit,
            ..there
        }
    }
}

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

/// Records that a charge's money must go back; tried from `next_try_ms` on by the resolver if not sooner.
pub(crate) async fn insert_refund(
    conn: &mut AnyConnection,
    charge: &Charge,
    next_try_ms: i64,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(INSERT_REFUND)
        .bind(charge.id.as_str())
        .bind(charge.intent.as_str())
        .bind(&charge.channel)
        .bind(&charge.payment_method)
        .bind(charge.amount.minor())
        .bind(charge.amount.currency().code())
        .bind(next_try_ms)
        .bind(now_ms)
        .execute(conn)
        .await?;
    Ok(())
}

/// The money is back, once: `false` if it was before.
pub(crate) async fn end_refund(
    conn: &mut AnyConnection,
    id: &ChargeId,
    now_ms: i64,
) -> Result<bool, sqlx::Error> {
    let updated = sqlx::query(
        "UPDATE pay_refunds SET status = 'succeeded', resolved_ms = $2 WHERE charge = $1 AND status = 'pending'",
    )
    .bind(id.as_str())
    .bind(now_ms)
    .execute(conn)
    .await?;
    Ok(updated.rows_affected() == 1)
}

/// The channel did not give the money back yet.
pub(crate) async fn put_off_refund(
    conn: &mut AnyConnection,
    id: &ChargeId,
    next_try_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE pay_refunds SET tries = tries + 1, next_try_ms = $2 WHERE charge = $1")
        .bind(id.as_str())
        .bind(next_try_ms)
        .execute(conn)
        .await?;
    Ok(())
}

/// As [`claim`], for money that must go back.
pub(crate) async fn claim_refunds(
    conn: &mut AnyConnection,
    now_ms: i64,
    until_ms: i64,
    limit: i64,
) -> Result<Vec<Charge>, sqlx::Error> {
    let rows = sqlx::query(CLAIM_REFUNDS)
        .bind(now_ms)
        .bind(until_ms)
        .bind(limit)
        .fetch_all(conn)
        .await?;
    rows.iter().map(from_row).collect()
}

fn from_row(row: &AnyRow) -> Result<Charge, sqlx::Error> {
    let code = sql::text(row, "currency")?;
    let currency = Currency::from_code(&code).ok_or_else(|| sql::corrupt("currency", &code))?;
    let minor = sql::int(row, "amount_minor")?;
    Ok(Charge {
        id: ChargeId::trusted(sql::text(row, "id")?),
        intent: IntentId::trusted(sql::text(row, "intent")?),
        channel: sql::text(row, "channel")?,
        payment_method: sql::text(row, "payment_method")?,
        amount: Money::try_new(minor, currency)
            .map_err(|_| sql::corrupt("amount", &minor.to_string()))?,
        idempotency_key: row.try_get("idempotency_key")?,
        tries: sql::int(row, "tries")?,
    })
}

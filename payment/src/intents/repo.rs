//! Rows of `pay_intents`. An update names the version it read and touches nothing if that is no longer the row's.

use sqlx::{AnyConnection, Row, any::AnyRow};

use super::{Intent, IntentError, Status};
use crate::{
    db,
    ids::{ChargeId, IntentId},
};

const INSERT: &str = include_str!("queries/insert_intent.sql");
const UPDATE: &str = include_str!("queries/update_intent.sql");
const SELECT: &str = include_str!("queries/select_intent.sql");
const NEWEST: &str = include_str!("queries/list_newest.sql");
const BEFORE: &str = include_str!("queries/list_before.sql");

/// Where a page begins or ends; the intent itself is not on the page.
#[derive(Clone, Debug)]
pub(crate) enum Cursor {
    StartingAfter(IntentId),
    EndingBefore(IntentId),
}

impl Cursor {
    pub(crate) fn id(&self) -> &IntentId {
        match self {
            Self::StartingAfter(id) | Self::EndingBefore(id) => id,
        }
    }
}

pub(crate) async fn insert(conn: &mut AnyConnection, intent: &Intent) -> Result<(), sqlx::Error> {
    sqlx::query(INSERT)
        .bind(intent.id.as_str())
        .bind(intent.version)
        .bind(intent.status.as_str())
        .bind(intent.amount.minor())
        .bind(intent.amount.currency().code())
        .bind(intent.received.minor())
        .bind(intent.payment_method.as_deref())
        .bind(intent.reference.as_deref())
        .bind(json(&intent.metadata)?)
        .bind(json(&intent.details)?)
        .bind(&intent.client_secret)
        .bind(intent.created_ms)
        .execute(conn)
        .await?;
    Ok(())
}

/// Writes what may change and counts the version up, unless somebody else changed the intent first.
pub(crate) async fn update(
    conn: &mut AnyConnection,
    intent: &mut Intent,
) -> Result<(), IntentError> {
    let last_error = intent.last_error.as_ref().map(json).transpose()?;
    let updated = sqlx::query(UPDATE)
        .bind(intent.id.as_str())
        .bind(intent.version)
        .bind(intent.status.as_str())
        .bind(intent.received.minor())
        .bind(intent.payment_method.as_deref())
        .bind(intent.latest_charge.as_ref().map(|id| id.as_str()))
        .bind(last_error)
        .bind(intent.cancellation_reason.as_deref())
        .bind(intent.canceled_at_ms)
        .execute(conn)
        .await?;
    if updated.rows_affected() == 0 {
        let id = intent.id.clone();
        return Err(IntentError::Contended { id });
    }
    intent.version += 1;
    Ok(())
}

pub(crate) async fn find(
    conn: &mut AnyConnection,
    id: &IntentId,
) -> Result<Option<Intent>, sqlx::Error> {
    let row = sqlx::query(SELECT)
        .bind(id.as_str())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// Up to `limit` intents, newest first, beyond `at` if given, created within `created_ms` (both ends included).
pub(crate) async fn page(
    conn: &mut AnyConnection,
    at: Option<(&Cursor, &Intent)>,
    created_ms: (i64, i64),
    limit: i64,
) -> Result<Vec<Intent>, sqlx::Error> {
    let is_backwards = matches!(at, Some((Cursor::EndingBefore(_), _)));
    let (at_ms, at_id) = match at {
        Some((_, intent)) => (intent.created_ms, intent.id.as_str()),
        None => (i64::MAX, ""),
    };
    let rows = sqlx::query(if is_backwards { BEFORE } else { NEWEST })
        .bind(at_ms)
        .bind(at_id)
        .bind(created_ms.0)
        .bind(created_ms.1)
        .bind(limit)
        .fetch_all(conn)
        .await?;
    let mut intents = rows.iter().map(from_row).collect::<Result<Vec<_>, _>>()?;
    if is_backwards {
        intents.reverse();
    }
    Ok(intents)
}

fn from_row(row: &AnyRow) -> Result<Intent, sqlx::Error> {
    let status = db::text(row, "status")?;
    let last_error: Option<String> = row.try_get("last_error")?;
    let latest_charge: Option<String> = row.try_get("latest_charge")?;
    Ok(Intent {
        id: IntentId::trusted(db::text(row, "id")?),
        amount: db::money(row, "amount_minor")?,
        received: db::money(row, "received_minor")?,
        status: Status::parse(&status).ok_or_else(|| db::corrupt("status", &status))?,
        payment_method: row.try_get("payment_method")?,
        reference: row.try_get("reference")?,
        metadata: parse(&db::text(row, "metadata")?)?,
        details: parse(&db::text(row, "details")?)?,
        client_secret: db::text(row, "client_secret")?,
        latest_charge: latest_charge.map(ChargeId::trusted),
        last_error: last_error.as_deref().map(parse).transpose()?,
        cancellation_reason: row.try_get("cancellation_reason")?,
        canceled_at_ms: row.try_get("canceled_at_ms")?,
        created_ms: db::int(row, "created_ms")?,
        version: db::int(row, "version")?,
    })
}

fn json(value: &impl serde::Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|e| sqlx::Error::Encode(e.into()))
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|e| sqlx::Error::Decode(e.into()))
}

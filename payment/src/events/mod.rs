//! The append-only record of what happened to intents: one row per change, in the transaction that made it.

use sqlx::AnyConnection;

use crate::{
    ids::IdSource,
    intents::{Intent, Status},
};

/// Who caused a change, as far as known: the resolver acts for nobody.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cause {
    pub(crate) request_id: Option<String>,
    pub(crate) idempotency_key: Option<String>,
}

/// Stripe's name for an intent having come into its present state.
pub(crate) fn kind(intent: &Intent) -> &'static str {
    match intent.status {
        Status::RequiresPaymentMethod if intent.last_error.is_some() => {
            "payment_intent.payment_failed"
        }
        Status::RequiresPaymentMethod | Status::RequiresConfirmation => "payment_intent.created",
        Status::Processing => "payment_intent.processing",
        Status::Succeeded => "payment_intent.succeeded",
        Status::Canceled => "payment_intent.canceled",
    }
}

/// Records that `intent` now is as `data` shows it. Its version numbers the events of an intent, so none can be missing or double.
pub(crate) async fn record(
    conn: &mut AnyConnection,
    ids: &IdSource,
    intent: &Intent,
    data: &str,
    cause: &Cause,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(include_str!("record.sql"))
        .bind(ids.id("evt_", now_ms))
        .bind(kind(intent))
        .bind(intent.id.as_str())
        .bind(intent.version)
        .bind(data)
        .bind(cause.request_id.as_deref())
        .bind(cause.idempotency_key.as_deref())
        .bind(now_ms)
        .execute(conn)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intents::testing;

    #[test]
    fn an_intent_without_a_method_is_new_or_was_declined() {
        let mut intent = testing::intent(None);
        assert_eq!(kind(&intent), "payment_intent.created");
        intent.last_error = Some(testing::decline());
        assert_eq!(kind(&intent), "payment_intent.payment_failed");
        intent.status = Status::Succeeded;
        assert_eq!(kind(&intent), "payment_intent.succeeded");
    }
}

//! Idempotency keys: the first answer is stored in the transaction of its effect, and every repetition gets that answer.
//!
//! A key's row is inserted by the transaction that does the work. If that is the whole work (a create), the answer goes in with it.
//! If a channel must be asked first, the row stays without an answer until the transaction that decides the charge, be it the
//! request's own or the resolver's after a crash; meanwhile a repetition is told to come back.

use std::time::Duration;

use ring::digest::{Context, SHA256};
use sqlx::{AnyConnection, Row};

use crate::{error::PaymentError, form::Form, sql};

/// Longest key accepted; Stripe's limit.
const MAX_KEY: usize = 255;

/// Rows forgotten in one statement, so that none holds locks for long.
const FORGET_BATCH: i64 = 1_000;

/// The header.
pub(crate) const HEADER: &str = "idempotency-key";

/// A key and what it was sent with.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) key: String,
    fingerprint: String,
}

/// An answer as the client sees it, and as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// JSON.
    pub(crate) body: String,
    /// `Idempotent-Replayed: true`.
    pub(crate) is_replayed: bool,
    /// `Stripe-Should-Retry`, where there is something to say.
    pub(crate) should_retry: Option<bool>,
    /// `Retry-After`.
    pub(crate) retry_after: Option<Duration>,
}

impl Answer {
    pub(crate) fn new(status: u16, body: String) -> Self {
        Self {
            status,
            body,
            is_replayed: false,
            should_retry: None,
            retry_after: None,
        }
    }

    pub(crate) fn ok(body: String) -> Self {
        Self::new(200, body)
    }
}

/// What a key stands for when a request comes with it.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It is new; the work is ours.
    Fresh,
    /// It was answered before.
    Replay(Answer),
}

impl Key {
    /// The key of a request; its parameters, method and path are what it must be reused with.
    pub(crate) fn new(
        key: &[u8],
        method: &str,
        path: &str,
        form: &Form,
    ) -> Result<Self, PaymentError> {
        let is_fine =
            (1..=MAX_KEY).contains(&key.len()) && key.iter().all(|b| (0x20..0x7f).contains(b));
        let text = std::str::from_utf8(key).ok().filter(|_| is_fine);
        let Some(key) = text else {
            return Err(PaymentError::param(
                Some("parameter_invalid"),
                "Idempotency-Key",
                format!("Idempotency-Key must be 1 to {MAX_KEY} visible ASCII characters."),
            ));
        };
        Ok(Self {
            key: key.to_owned(),
            fingerprint: fingerprint(method, path, form),
        })
    }
}

/// Whether a key has been answered, without claiming it.
pub(crate) async fn peek(
    conn: &mut AnyConnection,
    key: &Key,
) -> Result<Option<Answer>, PaymentError> {
    stored(conn, key).await
}

/// Claims the key for this transaction's work, with the answer if it is known already.
pub(crate) async fn begin(
    conn: &mut AnyConnection,
    key: Option<&Key>,
    answer: Option<&Answer>,
    now_ms: i64,
) -> Result<Begun, PaymentError> {
    let Some(key) = key else {
        return Ok(Begun::Fresh);
    };
    // On PostgreSQL this waits for a transaction that has just inserted the same key.
    let inserted = sqlx::query(include_str!("begin.sql"))
        .bind(&key.key)
        .bind(&key.fingerprint)
        .bind(answer.map(|answer| i64::from(answer.status)))
        .bind(answer.map(|answer| answer.body.as_str()))
        .bind(now_ms)
        .execute(&mut *conn)
        .await?;
    if inserted.rows_affected() == 1 {
        return Ok(Begun::Fresh);
    }
    match stored(conn, key).await? {
        Some(answer) => Ok(Begun::Replay(answer)),
        // Forgotten between the two statements. The next try finds the key free.
        None => Err(PaymentError::KeyInUse),
    }
}

/// Stores the answer of a key that was begun without one. The first answer stays.
pub(crate) async fn finish(
    conn: &mut AnyConnection,
    key: &str,
    answer: &Answer,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE pay_idempotency SET status = $2, body = $3 WHERE key = $1 AND status IS NULL",
    )
    .bind(key)
    .bind(i64::from(answer.status))
    .bind(&answer.body)
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets answers older than `before_ms`; returns how many. Keys still at work are kept however old.
pub(crate) async fn forget(conn: &mut AnyConnection, before_ms: i64) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query(include_str!("forget.sql"))
        .bind(before_ms)
        .bind(FORGET_BATCH)
        .execute(conn)
        .await?;
    Ok(deleted.rows_affected())
}

async fn stored(conn: &mut AnyConnection, key: &Key) -> Result<Option<Answer>, PaymentError> {
    let row = sqlx::query("SELECT fingerprint, status, body FROM pay_idempotency WHERE key = $1")
        .bind(&key.key)
        .fetch_optional(conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    if sql::text(&row, "fingerprint")? != key.fingerprint {
        return Err(PaymentError::KeyReused {
            key: key.key.clone(),
        });
    }
    let status: Option<i64> = row.try_get("status")?;
    let body: Option<String> = row.try_get("body")?;
    let (Some(status), Some(body)) = (status, body) else {
        return Err(PaymentError::KeyInUse);
    };
    let status =
        u16::try_from(status).map_err(|_| sql::corrupt("http status", &status.to_string()))?;
    let mut answer = Answer::new(status, body);
    answer.is_replayed = true;
    // A stored failure is final: asking again cannot change it.
    answer.should_retry = (status >= 400).then_some(false);
    Ok(Some(answer))
}

/// SHA-256 over everything the request asked for. Lengths go in, so that no two requests run together into one text.
fn fingerprint(method: &str, path: &str, form: &Form) -> String {
    let mut hash = Context::new(&SHA256);
    let mut put = |text: &str| {
        hash.update(&(text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    put(method);
    put(path);
    for (key, value) in form.sorted() {
        put(key);
        put(value);
    }
    hash.finish()
        .as_ref()
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            use std::fmt::Write;
            write!(hex, "{byte:02x}").expect("a String takes any text");
            hex
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str, body: &str) -> Key {
        Key::new(b"k", "POST", path, &Form::parse(body.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn the_fingerprint_covers_path_and_parameters_but_not_their_order() {
        let one = key("/v1/payment_intents", "amount=1&currency=usd").fingerprint;
        assert_eq!(
            one,
            key("/v1/payment_intents", "currency=usd&amount=1").fingerprint
        );
        assert_ne!(
            one,
            key("/v1/payment_intents", "currency=usd&amount=2").fingerprint
        );
        assert_ne!(
            one,
            key("/v1/payment_intents/pi_1/confirm", "currency=usd&amount=1").fingerprint
        );
        assert_ne!(key("/", "a=bc").fingerprint, key("/", "ab=c").fingerprint);
    }

    #[test]
    fn keys_are_visible_ascii_of_bounded_length() {
        let form = Form::default();
        let make = |key: &[u8]| Key::new(key, "POST", "/", &form).is_ok();
        assert!(make(b"a") && make(&[b'a'; 255]));
        assert!(!make(b"") && !make(&[b'a'; 256]) && !make(b"a\x00") && !make("ä".as_bytes()));
    }
}

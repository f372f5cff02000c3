//! Idempotency keys: the first answer is stored in the transaction of its effect, and every repetition gets that answer.
//!
//! A key's row is inserted by the transaction that does the work. If that is the whole work (a create), the answer goes in with it.
//! If a channel must be asked first, the row stays without an answer until the transaction that decides the charge, be it the
//! request's own or the resolver's after a crash; until then a repetition is asked to come back.
//!
//! An answer is bytes here. Only the code that made them knows what they say.

mod error;

use ring::digest::{Context, SHA256};
use sqlx::{AnyConnection, Row};

pub(crate) use self::error::KeyError;
use crate::db;

/// Longest key accepted; Stripe's limit.
pub(crate) const MAX_KEY: usize = 255;

/// Rows forgotten in one statement, so that none holds locks for long.
const FORGET_BATCH: i64 = 1_000;

/// A key and what it was sent with.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    key: String,
    fingerprint: String,
}

/// An answer as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Says how the body is to be read; the number belongs to the code that made the answer.
    pub(crate) code: u16,
    pub(crate) body: String,
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
    /// The key of a request; `content` is what it must be reused with.
    pub(crate) fn try_new<'a>(
        key: &[u8],
        content: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, KeyError> {
        let is_fine =
            (1..=MAX_KEY).contains(&key.len()) && key.iter().all(|b| (0x20..0x7f).contains(b));
        let text = std::str::from_utf8(key).ok().filter(|_| is_fine);
        Ok(Self {
            key: text.ok_or(KeyError::Malformed)?.to_owned(),
            fingerprint: fingerprint(content),
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.key
    }
}

/// The answer of a key, without claiming it.
pub(crate) async fn peek(conn: &mut AnyConnection, key: &Key) -> Result<Option<Answer>, KeyError> {
    stored(conn, key).await
}

/// Claims the key for this transaction's work, with the answer if it is known already.
pub(crate) async fn begin(
    conn: &mut AnyConnection,
    key: Option<&Key>,
    answer: Option<&Answer>,
    now_ms: i64,
) -> Result<Begun, KeyError> {
    let Some(key) = key else {
        return Ok(Begun::Fresh);
    };
    // On PostgreSQL this waits for a transaction that has just inserted the same key.
    let inserted = sqlx::query(include_str!("begin.sql"))
        .bind(&key.key)
        .bind(&key.fingerprint)
        .bind(answer.map(|answer| i64::from(answer.code)))
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
        None => Err(KeyError::InUse),
    }
}

/// Stores the answer of a key that was begun without one. The first answer stays.
pub(crate) async fn finish(
    conn: &mut AnyConnection,
    key: Option<&str>,
    answer: &Answer,
) -> Result<(), sqlx::Error> {
    let Some(key) = key else {
        return Ok(());
    };
    sqlx::query(
        "UPDATE pay_idempotency SET status = $2, body = $3 WHERE key = $1 AND status IS NULL",
    )
    .bind(key)
    .bind(i64::from(answer.code))
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

async fn stored(conn: &mut AnyConnection, key: &Key) -> Result<Option<Answer>, KeyError> {
    let row = sqlx::query("SELECT fingerprint, status, body FROM pay_idempotency WHERE key = $1")
        .bind(&key.key)
        .fetch_optional(conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    if db::text(&row, "fingerprint")? != key.fingerprint {
        let key = key.key.clone();
        return Err(KeyError::Reused { key });
    }
    let code: Option<i64> = row.try_get("status")?;
    let body: Option<String> = row.try_get("body")?;
    let (Some(code), Some(body)) = (code, body) else {
        return Err(KeyError::InUse);
    };
    let code = u16::try_from(code).map_err(|_| db::corrupt("code", &code.to_string()))?;
    Ok(Some(Answer { code, body }))
}

/// SHA-256 over everything the request asked for. Lengths go in, so that no two requests run together into one text.
fn fingerprint<'a>(content: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Context::new(&SHA256);
    for text in content {
        hash.update(&(text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    hex::encode(hash.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_keeps_texts_apart() {
        assert_eq!(fingerprint(["a", "bc"]), fingerprint(["a", "bc"]));
        assert_ne!(fingerprint(["a", "bc"]), fingerprint(["ab", "c"]));
        assert_ne!(fingerprint(["a", ""]), fingerprint(["a"]));
        // Rows of earlier releases are compared with it, so it never changes.
        assert_eq!(fingerprint(["POST", "/"])[..16], *"66ccf802f4b57546");
    }

    #[test]
    fn keys_are_visible_ascii_of_bounded_length() {
        let make = |key: &[u8]| Key::try_new(key, []).is_ok();
        assert!(make(b"a") && make(&[b'a'; 255]));
        assert!(!make(b"") && !make(&[b'a'; 256]) && !make(b"a\x00") && !make("ä".as_bytes()));
    }
}

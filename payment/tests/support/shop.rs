//! What there is to pay for: orders in a table of the same database, as the order ledger has them.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use payment::{Confirm, Currency, Hold, Money, Participant, Readiness};
use sqlx::{AnyConnection, AnyPool, Row};

pub struct Shop {
    pool: AnyPool,
    /// Every order is still on its way into the ledger.
    pub is_behind: AtomicBool,
}

impl Shop {
    pub async fn new(pool: AnyPool) -> Self {
        sqlx::query(
            "CREATE TABLE IF NOT EXISTS shop_orders (id TEXT PRIMARY KEY, status TEXT NOT NULL, intent TEXT, price BIGINT NOT NULL)",
        )
        .execute(&pool)
        .await
        .unwrap();
        Self {
            pool,
            is_behind: AtomicBool::new(false),
        }
    }

    pub async fn add(&self, order: &str, price: i64) {
        sqlx::query("INSERT INTO shop_orders (id, status, price) VALUES ($1, 'reserved', $2)")
            .bind(order)
            .bind(price)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    /// The stock goes back, whatever the order's state.
    pub async fn release(&self, order: &str) {
        sqlx::query("UPDATE shop_orders SET status = 'released' WHERE id = $1")
            .bind(order)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    /// Puts an order into a state, held by the intent that is there for it.
    pub async fn set(&self, order: &str, status: &str) {
        sqlx::query(
            "UPDATE shop_orders SET status = $2, intent = (SELECT MAX(id) FROM pay_intents WHERE reference = $1) WHERE id = $1",
        )
        .bind(order)
        .bind(status)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    pub async fn status(&self, order: &str) -> String {
        sqlx::query_scalar("SELECT status FROM shop_orders WHERE id = $1")
            .bind(order)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

#[async_trait]
impl Participant for Shop {
    async fn ready(&self, reference: &str) -> Readiness {
        if self.is_behind.load(Ordering::Relaxed) {
            return Readiness::NotYet;
        }
        let price: Option<i64> = sqlx::query_scalar("SELECT price FROM shop_orders WHERE id = $1")
            .bind(reference)
            .fetch_optional(&self.pool)
            .await
            .unwrap();
        let usd = Currency::from_code("usd").unwrap();
        match price {
            None => Readiness::NotFound,
            Some(price) => Readiness::Ready {
                amount: Some(Money::try_new(price, usd).unwrap()),
            },
        }
    }

    async fn hold(
        &self,
        conn: &mut AnyConnection,
        reference: &str,
        intent: &str,
        _now_ms: i64,
    ) -> Result<Hold, sqlx::Error> {
        let held = sqlx::query(
            "UPDATE shop_orders SET status = 'paying', intent = $2 WHERE id = $1 AND (status = 'reserved' OR (status = 'paying' AND intent = $2))",
        )
        .bind(reference)
        .bind(intent)
        .execute(&mut *conn)
        .await?;
        if held.rows_affected() == 1 {
            return Ok(Hold::Held);
        }
        let row = sqlx::query("SELECT status FROM shop_orders WHERE id = $1")
            .bind(reference)
            .fetch_one(conn)
            .await?;
        Ok(match row.try_get::<&str, _>(0)? {
            "paid" => Hold::AlreadyPaid,
            "paying" => Hold::HeldByOther,
            _ => Hold::Released,
        })
    }

    async fn confirm(
        &self,
        conn: &mut AnyConnection,
        reference: &str,
        intent: &str,
        _now_ms: i64,
    ) -> Result<Confirm, sqlx::Error> {
        let paid = sqlx::query(
            "UPDATE shop_orders SET status = 'paid' WHERE id = $1 AND intent = $2 AND status = 'paying'",
        )
        .bind(reference)
        .bind(intent)
        .execute(conn)
        .await?;
        Ok(match paid.rows_affected() {
            1 => Confirm::Confirmed,
            _ => Confirm::Released,
        })
    }

    async fn cancel(
        &self,
        conn: &mut AnyConnection,
        reference: &str,
        intent: &str,
        _now_ms: i64,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE shop_orders SET status = 'reserved', intent = NULL WHERE id = $1 AND intent = $2 AND status = 'paying'",
        )
        .bind(reference)
        .bind(intent)
        .execute(conn)
        .await?;
        Ok(())
    }
}

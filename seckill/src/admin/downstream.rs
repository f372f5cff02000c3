//! The admin API's view of the deliveries: what waits for the receiver, what was given up and why, and another chance for it.

use axum::{Json, Router, extract::State, routing};
use serde_json::{Value, json};

use crate::{api::problem::Problem, clock::WallClock, engine::EngineError, ledger::OrderLedger};

/// Events of one answer at most; the oldest come first, and go when they are tried again.
const SHOWN: usize = 1_000;

#[derive(Clone)]
struct Outbox {
    ledger: OrderLedger,
    clock: WallClock,
}

/// The routes below `/admin/v1/downstream`.
pub fn router(ledger: OrderLedger, clock: WallClock) -> Router {
    Router::new()
        .route("/admin/v1/downstream", routing::get(show))
        .route("/admin/v1/downstream/retry", routing::post(retry))
        .with_state(Outbox { ledger, clock })
}

async fn show(State(outbox): State<Outbox>) -> Result<Json<Value>, Problem> {
    let pending = outbox.ledger.events_pending().await;
    let dead = outbox.ledger.dead_events(SHOWN).await;
    let pending = pending.map_err(EngineError::from)?;
    let dead = dead.map_err(EngineError::from)?;
    Ok(Json(
        json!({"object": "downstream", "pending": pending, "dead": dead}),
    ))
}

/// All of them: whoever mended the receiver mended it for all.
async fn retry(State(outbox): State<Outbox>) -> Result<Json<Value>, Problem> {
    let now_ms = (outbox.clock)();
    let revived = outbox.ledger.revive_dead_events(now_ms).await;
    let revived = revived.map_err(EngineError::from)?;
    Ok(Json(
        json!({"object": "downstream_retry", "events": revived}),
    ))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;

    use super::*;
    use crate::{
        ids::{BuyerId, OrderId, RequestId},
        store::{OrderState, StoredOrder},
        test_shop::{START, TestShop, send},
    };

    #[tokio::test]
    async fn what_was_given_up_is_shown_with_its_reason_and_gets_another_chance() {
        let shop = TestShop::open().await;
        let ledger = shop.engine.ledger().clone();
        let sale = shop.engine.catalogue().sales()[0].clone();
        let segment = sale.segments().next().unwrap().id.clone();
        let order = OrderId::new(START, segment.tag(), 1);
        let bought = StoredOrder {
            order,
            buyer: BuyerId::try_new("ann").unwrap(),
            request: RequestId::try_new("one").unwrap(),
            quantity: 1,
            state: OrderState::Reserved,
            created_at_ms: START,
            pay_by_ms: START + 60_000,
        };
        ledger.settle(&segment, &[bought], START).await.unwrap();
        let lease = std::time::Duration::from_secs(60);
        let event = ledger
            .lease_events(START, lease, 1)
            .await
            .unwrap()
            .remove(0);
        let id = event.id();
        let dead = [(event, "the receiver refused it".to_owned())];
        ledger.events_dead(&dead, START + 7).await.unwrap();

        let api = router(ledger.clone(), std::sync::Arc::new(|| START + 9));
        let call = async |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path);
            let (status, body, _) = send(&api, request.body(Body::empty()).unwrap()).await;
            assert_eq!(status.as_u16(), 200, "{body}");
            body
        };
        let shown = call("GET", "/admin/v1/downstream").await;
        let expected = json!({
            "id": id, "order": order, "kind": "settled", "attempts": 1, "dead_at_ms": START + 7,
            "reason": "the receiver refused it"
        });
        assert_eq!(
            (&shown["pending"], &shown["dead"]),
            (&json!(0), &json!([expected]))
        );
        assert_eq!(
            call("POST", "/admin/v1/downstream/retry").await["events"],
            1
        );
        let shown = call("GET", "/admin/v1/downstream").await;
        assert_eq!((&shown["pending"], &shown["dead"]), (&json!(1), &json!([])));
        let again = ledger.lease_events(START + 9, lease, 1).await.unwrap();
        assert_eq!((again[0].id(), again[0].attempts), (id, 1));
    }
}

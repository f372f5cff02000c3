//! `/admin/v1/sales/{sale}/dead-letters`: what could not be settled, and its replay.

use axum::{
    Json,
    body::Bytes,
    extract::{
        Path, State,
        rejection::{BytesRejection, PathRejection},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Admin, BODY_LIMIT, Engine,
    extract::{OnSale, Page, row},
};
use crate::{
    api::{
        extract,
        problem::{Code, Problem},
    },
    ledger::LetterId,
    settlement::replay::Outcome,
};

/// Letters in one answer; each replay is a transaction of its own.
const PAGE_MAX: u32 = 1_000;
const PAGE_DEFAULT: u32 = 100;

fn read(page: Page) -> Result<(Option<LetterId>, usize), Problem> {
    page.read(PAGE_DEFAULT, PAGE_MAX, |text| {
        row(text, Code::InvalidRequest)
    })
}

/// How to replay; an empty body is the default.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct How {
    #[serde(default)]
    or_refuse: bool,
}

fn how(body: Result<Bytes, BytesRejection>) -> Result<How, Problem> {
    match &body {
        Ok(bytes) if bytes.is_empty() => Ok(How::default()),
        _ => extract::document(&extract::body(body, BODY_LIMIT)?),
    }
}

pub(super) async fn list(
    State(engine): Engine,
    OnSale(sale): OnSale,
    page: Page,
) -> Result<Json<Value>, Problem> {
    let (after, limit) = read(page)?;
    let ledger = engine.ledger();
    let page = ledger.dead_letters(&sale.id, after.as_ref(), limit).await?;
    Ok(Json(
        json!({"sale": sale.id, "dead_letters": page.rows, "next": page.next}),
    ))
}

pub(super) async fn replay_page(
    State(admin): State<Admin>,
    OnSale(sale): OnSale,
    page: Page,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let (after, limit) = read(page)?;
    let how = how(body)?;
    let page = admin
        .replayer
        .page(&sale.id, after.as_ref(), limit, how.or_refuse)
        .await?;
    let closed = page.rows.iter().filter(|replay| replay.closed);
    Ok(Json(json!({
        "sale": sale.id, "closed": closed.count(), "replays": page.rows, "next": page.next,
    })))
}

pub(super) async fn replay_one(
    State(admin): State<Admin>,
    OnSale(sale): OnSale,
    path: Result<Path<(String, String)>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let (_, id) = extract::path(path)?;
    let how = how(body)?;
    let id: LetterId = row(&id, Code::NoSuchLetter)?;
    let replay = admin.replayer.one(&sale.id, &id, how.or_refuse).await?;
    if replay.outcome == Outcome::Unknown {
        return Err(Problem::new(Code::NoSuchLetter, replay.detail));
    }
    Ok(Json(json!(replay)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use delivery::Outbox;

    use super::super::tests::desk;
    use crate::{
        ids::{BuyerId, RequestId},
        ledger::DeadLetter,
        purchase::Outcome,
        test_shop::START,
    };
    use stock::Verdict;

    const LEASE: Duration = Duration::from_secs(30);

    const LETTERS: &str = "/admin/v1/sales/spring/dead-letters";
    const EVENTS: &str = "/admin/v1/sales/spring/dead-events";

    #[tokio::test]
    async fn letters_are_listed_and_replayed_once() {
        let desk = desk().await;
        let engine = &desk.parts.engine;
        let sale = engine.catalogue().sales()[0].clone();
        let stock = sale.stocks().next().unwrap();
        let segment = stock.segments[0].clone();
        let buyer = BuyerId::try_new("ann").unwrap();
        let request = RequestId::try_new("k").unwrap();
        let bought = engine.purchase(stock, buyer, request, 1, None).await;
        let Outcome::Decided(Verdict::Accepted { order, .. }) = bought else {
            panic!("{bought:?}");
        };
        let letter = |position: &str, order| DeadLetter {
            segment: segment.id.clone(),
            position: position.to_owned(),
            order,
            reason: "why".to_owned(),
            raw: "raw".to_owned(),
            held: None,
        };
        let letters = [letter("1-0", Some(order.order)), letter("2-0", None)];
        engine.ledger().set_aside(&letters, 7).await.unwrap();

        let (status, listed) = desk.call("GET", &format!("{LETTERS}?limit=1"), "").await;
        assert_eq!((status, listed["next"].as_str()), (200, Some("shoe:0:1-0")));
        let first = &listed["dead_letters"][0];
        assert_eq!(first["id"], "shoe:0:1-0");
        assert_eq!(first["order"], order.order.to_string());
        assert_eq!(
            (first["at_ms"].as_u64(), first["replays"].as_u64()),
            (Some(7), Some(0))
        );
        let rest = desk
            .call("GET", &format!("{LETTERS}?after=shoe:0:1-0"), "")
            .await
            .1;
        assert_eq!(rest["dead_letters"][0]["id"], "shoe:0:2-0");

        let (status, replayed) = desk.call("POST", &format!("{LETTERS}/replay"), "").await;
        assert_eq!((status, replayed["closed"].as_u64()), (200, Some(1)));
        assert_eq!(replayed["replays"][0]["outcome"], "settled");
        assert_eq!(replayed["replays"][1]["outcome"], "unreadable");
        let one = format!("{LETTERS}/shoe:0:1-0/replay");
        let again = desk.call("POST", &one, "{\"or_refuse\": true}").await;
        assert_eq!(
            (again.0, again.1["outcome"].as_str()),
            (200, Some("before"))
        );
        let events = engine
            .ledger()
            .lease_events(START + 1, LEASE, 10)
            .await
            .unwrap();
        engine
            .ledger()
            .events_dead(&[(events[0].clone(), "no route".to_owned())], START + 1)
            .await
            .unwrap();
        let listed = desk.call("GET", EVENTS, "").await.1;
        assert_eq!(listed["dead_events"][0]["id"], events[0].id);
        assert_eq!(listed["dead_events"][0]["kind"], "settled");
        let one = format!("{EVENTS}/{}/replay", events[0].id);
        assert_eq!(desk.call("POST", &one, "").await.1["due"], 1);
        assert_eq!(desk.call("POST", &one, "").await.1["due"], 0);
        let all = format!("{EVENTS}/replay");
        assert_eq!(desk.call("POST", &all, "").await.1["due"], 0);
        let report = desk
            .call("GET", "/admin/v1/sales/spring/report", "")
            .await
            .1;
        assert_eq!(
            (report["dead_letters"].as_u64(), report["settled"].as_u64()),
            (Some(1), Some(1))
        );
    }

    #[tokio::test]
    async fn bad_input_is_a_problem() {
        let desk = desk().await;
        let one = |id: &str| format!("{LETTERS}/{id}/replay");
        let all = format!("{LETTERS}/replay");
        for (method, path, body, status, code) in [
            (
                "GET",
                format!("{LETTERS}?limit=0"),
                "",
                400,
                "invalid_request",
            ),
            (
                "GET",
                format!("{LETTERS}?limit=1001"),
                "",
                400,
                "invalid_request",
            ),
            (
                "GET",
                format!("{LETTERS}?after=x"),
                "",
                400,
                "invalid_request",
            ),
            (
                "GET",
                format!("{LETTERS}?page=2"),
                "",
                400,
                "invalid_request",
            ),
            (
                "GET",
                "/admin/v1/sales/none/dead-letters".into(),
                "",
                404,
                "no_such_sale",
            ),
            ("POST", one("x"), "", 404, "no_such_letter"),
            ("POST", one("shoe:0:9-9"), "", 404, "no_such_letter"),
            ("POST", one("shoe:0:9-9"), "{", 400, "invalid_body"),
            (
                "POST",
                all.clone(),
                "{\"or_refuse\": 1}",
                400,
                "invalid_body",
            ),
            ("POST", all, "{\"force\": true}", 400, "invalid_body"),
            (
                "GET",
                format!("{EVENTS}?after=x"),
                "",
                400,
                "invalid_request",
            ),
            (
                "GET",
                format!("{EVENTS}?limit=0"),
                "",
                400,
                "invalid_request",
            ),
            (
                "POST",
                format!("{EVENTS}/evt_x_1/replay"),
                "",
                404,
                "no_such_event",
            ),
            (
                "POST",
                format!("{EVENTS}/evt_00000000000000000000000000_1/replay"),
                "",
                404,
                "no_such_event",
            ),
        ] {
            let (answered, document) = desk.call(method, &path, body).await;
            assert_eq!(
                (answered, document["code"].as_str()),
                (status, Some(code)),
                "{method} {path} {body}"
            );
        }
    }
}

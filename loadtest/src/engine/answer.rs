//! Reads the status and body of an answer. The only file that knows the responses of the APIs.

use http::StatusCode;
use serde::Deserialize;

use crate::history::event::CartOrder;
use crate::ledger::OrderStatus;
use crate::outcome::Outcome;
use crate::plan::Kind;

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub outcome: Outcome,
    /// The order it names, for purchases of one sku.
    pub order: Option<Box<str>>,
    /// The orders it names, for carts, in the order of the cart's lines.
    pub orders: Vec<CartOrder>,
    /// A payment that may succeed a little later (the order is not settled yet, or a limit said no).
    pub try_later: bool,
    /// HTTP status; 0 without an answer.
    pub status: u16,
    /// The `code` of a problem document.
    pub code: Box<str>,
    /// Where the order stands.
    pub state: Option<OrderStatus>,
    /// Until when it must be paid.
    pub pay_by_ms: Option<u64>,
    pub intent: Option<Box<str>>,
    /// An earlier copy of the request broke off, so a refusal of this one is no proof that nothing happened.
    pub is_second_copy: bool,
}

impl Answer {
    pub(super) fn of(outcome: Outcome) -> Answer {
        Answer {
            outcome,
            order: None,
            orders: Vec::new(),
            try_later: false,
            status: 0,
            code: Box::default(),
            state: None,
            pay_by_ms: None,
            intent: None,
            is_second_copy: false,
        }
    }

    /// The orders it names, each with its line of the cart; an order for what was not asked for has a line of its own.
    pub(super) fn named<'a>(&'a self, cart: &'a [&str]) -> impl Iterator<Item = (u8, &'a str)> {
        let line = |sku: &str| cart.iter().position(|of| *of == sku);
        let of_cart = self.orders.iter().map(move |one| {
            let line = line(&one.sku).and_then(|at| u8::try_from(at).ok());
            (line.unwrap_or(u8::MAX), one.order.as_str())
        });
        let single = self.order.as_deref().map(|order| (0, order));
        single.into_iter().chain(of_cart)
    }

    pub(super) fn names_an_order(&self) -> bool {
        self.order.is_some() || !self.orders.is_empty()
    }
}

#[derive(Deserialize)]
struct Order {
    id: Option<Box<str>>,
    status: Option<OrderStatus>,
    pay_by_ms: Option<u64>,
}

#[derive(Deserialize)]
struct Cart {
    orders: Vec<CartLine>,
}

#[derive(Deserialize)]
struct CartLine {
    id: String,
    sku: String,
    status: Option<OrderStatus>,
    pay_by_ms: Option<u64>,
}

#[derive(Deserialize)]
struct Intent {
    id: Option<Box<str>>,
    status: Option<Box<str>>,
}

#[derive(Deserialize)]
struct ProblemDocument {
    code: Option<Box<str>>,
}

/// Reads an answer; `cart` are the skus of the cart it is about, if it is about one.
pub(super) fn read(kind: Kind, cart: Option<&[&str]>, status: StatusCode, body: &[u8]) -> Answer {
    let answer = match (kind, cart, status.as_u16()) {
        (Kind::Page, ..) => Answer::of(page(status)),
        (Kind::Pay, ..) => payment(status, body),
        (_, Some(skus), 200 | 201) => bought_cart(skus, status, body),
        (Kind::Buy | Kind::BuyAgain | Kind::Poll, ..) => purchase(status, body),
    };
    Answer {
        status: status.as_u16(),
        ..answer
    }
}

fn page(status: StatusCode) -> Outcome {
    match status.as_u16() {
        100..=399 => Outcome::PageOk,
        429 => Outcome::Limited,
        400..=499 => Outcome::ClientError,
        _ => Outcome::ServerError,
    }
}

/// A cart that was bought: as with an order, a success that names none is none.
fn bought_cart(skus: &[&str], status: StatusCode, body: &[u8]) -> Answer {
    let orders =
        serde_json::from_slice::<Cart>(body).map_or_else(|_| Vec::new(), |cart| cart.orders);
    let outcome = match (orders.is_empty(), status) {
        (true, _) => Outcome::ServerError,
        (false, StatusCode::CREATED) => Outcome::Accepted,
        (false, _) => Outcome::Replayed,
    };
    let order = |line: CartLine| CartOrder {
        sku: line.sku,
        order: line.id,
        state: line.status,
        pay_by_ms: line.pay_by_ms,
    };
    let mut orders: Vec<CartOrder> = orders.into_iter().map(order).collect();
    orders.sort_by_key(|one| skus.iter().position(|sku| *sku == one.sku));
    Answer {
        orders,
        ..Answer::of(outcome)
    }
}

fn purchase(status: StatusCode, body: &[u8]) -> Answer {
    if let 200 | 201 = status.as_u16() {
        let order = serde_json::from_slice::<Order>(body).ok();
        let id = order.as_ref().and_then(|order| order.id.clone());
        // A success that names no order cannot be checked, so it is none.
        let outcome = match (&id, status) {
            (None, _) => Outcome::ServerError,
            (_, StatusCode::CREATED) => Outcome::Accepted,
            _ => Outcome::Replayed,
        };
        return Answer {
            order: id,
            state: order.as_ref().and_then(|order| order.status),
            pay_by_ms: order.and_then(|order| order.pay_by_ms),
            ..Answer::of(outcome)
        };
    }
    let code = serde_json::from_slice::<ProblemDocument>(body)
        .ok()
        .and_then(|problem| problem.code)
        .unwrap_or_default();
    let outcome = match status.as_u16() {
        202 => Outcome::Unknown,
        409 => match &*code {
            "sold_out" => Outcome::SoldOut,
            "buyer_limit" => Outcome::BuyerLimit,
            "not_started" => Outcome::NotStarted,
            "in_flight" => Outcome::InFlight,
            _ => Outcome::ClientError,
        },
        410 => Outcome::Ended,
        429 => Outcome::Limited,
        503 => match &*code {
            "frozen" | "paused" => Outcome::Frozen,
            _ => Outcome::ServerError,
        },
        400..=499 => Outcome::ClientError,
        _ => Outcome::ServerError,
    };
    Answer {
        code,
        ..Answer::of(outcome)
    }
}

fn payment(status: StatusCode, body: &[u8]) -> Answer {
    let mut intent = None;
    let outcome = match status.as_u16() {
        200 | 201 => {
            let read = serde_json::from_slice::<Intent>(body).ok();
            intent = read.as_ref().and_then(|read| read.id.clone());
            let state = read.and_then(|read| read.status).unwrap_or_default();
            match &*state {
                "succeeded" => Outcome::Paid,
                "processing" => Outcome::Unknown,
                "requires_payment_method" => Outcome::Declined,
                _ => Outcome::ServerError,
            }
        }
        202 => Outcome::Unknown,
        402 => Outcome::Declined,
        429 => Outcome::Limited,
        400..=499 => Outcome::ClientError,
        _ => Outcome::ServerError,
    };
    Answer {
        try_later: matches!(status.as_u16(), 404 | 409 | 425 | 429 | 503),
        intent,
        ..Answer::of(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buy(status: u16, body: &str) -> Outcome {
        let status = StatusCode::from_u16(status).unwrap();
        read(Kind::Buy, None, status, body.as_bytes()).outcome
    }

    #[test]
    fn every_answer_of_the_sale_api_has_its_outcome() {
        let problem = |code: &str| format!("{{\"title\":\"x\",\"code\":\"{code}\",\"status\":1}}");
        assert_eq!(
            buy(201, r#"{"object":"order","id":"ord_a"}"#),
            Outcome::Accepted
        );
        assert_eq!(buy(200, r#"{"id":"ord_a"}"#), Outcome::Replayed);
        assert_eq!(buy(202, r#"{"status":"unknown"}"#), Outcome::Unknown);
        assert_eq!(buy(409, &problem("sold_out")), Outcome::SoldOut);
        assert_eq!(buy(409, &problem("buyer_limit")), Outcome::BuyerLimit);
        assert_eq!(buy(409, &problem("not_started")), Outcome::NotStarted);
        assert_eq!(buy(409, &problem("in_flight")), Outcome::InFlight);
        assert_eq!(buy(410, &problem("ended")), Outcome::Ended);
        assert_eq!(buy(429, &problem("limited")), Outcome::Limited);
        assert_eq!(buy(503, &problem("frozen")), Outcome::Frozen);
        assert_eq!(buy(503, &problem("paused")), Outcome::Frozen);
        assert_eq!(buy(503, "upstream away"), Outcome::ServerError);
        assert_eq!(buy(422, &problem("key_reused")), Outcome::ClientError);
        assert_eq!(buy(500, ""), Outcome::ServerError);
    }

    #[test]
    fn a_success_without_an_order_id_is_an_error() {
        assert_eq!(buy(201, "{}"), Outcome::ServerError);
        assert_eq!(buy(201, "not json"), Outcome::ServerError);
    }

    #[test]
    fn the_orders_of_a_cart_are_told_in_the_order_of_its_lines() {
        let body = r#"{"object":"cart","orders":[{"id":"ord_a","sku":"a","status":"reserved"},{"id":"ord_b","sku":"b"}]}"#;
        let skus: &[&str] = &["b", "a"];
        let read = |status, body: &str| read(Kind::Buy, Some(skus), status, body.as_bytes());
        let bought = read(StatusCode::CREATED, body);
        assert_eq!(bought.outcome, Outcome::Accepted);
        let named: Vec<(u8, &str)> = bought.named(skus).collect();
        assert_eq!(named, [(0, "ord_b"), (1, "ord_a")]);
        let named: Vec<(u8, &str)> = bought.named(&["c", "a"]).collect();
        assert_eq!(named, [(u8::MAX, "ord_b"), (1, "ord_a")]);
        assert_eq!(read(StatusCode::OK, body).outcome, Outcome::Replayed);
        for nothing in ["", "{}", r#"{"orders":[]}"#, r#"{"id":"ord_a"}"#] {
            let answer = read(StatusCode::CREATED, nothing);
            assert_eq!(answer.outcome, Outcome::ServerError, "{nothing}");
        }
        let refused = read(StatusCode::CONFLICT, r#"{"code":"sold_out"}"#);
        assert_eq!(refused.outcome, Outcome::SoldOut);
    }

    #[test]
    fn payments_are_paid_declined_or_to_be_tried_again() {
        let pay = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            read(Kind::Pay, None, status, body.as_bytes())
        };
        assert_eq!(pay(200, r#"{"status":"succeeded"}"#).outcome, Outcome::Paid);
        assert_eq!(pay(402, r#"{"error":{}}"#).outcome, Outcome::Declined);
        assert!(pay(409, "").try_later);
        assert!(!pay(400, "").try_later);
        assert_eq!(
            pay(200, r#"{"status":"canceled"}"#).outcome,
            Outcome::ServerError
        );
    }
}

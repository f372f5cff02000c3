//! What a client can ask of the gateways, and how each answer is written down: what it proves, and what it leaves open.

use std::net::SocketAddr;

use http::Method;
use loadtest::history::{
    Action, Event,
    event::{Done, Invoke},
};
use loadtest::reconcile::OrderStatus;
use tokio::sync::Mutex;

use crate::{
    process::API_KEY,
    scribe::Scribe,
    wire::{Ask, Reply, send},
};

pub const SALE: &str = "chaos";
pub const SKU: &str = "shoe";
pub const PRICE_MINOR: u64 = 100;

/// A purchase as it was sent, to be sent again.
#[derive(Debug, Clone)]
pub struct Wish {
    pub buyer: String,
    pub request: String,
    pub units: u64,
}

/// What became of a request, as far as its client knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It has this order.
    Order(String),
    /// A definite no, with its code.
    No(String),
    /// Nobody knows.
    Unknown,
}

/// Where requests go and are written down.
pub struct Market {
    pub fronts: Vec<SocketAddr>,
    pub admins: Vec<SocketAddr>,
    pub scribe: Scribe,
    /// Purchases whose end is not known yet.
    pub unknown: Mutex<Vec<Wish>>,
}

impl Market {
    /// Buys at one of the nodes.
    pub async fn buy(&self, client: u32, front: usize, wish: &Wish) -> Seen {
        let op = self.scribe.invoke(Invoke {
            client,
            buyer: wish.buyer.clone(),
            request: wish.request.clone(),
            lines: vec![(SKU.to_owned(), wish.units)],
            ..Invoke::new(Action::Buy, SALE)
        });
        let answer = send(Ask {
            to: self.fronts[front % self.fronts.len()],
            method: Method::POST,
            path: format!("/v1/sales/{SALE}/orders"),
            headers: vec![
                ("x-buyer-id", &wish.buyer),
                ("idempotency-key", &wish.request),
                ("content-type", "application/json"),
            ],
            body: serde_json::json!({"sku": SKU, "quantity": wish.units}).to_string(),
        });
        let seen = self.write_down(op, answer.await, &|reply| {
            match (reply.status, reply.text("code")) {
                (200 | 201, _) => Proof::Done,
                // Only these say that nothing was bought.
                (503, "paused" | "frozen" | "unavailable") => Proof::NotDone,
                (409, "in_flight") => Proof::Nothing,
                (400..500, _) => Proof::NotDone,
                _ => Proof::Nothing,
            }
        });
        if seen == Seen::Unknown {
            self.unknown.lock().await.push(wish.clone());
        }
        seen
    }

    /// Asks what became of a purchase.
    pub async fn poll(&self, client: u32, front: usize, wish: &Wish) -> Seen {
        let op = self.scribe.invoke(Invoke {
            client,
            buyer: wish.buyer.clone(),
            request: wish.request.clone(),
            lines: vec![(SKU.to_owned(), wish.units)],
            ..Invoke::new(Action::Poll, SALE)
        });
        let path = format!(
            "/v1/sales/{SALE}/orders?sku={SKU}&request_id={}",
            wish.request
        );
        let answer = self.ask(front, Method::GET, path, &wish.buyer).await;
        self.write_down(op, answer, &about_an_order)
    }

    /// Does something about an order: asks for it or cancels it.
    pub async fn about(
        &self,
        client: u32,
        front: usize,
        f: Action,
        buyer: &str,
        order: &str,
    ) -> Seen {
        let op = self.scribe.invoke(Invoke {
            client,
            buyer: buyer.to_owned(),
            order: order.to_owned(),
            ..Invoke::new(f, SALE)
        });
        let method = match f {
            Action::Cancel => Method::DELETE,
            _ => Method::GET,
        };
        let answer = self
            .ask(front, method, format!("/v1/orders/{order}"), buyer)
            .await;
        self.write_down(op, answer, &about_an_order)
    }

    /// Pays an order, with a payment of its own.
    pub async fn pay(
        &self,
        client: u32,
        front: usize,
        wish: &Wish,
        order: &str,
        attempt: u64,
    ) -> Seen {
        let op = self.scribe.invoke(Invoke {
            client,
            buyer: wish.buyer.clone(),
            order: order.to_owned(),
            ..Invoke::new(Action::Pay, SALE)
        });
        let bearer = format!("Bearer {API_KEY}");
        let key = format!("pay-{order}-{client}-{attempt}");
        let answer = send(Ask {
            to: self.fronts[front % self.fronts.len()],
            method: Method::POST,
            path: "/v1/payment_intents".to_owned(),
            headers: vec![
                ("authorization", &bearer),
                ("idempotency-key", &key),
                ("content-type", "application/x-www-form-urlencoded"),
            ],
            body: format!(
                "amount={}&currency=usd&payment_method=pm_card_visa&confirm=true&metadata[order]={order}",
                PRICE_MINOR * wish.units
            ),
        });
        self.write_down(
            op,
            answer.await,
            &|reply| match (reply.status, reply.text("status")) {
                (200, "succeeded") => Proof::Done,
                (200, "requires_payment_method" | "canceled") => Proof::NotDone,
                (400..500, _) if reply.status != 409 => Proof::NotDone,
                _ => Proof::Nothing,
            },
        )
    }

    /// An operator's request to the admin API.
    pub async fn operate(
        &self,
        client: u32,
        admin: usize,
        f: Action,
        restock: Option<(u64, u64)>,
    ) -> Seen {
        let mut invoke = Invoke {
            client,
            ..Invoke::new(f, SALE)
        };
        let mut body = String::new();
        if let Some((id, units)) = restock {
            invoke.request = format!("restock-{id}");
            invoke.lines = vec![(SKU.to_owned(), units)];
            body =
                serde_json::json!({"sku": SKU, "units": units, "id": invoke.request}).to_string();
        }
        let verb = match f {
            Action::Restock => "restock",
            Action::Pause => "pause",
            _ => "resume",
        };
        let op = self.scribe.invoke(invoke);
        let answer = send(Ask {
            to: self.admins[admin % self.admins.len()],
            method: Method::POST,
            path: format!("/admin/v1/sales/{SALE}/{verb}"),
            headers: vec![("content-type", "application/json")],
            body,
        });
        self.write_down(op, answer.await, &|reply| match reply.status {
            200 => Proof::Done,
            400..500 => Proof::NotDone,
            _ => Proof::Nothing,
        })
    }

    async fn ask(
        &self,
        front: usize,
        method: Method,
        path: String,
        buyer: &str,
    ) -> Result<Reply, &'static str> {
        let ask = Ask {
            to: self.fronts[front % self.fronts.len()],
            method,
            path,
            headers: vec![("x-buyer-id", buyer)],
            body: String::new(),
        };
        send(ask).await
    }

    fn write_down(
        &self,
        op: u64,
        answer: Result<Reply, &'static str>,
        proves: &dyn Fn(&Reply) -> Proof,
    ) -> Seen {
        let reply = match answer {
            Ok(reply) => reply,
            Err(why) => {
                let code = why.to_owned();
                self.scribe.done(
                    op,
                    Event::Info,
                    Done {
                        code,
                        ..Done::default()
                    },
                );
                return Seen::Unknown;
            }
        };
        let code = match reply.text("code") {
            "" => reply.body["error"]["code"].as_str().unwrap_or_default(),
            code => code,
        };
        let mut done = Done {
            status: reply.status,
            code: code.to_owned(),
            ..Done::default()
        };
        match proves(&reply) {
            Proof::Done => {
                match reply.text("object") {
                    "order" => {
                        done.order = reply.text("id").to_owned();
                        done.state = status(reply.text("status"));
                        done.pay_by_ms = reply.body["pay_by_ms"].as_u64();
                    }
                    "payment_intent" => done.intent = reply.text("id").to_owned(),
                    _ => {}
                }
                let order = done.order.clone();
                self.scribe.done(op, Event::Ok, done);
                Seen::Order(order)
            }
            Proof::NotDone => {
                let code = done.code.clone();
                self.scribe.done(op, Event::Fail, done);
                Seen::No(code)
            }
            Proof::Nothing => {
                self.scribe.done(op, Event::Info, done);
                Seen::Unknown
            }
        }
    }
}

/// What an answer proves.
enum Proof {
    Done,
    NotDone,
    Nothing,
}

fn about_an_order(reply: &Reply) -> Proof {
    match (reply.status, reply.text("status")) {
        (200, _) => Proof::Done,
        (400..500, _) => Proof::NotDone,
        _ => Proof::Nothing,
    }
}

fn status(text: &str) -> Option<OrderStatus> {
    serde_json::from_value(text.into()).ok()
}

//! What a client can ask of the gateways, and how each answer is written down: what it proves, and what it leaves open.

mod asking;

pub mod tokens;

mod purchase;

use std::net::SocketAddr;

use loadtest::{
    history::{
        Event,
        event::{CartOrder, Done},
    },
    ledger::OrderStatus,
};
use serde_json::Value;
use tokio::sync::Mutex;

pub use self::purchase::Purchase;
use crate::{goods::Goods, recorder::HistoryRecorder, wire::Reply};

/// An order that a client was told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub order: String,
    pub units: u64,
}

/// What became of a request, as far as its client knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It is done, and has these orders: of a cart, one a line.
    Done(Vec<Held>),
    /// A definite no, with its code.
    No(String),
    /// Nobody knows.
    Unknown,
}

impl Seen {
    pub fn is_sold_out(&self) -> bool {
        *self == Seen::No("sold_out".to_owned())
    }
}

/// Where requests go and are written down.
pub struct Market {
    pub goods: Goods,
    pub fronts: Vec<SocketAddr>,
    pub admins: Vec<SocketAddr>,
    pub recorder: HistoryRecorder,
    /// Purchases whose end is not known yet.
    pub unknown: Mutex<Vec<Purchase>>,
    /// Purchases that must not have succeeded, and did.
    pub wrongs: Mutex<Vec<String>>,
}

/// What an answer proves.
enum Proof {
    Done,
    NotDone,
    Nothing,
}

impl Market {
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
                self.recorder.done(
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
                let held = told(&reply, &mut done);
                self.recorder.done(op, Event::Ok, done);
                Seen::Done(held)
            }
            Proof::NotDone => {
                let code = done.code.clone();
                self.recorder.done(op, Event::Fail, done);
                Seen::No(code)
            }
            Proof::Nothing => {
                self.recorder.done(op, Event::Info, done);
                Seen::Unknown
            }
        }
    }
}

/// Reads an order, a cart or a payment into the line of the history; answers the orders.
fn told(reply: &Reply, done: &mut Done) -> Vec<Held> {
    let text = |order: &Value, name: &str| order[name].as_str().unwrap_or_default().to_owned();
    let held = |order: &Value| Held {
        order: text(order, "id"),
        units: order["quantity"].as_u64().unwrap_or(0),
    };
    match reply.text("object") {
        "order" => {
            done.order = text(&reply.body, "id");
            done.state = status(&reply.body);
            done.pay_by_ms = reply.body["pay_by_ms"].as_u64();
            vec![held(&reply.body)]
        }
        "cart" => {
            let orders = reply.body["orders"].as_array();
            let orders = orders.map(Vec::as_slice).unwrap_or_default();
            let order = |order: &Value| CartOrder {
                sku: text(order, "sku"),
                order: text(order, "id"),
                state: status(order),
                pay_by_ms: order["pay_by_ms"].as_u64(),
            };
            done.orders = orders.iter().map(order).collect();
            orders.iter().map(held).collect()
        }
        "payment_intent" => {
            done.intent = text(&reply.body, "id");
            Vec::new()
        }
        _ => Vec::new(),
    }
}

fn status(order: &Value) -> Option<OrderStatus> {
    serde_json::from_value(order["status"].clone()).ok()
}

//! The requests themselves: buying, asking, giving back, paying, and what operators do.

use http::Method;
use loadtest::history::{Action, event::Invoke};
use serde_json::{Value, json};

use super::{Held, Market, Proof, Purchase, Seen};
use crate::{
    goods::{PRICE_MINOR, SALE},
    process::API_KEY,
    wire::{Ask, Reply, send},
};

impl Market {
    /// Buys at one of the nodes.
    pub async fn buy(&self, client: u32, front: usize, purchase: &Purchase) -> Seen {
        let f = match purchase.is_cart {
            true => Action::CartBuy,
            false => Action::Buy,
        };
        let op = self.recorder.invoke(Invoke {
            token: match &purchase.token {
                Some(token) => token.id.clone(),
                None => String::new(),
            },
            ..about_request(f, client, purchase)
        });
        let line = |(sku, units): &(&str, u64)| json!({"sku": sku, "quantity": units});
        let (path, body) = match purchase.is_cart {
            true => {
                let lines: Vec<Value> = purchase.lines.iter().map(line).collect();
                ("carts", json!({"lines": lines}))
            }
            false => ("orders", line(&purchase.lines[0])),
        };
        let mut headers = vec![
            ("x-buyer-id", purchase.buyer.as_str()),
            ("content-type", "application/json"),
        ];
        // The token is the key where there is one; what stands beside it must not matter.
        let key = format!("any-{op}");
        match &purchase.token {
            Some(token) => headers.extend([
                ("penstock-entitlement", token.text.as_str()),
                ("idempotency-key", key.as_str()),
            ]),
            None => headers.push(("idempotency-key", purchase.request.as_str())),
        }
        let answer = send(Ask {
            to: self.fronts[front % self.fronts.len()],
            method: Method::POST,
            path: format!("/v1/sales/{SALE}/{path}"),
            headers,
            body: body.to_string(),
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
            self.unknown.lock().await.push(purchase.clone());
        }
        if purchase.must_fail && matches!(seen, Seen::Done(_)) {
            let wrong = format!("{purchase:?} must not be sold, and was");
            self.wrongs.lock().await.push(wrong);
        }
        seen
    }

    /// Asks what became of a purchase.
    pub async fn poll(&self, client: u32, front: usize, purchase: &Purchase) -> Seen {
        let (f, path) = match purchase.is_cart {
            true => (Action::CartPoll, cart_of(purchase)),
            false => {
                let sku = purchase.lines[0].0;
                let path = format!(
                    "/v1/sales/{SALE}/orders?sku={sku}&request_id={}",
                    purchase.request
                );
                (Action::Poll, path)
            }
        };
        let op = self.recorder.invoke(about_request(f, client, purchase));
        let answer = self.ask(front, Method::GET, path, &purchase.buyer).await;
        self.write_down(op, answer, &about_an_order)
    }

    /// Gives a whole cart back.
    pub async fn give_back(&self, client: u32, front: usize, purchase: &Purchase) -> Seen {
        let op = self
            .recorder
            .invoke(about_request(Action::Cancel, client, purchase));
        let answer = self.ask(front, Method::DELETE, cart_of(purchase), &purchase.buyer);
        self.write_down(op, answer.await, &about_an_order)
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
        let op = self.recorder.invoke(Invoke {
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
        buyer: &str,
        held: &Held,
        attempt: u64,
    ) -> Seen {
        let order = &held.order;
        let op = self.recorder.invoke(Invoke {
            client,
            buyer: buyer.to_owned(),
            order: order.clone(),
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
                PRICE_MINOR * held.units
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

    /// An operator's request to the admin API. A restock has an id, and units of a sku.
    pub async fn operate(
        &self,
        client: u32,
        admin: usize,
        f: Action,
        restock: Option<(u64, &str, u64)>,
    ) -> Seen {
        let mut invoke = Invoke {
            client,
            ..Invoke::new(f, SALE)
        };
        let mut body = String::new();
        if let Some((id, sku, units)) = restock {
            invoke.request = format!("restock-{id}");
            invoke.lines = vec![(sku.to_owned(), units)];
            body = json!({"sku": sku, "units": units, "id": invoke.request}).to_string();
        }
        let verb = match f {
            Action::Restock => "restock",
            Action::Pause => "pause",
            _ => "resume",
        };
        let op = self.recorder.invoke(invoke);
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
}

fn about_request(f: Action, client: u32, purchase: &Purchase) -> Invoke {
    let line = |(sku, units): &(&str, u64)| ((*sku).to_owned(), *units);
    Invoke {
        client,
        buyer: purchase.buyer.clone(),
        request: purchase.request.clone(),
        lines: purchase.lines.iter().map(line).collect(),
        ..Invoke::new(f, SALE)
    }
}

fn cart_of(purchase: &Purchase) -> String {
    format!("/v1/sales/{SALE}/carts?request_id={}", purchase.request)
}

fn about_an_order(reply: &Reply) -> Proof {
    match (reply.status, reply.text("status")) {
        (200, _) => Proof::Done,
        (400..500, _) => Proof::NotDone,
        _ => Proof::Nothing,
    }
}

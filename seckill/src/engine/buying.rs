//! Buying: one sku, or a cart of several. Refusals from memory come first: in a peak they are most.

use std::sync::Arc;

use futures_util::future::try_join_all;
use stock::{CartVerdict, Lookup, Metadata, Purchase, Verdict};
use tokio::time::Instant;

use super::{EngineError, FoundOrder, SaleEngine};
use crate::{
    catalogue::OpenSale,
    ids::{BuyerId, OrderId, RequestId, SaleId, SegmentId, SkuId},
    purchase::{self, CartRequest, Line, Outcome},
    sku_stock::{Found, Stock},
};

/// How often one purchase is decided again because units were on their way to its home. Its deadline is the first bound; this one
/// ends the chase of last units that others catch first.
const TRIES: u32 = 16;
/// What memory answers where nothing is left and the request is new. No call of the store stands behind it, so it teaches nothing.
const SOLD_OUT: Verdict = Verdict::SoldOut {
    remaining: 0,
    version: 0,
    accepted: 0,
};
/// Skus looked into at the same time when a cart is asked for.
const LOOKUPS_AT_ONCE: usize = 32;

impl SaleEngine {
    /// Buys, or finds out what became of the same request earlier. Decided at the buyer's home; if that has too few units, others
    /// are brought there and it is decided again, under the same ids.
    pub async fn purchase(
        &self,
        stock: &Stock,
        buyer: BuyerId,
        request: RequestId,
        quantity: u32,
        metadata: Option<Metadata>,
    ) -> Outcome {
        if stock.refuses(&buyer, &request) {
            return Outcome::Decided(SOLD_OUT);
        }
        let home = stock.home(&buyer).clone();
        let place = stock.home_index(&buyer);
        let deadline = Instant::now() + self.deadline;
        let purchase = Purchase {
            order: OrderId::new(self.now_ms(), home.tag, rand::random()),
            fingerprint: fingerprint(&stock.sale, &stock.sku, quantity, metadata.as_ref()),
            buyer,
            request,
            quantity,
            metadata,
        };
        for _ in 0..TRIES {
            let outcome =
                purchase::buy(&home, self.store.clone(), purchase.clone(), deadline).await;
            let Outcome::Decided(Verdict::SoldOut {
                version, accepted, ..
            }) = outcome
            else {
                return outcome;
            };
            if !stock.is_cut() {
                return outcome;
            }
            match stock.rebalancer.ask(place, quantity, deadline).await {
                Found::Units => {}
                Found::SoldOut { left } => {
                    return Outcome::Decided(Verdict::SoldOut {
                        remaining: left,
                        version,
                        accepted,
                    });
                }
                Found::Unknown => return Outcome::Unavailable,
            }
        }
        // The last decision was a refusal that is not the truth about the whole sku: nothing was bought, come back.
        Outcome::Unavailable
    }

    /// Buys a cart, or finds out what became of the same request earlier. `lines` name no sku twice.
    pub async fn buy_cart(
        &self,
        open: &OpenSale,
        lines: Vec<(Arc<Stock>, u32)>,
        buyer: BuyerId,
        request: RequestId,
        metadata: Option<Metadata>,
    ) -> Outcome<CartVerdict> {
        let refuses = |(stock, _): &(Arc<Stock>, u32)| stock.refuses(&buyer, &request);
        // A replayed cart is known to each of its segments, so one that is known nowhere here is new.
        if let Some(line) = lines.iter().position(refuses) {
            let verdict = SOLD_OUT;
            return Outcome::Decided(CartVerdict::Refused { line, verdict });
        }
        // A key belongs to one cart of the sale. What another node took less than half a second ago may not be known yet.
        let is_elsewhere = |stock: &&Arc<Stock>| {
            let is_line = lines.iter().any(|(line, _)| line.sku == stock.sku);
            !is_line && stock.segments[0].sold_out.is_known(&buyer, &request)
        };
        if open.stocks().any(|stock| is_elsewhere(&stock)) {
            return Outcome::Decided(CartVerdict::Refused {
                line: 0,
                verdict: Verdict::KeyReused,
            });
        }
        let fingerprint = cart_fingerprint(&open.sale.id, &lines, metadata.as_ref());
        let now_ms = self.now_ms();
        let line = |(stock, quantity): (Arc<Stock>, u32)| Line {
            order: OrderId::new(now_ms, stock.segments[0].tag, rand::random()),
            stock,
            quantity,
        };
        let cart = CartRequest {
            buyer,
            request,
            fingerprint,
            metadata,
            lines: lines.into_iter().map(line).collect(),
        };
        let bells = cart.lines.iter().map(|line| &line.segment().id);
        let bells: Vec<_> = bells.map(|id| self.makes.accepted.of(id)).collect();
        purchase::buy_cart(
            &open.carts,
            self.store.clone(),
            cart,
            Instant::now() + self.deadline,
            &self.makes.runtime,
            move || bells.iter().for_each(|bell| bell.notify_one()),
        )
        .await
    }
}

impl SaleEngine {
    /// The orders of a cart, in the order of the sale's skus; none if there is no such cart. The lines of a cart reach the ledger one
    /// by one, so some may be settled and others on their way.
    pub async fn cart(
        &self,
        open: &OpenSale,
        buyer: &BuyerId,
        request: &RequestId,
    ) -> Result<Vec<FoundOrder>, EngineError> {
        let sale = &open.sale;
        let lookup = Lookup::Request(buyer.clone(), request.clone());
        // The store first: what is settled in between is found in the ledger, and nothing is missed.
        let segments: Vec<_> = sale
            .skus
            .iter()
            .map(|sku| SegmentId::of_cart(sale.id.clone(), sku.sku.clone()))
            .collect();
        let mut accepted = Vec::with_capacity(segments.len());
        for some in segments.chunks(LOOKUPS_AT_ONCE) {
            let looks = some
                .iter()
                .map(|segment| self.accepted_order(segment, &lookup));
            accepted.append(&mut try_join_all(looks).await?);
        }
        let mut settled = self
            .ledger
            .orders_by_request(&sale.id, buyer, request)
            .await?;
        let mut found = Vec::new();
        for (sku, accepted) in sale.skus.iter().zip(accepted) {
            let place = settled
                .iter()
                .position(|order| order.segment.sku == sku.sku);
            // The ledger has the last word, and remembers what a store may have lost.
            let order = match place {
                Some(place) => Some(FoundOrder::Settled(Box::new(settled.swap_remove(place)))),
                None => accepted,
            };
            found.extend(order.filter(is_line));
        }
        Ok(found)
    }
}

/// Whether an order is a line of a cart, and not a single purchase under the same key.
fn is_line(order: &FoundOrder) -> bool {
    let of = match order {
        FoundOrder::Settled(order) => order.fingerprint,
        FoundOrder::Accepted(_, order) => order.fingerprint,
    };
    let SegmentId { sale, sku, .. } = order.segment();
    of != fingerprint(sale, sku, order.quantity(), order.metadata())
}

/// What a request asks for, as a number that stays the same over versions and nodes: the first 8 bytes of SHA-256.
/// Metadata is a part of it.
fn fingerprint(sale: &SaleId, sku: &SkuId, quantity: u32, metadata: Option<&Metadata>) -> u64 {
    hash(format!("{sale}:{sku}:{quantity}"), metadata)
}

/// The same for a cart, whatever the order of its lines. No id holds a `/`, so no cart has the fingerprint of a single purchase.
fn cart_fingerprint(
    sale: &SaleId,
    lines: &[(Arc<Stock>, u32)],
    metadata: Option<&Metadata>,
) -> u64 {
    let mut lines: Vec<String> = lines
        .iter()
        .map(|(stock, quantity)| format!("{}:{quantity}", stock.sku))
        .collect();
    lines.sort_unstable();
    hash(format!("cart/{sale}/{}", lines.join("/")), metadata)
}

fn hash(mut text: String, metadata: Option<&Metadata>) -> u64 {
    if let Some(metadata) = metadata {
        text.push('/');
        text.push_str(metadata.as_str());
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    u64::from_be_bytes(
        digest.as_ref()[..8]
            .try_into()
            .expect("SHA-256 has 32 bytes"),
    )
}

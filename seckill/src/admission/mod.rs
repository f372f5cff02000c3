//! Who may buy: decided on this node, from memory, before the stock store is asked.
//!
//! The ledger keeps the lists of every sale; a node reads what changed in them at each refresh ([`crate::engine`]). A buyer who
//! may not buy (any more) still gets the answer to what they have bought: see `api/admit.rs`.

mod compact;

use std::sync::Arc;

use ahash::AHashMap;
use arc_swap::ArcSwap;

use self::compact::{BuyerHash, CompactSet};
use crate::{
    ids::{BuyerId, SaleId},
    ledger::{LedgerError, ListChange, ListCursor, ListName, OrderLedger},
    sale::{Admission, Sale},
};

/// Rows read from the ledger at once.
const PAGE: usize = 10_000;

/// Why a buyer is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// On the block list.
    Blocked,
    /// Not on the allow list of a sale that has one.
    NotAllowed,
    /// Not among the winners of the sale's lottery, or it was not drawn yet.
    NotDrawn,
}

/// The lists of all sales, as this node knows them.
#[derive(Default)]
pub struct AdmissionBook {
    hasher: BuyerHash,
    lists: ArcSwap<AHashMap<(SaleId, ListName), Arc<List>>>,
}

/// One list: what is on it, and up to where the ledger was read.
#[derive(Debug, Clone, Default)]
struct List {
    buyers: CompactSet,
    version: u64,
    read_up_to: ListCursor,
}

impl AdmissionBook {
    /// Whether a buyer may buy in a sale, as far as lists decide it.
    pub fn admits(&self, sale: &Sale, buyer: &BuyerId) -> Result<(), Refused> {
        let is_on = |list| self.is_on(&sale.id, list, buyer);
        if is_on(ListName::Block) {
            return Err(Refused::Blocked);
        }
        match sale.rules.admission {
            // A token speaks for itself: see [`crate::entitlement`].
            Admission::Open | Admission::Token => Ok(()),
            Admission::AllowList if is_on(ListName::Allow) => Ok(()),
            Admission::AllowList => Err(Refused::NotAllowed),
            Admission::Lottery if is_on(ListName::Drawn) => Ok(()),
            Admission::Lottery => Err(Refused::NotDrawn),
        }
    }

    /// Whether a buyer is on a list of a sale.
    pub fn is_on(&self, sale: &SaleId, list: ListName, buyer: &BuyerId) -> bool {
        let lists = self.lists.load();
        // Most sales have no list, and a node without any looks nothing up.
        !lists.is_empty()
            && lists
                .get(&(sale.clone(), list))
                .is_some_and(|list| list.buyers.contains(&self.hasher, buyer))
    }

    /// Whether a sale has a list, so that a buyer who was let through may be shut out later.
    pub fn has_lists(&self, sale: &SaleId) -> bool {
        let lists = self.lists.load();
        let names = [ListName::Allow, ListName::Block, ListName::Drawn];
        !lists.is_empty()
            && names
                .into_iter()
                .any(|name| lists.contains_key(&(sale.clone(), name)))
    }

    /// Whether the lottery of a sale was drawn.
    pub fn is_drawn(&self, sale: &SaleId) -> bool {
        self.lists
            .load()
            .contains_key(&(sale.clone(), ListName::Drawn))
    }

    /// Reads what changed since the last time. Call it from one place at a time, and before a sale that it does not know yet is
    /// shown to buyers: then no list is ever missing.
    pub async fn refresh(&self, ledger: &OrderLedger) -> Result<(), LedgerError> {
        let versions = ledger.list_versions().await?;
        self.read(ledger, versions).await
    }

    /// The same for the lists of sales that are not known to be over.
    pub async fn refresh_going_on(&self, ledger: &OrderLedger) -> Result<(), LedgerError> {
        let versions = ledger.list_versions_going_on().await?;
        self.read(ledger, versions).await
    }

    async fn read(
        &self,
        ledger: &OrderLedger,
        versions: Vec<(SaleId, ListName, u64)>,
    ) -> Result<(), LedgerError> {
        for (sale, name, version) in versions {
            let key = (sale, name);
            let known = self.lists.load().get(&key).cloned().unwrap_or_default();
            if known.version == version {
                continue;
            }
            let mut list = List::clone(&known);
            loop {
                let page = ledger
                    .list_changes(&key.0, name, &list.read_up_to, PAGE)
                    .await?;
                for ListChange { buyer, is_listed } in &page.changes {
                    list.buyers.set(&self.hasher, buyer, *is_listed);
                }
                let is_last = page.changes.len() < PAGE;
                list.read_up_to = page.read_up_to;
                if is_last {
                    break;
                }
            }
            list.version = version;
            tracing::debug!(sale = %key.0, list = %name, version, buyers = list.buyers.len(), bytes = list.buyers.bytes(), "list read");
            let list = Arc::new(list);
            self.lists.rcu(|lists| {
                let mut next = AHashMap::clone(lists);
                next.insert(key.clone(), list.clone());
                next
            });
        }
        Ok(())
    }
}

//! What a sale says beyond its window, its stock and its buyer limit: its stage, the most units of one order, who may buy.

use serde::{Deserialize, Serialize};
use stock::words;

use super::SlotRules;
use crate::lottery::LotteryRules;

words! {
    /// Whether buyers may see a sale.
    #[derive(Default, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Stage {
        /// Being prepared; every field can be edited, nothing of it is in the stock store.
        Draft = "draft",
        /// Its segments are open in the store; only its window can be moved.
        #[default]
        Published = "published",
    }
}

words! {
    /// Who may buy. A buyer on the block list may not, in any of these.
    #[derive(Default, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Admission {
        /// Everybody.
        #[default]
        Open = "open",
        /// Only buyers on the allow list.
        AllowList = "allow_list",
        /// Only holders of an entitlement token, each once.
        Token = "token",
        /// Only the winners of the sale's lottery.
        Lottery = "lottery",
    }
}

/// The rules of a sale that the stock store need not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Draft or published.
    pub stage: Stage,
    /// Grows with every change of the sale's document; an edit names the version it was made from.
    pub version: u64,
    /// Most units of one order; `None`: only the buyer limit bounds it.
    pub order_limit: Option<u32>,
    /// Who may buy.
    pub admission: Admission,
    /// With [`Admission::Lottery`]: how it is drawn.
    pub lottery: Option<LotteryRules>,
    /// What its skus are, where they are slots of stores.
    pub slots: Option<SlotRules>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            stage: Stage::default(),
            version: 1,
            order_limit: None,
            admission: Admission::default(),
            lottery: None,
            slots: None,
        }
    }
}

//! What a sale says beyond its window, its stock and its buyer limit: its stage, the most units of one order, who may buy.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::SlotRules;
use crate::lottery::LotteryRules;

/// Whether buyers may see a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Being prepared; every field can be edited, nothing of it is in the stock store.
    Draft,
    /// Its segments are open in the store; only its window can be moved.
    #[default]
    Published,
}

impl Stage {
    /// The word in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Published => "published",
        }
    }
}

/// Who may buy. A buyer on the block list may not, in any of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admission {
    /// Everybody.
    #[default]
    Open,
    /// Only buyers on the allow list.
    AllowList,
    /// Only holders of an entitlement token, each once.
    Token,
    /// Only the winners of the sale's lottery.
    Lottery,
}

impl Admission {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Open, Self::AllowList, Self::Token, Self::Lottery];

    /// The word in the ledger and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::AllowList => "allow_list",
            Self::Token => "token",
            Self::Lottery => "lottery",
        }
    }
}

impl FromStr for Admission {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|known| known.as_str() == text);
        found.ok_or_else(|| format!("admission {text:?}"))
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

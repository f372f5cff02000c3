//! The stock functions of `library/`, by their names there.

/// Most items in one call; it bounds how long one call holds the server. The same number stands in `library/base.lua`.
pub(super) const MAX_BATCH: usize = 1024;

/// A stock function: its name in the library, and whether what it changes must outlive a fault.
#[derive(Debug, Clone, Copy)]
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) writes: bool,
}

impl Function {
    pub(super) const OPEN: Self = Self::writing("penstock_v3_open");
    pub(super) const BUY: Self = Self::writing("penstock_v3_buy");
    pub(super) const BUY_CART: Self = Self::writing("penstock_v3_buy_cart");
    pub(super) const RELEASE: Self = Self::writing("penstock_v3_release");
    pub(super) const CONFIRM: Self = Self::writing("penstock_v3_confirm");
    pub(super) const SET_GATE: Self = Self::writing("penstock_v3_set_gate");
    pub(super) const RESTOCK: Self = Self::writing("penstock_v3_restock");
    pub(super) const WITHDRAW: Self = Self::writing("penstock_v3_withdraw");
    pub(super) const SNAPSHOT: Self = Self::reading("penstock_v3_snapshot");
    pub(super) const FIND: Self = Self::reading("penstock_v3_find");
    pub(super) const ACCEPTED: Self = Self::reading("penstock_v3_accepted");
    pub(super) const DEPTH: Self = Self::reading("penstock_v3_depth");
    // Both write, but what they write may be lost: settlement is idempotent and is handed the entry again.
    pub(super) const PULL: Self = Self::reading("penstock_v3_pull");
    pub(super) const ACK: Self = Self::reading("penstock_v3_ack");
    pub(super) const FREEZE: Self = Self::writing("penstock_v3_freeze");
    pub(super) const UNSETTLED: Self = Self::reading("penstock_v3_unsettled");
    pub(super) const REBUILD_BEGIN: Self = Self::writing("penstock_v3_rebuild_begin");
    pub(super) const REBUILD_MOVES: Self = Self::writing("penstock_v3_rebuild_moves");
    pub(super) const REBUILD_LOAD: Self = Self::writing("penstock_v3_rebuild_load");
    pub(super) const REBUILD_FINISH: Self = Self::writing("penstock_v3_rebuild_finish");

    const fn writing(name: &'static str) -> Self {
        Self { name, writes: true }
    }

    const fn reading(name: &'static str) -> Self {
        Self {
            name,
            writes: false,
        }
    }
}

//! The switches: each takes one rule out of the model.

/// What is wrong with the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    NoReplayCheck,
    NoTombstone,
    StockBeforeReplay,
    ReplaysTheWrongOrder,
    NoFingerprint,
    ConflictBuys,
    NoLimit,
    LimitKeptAfterRelease,
    NoStockCheck,
    LastUnitNeverSold,
    SoldOutIsNeverTakenBack,
    StockResetByACrash,
    AckBeforeCommit,
    OrdersLostOnTheirWay,
    RefusedButRecorded,
    ReturnedTwice,
    ReturnedAfterPaid,
    NeverReturned,
    RestockedTwice,
    SellsOutsideTheWindow,
    SellsWhilePaused,
    CartTakesWhatItGets,
    CartGivenBackInPart,
    StatusFromAStaleCopy,
    EntitlementUsedTwice,
    PaidTwice,
    PaymentNotRecorded,
}

impl Flaw {
    pub const ALL: [Flaw; 27] = {
        use Flaw::*;
        [
            NoReplayCheck,
            NoTombstone,
            StockBeforeReplay,
            ReplaysTheWrongOrder,
            NoFingerprint,
            ConflictBuys,
            NoLimit,
            LimitKeptAfterRelease,
            NoStockCheck,
            LastUnitNeverSold,
            SoldOutIsNeverTakenBack,
            StockResetByACrash,
            AckBeforeCommit,
            OrdersLostOnTheirWay,
            RefusedButRecorded,
            ReturnedTwice,
            ReturnedAfterPaid,
            NeverReturned,
            RestockedTwice,
            SellsOutsideTheWindow,
            SellsWhilePaused,
            CartTakesWhatItGets,
            CartGivenBackInPart,
            StatusFromAStaleCopy,
            EntitlementUsedTwice,
            PaidTwice,
            PaymentNotRecorded,
        ]
    };
}

//! The rules a history is judged by, and what is found against them.

use serde::Serialize;

/// Examples kept of one rule; the rest is counted.
const EXAMPLES: usize = 5;
/// Lines named in one example.
const LINES: usize = 12;

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $invariant:literal;)*) => {
        /// What must hold. The text form is stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Rule {
            $($(#[$doc])* $name,)*
        }

        impl Rule {
            pub const ALL: &'static [Rule] = &[$(Rule::$name,)*];

            /// The stable text form.
            pub fn name(self) -> &'static str {
                match self { $(Rule::$name => $text,)* }
            }

            /// The invariant it belongs to, as named in `docs/invariants.md`.
            pub fn invariant(self) -> &'static str {
                match self { $(Rule::$name => $invariant,)* }
            }
        }
    };
}

rules! {
    /// At no instant do acknowledged and not returned orders hold more units than there are.
    Oversold = "oversold", "INV-STOCK-1";
    /// The live orders of the ledger hold no more units than there are.
    OversoldLedger = "oversold_ledger", "INV-STOCK-1";
    /// The sale's account adds up, and agrees with the ledger's rows.
    Conservation = "conservation", "INV-STOCK-2";
    /// The counts of the account are those of the rows.
    Counts = "counts", "INV-STOCK-2";
    /// "Sold out" is said only if at some point of the call too little was left.
    FalseSoldOut = "false_sold_out", "INV-STOCK-3";
    /// Where buyers came until the end, nothing is left.
    Undersold = "undersold", "INV-STOCK-3";
    /// At no instant does a buyer hold more than the limit.
    BuyerLimit = "buyer_limit", "INV-BUYER-1";
    /// "Buyer limit" is said only to a buyer who could be at it.
    FalseBuyerLimit = "false_buyer_limit", "INV-BUYER-1";
    /// A request id has one order, in answers and in the ledger.
    TwoOrders = "two_orders", "INV-ORDER-1";
    /// A request id whose order was returned never gets another.
    Resurrected = "resurrected", "INV-ORDER-1";
    /// An order is made once: one 201 for a request id.
    CreatedTwice = "created_twice", "INV-ORDER-1";
    /// A retry of an acknowledged request is answered with its order, not refused.
    ReplayRefused = "replay_refused", "INV-ORDER-1";
    /// The order of an answer is recorded for the request, buyer and content it answered.
    Misattributed = "misattributed", "INV-ORDER-1";
    /// A request id with other content is refused, not answered with the first content's order.
    ConflictAnswered = "conflict_answered", "INV-ORDER-1";
    /// "Key reused" is said only if the key was sent with other content.
    FalseConflict = "false_conflict", "INV-ORDER-1";
    /// An entitlement buys one order, for one buyer.
    TokenReused = "token_reused", "INV-TOKEN-1";
    /// No order of a request that was refused, or never sent.
    Phantom = "phantom", "INV-ORDER-2";
    /// A cart is in the ledger with all its lines, or not at all; none is refused or goes back alone without a reason.
    PartialCart = "partial_cart", "INV-ORDER-2";
    /// An acknowledged order is in the ledger and was not refused there (at lower levels: unless a fault explains it).
    Lost = "lost", "INV-ORDER-3";
    /// At the end nothing accepted is still on its way.
    Unsettled = "unsettled", "INV-ORDER-3";
    /// After the faults every unknown has a definite answer, and the right one.
    Unresolved = "unresolved", "INV-ORDER-3";
    /// A buyer who was told of an order finds it.
    Unseen = "unseen", "INV-ORDER-3";
    /// A paid order is never returned.
    ReturnedAfterPaid = "returned_after_paid", "INV-ORDER-4";
    /// Nothing leaves a final status, and nobody sees it left.
    StatusBackwards = "status_backwards", "INV-ORDER-5";
    /// An unpaid order goes back in time.
    LateReturn = "late_return", "INV-ORDER-4";
    /// Nothing is sold outside the window.
    Window = "window", "INV-WINDOW-1";
    /// Nothing is sold while the sale is paused, frozen or closed.
    GateShut = "gate_shut", "INV-WINDOW-1";
    /// "Not started", "ended" and "paused" are said only of a sale that may be.
    FalseGate = "false_gate", "INV-WINDOW-1";
    /// A payment succeeds once for an order.
    PaidTwice = "paid_twice", "INV-PAY-2";
    /// What was paid is recorded as paid, and nothing else is.
    PaidMismatch = "paid_mismatch", "INV-PAY-3";
}

/// One place where a rule is broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    pub what: String,
    /// The operations involved, as line numbers of the history.
    pub lines: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    pub rule: Rule,
    pub invariant: &'static str,
    /// In how many places.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<Example>,
}

/// Gathers what is found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    skipped: Vec<Rule>,
    found: Vec<Violation>,
}

impl Findings {
    /// Nothing found yet; whatever is found against `skipped` is ignored.
    pub(super) fn skipping(skipped: &[Rule]) -> Findings {
        Findings {
            skipped: skipped.to_vec(),
            found: Vec::new(),
        }
    }

    /// A rule is broken here. The text is made only if it will be shown.
    pub(super) fn add(
        &mut self,
        rule: Rule,
        lines: impl IntoIterator<Item = u32>,
        what: impl FnOnce() -> String,
    ) {
        if self.skipped.contains(&rule) {
            return;
        }
        let at = match self.found.iter().position(|known| known.rule == rule) {
            Some(at) => at,
            None => {
                self.found.push(Violation {
                    rule,
                    invariant: rule.invariant(),
                    count: 0,
                    examples: Vec::new(),
                });
                self.found.len() - 1
            }
        };
        let violation = &mut self.found[at];
        violation.count += 1;
        if violation.examples.len() < EXAMPLES {
            let mut lines: Vec<u32> = lines.into_iter().filter(|line| *line > 0).collect();
            lines.sort_unstable();
            lines.dedup();
            lines.truncate(LINES);
            violation.examples.push(Example {
                what: what(),
                lines,
            });
        }
    }

    /// What was found, in the order of [`Rule::ALL`].
    pub(super) fn into_violations(mut self) -> Vec<Violation> {
        self.found.sort_by_key(|violation| violation.rule);
        self.found
    }
}

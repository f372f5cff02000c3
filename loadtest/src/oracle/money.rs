//! Payments, as far as buyers see them: one that succeeds for an order, and an order that is paid if and only if one did.

use super::case::Case;
use super::rule::{Findings, Rule};
use crate::ledger::OrderStatus;

pub(super) fn judge(case: &Case, found: &mut Findings) {
    for order in &case.orders {
        let pays = || order.pays.iter().map(|at| &case.ops[*at as usize]);
        let mut intents: Vec<(u32, u32)> = pays()
            .filter(|op| op.is_ok() && op.intent != 0)
            .map(|op| (op.intent, op.done_line))
            .collect();
        intents.sort_unstable();
        intents.dedup_by_key(|(intent, _)| *intent);
        if intents.len() > 1 {
            found.add(
                Rule::PaidTwice,
                intents.iter().map(|(_, line)| *line),
                || {
                    format!(
                        "{} was paid by {} payments",
                        case.text(order.name),
                        intents.len()
                    )
                },
            );
        }

        let Some(row) = order.rows.first().map(|row| &case.rows[*row as usize]) else {
            continue;
        };
        let paid = pays().find(|op| op.is_ok());
        match (paid, row.status) {
            // That it is paid and released at once is another rule's finding.
            (Some(op), status) if !status.is_final() => {
                found.add(Rule::PaidMismatch, [op.done_line, row.line], || {
                    format!(
                        "{} was paid, and is {} in the ledger",
                        case.text(order.name),
                        status.name()
                    )
                });
            }
            (None, OrderStatus::Paid)
                if order.key.is_some() && !pays().any(|op| op.may_have_happened()) =>
            {
                found.add(Rule::PaidMismatch, [row.line], || {
                    format!("{} is paid, and nobody paid it", case.text(order.name))
                });
            }
            _ => {}
        }
    }
}

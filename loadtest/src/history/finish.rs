//! The facts at the end of a history file: each sale's document, its ledger rows and its own account, asked of the admin API.

use std::time::Duration;

use super::{Event, Tape};
use crate::reconcile::AdminClient;

/// Rows and account are read one after the other; while they still change they are read again.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// Asks for the facts of a sale and writes them down. The account is read on both sides of the rows and must be the same.
pub async fn write_end_facts(tape: &Tape, admin: &AdminClient, sale: &str) -> anyhow::Result<()> {
    let facts = admin.sale(sale).await?;
    let mut looks = 0;
    let (rows, report) = loop {
        let before = admin.report(sale).await?;
        let rows = admin.orders(sale).await?;
        let after = admin.report(sale).await?;
        looks += 1;
        if before == after || looks == LOOKS {
            break (rows, after);
        }
        tokio::time::sleep(PAUSE).await;
    };
    tape.record_patiently(Event::Sale(facts));
    for row in rows {
        let sale = sale.to_owned();
        tape.record_patiently(Event::Row { sale, row });
    }
    let sale = sale.to_owned();
    tape.record_patiently(Event::Report { sale, report });
    Ok(())
}

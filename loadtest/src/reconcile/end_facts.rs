//! What the server says of a sale at the end: its document, the ledger's rows, and its account.

use std::time::Duration;

use crate::admin::AdminClient;
use crate::history::event::SaleFacts;
use crate::history::{Event, HistorySender};
use crate::ledger::{LedgerRow, SaleReport};

/// Rows and account are read one after the other; while they still change they are read again.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// The facts of one sale, all of one moment.
#[derive(Clone, Debug)]
pub struct EndFacts {
    /// Its document, as far as the rules go.
    pub sale: SaleFacts,
    /// Its rows in the ledger, of whatever client.
    pub rows: Vec<LedgerRow>,
    pub report: SaleReport,
}

impl EndFacts {
    /// Asks for the facts. The account is read on both sides of the rows and must be the same.
    pub async fn read(admin: &AdminClient, sale: &str) -> anyhow::Result<EndFacts> {
        let facts = admin.sale(sale).await?;
        let mut looks = 0;
        loop {
            let before = admin.report(sale).await?;
            let rows = admin.orders(sale).await?;
            let report = admin.report(sale).await?;
            looks += 1;
            if before == report || looks == LOOKS {
                return Ok(EndFacts {
                    sale: facts,
                    rows,
                    report,
                });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Writes them to a history file.
    pub fn record(self, sender: &HistorySender) {
        for event in self.into_events() {
            sender.record_blocking(event);
        }
    }

    pub(super) fn into_events(self) -> impl Iterator<Item = Event> {
        let id = self.sale.id.clone();
        let report = Event::Report {
            sale: id.clone(),
            report: self.report,
        };
        let row = move |row| Event::Row {
            sale: id.clone(),
            row,
        };
        std::iter::once(Event::Sale(self.sale))
            .chain(self.rows.into_iter().map(row))
            .chain([report])
    }
}

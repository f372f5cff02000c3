//! The history file of a run, from its header to its end.

use anyhow::{Context, bail};
use tokio::time::Instant;

use crate::history::event::{End, Header};
use crate::history::{Event, HistoryWriter, Level, Tape, write_end_facts};
use crate::reconcile::AdminClient;
use crate::report::Report;
use crate::scenario::Scenario;

/// A history file that is being written.
#[derive(Debug)]
pub struct Recording {
    writer: HistoryWriter,
    start: Instant,
}

impl Recording {
    /// Creates the file, if the scenario asks for one.
    pub(super) fn begin(
        scenario: &Scenario,
        started_unix_ms: i64,
        start: Instant,
    ) -> anyhow::Result<Option<Recording>> {
        let Some(path) = &scenario.history_file else {
            return Ok(None);
        };
        // What the level of a sale is, a black box does not see: the reader of the file says otherwise where it is lower.
        let header = Header::new(
            scenario.seed,
            scenario.target.url.clone(),
            started_unix_ms.max(0) as u64,
            Level::Durable,
        );
        let writer = HistoryWriter::create(path, &header)
            .with_context(|| format!("--history {}", path.display()))?;
        Ok(Some(Recording { writer, start }))
    }

    pub(super) fn tape(&self) -> Tape {
        self.writer.tape()
    }

    /// Asks for the facts at the end, if the run was reconciled, and closes the file.
    pub async fn finish(self, scenario: &Scenario, report: &Report) -> anyhow::Result<()> {
        let tape = self.writer.tape();
        let t_us = self.start.elapsed().as_micros() as u64;
        let mut asked = Ok(());
        if let (Some(admin), Some(sale), Some(_)) =
            (&scenario.admin, &scenario.sale, &report.reconciliation)
        {
            tape.record(Event::Quiet { t_us });
            asked = write_end_facts(&tape, &AdminClient::new(admin)?, &sale.id).await;
        }
        let end = End {
            t_us: self.start.elapsed().as_micros() as u64,
            wall_ms: std::time::UNIX_EPOCH
                .elapsed()
                .map_or(0, |since| since.as_millis() as u64),
            ..End::default()
        };
        let written = self.writer.finish(end).context("--history")?;
        if written.dropped > 0 {
            bail!(
                "{} events were dropped: the disk did not follow",
                written.dropped
            );
        }
        asked
    }
}

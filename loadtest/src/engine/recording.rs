//! The history file of a run, from its header to its end.

use anyhow::{Context, bail};
use tokio::time::Instant;

use crate::history::event::{End, Header};
use crate::history::{Event, HistorySender, HistoryWriter, Level};
use crate::reconcile::EndFacts;
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

    pub(super) fn sender(&self) -> HistorySender {
        self.writer.sender()
    }

    /// Writes the facts at the end, if the run was reconciled, and closes the file.
    pub(crate) fn finish(self, facts: Option<EndFacts>) -> anyhow::Result<()> {
        if let Some(facts) = facts {
            let sender = self.writer.sender();
            sender.record(Event::Quiet { t_us: self.t_us() });
            facts.record(&sender);
        }
        let end = End {
            t_us: self.t_us(),
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
        Ok(())
    }

    fn t_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }
}

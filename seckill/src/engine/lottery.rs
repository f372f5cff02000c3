//! Drawing a lottery: seal, read the entries, rank them, record the winners. Every step can be repeated by any node.

use super::{EngineError, SaleEngine, pending};
use crate::{
    ids::SaleId,
    ledger::{Draw, Recorded},
    lottery::{LotteryRules, MAX_WINNERS, Ranking, Roll, Round, Seed, Selection},
    sale::Sale,
};

/// Entries read at once.
const PAGE: usize = 10_000;

/// Why nothing was drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DrawRefused {
    /// The sale has no lottery.
    NoLottery,
    /// It is a draft, or was closed.
    NotPublished,
    /// Entries are still taken, until this instant.
    StillOpen {
        /// The instant.
        closes_at_ms: u64,
    },
    /// The seed is not the one that was committed to.
    WrongSeed,
    /// A beacon without an announced source, or an announced one left out.
    Beacon {
        /// Whether one was announced.
        is_announced: bool,
    },
    /// It was sealed with another beacon before.
    Sealed,
    /// It was not drawn yet.
    NotDrawn,
    /// The round is not the next one, or was drawn with another number of winners.
    Round {
        /// The next one.
        next: u32,
    },
    /// More winners than there can be.
    Winners {
        /// How many there may be.
        most: u64,
    },
}

/// The answer to a draw.
pub type Drawn = Result<Round, DrawRefused>;

impl SaleEngine {
    /// Draws the first round, once, however often it is asked for.
    pub async fn draw(&self, sale: &Sale, seed: &Seed, beacon: &str) -> Result<Drawn, EngineError> {
        let rules = match self.drawable(sale) {
            Ok(rules) => rules,
            Err(refused) => return Ok(Err(refused)),
        };
        if seed.commitment() != rules.commitment {
            return Ok(Err(DrawRefused::WrongSeed));
        }
        let is_announced = !rules.beacon_source.is_empty();
        if is_announced == beacon.is_empty() {
            return Ok(Err(DrawRefused::Beacon { is_announced }));
        }
        let Some(draw) = self.ledger.seal(&sale.id, &seed.to_hex(), beacon).await? else {
            return Ok(Err(DrawRefused::NotPublished));
        };
        if draw.beacon != beacon {
            return Ok(Err(DrawRefused::Sealed));
        }
        // One draw, however often it is asked for: the round that stands is the answer.
        if let Some(first) = self.ledger.draw_rounds(&sale.id).await?.into_iter().next() {
            return Ok(Ok(first));
        }
        self.record(sale, &draw, 1, 0, rules.winners).await
    }

    /// Calls the next of the reserve. Winners of the round before who have not bought may no longer.
    pub async fn draw_again(
        &self,
        sale: &Sale,
        round: u32,
        winners: u64,
    ) -> Result<Drawn, EngineError> {
        if let Err(refused) = self.drawable(sale) {
            return Ok(Err(refused));
        }
        let draw = self.ledger.draw(&sale.id).await?;
        let Some(draw) = draw.filter(|draw| draw.drawn_at_ms.is_some()) else {
            return Ok(Err(DrawRefused::NotDrawn));
        };
        let rounds = self.ledger.draw_rounds(&sale.id).await?;
        let next = rounds.last().map_or(1, |last| last.round + 1);
        if let Some(known) = rounds.iter().find(|known| known.round == round) {
            return Ok(match known.count == winners {
                true => Ok(known.clone()),
                false => Err(DrawRefused::Round { next }),
            });
        }
        if round != next {
            return Ok(Err(DrawRefused::Round { next }));
        }
        let first: u64 = rounds.iter().map(|round| round.count).sum();
        let left = draw.entries.saturating_sub(first);
        let available = self.available(&sale.id).await?;
        let most = left
            .min(available / u64::from(sale.buyer_limit))
            .min(MAX_WINNERS.saturating_sub(first));
        if !(1..=most).contains(&winners) {
            return Ok(Err(DrawRefused::Winners { most }));
        }
        self.record(sale, &draw, round, first, winners).await
    }

    fn drawable<'a>(&self, sale: &'a Sale) -> Result<&'a LotteryRules, DrawRefused> {
        let rules = sale.rules.lottery.as_ref();
        let rules = rules.ok_or(DrawRefused::NoLottery)?;
        match self.now_ms() < rules.closes_at_ms {
            true => Err(DrawRefused::StillOpen {
                closes_at_ms: rules.closes_at_ms,
            }),
            false => Ok(rules),
        }
    }

    /// Ranks the entries, which no longer change, and records the places of a round.
    async fn record(
        &self,
        sale: &Sale,
        draw: &Draw,
        round: u32,
        first: u64,
        wanted: u64,
    ) -> Result<Drawn, EngineError> {
        let seed = Seed::from_hex(&draw.seed).ok_or_else(|| corrupt("seed", &sale.id))?;
        let mut roll = Roll::default();
        self.each_page(&sale.id, |page| {
            match page.iter().all(|entry| roll.add(entry)) {
                true => Ok(()),
                false => Err(corrupt("order of entries", &sale.id)),
            }
        })
        .await?;
        let (entries, root) = roll.finish();
        let count = wanted.min(entries.saturating_sub(first));
        let ranking = Ranking::new(&seed, &sale.id, entries, &root, &draw.beacon);
        let mut selection = Selection::new(ranking, (first + count) as usize);
        self.each_page(&sale.id, |page| {
            page.iter().for_each(|entry| selection.add(entry));
            Ok(())
        })
        .await?;
        let winners = selection.finish().split_off(first as usize);
        let round = Round {
            round,
            first,
            count,
            at_ms: self.now_ms(),
        };
        let recorded = self
            .ledger
            .record_round(&sale.id, &round, (entries, &root), &winners)
            .await?;
        // This node goes by it at once, others after their next refresh.
        let _changing = self.changing.lock().await;
        let refreshed = self.admission.refresh(&self.ledger).await;
        refreshed.map_err(pending)?;
        Ok(Ok(match recorded {
            Recorded::Done => round,
            Recorded::Before(known) => known,
        }))
    }

    async fn available(&self, sale: &SaleId) -> Result<u64, EngineError> {
        let Some(open) = self.sale(sale)? else {
            return Ok(0);
        };
        let mut available = 0;
        for segment in open.segments() {
            available += self.store.snapshot(&segment.id).await?.available;
        }
        Ok(available)
    }

    /// Hands over the entries of a sale, page by page.
    async fn each_page(
        &self,
        sale: &SaleId,
        mut take: impl FnMut(&[String]) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let mut after = String::new();
        loop {
            let page = self.ledger.entries(sale, &after, PAGE).await?;
            take(&page)?;
            match page.last().filter(|_| page.len() == PAGE) {
                Some(last) => after.clone_from(last),
                None => return Ok(()),
            }
            // Ranking a page takes milliseconds; others on this thread get their turn.
            tokio::task::yield_now().await;
        }
    }
}

fn corrupt(what: &str, sale: &SaleId) -> EngineError {
    crate::ledger::LedgerError::Corrupt(format!("{what} of the draw of {sale}")).into()
}

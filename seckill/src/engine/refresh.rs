//! Keeping a node's catalogue true: opens what is new (`opening.rs`), applies what other nodes changed, reads counts, repairs what a
//! crash left half done.
//!
//! Each segment stands alone here: one that the store cannot answer for is refused to its buyers (503) and tried again, while
//! all others go on.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    StreamExt,
    future::join_all,
    stream::{self, FuturesUnordered},
};
use stock::{SegmentSpec, SegmentStatus, StockError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{EngineError, Health, SaleEngine, balance, over::EndedSales};
use crate::{
    catalogue::OpenSale,
    ids::{SaleId, SegmentId, SkuId},
    locks::Locked,
    sale::{Admission, Sale, Stage},
    sku_stock::{SegmentRuntime, Stock},
    ticks::{self, Ticks},
};
use limiter::troubles::Troubles;

/// How often a node re-reads sales and counts: bounds how long it may say "sold out" after another node returned a unit. Segments that
/// nothing happens in, and whose buyers are not answered from memory, are read less often (`pace.rs`).
const REFRESH_EVERY: Duration = Duration::from_millis(500);
/// How often sales that are over are read too. Nothing happens to them; an operator may still close one.
const READ_ALL_EVERY: Duration = Duration::from_secs(60);
/// How often transfers that nobody finishes are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Sales read at the same time.
pub(super) const SALES_AT_ONCE: usize = 16;
/// A segment that takes longer is told of in the log, and does not hold up the others' next reading.
const READ: Duration = Duration::from_secs(2);

static UNREAD: Troubles = Troubles::new("sales are not read from the ledger");
static UNREFRESHED: Troubles = Troubles::new("sales are not read from the store");
static UNSWEPT: Troubles = Troubles::new("open transfers are not looked for");

/// Units that the ledger has added to skus.
type Restocked = HashMap<(SaleId, SkuId), u64>;

impl SaleEngine {
    /// Refreshes, sweeps and reviews until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        // Each by itself: a segment that does not answer, or many sales that are over, must not keep the counts from being read.
        let sweeper = self.clone().keep_sweeping(shutdown.clone());
        let reviewer = self.keep_reviewing(shutdown.clone());
        tokio::join!(self.clone().keep_refreshing(shutdown), sweeper, reviewer);
    }

    async fn keep_refreshing(self: Arc<Self>, shutdown: CancellationToken) {
        let mut ticks = Ticks::every(REFRESH_EVERY);
        let mut tick = 0;
        while ticks.next(&shutdown).await {
            match self.refresh_at(Some(tick)).await {
                Ok(()) => UNREAD.works("all"),
                Err(error) => UNREAD.failed("all", &error),
            }
            tick += 1;
        }
    }

    async fn keep_sweeping(self: Arc<Self>, shutdown: CancellationToken) {
        let mut ticks = Ticks::every(SWEEP_EVERY);
        while ticks.next(&shutdown).await {
            match self.makes.transfers.sweep().await {
                Ok(_) => UNSWEPT.works("all"),
                Err(error) => UNSWEPT.failed("all", &error),
            }
        }
    }

    /// Re-reads all sales and counts. Fails only if the ledger cannot be read; segments that the store cannot answer for are
    /// logged, and [`SaleEngine::health`] says so while it answers for none.
    pub async fn refresh(&self) -> Result<(), EngineError> {
        self.refresh_at(None).await
    }

    /// The first reading: of the sales that go on, so that a node sells as soon behind many that are over as behind none.
    pub(super) async fn read_first(&self) -> Result<(), EngineError> {
        let _changing = self.changing.lock().await;
        self.read(false, None).await
    }

    /// The same at a tick of the timer: segments at rest are read at some of them only.
    async fn refresh_at(&self, tick: Option<u64>) -> Result<(), EngineError> {
        let mut all_read = self.changing.lock().await;
        let wants_all = all_read.is_none_or(|at| at.elapsed() >= READ_ALL_EVERY);
        self.read(wants_all, tick).await?;
        if wants_all {
            *all_read = Some(Instant::now());
            self.over_read.send_replace(true);
        }
        Ok(())
    }

    async fn read(&self, wants_all: bool, tick: Option<u64>) -> Result<(), EngineError> {
        self.ledger.show_connections();
        let (sales, restocked) = match self.read_ledger(wants_all).await {
            Ok(read) => read,
            Err(error) => {
                let why = Err(error.to_string());
                let mut health = self.health.locked();
                (health.ledger, health.sales) = (why.clone(), why);
                return Err(error);
            }
        };
        let store = self.store.reach().await.map_err(|error| error.to_string());
        let ended = &self.ask_about_ended(&sales).await?;
        let results: Vec<_> = stream::iter(sales)
            .map(async |sale| {
                (
                    sale.id.clone(),
                    self.apply(sale, ended, &restocked, tick).await,
                )
            })
            .buffer_unordered(SALES_AT_ONCE)
            .collect()
            .await;
        // Without a sale, they would be sold as well as the store is.
        let mut sold = store.clone();
        let mut answered = 0;
        let mut over = Vec::new();
        for (id, result) in results {
            match result {
                Ok(is_over) => {
                    answered += 1;
                    over.extend(is_over);
                    UNREFRESHED.works(&id);
                }
                Err(error) => {
                    UNREFRESHED.failed(&id, &error);
                    sold = Err(error.to_string());
                }
            }
        }
        self.archive(over);
        *self.health.locked() = Health {
            ledger: Ok(()),
            store,
            sales: if answered > 0 { Ok(()) } else { sold },
        };
        Ok(())
    }

    /// Reads the sales of the ledger: all of them, or those that go on. The lists come after the sales and before any sale is shown:
    /// a sale that is visible has its lists read.
    async fn read_ledger(&self, wants_all: bool) -> Result<(Vec<Sale>, Restocked), EngineError> {
        let sales = match wants_all {
            true => self.ledger.sales().await?,
            false => {
                let mut sales = self.ledger.sales_going_on().await?;
                // What the ledger takes for over, and this node still looks after.
                let known: HashSet<SaleId> = sales.iter().map(|sale| sale.id.clone()).collect();
                for open in self.catalogue.sales() {
                    if !open.is_over && !known.contains(&open.sale.id) {
                        sales.extend(self.ledger.sale(&open.sale.id).await?);
                    }
                }
                sales
            }
        };
        let restocked = self.ledger.restocked_units().await?;
        match wants_all {
            true => self.admission.refresh(&self.ledger).await?,
            false => self.admission.refresh_going_on(&self.ledger).await?,
        }
        Ok((sales, restocked))
    }

    /// Re-reads one sale that was just changed here.
    pub(super) async fn refresh_sale(&self, sale: &SaleId) -> Result<(), EngineError> {
        let _changing = self.changing.lock().await;
        let sale = self.ledger.sale(sale).await?;
        self.admission.refresh(&self.ledger).await?;
        match sale {
            Some(sale) => {
                let restocked = self.ledger.restocked_units().await?;
                let ended = self.ask_about_ended(std::slice::from_ref(&sale)).await?;
                let over = self.apply(sale, &ended, &restocked, None).await?;
                self.archive(over.into_iter().collect());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Brings the catalogue up to a sale as the ledger has it. The sale is there afterwards even if a segment is in trouble; the
    /// first trouble is the error. A draft is the ledger's alone. A sale that is over, or was and has changed, is answered: many may
    /// be, and the caller takes them all into the catalogue at once.
    async fn apply(
        &self,
        sale: Sale,
        ended: &EndedSales,
        restocked: &Restocked,
        tick: Option<u64>,
    ) -> Result<Option<OpenSale>, EngineError> {
        let known = self.catalogue.sale(&sale.id);
        let is_known_over = known.as_deref().is_some_and(|open| open.is_over);
        if is_known_over && known.as_deref().is_some_and(|open| open.sale == sale) {
            return Ok(None);
        }
        if sale.rules.stage == Stage::Published {
            let is_over = match is_known_over {
                true => Ok(true),
                false => self.is_over(&sale, ended).await,
            };
            match is_over {
                Ok(true) => {
                    self.show_sale(&sale, true);
                    self.hide_sale(&sale.id);
                    return Ok(Some(self.over(sale, known)));
                }
                Ok(false) => {}
                Err(error) => {
                    self.show_sale(&sale, false);
                    return Err(error);
                }
            }
        }
        let shown = sale.clone();
        let applied = match sale.rules.stage {
            Stage::Draft => Ok(()),
            Stage::Published => self.apply_going_on(sale, known, restocked, tick).await,
        };
        self.show_sale(&shown, applied.is_ok());
        applied.map(|()| None)
    }

    async fn apply_going_on(
        &self,
        sale: Sale,
        known: Option<Arc<OpenSale>>,
        restocked: &Restocked,
        tick: Option<u64>,
    ) -> Result<(), EngineError> {
        let is_same = known.as_deref().is_some_and(|open| open.sale == sale);
        if let Some(open) = known.as_deref().filter(|open| is_same && open.is_whole) {
            let specs = specs_of(&sale);
            let read = open.stocks().map(|stock| {
                let wanted = specs.get(&stock.sku).map(Vec::as_slice).unwrap_or_default();
                self.read_stock(&open.sale, stock, wanted, restocked, tick)
            });
            return first_trouble(join_all(read).await);
        }
        let specs = specs_of(&sale);
        let stocks = self.makes.stocks(&sale, known.as_deref());
        // The catalogue shows them only when they are open, so that nobody reads counts that are still to come.
        let opened = stocks.iter().map(async |stock| {
            let specs = specs.get(&stock.sku).map(Vec::as_slice).unwrap_or_default();
            let opened = specs
                .iter()
                .map(|spec| self.open_segment(&sale, spec, stock));
            first_trouble(join_all(opened).await)?;
            self.check_stock(&sale, stock, restocked).await
        });
        let result = first_trouble(join_all(opened).await);
        let carts = known.map(|open| open.carts.clone()).unwrap_or_default();
        self.catalogue
            .put(OpenSale::new(sale, stocks, carts, result.is_ok()));
        self.tell_segments();
        result
    }

    pub(super) fn tell_segments(&self) {
        let all = self.catalogue.segments();
        let ids = all.iter().map(|segment| segment.id.clone()).collect();
        self.segments
            .send_if_modified(|known: &mut Vec<SegmentId>| {
                let is_new = *known != ids;
                *known = ids;
                is_new
            });
    }

    /// Reads the counts of all segments of a sku, and what they say together. If the store goes by other rules than the ledger's
    /// (a node that read the ledger earlier opened it later than the one that knew better), it gets the right ones.
    async fn read_stock(
        &self,
        sale: &Sale,
        stock: &Stock,
        wanted: &[SegmentSpec],
        restocked: &Restocked,
        tick: Option<u64>,
    ) -> Result<(), EngineError> {
        let now_ms = self.now_ms();
        let is_due = |segment: &&Arc<SegmentRuntime>| {
            tick.is_none_or(|tick| {
                // Not all at the same tick.
                let tick = tick + u64::from(segment.id.index);
                self.asks_memory(sale, segment) || segment.pace.locked().is_due(tick, now_ms)
            })
        };
        let read: FuturesUnordered<_> = stock
            .segments
            .iter()
            .filter(is_due)
            .map(async |segment| {
                let snapshot = bounded(self.store.snapshot(&segment.id)).await;
                let snapshot = snapshot.inspect_err(|_| segment.pace.locked().disturb())?;
                if segment.pace.locked().learn(&snapshot) {
                    self.makes.accepted.ring(&segment.id);
                }
                let wanted = wanted.iter().find(|spec| spec.id == segment.id);
                match wanted.filter(|wanted| has_other_rules(&snapshot.spec, wanted)) {
                    Some(wanted) => self.open_segment(sale, wanted, stock).await,
                    None => self.learn(sale, stock, &snapshot).await,
                }
            })
            .collect();
        let read = read.collect().await;
        first_trouble(read)?;
        self.check_stock(sale, stock, restocked).await
    }

    /// Looks at what was read of all segments of a sku together.
    async fn check_stock(
        &self,
        sale: &Sale,
        stock: &Stock,
        restocked: &Restocked,
    ) -> Result<(), EngineError> {
        let Some(counts) = stock.counts() else {
            return Ok(());
        };
        stock.show();
        self.note_free(stock);
        stock.sold_out.observe_moved(counts.moved);
        balance(stock);
        let first = sale.sku(&stock.sku).map_or(0, |sku| sku.stock);
        let key = (stock.sale.clone(), stock.sku.clone());
        let booked = first + restocked.get(&key).copied().unwrap_or(0);
        if counts.capacity < booked {
            self.repair_restocks(sale, stock).await?;
        }
        Ok(())
    }

    /// The segments have fewer units than the ledger has booked: units are on their way between two of them, or a restock did not
    /// reach all. Repeating restocks adds only what is missing.
    async fn repair_restocks(&self, sale: &Sale, stock: &Stock) -> Result<(), EngineError> {
        let mark = self.ledger.transfer_mark(&stock.sale, &stock.sku).await?;
        if mark.is_open() {
            return Ok(());
        }
        let mut booked = self.ledger.restocks(&sale.id).await?;
        booked.retain(|restock| restock.sku == stock.sku);
        for restock in booked {
            for (segment, units) in restock.shares(sale) {
                let snapshot = bounded(self.store.restock(&segment, &restock.id, units)).await?;
                self.learn(sale, stock, &snapshot).await?;
            }
        }
        stock.show();
        Ok(())
    }

    /// Brings a segment's memory up to a snapshot. What other nodes accepted is read only where it is asked of the memory: once the
    /// segment is empty ("sold out" is said to new requests only), and in sales with carts (a key is one cart's) or lists (who is
    /// shut out still finds their order). Otherwise each node would read every order of all others while they sell.
    pub(super) async fn learn(
        &self,
        sale: &Sale,
        stock: &Stock,
        snapshot: &SegmentStatus,
    ) -> Result<(), EngineError> {
        let id = &snapshot.spec.id;
        let is_asked = snapshot.available == 0 || self.asks_memory_of_all(sale);
        if let Some(segment) = stock.segments.iter().find(|segment| segment.id == *id)
            && is_asked
        {
            let read_on = segment.sold_out.catch_up(id, &*self.store, snapshot);
            read_on.await?;
        }
        stock.observe(snapshot, self.now_ms());
        Ok(())
    }

    /// Whether buyers are answered from what this node remembers of a segment: then it is no older than one tick.
    fn asks_memory(&self, sale: &Sale, segment: &SegmentRuntime) -> bool {
        segment.sold_out.is_empty() || self.asks_memory_of_all(sale)
    }

    fn asks_memory_of_all(&self, sale: &Sale) -> bool {
        sale.carts || sale.rules.admission != Admission::Open || self.admission.has_lists(&sale.id)
    }
}

/// A call of the store that gives up; all of these are repeated by the next refresh.
pub(super) async fn bounded<T>(
    call: impl Future<Output = Result<T, StockError>>,
) -> Result<T, StockError> {
    ticks::bounded(READ, call).await
}

fn first_trouble(results: Vec<Result<(), EngineError>>) -> Result<(), EngineError> {
    results.into_iter().collect()
}

/// What the store has to have open, by sku.
fn specs_of(sale: &Sale) -> HashMap<SkuId, Vec<SegmentSpec>> {
    let mut specs: HashMap<SkuId, Vec<SegmentSpec>> = HashMap::new();
    for spec in sale.segment_specs() {
        specs.entry(spec.id.sku.clone()).or_default().push(spec);
    }
    specs
}

/// Whether two specs of a segment would decide a purchase differently. The stock is not a rule: restocks change it.
fn has_other_rules(one: &SegmentSpec, other: &SegmentSpec) -> bool {
    let rules = |spec: &SegmentSpec| {
        (
            spec.starts_at_ms,
            spec.ends_at_ms,
            spec.buyer_limit,
            spec.pay_within_ms,
        )
    };
    rules(one) != rules(other)
}
